"""A question frozen before its runs (`python -m hbo.sweep plan FILE --freeze`), and whether the study is
judged by it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hbo import files
from hbo.analysis.contrasts import LEVEL
from hbo.analysis.question import Question, as_dict, parse
from hbo.errors import UserError, first_line

NAME = "frozen"  # runs/STUDY/frozen.json; next to a committed NAME.csv it is NAME_frozen.json


@dataclass(frozen=True)
class Frozen:
    """The plan, written before the first run."""

    study: str
    question: Question
    seeds: list[int]
    """Seeds of every arm, in the order of running."""
    looks: list[int]
    """Numbers of seeds at which verdicts may be read; a single one if the number is fixed."""
    keys: list[str]
    """Keys of the file's runs with its own seeds."""
    level: float = LEVEL
    expected: dict[str, Any] = field(default_factory=dict)
    """The expected standard deviation, and the difference that the seeds should detect, if given."""
    finished: int = 0
    """Number of the file's runs that had already finished."""
    commit: str | None = None
    when: str = ""

    @property
    def hash(self) -> str:
        """Hash of everything except the date and the commit."""
        said = {
            name: value for name, value in self.content().items() if name not in ("when", "commit", "hash")
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    def content(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"question": as_dict(self.question)}

    def text(self) -> str:
        """The file's text."""
        return json.dumps(self.content() | {"hash": self.hash}, indent=1) + "\n"


def path_of(source: str | Path, study: str) -> Path:
    """The path of a study's plan: in a folder of runs, in a study's own folder, or next to a CSV."""
    path = files.expanded(source)
    if path.suffix == ".csv":
        return path.with_name(f"{study}_{NAME}.json")
    beside, inside = path / f"{study}_{NAME}.json", path / study / f"{NAME}.json"
    own = path / f"{NAME}.json"
    return own if path.name == study and own.exists() else beside if beside.exists() else inside


def read(source: str | Path, study: str) -> Frozen | None:
    """The plan of a study; None if none was frozen.

    Raises:
        UserError: the file cannot be read, or was edited.
    """
    if str(source).startswith("wandb:"):
        return None
    path = path_of(source, study)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        said = content.pop("hash")
        given = {name: value for name, value in content["question"].items() if value not in (None, [])}
        found = Frozen(**content | {"question": parse(given)})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not a frozen plan ({first_line(error)}); remove it to judge without one"
        ) from None
    if found.hash != said:
        raise UserError(
            f"{path}: was edited after it was frozen; restore the file, or remove it to judge without one"
        )
    return found


def copy(source: str | Path, study: str, csv: Path) -> Path | None:
    """Copy a study's plan next to its CSV, if it has one; returns the copy.

    Raises:
        UserError: another plan is already there.
    """
    plan, target = read(source, study), path_of(csv, study)
    if plan is None:
        return None
    there = read(csv, study)
    if there is not None and there.hash != plan.hash:
        raise UserError(
            f"{target}: differs from {path_of(source, study)}; remove the plan that was not followed"
        )
    if there is None:
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(target, plan.text())
    return target


def differences(
    plan: Frozen, question: Question, metric: str, seeds: list[int], started: str | None
) -> list[str]:
    """How the judged study differs from the frozen plan; empty if it does not.

    Args:
        plan: the frozen plan.
        question: the question judged now.
        metric: the metric judged now.
        seeds: seeds of the finished runs.
        started: the first run's start, ISO, UTC.
    """
    found = []
    was, now = (
        as_dict(plan.question) | {"metric": plan.question.metric or metric},
        as_dict(question) | {"metric": metric},
    )
    found += [
        f"{name}: {was[name]!r} was frozen, {now[name]!r} is judged" for name in was if was[name] != now[name]
    ]
    if more := sorted(set(seeds) - set(plan.seeds)):
        found.append(f"seeds {', '.join(map(str, more))} were added to the {len(plan.seeds)} frozen")
    if plan.finished:
        found.append(f"it was frozen after {plan.finished} of {len(plan.keys)} runs had finished")
    elif started and plan.when and started < plan.when:
        found.append(f"its first run started at {started}, before the plan was frozen")
    return found
