"""A folder a class: ROOT/train/CLASS/* and ROOT/val/CLASS/*; pure functions of a path."""

import os
from hashlib import sha256
from pathlib import Path

from hbo import files
from hbo.errors import DataError
from hbo.names import same_name
from hbo.tasks.spec import PUBLISHED, Counts, Look, digits

PARTS = ("train", "val")


def classes(folder: Path) -> list[str]:
    """Names of the folders of a part, sorted."""
    return sorted(same_name(e.name) for e in os.scandir(folder) if e.is_dir() and not files.is_litter(e.name))


def scan(root: Path, split_name: str) -> dict[str, list[Path]]:
    """Class -> its images, both sorted by name.

    Raises:
        DataError: no such folder, images outside a class folder, an empty class, or a file that is no image by its name.
    """
    folder = root / split_name
    if not folder.is_dir():
        held = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not files.is_litter(entry.name))
        inner = f"; it holds {', '.join(f'{name}/' for name in held[:10])}" if held else ""
        raise DataError(
            f"{folder}: no such folder; {root} must hold train/ and val/, each with a folder a class{inner}{files.nearby(root, PARTS)}"
        )
    entries = sorted(e for e in folder.iterdir() if not files.is_litter(e.name))
    if loose := [e for e in entries if e.is_file() and e.suffix.lower() in files.IMAGES]:
        raise DataError(f"{loose[0]}: lies outside a class; sort the images of {folder} into a folder a class")
    found: dict[str, list[Path]] = {}
    for entry in (e for e in entries if e.is_dir()):
        inside = sorted(Path(e.path) for e in os.scandir(entry) if e.is_file() and not files.is_litter(e.name))
        if odd := [f for f in inside if f.suffix.lower() not in files.IMAGES]:
            many = f" ({len(odd)} such files there)" if len(odd) > 1 else ""
            raise DataError(
                f"{odd[0]}: no image by its name{many}; an image must be converted to {', '.join(sorted(files.IMAGES))}, what is"
                f" none moved out of {folder}"
            )
        if not inside and (below := files.images_by_folder(entry)):
            raise DataError(
                f"{entry}: holds no images itself, but {sum(below.values())} in folders below it ({', '.join(list(below)[:5])});"
                f" move them up into {entry}, or their folders into {folder} if each is a class{files.nearby(root, PARTS)}"
            )
        if not inside:
            raise DataError(f"{entry}: an empty class; remove the folder or fill it")
        if found.setdefault(same_name(entry.name), inside) is not inside:
            raise DataError(f"{entry}: two folders of this name, in two forms of Unicode; move them into one")
    if not found:
        raise DataError(f"{folder}: holds no class folders")
    return dict(sorted(found.items()))


def count(root: Path) -> tuple[int, int, int]:
    """Images to train on, to report, and classes.

    Raises:
        DataError: as `scan`.
    """
    parts = [scan(root, part) for part in PARTS]
    check_two(root, list(parts[0]))
    train, val = (sum(map(len, part.values())) for part in parts)
    return train, val, len(parts[0])


def check_two(root: Path, names: list[str]) -> None:
    """Refuse a single class, of which there is nothing to learn.

    Raises:
        DataError: says what lies one level off, the usual cause.
    """
    if len(names) > 1:
        return
    one = root / "train" / names[0]
    inner = [folder for folder in files.images_by_folder(one) if folder != "."]
    below = (
        f"; {one} holds {', '.join(f'{name}/' for name in inner[:10])}: classes would lie in {root / 'train'}" if inner else ""
    )
    raise DataError(
        f"{root / 'train'}: holds one class, {names[0]}/, and a classifier needs two; is data_dir={root} one level off?"
        f"{below}{files.nearby(root, PARTS)}"
    )


def look(root: Path | None, published: Counts | None = None) -> Look:
    """The fingerprint of what both parts hold; none where they have as many images as were published."""
    assert root is not None
    if published and tuple(_count(root / part) for part in PARTS) == published:
        return None, PUBLISHED
    every = [(part, name, inside) for part in PARTS for name, inside in scan(root, part).items()]
    paths = [os.fspath(file) for *_, inside in every for file in inside]
    contents, whole = files.contents(paths)
    held, digest = iter(contents), sha256()
    for part, name, inside in every:
        digest.update(repr([(part, name, file.name, next(held)) for file in inside]).encode())
    return digits(digest, whole, paths)


def _count(folder: Path) -> int:
    """Images in a folder of class folders, without their names being kept: ImageNet has 1.3 million."""
    if not folder.is_dir():
        return 0
    classes = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
    return sum(files.is_image(entry.name) for one in classes for entry in os.scandir(one))
