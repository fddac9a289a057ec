"""What a W&B sweep varies, as its server says: no code of ours has read the file given to `wandb sweep`."""

import os
import sys
from dataclasses import replace
from functools import cache
from typing import Any

from hbo.config import Run, checked
from hbo.errors import UserError, flat

# Fields that are in no key, but restate what is in it.
OTHER_WORDS = frozenset(
    ["data_dir", "backbone_checkpoint", "weights", "distill", "match_macs", "variant", "recipe"]
)
ALIKE = sorted(Run.NOT_IN_KEY - OTHER_WORDS)  # runs that differ in these alone are one run


def parameters() -> dict[str, dict[str, Any]] | None:
    """Field -> its values in the sweep of this process's agent; None without an agent, or without an answer,
    which is reported.
    """
    sweep = os.environ.get("WANDB_SWEEP_ID")
    return _parameters(sweep) if sweep else None


def question() -> dict[str, Any]:
    """`primary` of the sweep's file, as the server has it; empty if there is none."""
    sweep = os.environ.get("WANDB_SWEEP_ID")
    asked = _config(sweep).get("primary") if sweep else None
    return asked if isinstance(asked, dict) else {}


def _parameters(sweep: str) -> dict[str, dict[str, Any]] | None:
    given = _config(sweep).get("parameters")
    return given and {name: dict(p) for name, p in given.items() if name in Run.__dataclass_fields__}


@cache
def _config(sweep: str) -> dict[str, Any]:
    """The sweep's file as the server has it; empty without an answer."""
    try:
        import wandb

        place = (os.environ[name] for name in ("WANDB_ENTITY", "WANDB_PROJECT"))
        return dict(wandb.Api(timeout=10).sweep("/".join([*place, sweep])).config)
    except Exception as error:  # whatever the client raises; it is no reason to end a run
        said = flat(f"W&B: {type(error).__name__}: {error}")
        print(f"{said}; what sweep {sweep} varies is unknown, and was not checked", file=sys.stderr)
        return {}


def check(run: Run) -> None:
    """Refuse to sweep over a field that is in no key: W&B would show one row's result under the settings of
    others.

    Raises:
        UserError: names the field and two values that are one run.
    """
    swept = parameters() or {}
    for name in [*ALIKE, "variant"]:
        p = swept.get(name, {})
        for value in [*p.get("values", ()), *(p[end] for end in ("min", "max") if end in p)]:
            given = _of_variant(value) if name == "variant" else {name: value}
            if (other := _with(run, given)) is not None:
                field = next(f for f in ALIKE if getattr(run, f) != getattr(other, f))
                raise same_run(field, getattr(run, field), getattr(other, field))


def _of_variant(text: Any) -> dict[str, str]:
    """The fields that `threads=2 k=1` names."""
    return {name: value for name, _, value in (word.partition("=") for word in str(text).split())}


def _with(run: Run, given: dict[str, Any]) -> Run | None:
    """The run with other values of fields, if that is the same run."""
    try:
        other = replace(run, **{name: checked(name, value) for name, value in given.items()})
        differs = any(getattr(other, name) != getattr(run, name) for name in ALIKE)
        return other if differs and other.key() == run.key() else None
    except UserError:  # not a run
        return None


def same_run(name: str, a: Any, b: Any) -> UserError:
    """Why two values of a field cannot be compared in one study."""
    return UserError(
        f"{name}: {a} and {b} are the same run, as {name} is in no key, and one would be left out; use"
        " one value, or to compare speeds give each a folder (out) of its own"
    )
