"""Layouts of a folder of images to classify; pure functions of a path.

ROOT/train/CLASS/*, ROOT/val/CLASS/*     val/ may be called valid/, validation/ or test/; the first that
          exists is used
ROOT/CLASS/*                             not split: `val_split` is the validation share
FILE.csv, or ROOT with one CSV in it     path,label[,split]: `hbo.tasks.classify.listed`
ROOT/train-*.tar, ROOT/val-*.parquet     the first of these in an archive: `hbo.archives`
"""

import os
import re
from collections.abc import Iterable
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

from hbo import archives, files
from hbo.errors import DataError, UserError
from hbo.names import same_name
from hbo.packed import File
from hbo.tasks.classify import listed
from hbo.tasks.classify.listed import REPORTED, WHOLE, Part, Parts
from hbo.tasks.spec import PUBLISHED, Counts, Look, digits

PARTS: tuple[Part, ...] = ("train", "val")
ORIGINAL = re.compile(r"(n\d{8})/(\1|ILSVRC2012_val)_\d+\.JPEG")  # a photograph of ImageNet in its folder
Kind = Literal["parts", "classes", "csv", "archive"]
assert set(PARTS) < set(get_args(Part))


def kind(root: Path) -> Kind:
    """The layout: "parts" (also if unclear), class folders only, a CSV, or archives.

    Raises:
        DataError: archives beside another layout, or as `archives.found`.
    """
    if root.is_file():
        return "csv"
    shards = archives.found(root)
    how = _unpacked(root)
    if not shards:
        return how
    (first, *_), *_ = (one.paths for one in shards.values())
    if how == "parts" and not any(part_folder(root, part).is_dir() for part in PARTS):
        return "archive"
    if first.name in archives.IMAGENET:  # torchvision leaves them beside the folders that it extracts
        return how
    if how == "csv":
        other = f"{listed.found(root)[0].name}, which --data_dir may name"
    else:
        other = " and ".join(f"{folder.name}/" for folder in _folders(root)[:3])
    raise DataError(f"{root}: holds {first.name} and {other}; keep one of them")


def _unpacked(root: Path) -> Literal["parts", "classes", "csv"]:
    """The layout of images that are not in an archive."""
    train, reported = (part_folder(root, part) for part in PARTS)
    if train.is_dir() and reported.is_dir() and any(_folders(train)):
        return "parts"
    if len(listed.found(root)) == 1:
        return "csv"
    if train.is_dir() or reported.is_dir():
        return "parts"
    return "classes" if any(_images(folder, 1) for folder in _folders(root)) else "parts"


def part_folder(root: Path, part: str) -> Path:
    """The folder of a part, in upper or lower case: train/; for val the first of val/, valid/, validation/
    and test/ that exists.
    """
    there = {folder.name.lower(): folder for folder in _folders(root)}  # sorted, so train/ wins over Train/
    return next(
        (there[name] for name in (REPORTED if part == "val" else (part,)) if name in there), root / part
    )


def said_parts(root: Path) -> str:
    """A note on which of several folders is used for validation; empty if there is one."""
    there = [folder.name for folder in _folders(root) if folder.name.lower() in REPORTED]
    used = part_folder(root, "val").name
    others = [f"{name}/" for name in there if name != used]
    return f"; {used}/ is used for validation, {' and '.join(others)} is not used" if others else ""


def _folders(root: Path) -> list[Path]:
    """Folders in a folder, sorted; empty if it is not a folder."""
    if not root.is_dir():
        return []
    return sorted(Path(e.path) for e in os.scandir(root) if e.is_dir() and not files.is_litter(e.name))


def classes(folder: Path) -> list[str]:
    """Names of the folders of a part, sorted."""
    return sorted(same_name(one.name) for one in _folders(folder))


def holds_images(root: Path) -> bool:
    """Whether the folder has one of these layouts, judged by names alone."""
    if root.is_file():
        return root.suffix.lower() == ".csv"
    if kind(root) != "parts":
        return True
    return any(any(_images(folder, 1) for folder in _folders(part_folder(root, part))) for part in PARTS)


def contents(root: Path) -> Parts:
    """Part -> class -> its images, all sorted; the single part `whole` if they are not split.

    Raises:
        DataError: as `scan`, as `listed.read`, or as `archives.members`.
    """
    how = kind(root)
    if how == "archive":
        return {part: archives.members(root, part) for part in PARTS}
    if how == "csv":
        return listed.read(root if root.is_file() else listed.found(root)[0])
    return (
        {WHOLE: scan_folder(root, root)} if how == "classes" else {part: scan(root, part) for part in PARTS}
    )


