"""Allowed values, by the type of the field: the same rules for flags, `--config`,
sweep files, variants and Python.

For numeric fields, text that is a number is converted (YAML and W&B leave 1e-3 as text), and so are 30.0 to
30 for a whole number, and 1 to 1.0. Nothing else is converted: no number to text, no 1 to true.
"""

import json
import math
import numbers
import os
import re
import reprlib
import typing
from collections.abc import Callable
from dataclasses import fields
from datetime import date
from functools import cache
from types import NoneType
from typing import Any, Literal

import yaml

from hbo.errors import UserError
from hbo.words import other_value

TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
DECIMAL_COMMA = re.compile(r"\d+,\d+")
DISGUISED = re.compile(r"[-+]?0[0-9_]+")  # 010, which is 8 to YAML and 10 to Python
_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 80


def shown(value: Any) -> str:
    """A value for an error message, shortened if it is long or deep."""
    return _shown.repr(value)


def typed(name: str, kind: Any, value: Any) -> Any:
    """Convert a value to its field's type.

    Args:
        name: of the field, for the message.
        kind: `int`, `float`, `bool`, `str`, one of these or None, or a `Literal` of words.
        value: from anywhere.

    Raises:
        UserError: it is of another kind, is not finite, or is none of the choices.
    """
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        if isinstance(value, str) and value in parts:
            return value
        one = isinstance(value, str) and not several(name, kind, value)
        near = other_value(name, value, list(parts)) if one else _hint(value)
        words = ", ".join(f"'{word}'" if "," in word else word for word in parts)
        raise UserError(f"{name}={shown(value)}: choose from {words}{near}")
    if NoneType in parts:
        if value is None or (isinstance(value, str) and value == "null"):
            return None
        (kind,) = (part for part in parts if part is not NoneType)
    read, what = _READ[kind]
    found = read(value)
    if found is None:
        what += ", or null" * (NoneType in parts)
        share = number(value.strip()[:-1]) if isinstance(value, str) and value.strip()[-1:] == "%" else None
        hint = f"; write {share / 100:g}" if share is not None and kind is float else ""
        if kind is float and isinstance(value, str) and DECIMAL_COMMA.fullmatch(value.strip()):
            hint = f"; did you mean {value.strip().replace(',', '.')}?"
        hint = hint or _hint(value, numeric=kind in (int, float))
        raise UserError(f"{name}={shown(value)}: must be {what}{hint}")
    return found


def several(name: str, kind: Any, value: Any) -> str:
    """`k=[1,2]` for `1,2`: what to write for several values of a field, each of them valid; else empty."""
    if not isinstance(value, str) or "," not in value:
        return ""
    words = [word.strip() for word in value.split(",")]
    try:
        for word in words:
            typed(name, kind, word)
    except UserError:
        return ""
    return f"{name}=[{','.join(words)}]"


def check_types(owner: Any) -> None:
    """Convert each field of a dataclass to its type, in place: 1 becomes 1.0 in a float field.

    Raises:
        UserError: as `typed`.
    """
    for name, kind in field_types(type(owner)).items():
        value = getattr(owner, name)
        found = typed(name, kind, value)
        if found is not value:
            object.__setattr__(owner, name, found)  # the dataclass is frozen


@cache
def field_types(owner: type) -> dict[str, Any]:
    """Field -> its type."""
    hints = typing.get_type_hints(owner)
    return {f.name: hints[f.name] for f in fields(owner)}


def whole(value: Any) -> int | None:
    """The value as a whole number, else None."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and DECIMAL.fullmatch(value.strip()):
        try:
            return int(value)
        except ValueError:  # thousands of digits
            return None
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def number(value: Any) -> float | None:
    """The value as a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, str)):
        return None
    if isinstance(value, str) and DISGUISED.fullmatch(value.strip()):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def truth(value: Any) -> bool | None:
    """The value as a bool, else None."""
    return TRUTH.get(value.lower()) if isinstance(value, str) else value if isinstance(value, bool) else None


def text(value: Any) -> str | None:
    """The value as text, else None; paths are text, and no system allows a null byte in one."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return value if isinstance(value, str) and "\0" not in value else None


_READ: dict[Any, tuple[Callable[[Any], Any], str]] = {
    int: (whole, "a whole number"),
    float: (number, "a number"),
    bool: (truth, "true or false"),
    str: (text, "text"),
}


def _hint(value: Any, numeric: bool = False) -> str:
    """A hint if YAML read a word as something else."""
    if isinstance(value, str):
        return "; write it without the leading zero: YAML reads it as octal" * bool(
            numeric and DISGUISED.fullmatch(value.strip())
        )
    if isinstance(value, dict):
        return "; in YAML {a, b} is a mapping, a list is [a, b]"
    if numeric:
        return ""
    if isinstance(value, bool):
        return "; YAML reads yes, no, on and off as true and false: put the word in quotes"
    if isinstance(value, date):
        return "; YAML reads it as a date: put it in quotes"
    return "; put it in quotes" * isinstance(value, (int, float))


# ------------------------------------------------------------ YAML


def load(source: str) -> Any:
    """YAML or JSON as plain values.

    Numbers that YAML reads differently from a person (010, 0x10, 1:30) are an
    error, and so is a repeated key.

    Raises:
        UserError: bad YAML, with its line.
    """
    try:
        if source.lstrip().startswith("{"):
            try:
                # YAML reads JSON too, but for some escapes.
                return json.loads(source, object_pairs_hook=_once)
            except json.JSONDecodeError:
                pass
        return yaml.load(source, _loader())
    except UserError:
        raise
    except RecursionError:
        raise UserError("bad YAML, nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{line}bad YAML, {getattr(error, 'problem', None) or error}") from None
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
    ) as error:  # a day 2024-13-45, an int of 5,000 digits
        raise UserError(f"bad YAML, {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise UserError(
            f"{next(name for name in names if names.count(name) > 1)!r} is repeated; keep one of them"
        )
    return found


@cache
def _loader() -> Any:
    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
                if name in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value!r} is repeated; keep one of them", key.start_mark
                    )
                if name is not None:
                    seen.add(name)
            return super().construct_mapping(node, deep)

        def refuse_disguised(self, node: Any) -> Any:
            made = self.construct_yaml_int if node.tag.endswith(":int") else self.construct_yaml_float
            said, found = str(node.value), made(node)
            if ":" in said or (node.tag.endswith(":int") and not DECIMAL.fullmatch(said)):
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"YAML reads {said} as {found}; write a plain number, or text in quotes",
                    node.start_mark,
                )
            return found

    for kind in ("int", "float"):
        Loader.add_constructor(f"tag:yaml.org,2002:{kind}", Loader.refuse_disguised)
    return Loader
