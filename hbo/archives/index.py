"""Indexes of archives: what they contain, and where. Built once, with a progress bar, and kept with the
caches.

ROOT/archives/NAME.npz; NAME is a hash of the shards' names, sizes, times, first and last bytes, so that a
changed shard is indexed again.
"""

import hashlib
import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from hbo import files
from hbo.errors import DataError, UserError
from hbo.names import same_name

FORMAT = 2  # of the index; 2: links are refused, and hidden folders left out
PROBE = 32 << 10  # bytes of a shard's start and end: a tar's end has up to 10 KiB of zeros
WHERE = np.dtype([("shard", "<i4"), ("at", "<i8"), ("row", "<i4"), ("size", "<i8"), ("label", "<i4")])


class Entry(NamedTuple):
    """An image in a shard."""

    label: str
    name: str
    at: int
    """Where it starts, or the row group that holds it."""
    row: int
    """Its position in the row group."""
    size: int
    """Bytes."""
    said_by: str
    """What names its class, for messages; the same throughout a part."""


class Format(Protocol):
    """How shards are read: a module."""

    def entries(self, shard: Path) -> Iterator[Entry]:
        """The images of a shard, in storage order."""
        ...

    def read(self, shard: Path, at: int, row: int, size: int) -> bytes:
        """The bytes of an image; called in threads, and in forked and spawned processes."""
        ...


class Indexed:
    """The images of some shards; see `hbo.packed.Archive`.

    Args:
        read: the format's function, at module level, so that a spawned worker can import it.
        shards: their paths.
        stamps: size and time of each when it was indexed.
        where: of each image, `WHERE`.
        labels: names of the classes, by `where["label"]`.
        names: file names.
    """

    def __init__(
        self,
        read: Callable[[Path, int, int, int], bytes],
        shards: Sequence[Path],
        stamps: Sequence[tuple[int, int]],
        where: np.ndarray,
        labels: list[str],
        names: Sequence[str],
    ) -> None:
        self.read_at, self.shards, self.stamps = read, shards, stamps
        self.where, self.labels = where, labels
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    @property
    def classes(self) -> list[str]:
        return [self.labels[label] for label in self.where["label"].tolist()]

    def size(self, place: int) -> int:
        return int(self.where["size"][place])

    def version(self, place: int) -> int:
        return self.stamps[self.where["shard"][place]][1]

    def read(self, place: int) -> bytes:
        """The image's bytes.

        Raises:
            DataError: its shard has changed since it was indexed.
        """
        shard, at, row, size, _ = self.where[place].item()
        path = self.shards[shard]
        if _stamp(path) != self.stamps[shard]:
            raise DataError(f"{path}: has changed since it was indexed; start again to index it again")
        found = self.read_at(path, at, row, size)
        if len(found) != size:
            raise DataError(
                f"{path}: {self.names[place]}: {len(found)} of {size} bytes; the shard is truncated"
            )
        return found


def opened(form: Format, name: str, shards: Sequence[Path]) -> Indexed:
    """The archive of some shards, indexed first if necessary.

    Raises:
        DataError: a shard that cannot be read, an image without a class, or one that occurs twice.
    """
    stamps = [_stamp(path) for path in shards]
    what = repr((FORMAT, name, [(p.name, s, _ends(p)) for p, s in zip(shards, stamps, strict=True)]))
    path = files.cache_root() / "archives" / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.npz"
    if not path.exists():
        _write(path, form, shards, sum(size for size, _ in stamps))
    try:
        with open(path, "rb") as file, np.load(file) as saved:
            labels, names = (json.loads(saved[name].tobytes()) for name in ("labels", "names"))
            return Indexed(form.read, shards, stamps, saved["where"], labels, names)
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError):
        raise DataError(f"{path}: not an index of HBO, or truncated; delete it to build it again") from None


def _write(path: Path, form: Format, shards: Sequence[Path], total: int) -> None:
    """Index the shards, and write the index atomically.

    Raises:
        UserError: the index cannot be written there.
    """
    part = path.with_name(f"{path.stem}.part-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()  # before indexing, which takes long
    except OSError as error:
        raise UserError(
            f"{path.parent}: an index of {shards[0].parent} cannot be written there ({error.strerror}); set"
            " XDG_CACHE_HOME to a folder that you may write into"
        ) from None
    try:
        content = _content(form, shards, total)
        with open(part, "wb") as file:
            np.savez(file, **content)  # pyright: ignore[reportArgumentType]
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _content(form: Format, shards: Sequence[Path], total: int) -> dict[str, np.ndarray]:
    """The shards' contents, as arrays: `where`, `labels` and `names`."""
    labels: dict[str, int] = {}
    names: list[str] = []
    where: list[tuple[int, int, int, int, int]] = []
    for shard, entry in _entries(form, shards, total):
        names.append(entry.name)
        label = labels.setdefault(same_name(entry.label), len(labels))
        where.append((shard, entry.at, entry.row, entry.size, label))
    text = {
        name: np.frombuffer(json.dumps(list(value)).encode(), np.uint8)
        for name, value in (("labels", labels), ("names", names))
    }
    return text | {"where": np.array(where, WHERE)}


def _entries(form: Format, shards: Sequence[Path], total: int) -> Iterator[tuple[int, Entry]]:
    """All images of the shards, each checked."""
    seen: dict[tuple[str, str], int] = {}
    written: dict[str, str] = {}
    said_by: dict[str, Path] = {}
    watched = sys.stderr.isatty()
    bar = tqdm(
        total=total,
        desc=f"index {shards[0].parent}",
        unit="B",
        unit_scale=True,
        mininterval=0.2 if watched else 10,
    )
    with bar:
        for number, shard in enumerate(shards):
            for entry in form.entries(shard):
                if entry.label in ("", ".", "..") or "/" in entry.label:
                    raise DataError(f"{shard}: {entry.name}: {entry.label!r} is not a class name")
                if written.setdefault(same_name(entry.label), entry.label) != entry.label:
                    raise DataError(
                        f"{shard}: class {entry.label}: written in two forms of Unicode; pack it in one"
                    )
                said_by.setdefault(entry.said_by, shard)
                if len(said_by) > 1:
                    (a, in_a), (b, in_b) = said_by.items()
                    raise DataError(
                        f"{in_b}: mixed formats: classes by {b}, in {in_a} by {a}; pack all shards in one way"
                    )
                if (same := (entry.label, entry.name)) in seen:
                    raise DataError(
                        f"{shard}: {'/'.join(same)} occurs twice, first in {shards[seen[same]].name}"
                    )
                seen[same] = number
                bar.update(entry.size)
                yield number, entry
        bar.update(total - bar.n)


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a shard."""
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


def _ends(path: Path) -> str:
    """A hash of a shard's start and end: sizes of tars are multiples of 10 KiB, and unpacked or synchronised
    files may have the same time.
    """
    with open(path, "rb") as file:
        start = file.read(PROBE)
        file.seek(max(0, os.path.getsize(path) - PROBE))
        return hashlib.sha256(start + file.read(PROBE)).hexdigest()
