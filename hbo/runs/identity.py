"""Which rows are the same run, arm, cell or protocol: asked of their identities (`Run.identity`), and of nothing else.

An identity is a dict of JSON values; what is at its default is not in it. A row has its own under `identity`; one that was written
before gets it from its fields. What cannot be known then (which folder of images) says so in its place, and equals nothing else.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from hbo.config import Run, content, key_of
from hbo.tasks import SETS
from hbo.tasks.spec import BEFORE

Identity = dict[str, Any]
UNKNOWN = "not recorded"
FIELDS = {f.name: f for f in fields(Run)}
# What an identity has besides fields, and how it is called.
EXTRAS = {"world": "devices", "cached_side": "cached_side", "images": "images", "backbone": "backbone"}


def of_row(row: Mapping[str, Any]) -> Identity:
    """The identity of a row, from wherever it was read: fields by their types, None and NaN alike.

    Args:
        row: fields of `Run`, those that are missing at their defaults; `identity`, `key`, `study`, `data_dir` and
            `backbone_weights`, where it has them.
    """
    found = content({name: typed(name, row.get(name, getattr(Run, name))) for name in FIELDS})
    saved = row.get("identity")
    saved = saved if isinstance(saved, Mapping) else None
    if saved is not None:
        found |= {name: saved[name] for name in ("images", "backbone") if name in saved}
    if _by_folder(found) and "images" not in found:
        found["images"] = _images(found, row)
    if "backbone" not in found and _started_from(row):
        weights = re.search(r"\(([0-9a-f]{10})\)$", str(row.get("backbone_weights") or ""))
        found["backbone"] = weights[1] if weights else f"{UNKNOWN} ({row.get('backbone_checkpoint')})"
    return found


def _by_folder(found: Identity) -> bool:
    """Whether the data set is known by what its folder holds."""
    one = SETS.get(value(found, "data"))
    return one is not None and one.by_folder


def typed(name: str, value: Any) -> Any:
    """A field's value in the field's type: what JSON, CSV, W&B and pandas make of numbers, mended."""
    kind, usual = FIELDS[name].type, getattr(Run, name)
    if value is None or value != value:  # NaN: pandas' word for a cell that is empty, or of a column that is newer
        return None if "None" in str(kind) else usual
    try:
        if kind in (float, float | None):
            return float(value)
        if kind in (int, int | None) and float(value).is_integer():
            return int(value)
        if kind is bool:
            return value if isinstance(value, str) else bool(value)
    except (TypeError, ValueError):  # a row that was edited
        return value
    return str(value)


def _images(found: Identity, row: Mapping[str, Any]) -> str:
    """The images of a row that does not say which: by its key where it was of a folder that is known, else a word of its own."""
    for known in BEFORE.values():
        if key_of(found | {"images": known}) == row.get("key"):
            return known
    return f"{UNKNOWN} ({row.get('data_dir') or row.get('study')})"


def _started_from(row: Mapping[str, Any]) -> bool:
    """Whether a row's network started from the weights of a checkpoint."""
    weights, file = row.get("backbone_weights"), row.get("backbone_checkpoint")
    return weights != "random" if isinstance(weights, str) else isinstance(file, str)


def varying(identities: Sequence[Identity]) -> list[str]:
    """The names in which identities differ, but for the seed: fields in their order, then the rest."""
    there = {name for one in identities for name in one} - {"seed"}
    values = {name: {_text(value(one, name)) for one in identities} for name in [*FIELDS, *EXTRAS] if name in there}
    return [name for name, found in values.items() if len(found) > 1]


def value(identity: Identity, name: str) -> Any:
    """What an identity has under a name, a default included."""
    return identity.get(name, getattr(Run, name) if name in FIELDS else None)


def group(identity: Identity, without: Iterable[str] = ("seed",)) -> str:
    """Equal for two identities that differ in these names alone."""
    left_out = set(without)
    return _text({name: v for name, v in identity.items() if name not in left_out})


def say(name: str, what: Any) -> str:
    """`lr=0.05`, short where that loses nothing; `per_class=none` where it has no value."""
    if isinstance(what, float):
        what = f"{what:g}" if float(f"{what:g}") == what else repr(what)
    what = "none" if what is None else what
    return f"{EXTRAS.get(name, name)}={what}"


def _text(what: Any) -> str:
    return json.dumps(what, sort_keys=True, default=str)
