"""Images in one file that all workers and runs of a machine map into memory: decoded (`--cache ram|disk`), or
as JPEG (`--cache jpeg`).

It keeps what each access to an image starts with: the result of the transform's fixed part, with the same
pixels as without the cache; for random-resized crops of photographs, the photograph with its short side at
most `Run.cached_side`.

ROOT/NAME/pixels: a header (JSON, 4096 bytes), the images (H, W, C) uint8 or JPEG one after the other, in the
order in which they were stored, the index. NAME is a hash of the images' names and lengths and of the
transform: moved images and other runs find the same cache.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hbo import files
from hbo.config import Run
from hbo.data import jpeg
from hbo.data.augment import Size
from hbo.errors import DataError, UserError
from hbo.runs import cluster, lock, signals

FORMAT, HEADER = 2, 4096  # 2: photographs are turned as their EXIF says
JPEG = 3  # the format of a cache of JPEG
MEMORY = Path("/dev/shm")  # a file system in memory
PROBED = 256  # images whose checksums are compared at each opening, evenly spread
# Where an image lies, its shape, the size that random draws are made for, and its checksum.
INDEX = np.dtype(
    [
        (name, "<i8" if name == "offset" else "<i4")
        for name in ("offset", "height", "width", "channels", "seen_h", "seen_w")
    ]
    + [("crc", "<u4")]
)
INDEXES = {FORMAT: INDEX, JPEG: np.dtype([*INDEX.descr, ("length", "<i4")])}


@dataclass(frozen=True)
class Content:
    """What a cache is made from.

    Args:
        name: the set's, for messages.
        identity: the images' names and lengths and the transform; equal identities share a file.
        version: of the images, such as the times of their files; if it is equal, they are unchanged.
        digest: a hash of every byte of them; may take a while. If the version differs, it decides whether the
            file is stale.
        images: how many.
        order: the images in the order in which they are stored.
        size: bytes that the pixels will take, and whether that is exact; may take a while.
        make: index -> (image (H, W, C) uint8, the size that random draws are made for).
        format: FORMAT, or JPEG.
    """

    name: str
    identity: str
    version: str
    digest: Callable[[], str]
    images: int
    order: Sequence[int]
    size: Callable[[], tuple[int, bool]]
    make: Callable[[int], tuple[Tensor, Size]]
    format: int = FORMAT


class Pixels:
    """The images of a cache: `[i]` is (image (C, H, W) uint8, to be read only, the size that random draws are
    made for).
    """

    def __init__(self, path: Path, index: np.ndarray) -> None:
        self.path, self.index = path, index
        self._flat: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_flat": None}  # another process maps the file anew

    def __len__(self) -> int:
        return len(self.index)

    @property
    def is_jpeg(self) -> bool:
        """Whether the images are kept as JPEG, and decoded at each access."""
        return self.index.dtype == INDEXES[JPEG]

    def __getitem__(self, i: int) -> tuple[Tensor, Size]:
        _, height, width, channels, seen_h, seen_w, *_ = self.index[i].item()
        stored = self.stored(i)
        if self.is_jpeg:
            return jpeg.decoded(stored, channels), (seen_h, seen_w)
        return stored.view(height, width, channels).permute(2, 0, 1), (seen_h, seen_w)

    def stored(self, i: int) -> Tensor:
        """An image's bytes (N,) as they are kept."""
        offset, height, width, channels, _, _, _, *length = self.index[i].item()
        return self.flat[offset : offset + (length[0] if length else height * width * channels)]

    @property
    def flat(self) -> Tensor:
        """All bytes of the file."""
        if self._flat is None:
            with warnings.catch_warnings():  # that it must not be written to
                warnings.simplefilter("ignore", UserWarning)
                self._flat = torch.from_numpy(np.memmap(self.path, np.uint8, "r"))
        return self._flat

    def sizes(self, at_most: int = 2000) -> list[tuple[Size, Size]]:
        """(size that draws are made for, stored size) of the images; of many, evenly spaced ones."""
        chosen = self.index[:: max(1, len(self) // at_most)]
        return [((int(e["seen_h"]), int(e["seen_w"])), (int(e["height"]), int(e["width"]))) for e in chosen]


def root(run: Run) -> Path:
    """The folder of all caches.

    Raises:
        UserError: this system has no file system in memory.
    """
    if run.cache == "ram":
        if not MEMORY.is_dir():
            raise UserError(f"cache=ram: needs {MEMORY}, which this system lacks; use --cache disk")
        return MEMORY / f"hbo-{os.getuid()}"
    if run.cache_dir:
        return files.expanded(run.cache_dir)
    return files.cache_root()


def opened(run: Run, content: Content) -> Pixels:
    """The cache of these images, built first if there is none; of processes that ask together, one builds it.

    Raises:
        DataError: it is stale or damaged, an image is broken, or there is no room.
    """
    folder = root(run) / f"{content.name}-{_digest(content.format, content.identity)}"
    path = folder / "pixels"
    told = False
    while not path.exists():
        held = lock.Lock(folder)
        try:
            held.acquire()
        except lock.Busy:
            if not told and (holder := lock.read(folder)):
                print(
                    f"cache: process {holder['pid']} on {holder['host']} is building {folder}; waiting",
                    file=sys.stderr,
                )
                told = True
            _heed_signals()
            time.sleep(0.5)
            continue
        try:
            if not path.exists():  # else it has just been built
                build(run, folder, content)
        finally:
            held.release()
            if not path.exists() and folder.exists() and not any(folder.iterdir()):
                folder.rmdir()
    return read(path, content)


def read(path: Path, content: Content) -> Pixels:
    """Map a cache.

    Raises:
        DataError: of other images, truncated or damaged; says what to delete.
    """
    instead = f"delete {path.parent} to have it built again"
    try:
        with open(path, "rb") as file:
            head = json.loads(file.read(HEADER))
            if head["bytes"] != (found := path.stat().st_size):
                raise DataError(f"{path}: truncated, {found} of {head['bytes']} bytes; {instead}")
            file.seek(head["bytes"] - head["images"] * INDEXES[content.format].itemsize)
            raw = file.read()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a cache of HBO; {instead}") from None
    if zlib.crc32(raw) != head["index"]:
        raise DataError(f"{path}: its index is damaged; {instead}")
    if head["format"] != content.format or head["images"] != content.images or not _same(path, head, content):
        raise DataError(f"{path}: stale, the images have changed since it was built; {instead}")
    pixels = Pixels(path, np.frombuffer(raw, INDEXES[content.format]))
    for i in np.linspace(0, len(pixels) - 1, min(PROBED, len(pixels))).astype(int):
        if zlib.crc32(pixels.stored(int(i)).numpy().data) != pixels.index[i]["crc"]:
            raise DataError(f"{path}: image {i} is damaged; {instead}")
    return pixels


def _same(path: Path, head: dict[str, Any], content: Content) -> bool:
    """Whether the images are those that were cached: by their times, else by every byte, as a copy has times
    of its own.

    A copy that was read once is known by its times from then on.
    """
    if head["version"] == content.version:
        return True
    known = path.with_name(f"copy-{_digest(content.version)}")
    if known.exists():
        return True
    print(
        f"cache: the files of {content.name} have other times than when {path} was built; reading them",
        file=sys.stderr,
    )
    if head.get("digest") != content.digest():
        return False
    with contextlib.suppress(OSError):  # a cache that may only be read
        known.touch()
    return True


def build(run: Run, folder: Path, content: Content) -> None:
    """Write the cache, whole or not at all; the caller holds the lock of its folder.

    Raises:
        DataError: an image is broken, or there is no room.
    """
    for left in folder.glob("pixels.part-*"):  # by a killed process
        left.unlink()
    size, exact = content.size()
    size += HEADER + content.images * INDEXES[content.format].itemsize
    free = _free(run, folder)
    others = sum(path.stat().st_size for path in folder.parent.glob("*/pixels"))
    print(
        f"cache: {content.images} images of {content.name}, {'' if exact else 'about '}{gb(size)}, into"
        f" {folder}"
        f" ({gb(free)} free, other caches there take {gb(others)}); kept until it is deleted",
        file=sys.stderr,
    )
    if size > free:
        small = "a smaller --resolution" if run.cached_side is None else "a smaller --cache_size"
        where = "--cache disk" if run.cache == "ram" else "another --cache_dir"
        raise DataError(
            f"cache={run.cache}: needs {gb(size)} in {folder.parent}, where {gb(free)} are free; use"
            f" {where}, {small} or --cache none"
        )
    part = folder / f"pixels.part-{os.getpid()}"
    index = np.zeros(content.images, INDEXES[content.format])
    try:
        with open(part, "wb") as file, ThreadPoolExecutor(cluster.cores()) as pool:
            file.seek(HEADER)
            made = _in_order(pool, lambda i: (i, *_made(content, i)), content.order)
            watched = sys.stderr.isatty()
            bar = tqdm(
                made, total=content.images, desc="cache", unit="image", mininterval=0.2 if watched else 10
            )
            for i, shape, seen, stored in bar:
                length = (len(stored),) if content.format == JPEG else ()
                index[i] = (file.tell(), *shape, *seen, zlib.crc32(stored), *length)
                file.write(stored)
                _heed_signals()
            file.write(index.tobytes())
            head = {
                "format": content.format,
                "version": content.version,
                "digest": content.digest(),
                "images": content.images,
                "bytes": file.tell(),
                "index": zlib.crc32(index.tobytes()),
            }
            file.seek(0)
            file.write(json.dumps(head).encode().ljust(HEADER))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, folder / "pixels")
    finally:
        part.unlink(missing_ok=True)
    directory = os.open(folder, os.O_RDONLY)
    os.fsync(directory)  # the name, too
    os.close(directory)


def _made(content: Content, i: int) -> tuple[tuple[int, ...], Size, Any]:
    """Shape of an image, the size that random draws are made for, and the bytes that are kept."""
    image, seen = content.make(i)
    return (
        tuple(image.shape),
        seen,
        jpeg.encoded(image) if content.format == JPEG else image.contiguous().numpy().data,
    )


def _in_order(pool: ThreadPoolExecutor, make: Callable[[int], Any], indices: Iterable[int]) -> Iterator[Any]:
    """The results in order, at most a few computed ahead, so that they do not pile up in memory."""
    rest = iter(indices)
    ahead = [pool.submit(make, i) for i in islice(rest, 4 * cluster.cores())]
    try:
        while ahead:
            yield ahead.pop(0).result()
            ahead += [pool.submit(make, i) for i in islice(rest, 1)]
    finally:
        for future in ahead:
            future.cancel()


def _free(run: Run, folder: Path) -> int:
    """Free bytes there."""
    free = shutil.disk_usage(folder).free
    if run.cache == "ram":
        try:
            with open("/proc/meminfo") as lines:
                available = next(
                    int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")
                )
            free = min(free, available)
        except (OSError, StopIteration):
            pass
    return free


def _heed_signals() -> None:
    """A scheduler's signal ends a build: it may take longer than the scheduler waits."""
    if signals.noted:
        raise SystemExit(128 + signals.noted)


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=6).hexdigest()


def gb(size: float) -> str:
    """Bytes as text."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
