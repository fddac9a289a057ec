"""Images in archives, read without unpacking: a folder's shards, and their contents.

DIR/train-*.tar, DIR/val-*.tar                 WebDataset's: `hbo.archives.tar`
DIR/train-*.parquet, DIR/validation-*.parquet  Hugging Face's: `hbo.archives.parquet`
DIR/ILSVRC2012_img_train.tar and _val.tar      torchvision's, with ILSVRC2012_devkit_t12.tar.gz

val may also be called valid, validation or test. A set in an archive counts as the folder train/CLASS/NAME
that it would unpack to: same names, same order, same fingerprint. A new format is a module with `entries`
and `read` (`hbo.archives.index.Format`), and a line in FORMATS.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from hbo import files
from hbo.archives import index, parquet, tar
from hbo.errors import DataError
from hbo.packed import File, Packed

FORMATS: dict[str, index.Format] = {"tar": tar, "parquet": parquet}
IMAGENET = tar.IMAGENET.values()
REPORTED = ("val", "valid", "validation", "test")  # the first that exists is the validation part
SHARD = re.compile(
    r"(?P<set>.*[-_])?(?P<part>train|val|valid|validation|test)-(?P<number>\d+)(?:-of-(?P<of>\d+)(?:-\w+)?)?"
    rf"\.(?P<format>{'|'.join(FORMATS)})"
)
NAMES = "call shards train-000000.tar, val-000000.tar (or .parquet), uncompressed"
# Named almost like shards, and not read.
ALMOST = re.compile(
    r"(.*[-_])?(train|val|valid|validation|test)([-_.]?\d.*|[-_.][a-z]{1,2})?"
    r"\.(tar|parquet|tgz|tar\.(gz|bz2|xz|zst))",
    re.IGNORECASE,
)


class Shards(NamedTuple):
    """The shards of a part, in order."""

    format: str
    paths: list[Path]
    name: str
    """The part's name in the folder."""


def found(root: Path) -> dict[str, Shards]:
    """`train` and `val` -> their shards, for the parts that exist.

    Raises:
        DataError: several formats or sets in one folder, or a shard that is missing or misnamed.
    """
    if not root.is_dir():
        return {}
    there = sorted(e.name for e in os.scandir(root) if e.is_file() and not files.is_litter(e.name))
    shards: dict[str, dict[str, re.Match[str]]] = {}
    for name in there:
        if (match := SHARD.fullmatch(name)) is not None:
            shards.setdefault(match["part"], {})[name] = match
    names = {"train": "train", "val": next((name for name in REPORTED if name in shards), "")}
    chosen = {part: shards[name] for part, name in names.items() if name in shards}
    ilsvrc = {part: name for part, name in tar.IMAGENET.items() if name in there}
    every = {name: match for part in chosen.values() for name, match in part.items()}
    kinds = {match["format"]: name for name, match in reversed(every.items())}
    sets = {match["set"] or "": name for name, match in reversed(every.items())}
    if len(kinds) > 1 or len(sets) > 1 or (ilsvrc and every):
        mixed = sorted([*(kinds if len(kinds) > 1 else sets).values(), *ilsvrc.values()])
        raise DataError(f"{root}: holds {' and '.join(mixed[:3])}, of several formats or sets; keep one")
    if every and (odd := _misnamed(there)):
        raise DataError(f"{root}: {odd[0]} is not read beside {next(iter(every))}; {NAMES}, or move it away")
    if ilsvrc:
        return {part: Shards("tar", [root / name], part) for part, name in ilsvrc.items()}
    return {
        part: Shards(next(iter(kinds)), _numbered(root, matches), names[part])
        for part, matches in chosen.items()
    }


def _misnamed(names: list[str]) -> list[str]:
    return [name for name in names if ALMOST.fullmatch(name) and not SHARD.fullmatch(name)]


