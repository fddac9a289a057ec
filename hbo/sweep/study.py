"""A sweep file in W&B's format, and the rows that W&B would run from it, in its order."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbo.analysis.question import Question, parse
from hbo.config import Run, resolve
from hbo.errors import UserError
from hbo.sweep.parameters import MOST, distribution, draw, grid, twice
from hbo.tasks import SETS
from hbo.values import field_types, load, shown, whole
from hbo.words import did_you_mean, other_name

KEYS = (
    "name",
    "description",
    "program",
    "project",
    "entity",
    "method",
    "metric",
    "primary",
    "command",
    "run_cap",
    "parameters",
)
NOTES = "x-"  # prefix of keys for readers alone: W&B ignores keys that it does not know, and so do we
COMMAND = ("-m", "hbo.fit", "--config", "${args_json_file}")  # how each of our files ends


@dataclass(frozen=True)
class Sweep:
    """A sweep file read: where it lies, and the fields of each of its runs."""

    path: Path
    method: str
    rows: list[dict[str, Any]]
    primary: Question = field(default_factory=Question)
    """What the study judges; W&B ignores the key."""
    drawn: frozenset[str] = frozenset()
    """Parameters whose values are drawn from a distribution, not listed."""
    texts: tuple[str, ...] = ()
    """Numbers and truth values in the file that W&B reads as text, such as `lr: 1e-2`: PyYAML wants a point
    in a number with an exponent."""
    twice: tuple[int, str] = (0, "")
    """Rows that a grid leaves out because a value is listed twice, and one such value."""

    @property
    def name(self) -> str:
        """The file's stem: the same word names a study everywhere."""
        return self.path.stem


def read(
    path: str | Path, overrides: dict[str, Any] | None = None, count: int | None = None, seed: int = 0
) -> Sweep:
    """Read a sweep file and enumerate its runs.

    Args:
        path: W&B's YAML.
        overrides: fields that replace the file's parameters, as `--set` gives them; a list is swept over.
        count: runs of a random sweep; None takes the file's `run_cap`.
        seed: of a random sweep.

    Raises:
        UserError: no such file, bad YAML, an unknown key or field, a value that no run can have, `bayes`; one
            line that names the file and the key.
    """
    path = Path(path)
    try:
        return _read(path, overrides or {}, count, seed)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read(path: Path, overrides: dict[str, Any], count: int | None, seed: int) -> Sweep:
    content = read_content(path)
    if unknown := [key for key in content if key not in KEYS and not str(key).startswith(NOTES)]:
        why = {
            "early_terminate": "only W&B's server ends runs early: use `wandb sweep`, or leave it out",
            "controller": "only for `wandb sweep`; leave it out",
        }.get(unknown[0], f"no such key{did_you_mean(unknown[0], list(KEYS))}")
        raise UserError(f"{unknown[0]}: {why}")
    command = content.get("command", list(COMMAND))
    if not isinstance(command, list) or tuple(map(str, command[-len(COMMAND) :])) != COMMAND:
        raise UserError(
            f"command: must end with {' '.join(COMMAND)}, one word per line, so that a run is the same"
            " with W&B and without; flags belong in parameters"
        )
    method = content.get("method")
    if method == "bayes":
        raise UserError("method=bayes: needs W&B's server; use `wandb sweep` and `wandb agent`")
    if method not in ("grid", "random"):
        raise UserError(f"method={shown(method)}: must be grid or random")
    parameters = content.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise UserError("parameters: must name at least one field")
    given = {"study": {"value": path.stem}, **parameters}
    parameters = dict(given)
    for name, value in overrides.items():
        parameters[name] = {"values": value} if isinstance(value, list) else {"value": value}
    for name, parameter in parameters.items():
        if name not in field_types(Run):
            where = "--set " if name in overrides else "parameters."
            raise UserError(f"{where}{name}: no such field{other_name(str(name), list(field_types(Run)))}")
        parameters[name] = distribution(name, parameter)
    texts = [text for name in given if name not in overrides for text in _texts(name, given, parameters)]
    cap = content.get("run_cap")
    if cap is not None and (whole(cap) or 0) < 1:
        raise UserError(f"run_cap={shown(cap)}: must be a positive whole number")
    cap = whole(cap)
    if method == "grid" and count is not None:
        raise UserError(
            f"--count {count}: needs method: random; for the first {count} runs of a grid write"
            f" run_cap: {count} into the file"
        )
    if method == "grid":
        rows = grid(parameters, cap)
    else:
        count = count or cap
        if count is None:
            raise UserError("method=random: has no end; use --count N, or write run_cap: N")
        if count > MOST:
            raise UserError(f"{count} runs: more than {MOST}; use a smaller --count or run_cap")
        rows = draw(parameters, count, seed)
    if "data" in overrides and "data_dir" not in overrides:  # the file's folder is of the file's set
        rows = [row | ({"data_dir": None} if _without_folder(row) else {}) for row in rows]
    asks = parse(content["primary"]) if "primary" in content else Question()
    drawn = {name for name, p in parameters.items() if "value" not in p and "values" not in p}
    drawn = frozenset(drawn if method == "random" else ())
    repeated = twice(parameters, cap, len(rows)) if method == "grid" else (0, "")
    return Sweep(path, method, rows, asks, drawn, tuple(texts), repeated)


