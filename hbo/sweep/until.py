"""Seeds until the study's question is decided: `hbo.sweep run FILE --until decided`.

Group sequential: the runs are judged at set numbers of seeds per arm, and at no other time; alpha is spent
over the looks (`hbo.analysis.looks`). After a look only the arms of open comparisons get more seeds.
Everything follows from the rows, so an interrupted study reaches the same verdicts.
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hbo.analysis import contrasts, frozen, sentences
from hbo.analysis.contrasts import Judged, Levels
from hbo.analysis.families import Family
from hbo.analysis.looks import judge_at_looks, levels_at
from hbo.errors import UserError
from hbo.sweep import asked, freezing, plan
from hbo.sweep.elsewhere import Elsewhere
from hbo.sweep.plan import Entry
from hbo.sweep.study import Sweep

LOOKS = (6, 10, 16, 24)  # numbers of seeds, unless asked otherwise
OPEN = ("undecided", "too few")
Line = tuple[Judged, int]  # and the place of the look that it is of; -1 before the first


@dataclass
class Sequential:
    """A study that grows."""

    study: Sweep
    """The sweep file."""
    runs: list[Entry]
    """Of all arms with all seeds up to the most."""
    looks: list[int]
    seeds: list[int]
    """In their order, as many as the last look."""
    family: Family
    """The primary one."""
    metric: str

    @property
    def each(self) -> Levels:
        """A line's levels, all looks together."""
        return contrasts.levels(len(self.family.contrasts))

    def judged(self) -> list[Line]:
        """Each comparison at the look that decided it, else at the last that its runs have reached."""
        samples: dict[str, dict[int, float]] = {}
        for arm, runs in asked.by_arm(self.runs).items():
            values = {int(e.fields["seed"]): e.row.get(self.metric) for e in runs if e.state == "done"}
            samples[arm] = {
                seed: float(v)
                for seed, v in values.items()
                if isinstance(v, (int, float)) and math.isfinite(v)
            }
        share = self.study.primary.share if self.family.kind != "trend" else None
        return judge_at_looks(samples, self.family.contrasts, share, self.looks, self.seeds, self.each)

    def wanted(self, look: int, judged: Sequence[Line]) -> list[Entry]:
        """The runs that a look needs: of the arms of open comparisons, the first seeds."""
        named = {
            arm
            for one, (line, _) in zip(self.family.contrasts, judged, strict=True)
            if line.verdict in OPEN
            for arm, weight in one.weights.items()
            if weight
        }
        there = set(self.seeds[: self.looks[look]])
        return [
            entry
            for arm, runs in asked.by_arm(self.runs).items()
            for entry in runs
            if arm in named and int(entry.fields["seed"]) in there
        ]


def opened(study: Sweep, runs: list[Entry], looks: list[int] | None, most: int | None) -> Sequential:
    """The study with all the seeds that it may need; its plan is frozen if it was not before.

    Args:
        study: a grid whose `primary` says what is judged.
        runs: its own.
        looks: numbers of seeds, rising; left out: those frozen, else 6, 10, 16, 24 as far as `most` goes.
        most: seeds of an arm; left out: the last look.

    Raises:
        UserError: a random sweep; nothing to compare; as `freezing.freeze`.
    """
    if study.method != "grid":
        raise UserError(
            f"{study.path}: method={study.method}: only a grid has arms of several seeds; use method: grid"
        )
    path = freezing.path_of(runs)
    before = frozen.read(path.parent.parent, path.parent.name)
    if looks is None and most is None and before is not None:
        looks = before.looks
    elif looks is None:
        most = most or LOOKS[-1]
        looks = [*(n for n in LOOKS if n < most), most]
    frozen_plan = freezing.freeze(study, runs, looks, most)
    looks, seeds = frozen_plan.looks, frozen_plan.seeds
    if before is None:
        print(freezing.said(frozen_plan, path), file=sys.stderr)
    arms = [own[0].fields for own in asked.by_arm(runs).values()]
    grown = plan.entries(replace(study, rows=[row | {"seed": seed} for row in arms for seed in seeds]))
    return Sequential(study, grown, looks, seeds, asked.primary(study, grown), asked.metric(study, grown))


def run(growing: Sequential, train: Callable[[list[Entry]], int], submitted: bool = False) -> int:
    """Run look by look until all is decided, or the most seeds are run; the exit status.

    Args:
        growing: of `opened`.
        train: starts what is not done of these runs, waits for it, and gives the exit status.
        submitted: `train` does not wait (SLURM): this call ends with what it has submitted.
    """
    for look, n in enumerate(growing.looks):
        wanted = growing.wanted(look, growing.judged())
        if not wanted:
            break
        todo = [entry for entry in wanted if entry.state != "done"]
        if todo:
            print(
                f"look {look + 1} of {len(growing.looks)}, {n} seeds of each open arm: {len(todo)} runs to"
                " go",
                file=sys.stderr,
            )
            status = train(todo)
            if submitted or status:
                return status
        elsewhere = Elsewhere()
        elsewhere.look(wanted)
        for entry in wanted:
            plan.refresh(entry, elsewhere)
        if lost := [entry for entry in wanted if not _has_number(entry, growing.metric)]:
            raise UserError(
                f"{growing.study.path}: {lost[0].key} has no {growing.metric} ({lost[0].state}), so the"
                f" look with {n} seeds is not possible; fix or remove it, and repeat the call"
            )
        print(seen(growing, look))
    print(conclusion(growing))
    return 0


def _has_number(entry: Entry, metric: str) -> bool:
    value: Any = entry.row.get(metric)
    return entry.state == "done" and isinstance(value, (int, float)) and math.isfinite(value)


def seen(growing: Sequential, look: int) -> str:
    """What a look saw: each comparison that was open, with its repeated interval, and what the look
    spends.
    """
    at = levels_at(look, growing.looks, growing.each)
    lines = [
        f"look {look + 1} of {len(growing.looks)}, {growing.looks[look]} seeds; a line's level here is"
        f" {at.difference:.2g}"
    ]
    lines += [f"  {sentence(growing, line)}" for line, of in growing.judged() if of == look]
    return "\n".join(lines)


def sentence(growing: Sequential, line: Judged) -> str:
    """A comparison as the study's page says it; the interval is the repeated one, at the level of its
    look.
    """
    return sentences.sentence(
        sentences.shown(line, growing.family.kind),
        growing.metric,
        growing.study.primary.share if growing.family.kind != "trend" else None,
    )


def conclusion(growing: Sequential) -> str:
    """All comparisons, and the runs that they took."""
    judged = growing.judged()
    done = sum(entry.state == "done" for entry in growing.runs)
    still = [line.label for line, _ in judged if line.verdict in OPEN]
    said = [
        f"{line.label}: {line.verdict} at {growing.looks[look]} seeds"
        for line, look in judged
        if line.verdict not in OPEN
    ]
    said += [
        f"{label}: undecided at {growing.looks[-1]} seeds, the most that were asked for" for label in still
    ]
    return f"{'; '.join(said)}. {done} runs; all seeds of all arms are {len(growing.runs)}."