def nearby(root: Path) -> str:
    """A hint for a folder without shards: misnamed ones, or a subfolder that has some."""
    names = sorted(os.listdir(root)) if root.is_dir() else []
    if odd := _misnamed(names):
        return f"; {odd[0]} is not read: {NAMES}"
    for folder in (root / name for name in names if not files.is_litter(name)):
        inside = sorted(os.listdir(folder)) if folder.is_dir() and os.access(folder, os.R_OK) else []
        if shard := next((name for name in inside if SHARD.fullmatch(name)), ""):
            return f"; use --data_dir {folder}, which contains {shard}"
    return ""


def in_part(folder: Path) -> str:
    """A hint for a part's folder that contains shards instead of classes."""
    held = sorted(name for name in os.listdir(folder) if name.endswith(tuple(f".{form}" for form in FORMATS)))
    return f"; it contains {held[0]}: put shards into {folder.parent}, and {NAMES}" if held else ""


def _numbered(root: Path, matches: dict[str, re.Match[str]]) -> list[Path]:
    """The shards of a part by their numbers.

    Raises:
        DataError: one is missing, or occurs twice.
    """
    by_number: dict[int, str] = {}
    for name, match in matches.items():
        if (same := by_number.setdefault(int(match["number"]), name)) != name:
            raise DataError(f"{root}: {same} and {name}: two sets of shards, or duplicates; keep one")
    totals = {int(match["of"]) for match in matches.values() if match["of"]}
    total = max(totals, default=max(by_number))
    first = int(0 not in by_number and total in by_number)  # some count from 1
    wanted = range(first, first + total) if totals else range(first, total + 1)
    if missing := [n for n in wanted if n not in by_number]:
        like, match = next(iter(matches.items()))
        start, end = match.span("number")
        lacking = like[:start] + f"{missing[0]:0{end - start}d}" + like[end:]
        many = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"{root / lacking}: no such file{many}, of {len(wanted)} shards; download it, or renumber them"
        )
    if len(totals) > 1 or len(by_number) > len(wanted):
        said = ", ".join(f"of {total}" for total in sorted(totals))
        raise DataError(
            f"{root}: {len(by_number)} shards such as {next(iter(matches))}, but names say {said}"
        )
    return [root / by_number[n] for n in sorted(by_number)]


def opened(shards: Shards) -> index.Indexed:
    """Their contents; see `index.opened`."""
    what = ("archive", *map(str, shards.paths))
    return files.looked_up(what, lambda: index.opened(FORMATS[shards.format], shards.format, shards.paths))


def members(root: Path, part: str) -> dict[str, list[File]]:
    """Class -> its images, both sorted by name, as in a folder.

    Args:
        root: the folder of the shards.
        part: `train` or `val`.

    Raises:
        DataError: no shards of this part, no image in them, or as `index.opened`.
    """
    there = found(root)
    if part not in there:
        other = " or ".join(f"{name}-*" for name in (REPORTED if part == "val" else (part,)))
        has = ", ".join(path.name for shards in there.values() for path in shards.paths[:1])
        raise DataError(f"{root}: holds no shards of {other}, only {has}")
    archive = opened(there[part])
    if not len(archive):
        raise DataError(f"{there[part].paths[0]}: holds no images, and the other shards hold none either")
    inside: dict[str, list[tuple[str, int]]] = {}
    for place, (label, name) in enumerate(zip(archive.classes, archive.names, strict=True)):
        inside.setdefault(label, []).append((name, place))
    start = os.path.join(root, part)
    return {
        label: [Packed(f"{start}/{label}/{name}", archive, place) for name, place in sorted(inside[label])]
        for label in sorted(inside)
    }


def said_parts(root: Path) -> str:
    """A note on which of several parts is used for validation; empty if there is one."""
    names = {m["part"] for e in os.scandir(root) if (m := SHARD.fullmatch(e.name))} - {"train"}
    used, *others = [name for name in REPORTED if name in names] or [""]
    return (
        f"{root}: {used}-* is used for validation, {' and '.join(f'{o}-*' for o in others)} is not used"
        if others
        else ""
    )
