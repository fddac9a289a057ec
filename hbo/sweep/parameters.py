"""Parameters of a sweep file, as W&B reads them: values or distributions, with grids and random draws."""

import itertools
import json
import math
import random
from collections.abc import Iterable
from typing import Any

from hbo.config import Run, checked
from hbo.errors import UserError
from hbo.values import field_types, number, several, shown, whole
from hbo.words import did_you_mean

MOST = 100_000  # runs that are listed
SHAPES = (  # keys -> the distribution that they mean if none is named
    ({"value"}, "constant"),
    ({"values", "probabilities"}, "categorical_w_probabilities"),
    ({"values"}, "categorical"),
)
_FREE = {"normal": ["mu", "sigma"], "log_normal": ["mu", "sigma"], "beta": ["a", "b"]}
_FREE |= {f"q_{kind}": keys for kind, keys in _FREE.items()}
_BOUNDED = (
    "uniform", "int_uniform", "q_uniform",
    "log_uniform", "q_log_uniform", "inv_log_uniform",
    "log_uniform_values", "q_log_uniform_values", "inv_log_uniform_values",
)  # fmt: skip
_NEEDS: dict[str, list[str]] = {
    "constant": ["value"],
    "categorical": ["values"],
    "categorical_w_probabilities": ["values", "probabilities"],
    **{kind: [] for kind in _FREE},
    **{kind: ["min", "max"] for kind in _BOUNDED},
}
NUMBERS = ("min", "max", "q", "mu", "sigma", "a", "b")
KEYS = {"value", "values", "probabilities", "distribution", *NUMBERS}
LARGEST_EXPONENT = 700  # of e, in double precision


def distribution(name: str, parameter: Any) -> dict[str, Any]:
    """A parameter with its distribution named, its values in the field's type and its numbers as numbers.

    Text that is a number becomes one: YAML reads 1e-3, without a point, as text.

    Raises:
        UserError: it says neither what its values are nor what they are drawn from.
    """
    if not isinstance(parameter, dict):
        instead = (
            f"{{values: {shown(parameter)}}}"
            if parameter and isinstance(parameter, list)
            else f"{{value: {shown(parameter)}}} or {{values: [...]}}"
        )
        raise UserError(f"parameters.{name}: must be {instead}")
    if "parameters" in parameter:
        raise UserError(f"parameters.{name}: fields are flat and cannot be nested")
    if unknown := sorted(map(str, parameter.keys() - KEYS)):
        # `{values: nearest, bilinear}` is a mapping with an empty key
        words = [parameter.get("values"), *(key for key in parameter if key not in KEYS)]
        listed = words[0] is not None and all(parameter[key] is None for key in words[1:])
        hint = f"; write values: [{', '.join(map(str, words))}]" if listed else ""
        raise UserError(
            f"parameters.{name}.{unknown[0]}: no such key{hint or did_you_mean(unknown[0], sorted(KEYS))}"
        )
    if isinstance(parameter.get("value"), list):
        several = shown(parameter["value"])
        raise UserError(f"parameters.{name}.value={several}: must be one value; write values: {several}")
    parameter = dict(parameter)
    if "value" in parameter:
        parameter["value"] = _checked(name, parameter["value"])
    if "values" in parameter:
        if not isinstance(parameter["values"], list) or not parameter["values"]:
            raise UserError(
                f"parameters.{name}.values={shown(parameter['values'])}: must be a list of at least one"
                f" value, [A, B]"
            )
        parameter["values"] = [_checked(name, value) for value in parameter["values"]]
    for key in NUMBERS:
        if key in parameter:
            parameter[key] = _number(name, key, parameter[key])
    kind = _kind(name, parameter)
    _check_bounds(name, kind, parameter)
    _check_shares(name, parameter)
    return parameter | {"distribution": kind}