def _texts(name: str, given: dict[str, Any], read: dict[str, Any]) -> list[str]:
    """The parts of a parameter that are text in the file, and are read as something else."""
    pairs = [(given[name][key], value) for key, value in read[name].items() if key in given[name]]
    pairs += zip(given[name].get("values", ()), read[name].get("values", ()), strict=True)
    return [f"{name}: {a}" for a, b in pairs if isinstance(a, str) and not isinstance(b, str)]


def _without_folder(row: dict[str, Any]) -> bool:
    """Whether a row's data set takes no folder, and is given one."""
    one = SETS.get(str(row["data"]))
    return row.get("data_dir") is not None and one is not None and not one.takes_folder


def read_content(path: Path) -> dict[Any, Any]:
    """The file's keys, unchanged.

    Raises:
        UserError: no such file, bad YAML, or no mapping.
    """
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        raise UserError("not a text file") from None
    except (OSError, ValueError) as error:  # a null byte in its name is a ValueError
        hint = ""
        if isinstance(error, FileNotFoundError) and path.parent.is_dir():
            hint = did_you_mean(path.name, [one.name for one in path.parent.glob("*.y*ml")])
        elif not path.parent.is_dir() and path.parent.name == "sweeps":
            hint = "; HBO's own sweep files are in its checkout"
        raise UserError((getattr(error, "strerror", None) or str(error) or "cannot be read") + hint) from None
    content = load(text)
    if not isinstance(content, dict):
        raise UserError("must be a mapping, with method and parameters")
    return content


# ------------------------------------------------------------ runs


def resolved(study: Sweep) -> list[Run | UserError]:
    """Each row as a run, or why it is not one.

    Raises:
        UserError: a value that the file lists with which no row is valid, or no valid row at all; names the
            file and the key. A drawn number invalidates only its own row.
    """
    found: list[Run | UserError] = []
    for row in study.rows:
        try:
            found.append(resolve(**row))
        except UserError as error:
            found.append(error)
    valid: dict[tuple[str, str], bool] = {}
    reason: dict[tuple[str, str], str] = {}
    for row, run in zip(study.rows, found, strict=True):
        for name, value in row.items():
            place = name, repr(value)
            blamed = isinstance(run, UserError) and str(run).startswith(f"{name}=")
            valid[place] = valid.get(place, False) or not blamed
            if blamed:
                reason[place] = str(run)
    for place, why in reason.items():
        if not valid[place] and (
            place[0] not in study.drawn or not any(isinstance(run, Run) for run in found)
        ):
            raise UserError(f"{study.path}: parameters.{why}")
    return found
