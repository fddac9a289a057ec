"""PASCAL VOC's layout: ROOT/Annotations/ID.xml, JPEGImages/ID.jpg, ImageSets/Main/SPLIT.txt; pure functions
of a path.
"""

import os
import re
from collections import Counter
from hashlib import sha256
from pathlib import Path

from hbo import files
from hbo.errors import DataError
from hbo.tasks.spec import PUBLISHED, Look, digits

PUBLISHED_LISTS = (5011, 11540, 4952)  # images of trainval 2007 and 2012, and of test 2007
Lists = list[tuple[Path, str]]


def devkit(root: Path) -> Lists:
    """The folders and lists of VOC 2007 and 2012: for training, and last the one for evaluation."""
    root = root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root
    return [(root / "VOC2007", "trainval"), (root / "VOC2012", "trainval"), (root / "VOC2007", "test")]


def names(root: Path, split_name: str) -> list[str]:
    """The names of a list, in its order.

    Raises:
        DataError: the folder or the list is missing, cannot be read, is empty, or repeats an image.
    """
    listing = root / "ImageSets" / "Main" / f"{split_name}.txt"
    for path, what in (
        (root, "a folder with Annotations/, JPEGImages/ and ImageSets/Main/"),
        (listing, "a list of images"),
    ):
        if not path.exists():
            near = files.nearby(root, ("Annotations", "JPEGImages", "ImageSets"))
            raise DataError(f"{path}: missing; VOC's layout has {what} there{near}")
    try:
        text = listing.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{listing}: a list must be text in UTF-8 ({error})") from None
    found = [_name(root, line.strip()) for line in text.splitlines() if line.strip()]
    if not found:
        raise DataError(f"{listing}: an empty list")
    if twice := [name for name, n in Counter(found).items() if n > 1]:
        raise DataError(f"{listing}: lists {twice[0]} more than once")
    return found


def _name(root: Path, line: str) -> str:
    """The name on a line of a list, without suffix: the whole line, spaces included, or the part before a
    class list's 1, 0 or -1.
    """
    labelled = re.fullmatch(r"(.*\S)\s+(1|0|-1)", line)
    known = lambda name: (root / "Annotations" / f"{name}.xml").exists()
    name = line if labelled is None or known(line) else labelled[1]
    return name if known(name) or not files.is_image(name) else Path(name).stem


def images(root: Path) -> dict[str, list[str]]:
    """Stem -> paths of the images of JPEGImages/, sorted by name.

    Raises:
        DataError: no such folder.
    """
    folder = root / "JPEGImages"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found: dict[str, list[str]] = {}
    for path in sorted(e.path for e in os.scandir(folder) if files.is_image(e.name)):
        found.setdefault(Path(path).stem, []).append(path)
    return found


def look(lists: Lists, published: tuple[int, ...] | None = None) -> Look:
    """The fingerprint of the lists, and of the annotations and images that they name; None if
    they have the published lengths.
    """
    named = [(root, split_name, names(root, split_name)) for root, split_name in lists]
    if published and tuple(len(found) for *_, found in named) == published:
        return None, PUBLISHED
    digest, paths = sha256(), []
    for root, split_name, _ in named:
        digest.update((root / "ImageSets" / "Main" / f"{split_name}.txt").read_bytes())
    for root in dict.fromkeys(root for root, *_ in named):
        wanted = {name for other, _, found in named if other == root for name in found}
        for file in sorted(root / "Annotations" / f"{name}.xml" for name in wanted):
            digest.update(file.name.encode() + (file.read_bytes() if file.is_file() else b""))
        paths += sorted(path for stem, same in images(root).items() if stem in wanted for path in same)
    held, whole = files.contents(paths)
    for path, what in zip(paths, held, strict=True):
        digest.update(f"{os.path.basename(path)} {what}".encode())
    return digits(digest, whole, paths)
