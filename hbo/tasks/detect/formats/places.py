"""Parts of a data set: words for training and validation, images by folder, and the fingerprint."""

import os
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from hbo import files
from hbo.errors import DataError
from hbo.tasks.spec import Look, digits

WORDS = {
    "train": "train", "training": "train", "trainval": "train", "val": "val", "valid": "val",
    "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
USUAL_IMAGES = ("jpegimages", "images", "image", "imgs", "img", "photos")


def part_in(name: str) -> str | None:
    """The part that a name means, such as `train2017`, `instances_val` or `valid`; None for other names."""
    return next((WORDS[word] for word in re.findall(r"[a-z]+", name.lower()) if word in WORDS), None)


def part_of(path: Path, root: Path) -> str | None:
    """The part of a file, by the first folder below the root whose name means one."""
    inner = path.parent.relative_to(root).parts
    words = (re.fullmatch(r"([a-z]+)[_-]?\d*", name.lower()) for name in inner)
    return next((WORDS[word[1]] for word in words if word and word[1] in WORDS), None)


def below(root: Path, suffix: str = "") -> list[Path]:
    """Images below a folder, or files with other suffixes; sorted."""
    wanted = (lambda name: name.lower().endswith(suffix)) if suffix else files.is_image
    return sorted(
        Path(folder) / name for folder, names in files.folders_below(root) for name in names if wanted(name)
    )


def parts_of(found: Mapping[str, list[str]], root: Path, what: str) -> dict[str, list[str]]:
    """Training and validation images, from val rather than test; or all, if there are no parts.

    Raises:
        DataError: no image to train on or to validate on, or one in both.
    """
    if list(found) == ["all"]:
        return dict(found)
    reported = next((name for name in ("val", "test") if found.get(name)), None)
    if reported is None or not found.get("train"):
        there = ", ".join(f"{name} ({len(paths)} images)" for name, paths in found.items()) or "no part"
        raise DataError(f"{root}: {what} with {there}; a split data set needs train, and val or test")
    if both := sorted(set(found["train"]) & set(found[reported])):
        raise DataError(f"{root}: {what} of train and of {reported} both contain {os.path.basename(both[0])}")
    return {"train": found["train"], "val": found[reported]}


def look(root: Path, parts: Mapping[str, Sequence[str]], read: Sequence[str]) -> Look:
    """The fingerprint of images and annotation files, with their paths below the root.

    Args:
        root: the data set's folder.
        parts: images.
        read: annotation files; missing ones are marked as missing.
    """
    digest = sha256()
    images = [path for paths in parts.values() for path in paths]
    digest.update(repr([(name, len(paths)) for name, paths in parts.items()]).encode())
    whole = []
    for paths in (
        sorted(path for path in read if os.path.isfile(path)),
        [path for path in images if os.path.isfile(path)],
    ):
        held, all_bytes = files.contents(paths)
        whole.append(all_bytes)
        for path, what in zip(paths, held, strict=True):
            digest.update(f"{Path(os.path.relpath(path, root)).as_posix()} {what}".encode())
    return digits(digest, all(whole), images)
