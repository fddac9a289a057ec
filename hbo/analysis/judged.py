"""A study's rows with the question that they answer: arms, judged lines, and conclusions."""

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from hbo.analysis import chance, contrasts, families, frozen, looks, results, sentences, study_tables
from hbo.analysis.contrasts import Contrast, Judged
from hbo.analysis.families import Arm, Family
from hbo.analysis.frozen import Frozen
from hbo.analysis.printed import Markdown, Table
from hbo.analysis.question import Question, in_words
from hbo.analysis.study_tables import LEVEL

CHECKOUT = Path(__file__).parents[2]
# Without a checkout, the folder in which the command is started.
SWEEPS, ABLATIONS = (
    CHECKOUT / name if (CHECKOUT / name).is_dir() else Path(name) for name in ("sweeps", "ablations")
)


@dataclass
class Study:
    """Rows of one study or of several, by arm."""

    names: tuple[str, ...]
    rows: pd.DataFrame
    """All rows, with the column `arm`."""
    curves: pd.DataFrame
    baseline: str
    """The baseline, if the question names none."""
    metric: str = "top1"
    which: str = ""
    """How its runs differ from those of the same studies with other data or training."""
    asked: Question = field(default_factory=Question)
    """The question judged."""
    plan: Frozen | None = None
    """The question as it was frozen before the runs."""
    typed: bool = False
    """Whether the question comes from the command line."""
    words: str = ""
    """The question in words, as `hbo.sweep run` stored it with the rows."""

    @property
    def done(self) -> Any:
        """The finished rows."""
        return results.finished(self.rows)

    @property
    def arms(self) -> list[str]:
        """Arms with a finished run, in order."""
        return list(self.done["arm"].unique())

    @property
    def stem(self) -> str:
        """What its setting adds to a file name; empty if there is one setting."""
        return "_" + re.sub(r"[^\w.+]+", "-", self.which).strip("-") if self.which else ""

    def question(self) -> str:
        """The question in words: stored with the rows, else the first comment of the study's sweep file."""
        path = SWEEPS / f"{self.names[0]}.yaml"
        return (
            self.words
            or in_words(path)
            or f"Study {self.names[0]}, without a question in words: write it as the first comment of its"
            " sweep file."
        )

    # ------------------------------------------------------------ judged

    def samples(self, metric: str | None = None) -> dict[str, dict[int, float]]:
        """Arm -> seed -> the metric, a fraction; finished runs without a finite value are named and skipped.

        Raises:
            UserError: an arm repeats a seed.
        """
        metric, done = metric or self.metric, self.done
        found: dict[str, dict[int, float]] = {arm: {} for arm in self.arms}
        for arm, group in done.groupby("arm", sort=False):
            results.check_seeds(group)
            values: Any = pd.to_numeric(group[metric], errors="coerce") if metric in group else []
            found[arm] = {
                int(s): float(v) for s, v in zip(group["seed"], values, strict=False) if math.isfinite(v)
            }
        return found

    def compared(self) -> list[Arm]:
        """The arms, as a question sees them."""
        first = self.done.drop_duplicates("arm")
        return [
            Arm(arm, one, float(macs) if pd.notna(macs) else math.nan)
            for arm, one, macs in zip(first["arm"], results.identities(first), first["macs"], strict=True)
        ]

    def families(self) -> list[Family]:
        """The comparisons, the primary family first; arms outside the question are compared with the baseline
        as exploratory.
        """
        arms = self.compared()
        found = families.of(self.asked, arms, self.baseline)
        named = {arm for family in found for one in family.contrasts for arm in one.weights}
        if self.asked.versus and (rest := [arm for arm in arms if arm.label not in named | {self.baseline}]):
            base = next(arm for arm in arms if arm.label == self.baseline)
            found += [
                replace(f, primary=False) for f in families.of(Question(), [base, *rest], self.baseline)
            ]
        return found

    def judged(self, metric: str | None = None) -> list[tuple[Family, list[Judged]]]:
        """Each family with its judged lines, at the levels that the frozen looks spend."""
        samples, found = self.samples(metric), []
        sequential = (
            self.plan
            if self.plan is not None and len(self.plan.looks) > 1 and metric in (None, self.metric)
            else None
        )
        for family in self.families():
            share = None if family.kind == "trend" else self.asked.share  # a margin is for differences
            if family.primary and sequential:
                each = contrasts.levels(len(family.contrasts), LEVEL)
                at = looks.judge_at_looks(
                    samples, family.contrasts, share, sequential.looks, sequential.seeds, each
                )
                found.append((family, [line for line, _ in at]))
            else:
                found.append((family, contrasts.judge(samples, family.contrasts, share)))
        return found

    def comparisons(self, metric: str | None = None) -> pd.DataFrame:
        """Every judged line: `family`, `primary`, and the fields of `contrasts.Judged`."""
        lines = [
            {"family": family.kind, "primary": family.primary and metric in (None, self.metric)} | vars(line)
            for family, judged in self.judged(metric)
            for line in judged
        ]
        return pd.DataFrame(
            lines, columns=None if lines else pd.Index(["family", "primary", *Judged.__dataclass_fields__])
        )

    def findings(self) -> list[str]:
        """Conclusions from the primary lines, one sentence each."""
        return self._sentences(primary=True)

    def explored(self) -> list[str]:
        """Sentences about the other lines. Each family has its own 5 % level, so they
        suggest and do not decide.
        """
        return self._sentences(primary=False)

    def _sentences(self, primary: bool) -> list[str]:
        return [
            self.sentence(family, line)
            for family, lines in self.judged()
            if family.primary == primary
            for line in lines
        ]

    def sentence(self, family: Family, line: Judged) -> str:
        """A judged line of a family in words."""
        share = None if family.kind == "trend" else self.asked.share
        return sentences.sentence(sentences.shown(line, family.kind), self.metric, share)

    def warning(self) -> str:
        """A line about the arms that may have learned nothing; empty if there are none."""
        return chance.warning(self.done)

    def but(self, one: Contrast) -> str:
        """What to add to a line's equivalence: that some of its arms may have learned nothing; else empty."""
        return chance.aside([arm for arm, weight in one.weights.items() if weight], chance.stuck(self.done))

    def conclusion(self) -> str:
        """The primary findings in one line."""
        both = [
            (one, line)
            for family, lines in self.judged()
            if family.primary
            for one, line in zip(family.contrasts, lines, strict=True)
        ]
        found = [line for _, line in both]
        if not found and len(self.arms) > 1:
            return (
                "No comparison of the question has finished runs of both arms; arms with finished runs:"
                f" {', '.join(self.arms)}."
            )
        if not found:
            return f"Only {self.arms[0]} has finished runs: there is nothing to compare."
        if all(line.verdict == "too few" for line in found):
            looks = found[0].looks
            why = (
                f"the first look is at {looks[0]} seeds"
                if looks
                else "each arm needs two seeds, and six are better"
            )
            return f"Too few runs to judge: {why}."
        few = min(line.n[0] for line in found if line.verdict != "too few")
        decided = [
            f"{line.label}: {line.verdict}"
            + (f" ({but})" if line.verdict == "equivalent" and (but := self.but(one)) else "")
            for one, line in both
            if line.verdict in ("higher", "lower", "equivalent")
        ]
        still = [line.label for line in found if line.verdict in ("undecided", "too few")]
        said = (
            "; ".join(decided)
            + f" on {few} seeds" * bool(decided and few < sentences.FEW)
            + "." * bool(decided)
        )
        if still:
            ats = {(line.look + 1, len(line.looks), line.next_look) for line in found if line.label in still}
            (look, looks, later), *others = ats
            early = f" at look {look} of {looks} (next: {later} seeds)" * bool(later and not others)
            said += " " * bool(decided) + f"Undecided{early}: {'; '.join(still)}."
        return said

    def is_firm(self) -> bool:
        """Whether each primary line has at least six runs per arm, and no frozen run is missing; other
        conclusions are not set in bold.
        """
        found = [line.n[0] for family, lines in self.judged() if family.primary for line in lines]
        return bool(found) and min(found) >= sentences.FEW and not self.missing()

    def missing(self) -> int:
        """Missing runs of a frozen plan that is judged at its end; 0 for other plans and without one."""
        if self.plan is None or len(self.plan.looks) > 1:
            return 0
        return len(set(self.plan.keys) - set(map(str, self.done["key"])))

    def provision(self) -> str:
        """Whether the study is judged as it was frozen."""
        if self.plan is None:
            typed = " The question was typed on the command line: read its lines as exploratory." * self.typed
            return f"No plan was frozen before the runs.{typed}"
        started = self.done["started"].dropna().map(str).min() if self.done["started"].notna().any() else None
        differ = frozen.differences(
            self.plan, self.asked, self.metric, sorted(map(int, self.done["seed"])), started
        )
        if not differ and (missing := self.missing()):
            return (
                f"Not complete: {missing} of the {len(self.plan.keys)} runs frozen on {self.plan.when[:10]}"
                " are missing, and a plan without earlier looks is judged at its end."
            )
        if not differ:
            commit = f", commit {self.plan.commit[:10]}" if self.plan.commit else ""
            return (
                "Question, margin, level, looks and seeds are as frozen on"
                f" {self.plan.when[:10]}{commit} (hash {self.plan.hash})."
            )
        return f"Not as frozen on {self.plan.when[:10]}: {'; '.join(differ)}."

    # ------------------------------------------------------------ tables and text

    def table(self) -> Table:
        """One line per arm: mean ± standard deviation, n and the mean's interval, costs and time."""
        return study_tables.arms(self)

    def differences(self, metric: str | None = None) -> Table:
        """The comparisons as a table, in percentage points."""
        return study_tables.differences(self, metric)

    def images(self) -> Table | None:
        """Each pair of arms over new seeds and new images; None if the source lacks outcomes."""
        return study_tables.images(self)

    def effects(self) -> Table | None:
        """Main effects and interactions, if at least two switches are crossed and nothing else differs."""
        return study_tables.effects(self)

    def provenance(self) -> Table:
        """Protocol and machine, one line per study."""
        return study_tables.provenance(self)

    def setting(self) -> str:
        """Data and protocol that all runs share."""
        return study_tables.setting(self)

    def verdict(self) -> Markdown:
        """A warning if arms may have learned nothing, findings and conclusion, then exploratory results."""
        mark, warning = "**" * self.is_firm(), self.warning()
        lines = [
            *[warning, ""] * bool(warning),
            *(f"- {line}" for line in self.findings()),
            "",
            f"{mark}{self.conclusion()}{mark} {self.provision()}",
        ]
        if more := self.explored():
            lines += [
                "",
                "Exploratory, each family of lines at its own 5 % level:",
                "",
                *(f"- {line}" for line in more),
            ]
        return Markdown("\n".join([*lines, "", self.pairing()]))

    def pairing(self) -> str:
        """The seeds' share of the variance, which decides whether runs are paired."""
        return sentences.pairing(contrasts.pairing(self.samples()))
