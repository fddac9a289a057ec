"""Oddities of a folder of images that are not errors: columns for the row, and warnings."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hbo import files
from hbo.data.sources import Files, Get, Part
from hbo.headers import Header
from hbo.names import few_names

NAMED = 20  # folders and images named in a row; all are counted
Audit = tuple[dict[str, Any], list[str]]  # facts, warnings


def paths_of(get: Get) -> list[str]:
    """The files that images are read from."""
    if isinstance(get, Part):
        paths = paths_of(get.get)
        return [paths[i] for i in get.indices]
    assert isinstance(get, Files)
    return get.paths


def names_of(images: Any, root: str | None) -> list[str] | None:
    """The files of a part's images, relative to the set's folder; bare names if they lie elsewhere; None for
    tensors.

    Args:
        images: the part, of any task.
        root: `data_dir`: the set's folder, or the list in it.
    """
    get = getattr(images, "source", None)
    while isinstance(get, Part):
        get = get.get
    if get is not None and not isinstance(get, Files):
        return None
    paths = map(os.path.abspath, images.paths if get is None else paths_of(images.source))
    whole = Path(os.path.abspath(files.expanded(root or ".")))  # `..` resolved as in the paths
    start = root and os.path.join(whole.parent if whole.is_file() else whole, "")
    return [p.removeprefix(start) if start and p.startswith(start) else os.path.basename(p) for p in paths]


def left_out(root: Path, used: set[str], why: str) -> Audit:
    """Images below a root in folders other than the used ones.

    Args:
        root: the set's.
        used: folders whose own images are read.
        why: where images must lie, for the message.
    """
    found = files.images_by_folder(root, used)
    return said_left_out(root, {f"{folder}/": number for folder, number in found.items()}, why)


def said_left_out(root: Path, found: dict[str, int], why: str) -> Audit:
    """The same for folders or files that are already found, each with its number of images."""
    number = sum(found.values())
    named = [f"{where}: {n}" for where, n in list(found.items())[:NAMED]]
    more = f" and {len(found) - 3} more places" if len(found) > 3 else ""
    images = "1 image is" if number == 1 else f"{number} images are"
    told = [f"{root}: {images} not used ({', '.join(named[:3])}{more}); {why}"] if number else []
    return {"images_left_out": number, "left_out": named}, told


def classes_without(labels: list[int], names: list[str], single: Collection[str] = ()) -> Audit:
    """Classes without validation images; `single`: those with 1 image, which `val_split` cannot split."""
    there = set(labels)
    lacking = [name for i, name in enumerate(names) if i not in there]
    alone = [name for name in lacking if name in single]
    why = f" (val_split needs at least 2 images of a class, and {few_names(alone)} has 1)" if alone else ""
    told = (
        [f"{few_names(lacking)}: no validation images{why}; means over classes use the other {len(there)}"]
        if lacking
        else []
    )
    return {"classes_not_in_val": lacking}, told


def exif(found: Mapping[str, Header] | None) -> Audit:
    """Numbers of photographs that EXIF rotates, and of those with unreadable EXIF; None if headers were not
    read.

    Args:
        found: path -> header.
    """
    if found is None:
        return {"turned_images": None, "broken_exif": None}, []
    broken = [path for path, header in found.items() if header.broken]
    told = [
        f"{len(broken)} images have EXIF that cannot be read, and are used unrotated: {few_names(broken)}"
    ]
    return {
        "turned_images": sum(header.turned for header in found.values()),
        "broken_exif": len(broken),
    }, told if broken else []


def in_both(
    train: list[str], val: list[str], *, labels: tuple[Sequence[str], Sequence[str]] | None = None
) -> Audit:
    """Number of images that are in both parts, byte for byte; None if counting would take too long.

    Args:
        train: the training images.
        val: the validation images.
        labels: the class of each, for a classifier: a copy in another class is a labelling error.
    """
    both = files.in_both(train, val)
    if both is None:
        return {"also_in_val": None}, []
    label = (lambda part, i: labels[part][i]) if labels else lambda part, i: ""
    odd = [(i, j) for i, copies in both.items() for j in copies if label(0, j) != label(1, i)]
    same = [i for i, copies in both.items() if any(label(0, j) == label(1, i) for j in copies)]
    told = []
    if same:
        are = "is also a training image" if len(same) == 1 else "are also training images"
        told.append(
            f"{len(same)} of the {len(val)} validation images {are}, byte for byte (such as"
            f" {val[same[0]]}): the metrics are too good"
        )
    if odd:
        number, (i, j) = len({i for i, _ in odd}), odd[0]
        are = (
            "is a training image of another class" if number == 1 else "are training images of other classes"
        )
        told.append(
            f"{number} of the {len(val)} validation images {are}, byte for byte ({val[i]} is {label(1, i)!r},"
            f" {train[j]} is {label(0, j)!r}): a labelling error; correct the label that is wrong"
        )
    return {"also_in_val": len(both)}, told