def scan(root: Path, part: str) -> dict[str, list[File]]:
    """Class -> its images, both sorted by name.

    Raises:
        DataError: no such folder, its images are in no folders, or as `scan_folder`.
    """
    folder = part_folder(root, part)
    if not folder.is_dir():
        if not any(part_folder(root, one).is_dir() for one in PARTS) and (why := unsorted(root)):
            raise DataError(f"{root}: {why}")
        held = [one.name for one in _folders(root)]
        inner = f"; it contains {', '.join(f'{name}/' for name in held[:10])}" if held else ""
        loose = listed.found(root)
        inner += f"; it has {len(loose)} CSV files: name one, --data_dir {loose[0]}" if len(loose) > 1 else ""
        or_ = f" (or {', '.join(f'{name}/' for name in REPORTED[1:])})" if part == "val" else ""
        raise DataError(
            f"{folder}: no such folder; {root} must contain train/ and val/{or_}, each with one folder per"
            f" class{inner}{files.nearby(root, PARTS)}"
        )
    return scan_folder(folder, root)


def unsorted(root: Path) -> str:
    """Why a folder without train/ and val/ has no classes: its images lie loose in it, or there are none; and
    where they belong. Empty if its folders have images.
    """
    into = f"put them into {root}/CLASS/, or {root}/train/CLASS/ and {root}/val/CLASS/"
    if loose := _images(root, files.MANY):
        return f"{loose} image{'s' * (loose > 1)} but no class folders; {into}"
    if not any(any(map(files.is_image, names)) for _, names in files.folders_below(root)):
        shards = archives.nearby(root)
        return f"contains no images ({', '.join(sorted(files.IMAGES))}){shards or f'; {into}'}"
    return ""


def _lists_all(root: Path) -> str:
    """Which command lists all such faults of `data_dir` at once; empty if it knows no class there."""
    return f"; python -m hbo.data.check {root} lists all" if holds_images(root) else ""


def scan_folder(folder: Path, root: Path) -> dict[str, list[File]]:
    """Class -> its images, both sorted by name, in a folder with one folder per class; `root` is `data_dir`.

    Raises:
        DataError: images outside a class folder, an empty class, a file whose name is not an image's, or a
            link that leads nowhere.
    """
    entries = sorted(e for e in folder.iterdir() if not files.is_litter(e.name))
    _check_links(entries)
    if loose := [e for e in entries if e.is_file() and e.suffix.lower() in files.IMAGES]:
        raise DataError(
            f"{loose[0]}: is outside a class folder; sort the images of {folder} into one folder per class"
        )
    found: dict[str, list[File]] = {}
    for entry in (e for e in entries if e.is_dir()):
        held = [e for e in os.scandir(entry) if not e.is_dir() and not files.is_litter(e.name)]
        _check_links(Path(e.path) for e in held if not e.is_file())
        inside: list[File] = sorted(Path(e.path) for e in held if e.is_file())
        if odd := [f for f in inside if os.path.splitext(f)[1].lower() not in files.IMAGES]:
            many = f" ({len(odd)} such files here)" if len(odd) > 1 else ""
            raise DataError(
                f"{odd[0]}: not an image by its name{many}; convert images to"
                f" {', '.join(sorted(files.IMAGES))}, and move other files out of {folder}{_lists_all(root)}"
            )
        if not inside and (below := files.images_by_folder(entry)):
            raise DataError(
                f"{entry}: contains no images itself, but {sum(below.values())} in its subfolders"
                f" ({', '.join(list(below)[:5])}); move them up into {entry}, or their folders into {folder}"
                f" if each is a class{files.nearby(root, PARTS)}"
            )
        if not inside:
            raise DataError(f"{entry}: an empty class; remove the folder or fill it{_lists_all(root)}")
        if found.setdefault(same_name(entry.name), inside) is not inside:
            raise DataError(f"{entry}: two folders with this name, in two forms of Unicode; merge them")
    if not found:
        raise DataError(f"{folder}: contains no class folders{archives.in_part(folder)}")
    return dict(sorted(found.items()))


def _check_links(paths: Iterable[Path]) -> None:
    """Check that no image or class is missing because its link leads nowhere.

    Raises:
        DataError: names the first such link.
    """
    if broken := sorted(path for path in paths if path.is_symlink() and not path.exists()):
        raise DataError(
            f"{broken[0]}: a link to {os.readlink(broken[0])}, which does not exist; fix or remove it"
        )


