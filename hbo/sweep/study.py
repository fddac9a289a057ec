"""A sweep file in W&B's format, and the rows that W&B would run from it, in its order."""

import itertools
import json
import math
import random
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from hbo.config import Run, did_you_mean, resolve
from hbo.errors import UserError
from hbo.tasks import SETS

KEYS = ("name", "description", "program", "project", "entity", "method", "metric", "command", "run_cap", "parameters")
COMMAND = ("-m", "hbo.fit", "--config", "${args_json_file}")  # how each of our files ends
SHAPES = (  # what makes which distribution, where none is named; as W&B reads it
    ({"value"}, "constant"),
    ({"values", "probabilities"}, "categorical_w_probabilities"),
    ({"values"}, "categorical"),
)


@dataclass(frozen=True)
class Study:
    """A sweep file read: where it lies, and the fields of each of its runs."""

    path: Path
    method: str
    rows: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """The file's stem: the same word names a study everywhere."""
        return self.path.stem


def read(path: str | Path, overrides: dict[str, Any] | None = None, count: int | None = None, seed: int = 0) -> Study:
    """Read a sweep file and enumerate its runs.

    Args:
        path: W&B's YAML.
        overrides: fields that replace the file's parameters, as `--set` gives them; a list is swept over.
        count: runs of a random sweep; None takes the file's `run_cap`.
        seed: of a random sweep.

    Raises:
        UserError: no such file, bad YAML, an unknown key or field, a value that no run can have, `bayes`; one line that
            names the file and the key.
    """
    path = Path(path)
    try:
        return _read(path, overrides or {}, count, seed)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read(path: Path, overrides: dict[str, Any], count: int | None, seed: int) -> Study:
    content = _load(path)
    if unknown := [key for key in content if key not in KEYS]:
        why = {
            "early_terminate": "only W&B's server ends runs early: use `wandb sweep`, or leave it out",
            "controller": "only for `wandb sweep`; leave it out",
        }.get(unknown[0], f"no such key{did_you_mean(str(unknown[0]), list(KEYS))}")
        raise UserError(f"{unknown[0]}: {why}")
    command = [str(word) for word in content.get("command", COMMAND)]
    if tuple(command[-len(COMMAND) :]) != COMMAND:
        raise UserError(
            f"command: must end with {' '.join(COMMAND)}, so that a run is the same with W&B and without; flags belong into parameters"
        )
    method = content.get("method")
    if method == "bayes":
        raise UserError("method=bayes: needs W&B's server; use `wandb sweep` and `wandb agent`")
    if method not in ("grid", "random"):
        raise UserError(f"method={method!r}: must be grid or random")
    parameters = content.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise UserError("parameters: must name at least one field")
    parameters = {"study": {"value": path.stem}, **parameters}
    for name, value in overrides.items():
        parameters[name] = {"values": value} if isinstance(value, list) else {"value": value}
    known = [f.name for f in fields(Run)]
    for name, parameter in parameters.items():
        if name not in known:
            raise UserError(f"parameters.{name}: no such field{did_you_mean(str(name), known)}")
        parameters[name] = _checked(name, parameter)
    cap = content.get("run_cap")
    if not (cap is None or (type(cap) is int and cap > 0)):
        raise UserError(f"run_cap={cap!r}: must be a positive whole number")
    if method == "grid":
        rows = grid(parameters)[:cap]
    else:
        count = count or cap
        if count is None:
            raise UserError("method=random: has no end; take --count N, or write run_cap: N")
        rows = draw(parameters, count, seed)
    if "data" in overrides and "data_dir" not in overrides:  # the file's folder is of the file's set
        rows = [row | ({"data_dir": None} if _without_folder(row) else {}) for row in rows]
    return Study(path, method, rows)


def _without_folder(row: dict[str, Any]) -> bool:
    """Whether a row's data set takes no folder, and is given one."""
    one = SETS.get(str(row["data"]))
    return row.get("data_dir") is not None and one is not None and not one.takes_folder


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except UnicodeDecodeError:
        raise UserError("not a text file") from None
    except OSError as error:
        raise UserError(error.strerror or "cannot be read") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{line}bad YAML, {getattr(error, 'problem', None) or error}") from None
    if not isinstance(content, dict):
        raise UserError("must be a mapping, with method and parameters")
    return content


