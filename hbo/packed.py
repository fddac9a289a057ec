"""A file within an archive, under the path that it would have if the archive were unpacked.

It is a `str`, so code for paths handles it too; the functions here give size, bytes and time of it or of a
plain file.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol


class Archive(Protocol):
    """The images of one part of a set, by their place: the order in which they are stored."""

    @property
    def names(self) -> Sequence[str]:
        """The file name of each."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """The class of each."""
        ...

    def read(self, place: int) -> bytes:
        """The bytes of an image, as its file would hold them."""
        ...

    def size(self, place: int) -> int:
        """The number of these bytes."""
        ...

    def version(self, place: int) -> int:
        """The time of what holds them, in nanoseconds."""
        ...


class Packed(str):
    """ROOT/PART/CLASS/NAME, and where its bytes are read."""

    __slots__ = ("archive", "place")
    archive: Archive
    place: int

    def __new__(cls, path: str, archive: Archive, place: int) -> "Packed":
        self = super().__new__(cls, path)
        self.archive, self.place = archive, place
        return self

    def __reduce__(self) -> tuple:
        return Packed, (str(self), self.archive, self.place)

    @property
    def name(self) -> str:
        """As a path's."""
        return os.path.basename(self)


File = Path | Packed


def size_of(path: str | Path) -> int:
    """Bytes of a file."""
    return path.archive.size(path.place) if isinstance(path, Packed) else os.path.getsize(path)


def bytes_of(path: str | Path) -> bytes:
    """What a file holds."""
    return path.archive.read(path.place) if isinstance(path, Packed) else Path(path).read_bytes()


def version_of(path: str | Path) -> int:
    """When it was last changed, in nanoseconds."""
    return path.archive.version(path.place) if isinstance(path, Packed) else os.stat(path).st_mtime_ns


def opened(path: str | Path) -> BinaryIO:
    """The file, to be read from its start."""
    return io.BytesIO(bytes_of(path)) if isinstance(path, Packed) else open(path, "rb")


def as_stored(paths: Sequence[str | Path]) -> Sequence[int]:
    """Places in `paths` in the order to read all of them in: of an archive's, that in which they lie."""
    if not any(isinstance(path, Packed) for path in paths):
        return range(len(paths))
    place = lambda i: (id(p.archive), p.place) if isinstance(p := paths[i], Packed) else (0, i)
    return sorted(range(len(paths)), key=place)
