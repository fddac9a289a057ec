"""Files: written whole or not at all, and identified by what they hold, never by where they lie."""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hbo.errors import UserError

MANY = 100_000  # files whose sizes, and whose headers, are still looked at one by one
READ_WHOLE = 1 << 30  # bytes of a set up to which every byte counts; it takes some seconds
IMAGES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
UNCOMPRESSED = {".bmp", ".ppm", ".pgm", ".pnm", ".tif", ".tiff"}  # whose sizes say nothing of what is in them
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
}  # not read
LITTER = {"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"}  # what desktops leave in any folder; so are hidden files


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that no reader, and no kill, ever meets half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def is_litter(name: str) -> bool:
    """Whether a file's name says that a desktop left it there: .DS_Store, ._*, Thumbs.db."""
    return name.startswith(".") or name.lower() in LITTER


def is_image(name: str) -> bool:
    """Whether a file is an image by its name, and not a desktop's shadow of one."""
    return os.path.splitext(name)[1].lower() in IMAGES and not is_litter(name)


def folders_below(root: Path) -> Iterator[tuple[str, list[str]]]:
    """A root and each folder below it, with the names of its files; what is hidden, a link back, and what may not be read left out."""
    ahead, seen = [os.fspath(root)], set[str]()
    while ahead:
        folder = ahead.pop()
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        try:
            entries = [entry for entry in os.scandir(folder) if not is_litter(entry.name)]
        except OSError:  # of somebody else's, in a root that is a whole disk
            continue
        ahead += [entry.path for entry in entries if entry.is_dir()]
        yield folder, [entry.name for entry in entries if not entry.is_dir()]


def images_by_folder(root: Path, used: Collection[str] = ()) -> dict[str, int]:
    """Folder below a root, as written from there -> how many images lie in it; not of those folders whose images are used."""
    found: dict[str, int] = {}
    for folder, names in folders_below(root):
        suffixes = [os.path.splitext(name)[1].lower() for name in names if folder not in used]
        if number := sum(suffix in IMAGES or suffix in ALMOST for suffix in suffixes):
            found[os.path.relpath(folder, root)] = number
    return dict(sorted(found.items()))


def nearby(root: Path, holds: Collection[str]) -> str:
    """`; take --data_dir X, which holds a/ and b/`, where a folder one or two levels off does; nothing where none does."""
    try:
        inner = [Path(entry.path) for entry in os.scandir(root) if entry.is_dir() and not is_litter(entry.name)]
        deeper = [Path(entry.path) for one in inner[:100] for entry in os.scandir(one) if entry.is_dir()]
    except OSError:
        return ""
    around = [root.absolute().parent, *sorted(inner), *sorted(deeper[:1000])]
    right = [path for path in around if all((path / name).is_dir() for name in holds)]
    return (
        f"; take --data_dir {' or '.join(map(str, right[:3]))}, which holds {' and '.join(f'{n}/' for n in holds)}"
        if right
        else ""
    )


def in_both(train: list[str], val: list[str]) -> list[str] | None:
    """Those of `val` whose bytes one of `train` has too; None where that would be too much to read."""
    if len(train) + len(val) > MANY:
        return None
    sizes = [in_threads(os.path.getsize, part) for part in (train, val)]
    common = set(sizes[0]) & set(sizes[1])
    alike = [
        [p for p, size in zip(part, each, strict=True) if size in common]
        for part, each in zip((train, val), sizes, strict=True)
    ]
    if sum(size for each in sizes for size in each if size in common) > READ_WHOLE:
        return None
    known = set(in_threads(_hash, alike[0]))
    return [path for path, digest in zip(alike[1], in_threads(_hash, alike[1]), strict=True) if digest in known]


# ------------------------------------------------------------ what files hold

_look: ContextVar[dict[Any, Any] | None] = ContextVar("look", default=None)


@contextmanager
def one_look() -> Iterator[None]:
    """Within it each file and folder is read once for its contents; outside of it, each time that it is asked for.

    A run keeps one key from its start to its end, and a plan of many rows reads their folder once.
    """
    token = None if _look.get() is not None else _look.set({})
    try:
        yield
    finally:
        if token is not None:
            _look.reset(token)


def looked_up(what: Any, compute: Callable[[], Any]) -> Any:
    """`compute()`, or within `one_look` what it gave before under this name."""
    known = _look.get()
    if known is None:
        return compute()
    if what not in known:
        known[what] = compute()
    return known[what]


def expanded(path: str | Path, name: str = "") -> Path:
    """The path with its ~ or ~USER replaced.

    Raises:
        UserError: no such user; `name` is the field or flag that it comes from.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{name}={path}: ~ names the home of a user that is not known here".removeprefix("=")) from None


def located(path: str | Path) -> Path:
    """The file that a checkpoint's name means: a run's folder is its last.ckpt."""
    path = expanded(path)
    return path / "last.ckpt" if path.is_dir() else path


def checkpoint_digest(path: str) -> str:
    """What a checkpoint's file holds, in ten digits.

    Raises:
        UserError: no such file.
    """
    file = located(path)
    if not file.is_file():
        raise UserError(f"backbone_checkpoint={path}: no such file")
    return looked_up(("file", str(file)), lambda: _hash(file)[:10])


def contents(files: Iterable[str]) -> tuple[list[int | str], bool]:
    """What each file holds: the hash of its bytes; and whether that is so for every file.

    Where the files have more than `READ_WHOLE` bytes together, a compressed one stands for its size alone: of that much, sizes
    identify a set, and reading it would take minutes.
    """
    files = list(files)
    sizes = in_threads(os.path.getsize, files)
    whole = sum(sizes) <= READ_WHOLE
    read = [whole or os.path.splitext(path)[1].lower() in UNCOMPRESSED for path in files]
    hashes = iter(in_threads(_hash, [path for path, wanted in zip(files, read, strict=True) if wanted]))
    return [next(hashes) if wanted else size for wanted, size in zip(read, sizes, strict=True)], whole


def hashes(files: Iterable[str]) -> list[str]:
    """The hash of each file's bytes, however many."""
    return in_threads(_hash, list(files))


def in_threads(function: Callable[[Any], Any], files: Sequence[Any]) -> list[Any]:
    """The function of each file, in their order; a folder on another machine answers several at once."""
    parts = [files[i : i + 256] for i in range(0, len(files), 256)]
    with ThreadPoolExecutor(8) as pool:
        return [value for part in pool.map(lambda part: [function(file) for file in part], parts) for value in part]


def _hash(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
