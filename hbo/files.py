"""Files: written whole or not at all, and identified by what they hold, never by where they lie."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hbo.errors import UserError

READ_WHOLE = 1 << 30  # bytes of a set up to which every byte counts; it takes some seconds
IMAGES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
UNCOMPRESSED = {".bmp", ".ppm", ".pgm", ".pnm", ".tif", ".tiff"}  # whose sizes say nothing of what is in them
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
    sizes = _in_threads(os.path.getsize, files)
    whole = sum(sizes) <= READ_WHOLE
    read = [whole or os.path.splitext(path)[1].lower() in UNCOMPRESSED for path in files]
    hashes = iter(_in_threads(_hash, [path for path, wanted in zip(files, read, strict=True) if wanted]))
    return [next(hashes) if wanted else size for wanted, size in zip(read, sizes, strict=True)], whole


def hashes(files: Iterable[str]) -> list[str]:
    """The hash of each file's bytes, however many."""
    return _in_threads(_hash, list(files))


def _in_threads(function: Callable[[str], Any], files: list[str]) -> list[Any]:
    """The function of each file; a folder on another machine answers several at once."""
    parts = [files[i : i + 256] for i in range(0, len(files), 256)]
    with ThreadPoolExecutor(8) as pool:
        return [value for part in pool.map(lambda part: [function(file) for file in part], parts) for value in part]


def _hash(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