def _checked(name: str, value: Any) -> Any:
    try:
        return checked(name, value)
    except UserError as error:
        wanted = several(name, field_types(Run)[name], value)
        in_a_file = f"values: {wanted.partition('=')[2].replace(',', ', ')}"
        hint = f"; for several values write {wanted} (in a file {in_a_file})" if wanted else ""
        raise UserError(f"parameters.{error}{hint}") from None


def _number(name: str, key: str, value: Any) -> int | float:
    """Whole numbers stay whole: the distribution may go by it."""
    found = value if type(value) is int else number(value)
    if found is None or number(found) is None:
        raise UserError(f"parameters.{name}.{key}={shown(value)}: must be a number")
    return found


def _kind(name: str, parameter: dict[str, Any]) -> str:
    """The distribution, checked to have what it needs and nothing else."""
    kind = parameter.get("distribution")
    if kind is None:
        kind = next((kind for keys, kind in SHAPES if keys <= parameter.keys()), None)
    if kind is None and {"min", "max"} <= parameter.keys():
        kind = "int_uniform" if type(parameter["min"]) is type(parameter["max"]) is int else "uniform"
    if kind is None:
        raise UserError(f"parameters.{name}: must have value, values, or min and max")
    if not isinstance(kind, str) or kind not in _NEEDS:
        near = did_you_mean(str(kind), list(_NEEDS))
        raise UserError(f"parameters.{name}.distribution={shown(kind)}: no such distribution{near}")
    if missing := [key for key in _NEEDS[kind] if key not in parameter]:
        raise UserError(f"parameters.{name}: {kind} needs {missing[0]}")
    may = {
        *_NEEDS[kind],
        "distribution",
        *(["q"] if kind[0] == "q" else []),
        *_FREE.get(kind.removeprefix("q_"), []),
    }
    if stray := sorted(parameter.keys() - may):
        raise UserError(
            f"parameters.{name}.{stray[0]}: {kind} only uses {', '.join(sorted(may - {'distribution'}))}"
        )
    return kind


def _check_bounds(name: str, kind: str, parameter: dict[str, Any]) -> None:
    """Check the bounds of a distribution."""
    low, high = parameter.get("min", 0), parameter.get("max", 1)
    if not low < high:
        raise UserError(f"parameters.{name}: min={low} must be below max={high}")
    if kind == "int_uniform":
        for key in ("min", "max"):
            if (found := whole(parameter[key])) is None or abs(found) >= 2**53:
                raise UserError(
                    f"parameters.{name}.{key}={shown(parameter[key])}: int_uniform takes whole numbers below"
                    " 2**53"
                )
            parameter[key] = found
    positive = {key: parameter[key] for key in ("q", "sigma", "a", "b") if key in parameter}
    positive |= {"min": low} if kind.endswith("_values") else {}
    if bad := [key for key, value in positive.items() if not value > 0]:
        raise UserError(f"parameters.{name}.{bad[0]}={positive[bad[0]]}: must be positive")
    exponents = kind.endswith("log_uniform")
    if exponents and max(abs(low), abs(high)) > LARGEST_EXPONENT:
        raise UserError(
            f"parameters.{name}: in W&B the bounds of {kind} are exponents, and"
            f" exp({high if abs(high) > abs(low) else low}) is out of range; for values from {low} to {high}"
            f" write distribution: {kind}_values"
        )


def _check_shares(name: str, parameter: dict[str, Any]) -> None:
    """Check probabilities."""
    shares = parameter.get("probabilities")
    if shares is None and "probabilities" not in parameter:
        return
    found = [number(share) for share in shares] if isinstance(shares, list) else []
    good = len(found) == len(parameter["values"]) and all(
        share is not None and 0 <= share <= 1 for share in found
    )
    if not good or not abs(sum(share or 0 for share in found) - 1) <= 1e-6:
        raise UserError(
            f"parameters.{name}.probabilities={shown(shares)}: must be a list with a share in [0, 1] for each"
            f" value, and add up to 1"
        )
    parameter["probabilities"] = found


# ------------------------------------------------------------ enumeration


