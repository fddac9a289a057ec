"""Market-1501's layout: ROOT/bounding_box_train/, query/ and bounding_box_test/ (the gallery); pure functions of a path."""

import os
from hashlib import sha256
from pathlib import Path

from hbo import files
from hbo.errors import DataError
from hbo.tasks.spec import PUBLISHED, Look, digits

TRAIN, QUERY, GALLERY = PARTS = ("bounding_box_train", "query", "bounding_box_test")
MARKET1501 = (12936, 3368, 19732)  # images to train on, queries, gallery


def market1501(root: Path) -> Path:
    """The folder that holds the three; it may be the one that Market-1501's archive makes."""
    inner = root / "Market-1501-v15.09.15"
    return inner if inner.is_dir() else root


def names(root: Path, part: str) -> tuple[list[str], list[str]]:
    """Names of the images of one of the three folders, and of the files that are none; hidden ones are passed over.

    Raises:
        DataError: no such folder, or no image in it.
    """
    folder = root / part
    if not folder.is_dir():
        near = files.nearby(root, PARTS)
        raise DataError(f"{folder}: no such folder; {root} must hold {TRAIN}/, {QUERY}/ and {GALLERY}/{near}")
    found = sorted(e.name for e in os.scandir(folder) if not e.is_dir() and not e.name.startswith("."))
    images = [name for name in found if files.is_image(name)]
    if not images:
        below = files.images_by_folder(folder)
        inner = (
            f" itself, but {sum(below.values())} in folders below it ({', '.join(list(below)[:5])}); move them up"
            if below
            else ""
        )
        raise DataError(f"{folder}: holds no images{inner}")
    return images, [name for name in found if not files.is_image(name)]


def look(root: Path, published: tuple[int, ...] | None = None) -> Look:
    """The fingerprint of the images of all three; none where they are as many as published."""
    images = {part: names(root, part)[0] for part in PARTS}
    if published and tuple(map(len, images.values())) == published:
        return None, PUBLISHED
    named = [(part, name) for part, found in images.items() for name in found]
    paths = [os.path.join(root, part, name) for part, name in named]
    held, whole = files.contents(paths)
    digest = sha256()
    for (part, name), what in zip(named, held, strict=True):
        digest.update(f"{part} {name} {what}\n".encode())
    return digits(digest, whole, paths)


def count(root: Path) -> tuple[int, int, int]:
    """Images to train on and to report, and identities to tell apart, of a folder of one's own.

    Raises:
        DataError: as `hbo.tasks.reid.data.parts`.
    """
    from hbo.tasks.reid.data import parts

    found = parts(root)
    return len(found.train), len(found.queries) + len(found.gallery), len(found.identities)