def _checked(name: str, parameter: Any) -> dict[str, Any]:
    """A parameter with its distribution named and its numbers made numbers.

    Raises:
        UserError: it says neither what its values are nor what they are drawn from.
    """
    if not isinstance(parameter, dict):
        raise UserError(f"parameters.{name}: must be {{value: {parameter!r}}} or {{values: [...]}}")
    if "parameters" in parameter:
        raise UserError(f"parameters.{name}: fields are flat; none holds others")
    allowed = {"value", "values", "probabilities", "distribution", "min", "max", "q", "mu", "sigma", "a", "b"}
    if unknown := sorted(parameter.keys() - allowed):
        raise UserError(f"parameters.{name}.{unknown[0]}: no such key{did_you_mean(unknown[0], sorted(allowed))}")
    parameter = {key: _number(name, value) if key == "value" else value for key, value in parameter.items()}
    if "values" in parameter:
        if not isinstance(parameter["values"], list) or not parameter["values"]:
            raise UserError(f"parameters.{name}.values: must be a list of at least one")
        parameter["values"] = [_number(name, value) for value in parameter["values"]]
    kind = parameter.get("distribution") or next((kind for keys, kind in SHAPES if keys <= parameter.keys()), None)
    if kind is None and {"min", "max"} <= parameter.keys():
        whole = type(parameter["min"]) is type(parameter["max"]) is int
        kind = "int_uniform" if whole else "uniform"
    needs = {"constant": ["value"], "categorical": ["values"], "categorical_w_probabilities": ["values", "probabilities"]}
    needs |= {kind: [] for kind in _FREE} | {kind: ["min", "max"] for kind in _BOUNDED}
    if kind not in needs:
        raise UserError(
            f"parameters.{name}: must have value, values, or min and max"
            if kind is None
            else f"parameters.{name}.distribution={kind!r}: no such distribution{did_you_mean(str(kind), list(needs))}"
        )
    if missing := [key for key in needs[kind] if key not in parameter]:
        raise UserError(f"parameters.{name}: {kind} needs {missing[0]}")
    may = {*needs[kind], "distribution", *(["q"] if kind[0] == "q" else []), *_FREE.get(kind.removeprefix("q_"), [])}
    if stray := sorted(parameter.keys() - may):
        raise UserError(f"parameters.{name}.{stray[0]}: {kind} takes {', '.join(sorted(may - {'distribution'}))} alone")
    for key, value in parameter.items():
        if key in ("min", "max", "q", "mu", "sigma", "a", "b") and not isinstance(value, (int, float)):
            raise UserError(f"parameters.{name}.{key}={value!r}: must be a number")
    low = parameter.get("min", 0)
    if "min" in needs[kind] and not low < parameter["max"]:
        raise UserError(f"parameters.{name}: min={low} must be below max={parameter['max']}")
    positive = {key: parameter[key] for key in ("q", "sigma", "a", "b") if key in parameter}
    positive |= {"min": low} if kind.endswith("_values") else {}
    if bad := [key for key, value in positive.items() if not value > 0]:
        raise UserError(f"parameters.{name}.{bad[0]}={positive[bad[0]]}: must be positive")
    shares = parameter.get("probabilities")
    if shares is not None and (len(shares) != len(parameter["values"]) or not abs(sum(shares) - 1) <= 1e-6):
        raise UserError(f"parameters.{name}.probabilities: must be one a value, and sum up to 1")
    return parameter | {"distribution": kind}


def _number(name: str, value: Any) -> Any:
    """YAML takes 1e-3, without a point, for text; so does W&B, whose text the flags then read as a number."""
    if isinstance(value, str) and Run.__dataclass_fields__[name].type in (float, float | None, int, int | None):
        try:
            return float(value)
        except ValueError:
            pass
    return value


# ------------------------------------------------------------ enumeration