def grid(parameters: dict[str, dict[str, Any]], cap: int | None = None) -> list[dict[str, Any]]:
    """The first `cap` combinations, or all: by name, the last name varying fastest, a value that is listed
    twice taken once.

    Raises:
        UserError: a parameter that has no list of values; more than `MOST` runs.
    """
    limit = min(cap or MOST + 1, MOST + 1)
    axes = [[(name, value) for value in _axis(name, p, limit)] for name, p in sorted(parameters.items())]
    rows = [dict(combination) for combination in itertools.islice(itertools.product(*axes), limit)]
    if len(rows) > MOST:
        raise UserError(f"more than {MOST} runs; write a run_cap, or fewer values")
    return rows


def _axis(name: str, p: dict[str, Any], limit: int) -> list[Any]:
    """A parameter's values, at most `limit` of them: that many combinations need no more."""
    kind = p["distribution"]
    if kind == "constant":
        return [p["value"]]
    if kind == "categorical":
        values: Iterable[Any] = p["values"]
    elif kind == "int_uniform":
        values = range(p["min"], p["max"] + 1)
    elif kind == "q_uniform":
        low, high, q = p["min"], p["max"], p.get("q", 1)
        steps = (high - low) / q
        values = (low + i * q for i in range(math.ceil(min(steps, limit))))
    else:
        raise UserError(f"parameters.{name}: a grid needs values, not {kind}")
    same = lambda v: json.dumps(int(v) if isinstance(v, float) and v.is_integer() else v, default=str)
    return list({same(v): v for v in itertools.islice(values, limit)}.values())


def twice(parameters: dict[str, dict[str, Any]], cap: int | None, rows: int) -> tuple[int, str]:
    """How many rows a grid leaves out because a value is listed twice, and one such value.

    Args:
        parameters: as `grid` takes them.
        cap: as `grid` takes it.
        rows: that `grid` gave.
    """
    full, said = rows, ""
    for name, p in parameters.items():
        values = p["values"] if p["distribution"] == "categorical" else []
        if len(values) > (once := len(_axis(name, p, MOST))) > 0:
            full = full * len(values) // once
            said = said or f"{name}={next(v for i, v in enumerate(values) if v in values[:i])}"
    return min(full, cap or full) - rows, said


def draw(parameters: dict[str, dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """Random combinations, the same for the same seed: what W&B's `sweeps` package draws after
    `random.seed(seed)`.

    Raises:
        UserError: a number that is out of range.
    """
    uniform = random.Random(seed).uniform
    rows = []
    for _ in range(count):
        row = {}
        for name, p in sorted(parameters.items()):
            try:
                row[name] = quantile(p, uniform(0.0, 1.0))
            except (OverflowError, ValueError, ZeroDivisionError):
                raise UserError(
                    f"parameters.{name}: {p['distribution']} draws a number out of range; use other bounds"
                ) from None
        rows.append(row)
    return rows


def quantile(p: dict[str, Any], u: float) -> Any:
    """A parameter's value at the share u of its distribution, as W&B defines them;
    `q_` rounds to multiples of q.
    """
    from scipy import stats

    kind = p["distribution"]
    base = kind.removeprefix("q_")
    low, high = (float(p.get(key, math.nan)) for key in ("min", "max"))
    mu, sigma, a, b = (
        float(p.get(key, usual)) for key, usual in (("mu", 0), ("sigma", 1), ("a", 1), ("b", 1))
    )
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
        "inv_log_uniform_values": lambda: math.exp(
            math.log(high) - (1 - u) * (math.log(high) - math.log(low))
        ),
        "normal": lambda: float(stats.norm.ppf(u, loc=mu, scale=sigma)),
        "log_normal": lambda: float(stats.lognorm.ppf(u, s=sigma, scale=math.exp(mu))),
        "beta": lambda: float(stats.beta.ppf(u, a=a, b=b)),
    }[base]()
    if kind != base:
        q = p.get("q", 1.0)
        value = round(value / q) * q
        return int(value) if isinstance(q, int) else value
    return value
