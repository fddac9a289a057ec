"""Formats of images with boxes: one reader per format, each `found(root)` ->
`Folder`, or None for another format.

Files are read in place, without conversion. The fingerprint depends on a folder's contents.
"""

from pathlib import Path

from hbo import files
from hbo.errors import DataError
from hbo.tasks.detect.formats import coco, voc, yolo
from hbo.tasks.detect.formats.boxes import Annotated, Folder, classes_of

__all__ = ["Annotated", "Folder", "classes", "classes_of", "count", "opened"]
READERS = {"COCO": coco.found, "YOLO": yolo.found, "VOC": voc.found}


def opened(root: Path, only: str | None = None) -> Folder:
    """Read a folder with the one reader that recognises it.

    Args:
        root: the data set's folder.
        only: the required format.

    Raises:
        DataError: no reader recognises it, or several do (the message says what was
        found); and the reader's own.
    """
    found = {
        name: folder for name, read in READERS.items() if only in (None, name) and (folder := read(root))
    }
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise DataError(
            f"{root}: contains {' and '.join(folder.format for folder in found.values())}; keep one of them"
        )
    if only and (other := [name for name, read in READERS.items() if name != only and read(root)]):
        raise DataError(f"{root}: no {only} annotations, but {other[0]}'s; use --data detectfolder")
    inside = ", ".join(
        sorted(path.name + "/" * path.is_dir() for path in root.iterdir() if not files.is_litter(path.name))[
            :10
        ]
    )
    near = files.nearby(root, ("Annotations", "JPEGImages", "ImageSets")) or files.nearby(
        root, ("annotations",)
    )
    raise DataError(
        f"{root}: no known annotations: must contain COCO's JSON, YOLO's data.yaml, or VOC's XML; it"
        f" contains {inside or 'nothing'}{near}"
    )


def seen(root: Path) -> str:
    """The format of a folder's annotations, a key of READERS, for a message; empty if none. XML is looked
    for only in the folder and directly below it, as the folder may be a whole disk.
    """
    for name, read in READERS.items():
        try:
            if name == "VOC" and not any(any(root.glob(where)) for where in ("*.xml", "*/*.xml")):
                continue
            if read(root):
                return name
        except DataError:  # it has them, and something is wrong with them
            return name
    return ""


def classes(folder: Folder, train: list[Annotated], val: list[Annotated]) -> list[str]:
    """The classes of a data set: those of its training part and, if it lists its classes, listed ones that
    occur only in validation.
    """
    return classes_of([*train, *val] if folder.declared else train)


def count(root: Path, only: str | None = None) -> tuple[int, int, int]:
    """Numbers of training images, validation images and classes of a folder; if it is not split, all images
    count as training images.

    Raises:
        DataError: as the readers do.
    """
    folder = opened(root, only)
    train, val = (
        folder.read(folder.parts.get(name, []), root.name)
        for name in ("all" if "all" in folder.parts else "train", "val")
    )
    return len(train), len(val), len(classes(folder, train, val))