def grid(parameters: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """All combinations: by name, the last name varying fastest, a value that stands twice taken once.

    Raises:
        UserError: a parameter that has no list of values.
    """
    axes = []
    for name, p in sorted(parameters.items()):
        kind = p["distribution"]
        if kind == "constant":
            values = [p["value"]]
        elif kind == "categorical":
            values = p["values"]
        elif kind == "int_uniform":
            values = list(range(p["min"], p["max"] + 1))
        elif kind == "q_uniform":
            q = p.get("q", 1)
            values = [p["min"] + i * q for i in range(math.ceil((p["max"] - p["min"]) / q))]
        else:
            raise UserError(f"parameters.{name}: a grid needs values, not {kind}")
        same = lambda v: json.dumps(int(v) if isinstance(v, float) and v.is_integer() else v, default=str)
        axes.append([(name, v) for v in {same(v): v for v in values}.values()])
    return [dict(combination) for combination in itertools.product(*axes)]


def draw(parameters: dict[str, dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """Random combinations, the same for the same seed: what W&B's `sweeps` package draws after `random.seed(seed)`."""
    uniform = random.Random(seed).uniform
    return [{name: quantile(p, uniform(0.0, 1.0)) for name, p in sorted(parameters.items())} for _ in range(count)]


_FREE = {"normal": ["mu", "sigma"], "log_normal": ["mu", "sigma"], "beta": ["a", "b"]}
_FREE |= {f"q_{kind}": keys for kind, keys in _FREE.items()}
_BOUNDED = (
    "uniform", "int_uniform", "q_uniform",
    "log_uniform", "q_log_uniform", "inv_log_uniform",
    "log_uniform_values", "q_log_uniform_values", "inv_log_uniform_values",
)  # fmt: skip


def quantile(p: dict[str, Any], u: float) -> Any:
    """A parameter's value at the share u of its distribution, as W&B defines them; `q_` rounds to multiples of q."""
    from scipy import stats

    kind = p["distribution"]
    base = kind.removeprefix("q_")
    low, high = (float(p.get(key, math.nan)) for key in ("min", "max"))
    mu, sigma, a, b = (float(p.get(key, usual)) for key, usual in (("mu", 0), ("sigma", 1), ("a", 1), ("b", 1)))
    between = lambda low, high: low + u * (high - low)
    if kind == "constant":
        return p["value"]
    if kind == "categorical":
        n = len(p["values"])
        return p["values"][max(0, math.ceil(u * n) - 1)]
    if kind == "categorical_w_probabilities":
        sums = list(itertools.accumulate(p["probabilities"]))
        return p["values"][next((i for i, total in enumerate(sums) if u < total), len(sums) - 1)]
    if kind == "int_uniform":
        return int(stats.randint.ppf(u, p["min"], p["max"] + 1))
    value = {
        "uniform": lambda: between(low, high),
        "log_uniform": lambda: math.exp(between(low, high)),  # its bounds are exponents
        "log_uniform_values": lambda: math.exp(between(math.log(low), math.log(high))),
        "inv_log_uniform": lambda: math.exp(-(low + (1 - u) * (high - low))),
        "inv_log_uniform_values": lambda: math.exp(math.log(high) - (1 - u) * (math.log(high) - math.log(low))),
        "normal": lambda: float(stats.norm.ppf(u, loc=mu, scale=sigma)),
        "log_normal": lambda: float(stats.lognorm.ppf(u, s=sigma, scale=math.exp(mu))),
        "beta": lambda: float(stats.beta.ppf(u, a=a, b=b)),
    }[base]()
    if kind != base:
        q = p.get("q", 1.0)
        value = round(value / q) * q
        return int(value) if isinstance(q, int) else value
    return value


# ------------------------------------------------------------ runs


def resolved(study: Study) -> list[Run | UserError]:
    """Each row as a run, or why it is none.

    Raises:
        UserError: a value of the file with which no row is valid; names the file and the key.
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
        if not valid[place]:
            raise UserError(f"{study.path}: parameters.{why}")
    return found
