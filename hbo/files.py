"""Files: written whole or not at all, and identified by what they hold, never by where they lie."""

import difflib
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hbo import packed
from hbo.errors import UserError

MANY = 100_000  # files whose sizes and headers are still read one by one
READ_WHOLE = 1 << 30  # bytes: data sets up to this size are hashed in full, in some seconds
IMAGES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
UNCOMPRESSED = {".bmp", ".ppm", ".pgm", ".pnm", ".tif", ".tiff"}  # their sizes do not depend on the pixels
# Not read.
ALMOST = {
    ".gif",
    ".jfif",
    ".jpe",
    ".jp2",
    ".heic",
    ".heif",
    ".avif",
    ".tga",
    ".pnm",
    ".dng",
    ".cr2",
    ".nef",
    ".arw",
}
# What desktops leave in any folder; hidden files are ignored too.
LITTER = {
    "thumbs.db",
    "desktop.ini",
    "ehthumbs.db",
    "icon\r",
    "__macosx",  # a folder that macOS adds to archives
}


def write_atomically(path: Path, content: str | bytes, lasting: bool = False) -> None:
    """Write a file atomically: readers and killed processes never leave or see half of it.

    Args:
        path: of the file.
        content: all of it.
        lasting: sync it and its name to the disk before returning, so that it survives a loss of power.
    """
    part = path.with_name(path.name + ".part")
    with open(part, "w" if isinstance(content, str) else "wb") as file:
        file.write(content)
        if lasting:
            file.flush()
            os.fsync(file.fileno())
    os.replace(part, path)
    if lasting:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def check_writable(path: Path) -> None:
    """Check, before the work starts, that `write_atomically` can write this file.

    Raises:
        OSError: it cannot.
    """
    part = path.with_name(path.name + ".part")
    if part.exists():  # a user's, or of another process
        os.close(os.open(part, os.O_WRONLY))
    else:
        part.touch(exist_ok=False)
        part.unlink()


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes whenever a file is replaced or written into; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def is_litter(name: str) -> bool:
    """Whether a file is a desktop's own, by its name: .DS_Store, ._*, Thumbs.db."""
    return name.startswith(".") or name.lower() in LITTER


def is_image(name: str) -> bool:
    """Whether a file is an image by its name, and not a desktop's metadata."""
    return os.path.splitext(name)[1].lower() in IMAGES and not is_litter(name)


def folders_below(root: Path) -> Iterator[tuple[str, list[str]]]:
    """A root and each folder below it, with the names of its files; without hidden folders, links to a parent
    and folders that cannot be read.
    """
    ahead, seen = [os.fspath(root)], set[str]()
    while ahead:
        folder = ahead.pop()
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        try:
            entries = [entry for entry in os.scandir(folder) if not is_litter(entry.name)]
        except OSError:  # another user's folder, if the root is a whole disk
            continue
        ahead += [entry.path for entry in entries if entry.is_dir()]
        yield folder, [entry.name for entry in entries if not entry.is_dir()]


def images_by_folder(root: Path, used: Collection[str] = ()) -> dict[str, int]:
    """Folder, relative to a root -> its number of images, for folders whose images are not used."""
    found: dict[str, int] = {}
    for folder, names in folders_below(root):
        suffixes = [os.path.splitext(name)[1].lower() for name in names if folder not in used]
        if number := sum(suffix in IMAGES or suffix in ALMOST for suffix in suffixes):
            found[os.path.relpath(folder, root)] = number
    return dict(sorted(found.items()))


def nearby(root: Path, holds: Collection[str]) -> str:
    """`; use --data_dir X, which contains a/ and b/`, if a folder one or two levels away does, else empty."""
    try:
        inner = [
            Path(entry.path) for entry in os.scandir(root) if entry.is_dir() and not is_litter(entry.name)
        ]
        deeper = [Path(entry.path) for one in inner[:100] for entry in os.scandir(one) if entry.is_dir()]
    except OSError:
        return ""
    around = [root.absolute().parent, *sorted(inner), *sorted(deeper[:1000])]
    right = [path for path in around if all((path / name).is_dir() for name in holds)]
    return (
        f"; use --data_dir {' or '.join(map(str, right[:3]))},"
        f" which contains {' and '.join(f'{n}/' for n in holds)}"
        if right
        else ""
    )


def beside(path: Path) -> str:
    """`; did you mean DIR/PHOTOS?`, for a path that does not exist, or nothing."""
    try:
        near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1, cutoff=0.7)
    except OSError:
        return ""
    return f"; did you mean {path.with_name(near[0])}?" if near else ""


def in_both(train: list[str], val: list[str]) -> dict[int, list[int]] | None:
    """Places in `val` of files whose bytes equal a file's of `train` -> the places of those; None if that is
    too much to read.
    """
    if len(train) + len(val) > MANY:
        return None
    sizes = [in_threads(packed.size_of, part) for part in (train, val)]
    common = set(sizes[0]) & set(sizes[1])
    alike = [[i for i, size in enumerate(each) if size in common] for each in sizes]
    if sum(size for each in sizes for size in each if size in common) > READ_WHOLE:
        return None
    hashed = [
        in_threads(_hash, [part[i] for i in places]) for part, places in zip((train, val), alike, strict=True)
    ]
    known: dict[str, list[int]] = {}
    for i, digest in zip(alike[0], hashed[0], strict=True):
        known.setdefault(digest, []).append(i)
    return {i: known[digest] for i, digest in zip(alike[1], hashed[1], strict=True) if digest in known}


