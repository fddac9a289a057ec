"""Which rows are the same run, arm, cell or protocol: decided only by their identities (`Run.identity`).

An identity is a dict of JSON values without defaults. A row stores it under `identity`; for an
older row it is derived from the fields. What they do not say (which folder of images) is marked as
unknown, and equals nothing else.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from hbo.config import Run, content, key_of
from hbo.tasks import SETS
from hbo.tasks.classify import named
from hbo.tasks.spec import BEFORE

Identity = dict[str, Any]
UNKNOWN = "not recorded"
FIELDS = {f.name: f for f in fields(Run)}
USUAL = {name: getattr(Run, name) for name in FIELDS}
# Entries of an identity besides fields, and their titles.
EXTRAS = {
    "world": "devices",
    "cached_side": "cached_side",
    "cached_jpeg": "cached_jpeg",
    "images": "images",
    "backbone": "backbone",
    "teacher": "teacher",
}
# Of these, digests of a checkpoint's file -> the row's column with its description, and the field that names
# the file.
FROM_FILES = {"backbone": ("backbone_weights", "backbone_checkpoint"), "teacher": ("teacher", "distill")}


def of_row(row: Mapping[str, Any]) -> Identity:
    """The identity of a row from any source: fields converted to their types, NaN treated as None.

    Args:
        row: fields of `Run`, with defaults for missing ones; `identity`, `key`, `study`, `data_dir`,
            `backbone_weights` and `teacher`, if present.
    """
    found = content({name: typed(name, row.get(name, getattr(Run, name))) for name in FIELDS})
    saved = row.get("identity")
    saved = saved if isinstance(saved, Mapping) else None
    if saved is not None:
        found |= {name: saved[name] for name in ("images", *FROM_FILES) if name in saved}
    if _by_folder(found) and "images" not in found:
        found["images"] = _images(found, row)
    for name, (words, field) in FROM_FILES.items():
        if name not in found and _has_weights(row.get(words), row.get(field)):
            digest = re.search(r"\(([0-9a-f]{10})\)$", str(row.get(words) or ""))
            found[name] = digest[1] if digest else f"{UNKNOWN} ({row.get(field)})"
    return found


def arm_of(row: Mapping[str, Any]) -> Identity:
    """The identity of a row's arm: if its own seed chose one of a study's classifiers to start from, it names
    these classifiers instead of that one's file (`Run.backbone_arm`).
    """
    own = row.get("backbone_arm")
    return of_row(row) | ({"backbone": own} if isinstance(own, str) else {})


def _by_folder(found: Identity) -> bool:
    """Whether the data set is identified by its folder's contents."""
    one = SETS.get(value(found, "data"))
    return one is not None and one.by_folder


def typed(name: str, value: Any) -> Any:
    """Convert a value to its field's type, undoing what JSON, CSV, W&B and pandas do to numbers."""
    kind, usual = FIELDS[name].type, getattr(Run, name)
    if value is None or value != value:  # NaN in pandas: an empty cell, or a newer column
        return None if "None" in str(kind) else usual
    try:
        if kind in (float, float | None):
            return float(value)
        if kind in (int, int | None) and float(value).is_integer():
            return int(value)
        if kind is bool:
            return value if isinstance(value, str) else bool(value)
    except (TypeError, ValueError):  # an edited row
        return value
    return str(value)


def _images(found: Identity, row: Mapping[str, Any]) -> str:
    """The images of a row that does not record them: from its key for the known
    folders, else a unique marker.
    """
    for known in BEFORE.values():
        if key_of(found | {"images": known}) == row.get("key"):
            return known
    return f"{UNKNOWN} ({row.get('data_dir') or row.get('study')})"


def _has_weights(words: Any, file: Any) -> bool:
    """Whether a row's run used the weights of a checkpoint, from its description, else from the field that
    names the file.
    """
    return words != "random" if isinstance(words, str) else isinstance(file, str)


def varying(identities: Sequence[Identity]) -> list[str]:
    """The names in which identities differ, except the seed: fields in their order, then the rest."""
    there = {name for one in identities for name in one} - {"seed"}
    values = {
        name: {_text(value(one, name)) for one in identities} for name in [*FIELDS, *EXTRAS] if name in there
    }
    return [name for name, found in values.items() if len(found) > 1]


def value(identity: Identity, name: str) -> Any:
    """An identity's value under a name, defaults included; for `recipe` the one that its fields match, None
    for a mixture.
    """
    if name == "recipe":
        return named.of(identity, USUAL)
    return identity.get(name, getattr(Run, name) if name in FIELDS else None)


def group(identity: Identity, without: Iterable[str] = ("seed",)) -> str:
    """Equal for two identities that differ only in these names."""
    left_out = set(without)
    return _text({name: v for name, v in identity.items() if name not in left_out})


def say(name: str, what: Any) -> str:
    """`lr=0.05`, shortened without loss; `per_class=none` without a value."""
    if isinstance(what, float):
        what = f"{what:g}" if float(f"{what:g}") == what else repr(what)
    what = "none" if what is None else what
    return f"{EXTRAS.get(name, name)}={what}"


def _text(what: Any) -> str:
    return json.dumps(what, sort_keys=True, default=str)