def check_split(root: Path, share: float) -> None:
    """Check `val_split`: needed for an unsplit folder, an error for a split one.

    Raises:
        UserError: a share for a split folder.
        DataError: no share for an unsplit one; says what was found; or a folder of neither layout.
    """
    how = kind(root)
    if how == "parts" and not any(part_folder(root, part).is_dir() for part in PARTS):
        scan(root, "train")  # raises
    split = how in ("parts", "archive") or (how == "csv" and WHOLE not in contents(root))
    if split and share:
        what = "folders" if how == "parts" else "shards"
        what = "its CSV has a column split" if how == "csv" else f"it has {what} for training and validation"
        raise UserError(f"val_split={share}: {root} is already split, {what}; remove --val_split")
    if split or share:
        return
    if how == "csv":
        raise DataError(
            f"{root}: its CSV has no column split; use --val_split 0.2 to validate on a share of each class"
        )
    held = classes(root)
    more = f" and {len(held) - 10} more" if len(held) > 10 else ""
    raise DataError(
        f"{root}: is not split into train/ and val/ (or"
        f" {', '.join(f'{name}/' for name in REPORTED[1:])}); it contains"
        f" {', '.join(f'{name}/' for name in held[:10])}{more}; use --val_split 0.2 to validate on a share"
        f" of each{files.nearby(root, PARTS)}"
    )


def count(root: Path) -> tuple[int, int, int]:
    """Numbers of training images, validation images (0 if not split) and classes.

    Raises:
        DataError: as `contents`.
    """
    parts = contents(root)
    train = parts.get("train", parts.get(WHOLE, {}))
    check_two(root, list(train))
    number = lambda part: sum(map(len, part.values()))
    return number(train), number(parts.get("val", {})), len(train)


def training_images(root: Path, most: int) -> int | None:
    """Number of training images, or of all if they are not split; `most` if there are more, None if unknown.

    Reads only names, and at most `most` of them: it runs before any check.
    """
    try:
        if (how := kind(root)) == "csv":
            parts = contents(root)
            return min(most, sum(map(len, parts.get("train", parts.get(WHOLE, {})).values())))
        if how == "archive":
            return min(most, len(archives.opened(archives.found(root)["train"])))
        found = 0
        for folder in _folders(root if how == "classes" else part_folder(root, "train")):
            found += _images(folder, most - found)
        return found or None
    except (OSError, KeyError, UserError):
        return None


def _images(folder: Path, most: int) -> int:
    """Images directly in a folder, counted up to a limit."""
    with os.scandir(folder) as entries:
        return sum(1 for _ in islice((e for e in entries if files.is_image(e.name)), most))


def check_two(root: Path, names: list[str]) -> None:
    """Check that there is more than one class.

    Raises:
        DataError: names the folders one level away, the usual cause.
    """
    if len(names) > 1:
        return
    if (how := kind(root)) == "csv":
        raise DataError(
            f"{root}: its CSV has one training label, {', '.join(names)}, and a classifier needs two"
        )
    if how == "archive":
        raise DataError(f"{root}: its shards hold one class, {names[0]}, and a classifier needs two")
    where = root if how == "classes" else part_folder(root, "train")
    one = where / names[0]
    inner = [folder for folder in files.images_by_folder(one) if folder != "."]
    below = (
        f"; {one} contains {', '.join(f'{name}/' for name in inner[:10])}: classes must be in {where}"
        if inner
        else ""
    )
    raise DataError(
        f"{where}: contains one class, {names[0]}/, and a classifier needs two; is data_dir={root} one level"
        f" off?{below}{files.nearby(root, PARTS)}"
    )


def look(root: Path | None, published: Counts | None = None) -> Look:
    """The fingerprint of the images read; None if train/ and val/ have the published numbers of images.

    It depends on parts, classes, file names and bytes: valid/ and val/ with the same images are the same
    set, and so are a folder, a CSV that lists its images, and an archive that would unpack to it.
    """
    assert root is not None
    packed = kind(root) == "archive"
    if published and not packed and tuple(_count(part_folder(root, part)) for part in PARTS) == published:
        return None, PUBLISHED
    found: Parts = {part: scan(root, part) for part in PARTS} if published and not packed else contents(root)
    if published and packed and _as_published(found, published):
        return None, PUBLISHED
    every = [(part, name, inside) for part, classes in found.items() for name, inside in classes.items()]
    paths = [os.fspath(file) for *_, inside in every for file in inside]
    contained, whole = files.contents(paths)
    held, digest = iter(contained), sha256()
    for part, name, inside in every:
        digest.update(repr([(part, name, file.name, next(held)) for file in inside]).encode())
    return digits(digest, whole, paths)


def _as_published(found: Parts, published: Counts) -> bool:
    """Whether an archive contains ImageNet under its own names: other names give another order."""
    counts = tuple(sum(map(len, found[part].values())) for part in PARTS)
    return counts == published and all(
        ORIGINAL.fullmatch(f"{label}/{file.name}")
        for classes in found.values()
        for label, inside in classes.items()
        for file in inside
    )


def _count(folder: Path) -> int:
    """Number of images in a folder of class folders, without storing names: ImageNet has 1.3 million."""
    if not folder.is_dir():
        return 0
    classes = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
    return sum(files.is_image(entry.name) for one in classes for entry in os.scandir(one))