# ------------------------------------------------------------ contents

_look: ContextVar[dict[Any, Any] | None] = ContextVar("look", default=None)


@contextmanager
def one_look() -> Iterator[None]:
    """Within this context the contents of each file and folder are read once; outside it, at every call.

    A run keeps its key from start to end, and a plan of many rows reads their folder once.
    """
    token = None if _look.get() is not None else _look.set({})
    try:
        yield
    finally:
        if token is not None:
            _look.reset(token)


def looked_up(what: Any, compute: Callable[[], Any]) -> Any:
    """`compute()`, or within `one_look` its earlier result under this name."""
    known = _look.get()
    if known is None:
        return compute()
    if what not in known:
        known[what] = compute()
    return known[what]


def expanded(path: str | Path, name: str = "") -> Path:
    """The path with ~ or ~USER expanded.

    Raises:
        UserError: no such user; `name` is the field or flag that it comes from.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{name}={path}: ~ names the home of an unknown user".removeprefix("=")) from None


def cache_root() -> Path:
    """The folder of caches that no flag moves, and of the archives' indexes."""
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "hbo"


def located(path: str | Path) -> Path:
    """The file of a checkpoint: last.ckpt for a run's folder; for a key, that of the one run under runs/.

    Raises:
        UserError: several studies under runs/ have a run with this key.
    """
    path = expanded(path)
    if re.fullmatch(r"[0-9a-f]{10}", str(path)) and not path.exists():
        found = sorted(Path("runs").glob(f"*/{path}/last.ckpt"))
        if len(found) > 1:
            raise UserError(
                f"checkpoint {path}: {len(found)} studies have this run; name one, such as {found[0].parent}"
            )
        return found[0] if found else path
    return path / "last.ckpt" if path.is_dir() else path


def nearest_run(path: Path) -> str:
    """What to name instead of a checkpoint that does not exist: runs of the study or with a similar key."""
    where = path.parent if path.name == "last.ckpt" else path
    if former := sorted(where.parent.glob(f"replaced/{where.name}-*")):  # by --force
        return f"; the run that was there before is {former[-1]}"
    if where.is_dir():
        inside = [one.parent for one in sorted(where.glob("*/last.ckpt"))]
        if not inside or (where / "row.json").exists():
            return ""
        return f"; {where} is a study's folder: name a run of it, such as {inside[0]}"
    known = {one.parent.name: one.parent for one in sorted(Path("runs").glob("*/*/last.ckpt"))}
    known |= {one.parent.name: one.parent for one in sorted(where.parent.glob("*/last.ckpt"))}
    if near := difflib.get_close_matches(where.name, known, n=3, cutoff=0.3):
        return f"; the nearest runs: {', '.join(str(known[one]) for one in near)}"
    latest = sorted(known.values(), key=lambda one: (one / "last.ckpt").stat().st_mtime)[-3:]
    return f"; the latest runs: {', '.join(map(str, latest[::-1]))}" if latest else ""


def checkpoint_digest(path: str, name: str = "backbone_checkpoint") -> str:
    """Digest of a checkpoint's file, ten digits; `name` is the field that names the file.

    Raises:
        UserError: no such file.
    """
    file = located(path)
    if not file.is_file():
        raise UserError(f"{name}={path}: no such file{nearest_run(file)}")
    return looked_up(("file", str(file)), lambda: _hash(file)[:10])


def contents(files: Iterable[str]) -> tuple[list[int | str], bool]:
    """The hash of each file's bytes, and whether every file was hashed in full.

    If the files have more than `READ_WHOLE` bytes together, compressed files are represented by their size:
    in a set that large, sizes identify it, and reading it would take minutes.
    """
    files = list(files)
    sizes = in_threads(packed.size_of, files)
    whole = sum(sizes) <= READ_WHOLE
    read = [whole or os.path.splitext(path)[1].lower() in UNCOMPRESSED for path in files]
    hashes = iter(in_threads(_hash, [path for path, wanted in zip(files, read, strict=True) if wanted]))
    return [next(hashes) if wanted else size for wanted, size in zip(read, sizes, strict=True)], whole


def hashes(files: Iterable[str]) -> list[str]:
    """The hash of each file's bytes, whatever their number."""
    return in_threads(_hash, list(files))


def in_threads(function: Callable[[Any], Any], files: Sequence[Any]) -> list[Any]:
    """The function's result for each file, in order; threads help if the folder is on another machine."""
    order = packed.as_stored(files)
    parts = [order[i : i + 256] for i in range(0, len(files), 256)]
    values: list[Any] = [None] * len(files)
    with ThreadPoolExecutor(8) as pool:
        for part, found in zip(
            parts, pool.map(lambda part: [function(files[i]) for i in part], parts), strict=True
        ):
            for i, value in zip(part, found, strict=True):
                values[i] = value
    return values


def _hash(path: str | Path) -> str:
    return hashlib.sha256(packed.bytes_of(path)).hexdigest()
