"""PASCAL VOC's XML: with lists in ImageSets/Main, in train/ and valid/, or all in one folder; beside the
images or in separate folders.

VOC counts pixels from 1 and includes the last one; here a box is continuous:
(xmin - 1, ymin - 1, xmax, ymax).
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hbo.errors import DataError
from hbo.headers import header_of
from hbo.names import same_name
from hbo.tasks.detect import layout
from hbo.tasks.detect.formats import places
from hbo.tasks.detect.formats.boxes import Annotated, Folder, numbers

FORMAT = "VOC's XML"
# Lists; the first pair that exists is used.
PAIRS = (
    ("trainval", "test"),
    ("train", "val"),
    ("train", "valid"),
    ("train", "test"),
)
REPORTED = ("test", "val", "valid")
WHOLE = ("default", "all", "trainval", "train")  # a single list


def found(root: Path) -> Folder | None:
    """The folder if it contains such XML, else None.

    Raises:
        DataError: missing lists, or lists that repeat an image; XML without an image, or with two.
    """
    return _listed(root) if (root / "ImageSets").is_dir() else _by_folder(root)


def listed(root: Path, lists: Sequence[str], published: bool = False) -> Folder:
    """A folder in VOC's own layout; its parts have the names of its lists.

    Args:
        root: with Annotations/, JPEGImages/ and ImageSets/.
        lists: names.
        published: accept annotations whose `<size>` differs from the image's.

    Raises:
        DataError: a list or folder is missing; two images have the same name.
    """
    named = {split_name: layout.names(root, split_name) for split_name in lists}
    images, parts = layout.images(root), dict[str, list[str]]()
    for split_name, names in named.items():
        if twice := [images[name] for name in names if len(images.get(name, [])) > 1]:
            raise DataError(
                f"{twice[0][1]}: the folder has {Path(twice[0][0]).name} too, and the list {split_name}.txt"
                " does not say which one; remove one"
            )
        parts[split_name] = [
            images.get(name, [str(root / "JPEGImages" / f"{name}.jpg")])[0] for name in names
        ]
    xml = {
        path: str(root / "Annotations" / f"{Path(path).stem}.xml")
        for paths in parts.values()
        for path in paths
    }
    reader = partial(_annotated, xml, f", listed in {root / 'ImageSets' / 'Main'}", published)
    return Folder(
        FORMAT, parts, reader, lambda: layout.look([(root, name) for name in lists]), declared=False
    )


def _listed(root: Path) -> Folder:
    main = root / "ImageSets" / "Main"
    there = {path.stem for path in main.glob("*.txt")}
    pair = next((pair for pair in PAIRS if there.issuperset(pair)), None)
    if pair is None:
        alone = next((name for name in WHOLE if name in there), None)
        # Enough for an evaluation.
        if alone is None and (reported := next((name for name in REPORTED if name in there), None)):
            wanted = [(root, "trainval"), (root, reported)]
            return listed(root, [reported])._replace(
                parts={"val": listed(root, [reported]).parts[reported]},
                look=lambda: layout.look(wanted),
                lacks=f"{main / 'trainval.txt'}: missing",
            )
        alone = alone or "trainval"
        folder = listed(root, [alone])
        return folder._replace(parts={"all": folder.parts[alone]}, lacks=f"{main / 'test.txt'}: missing")
    folder = listed(root, pair)
    train, val = folder.parts.values()
    if both := sorted({*train} & {*val}):
        raise DataError(
            f"{main}: {' and '.join(f'{name}.txt' for name in pair)} both contain {Path(both[0]).stem}"
        )
    return folder._replace(parts={"train": train, "val": val})


def _by_folder(root: Path) -> Folder | None:
    """XML files anywhere, each with the image of the same name: in train/ and valid/ or, without such
    folders, all in one part.
    """
    files_ = [path for path in places.below(root, ".xml") if _is_annotation(path)]
    if not files_:
        return None
    if inner := [entry for entry in sorted(root.iterdir()) if (entry / "ImageSets" / "Main").is_dir()]:
        raise DataError(
            f"{root}: not a data set itself; use --data_dir {' or '.join(map(str, inner[:3]))}, which has"
            " VOC's layout"
        )
    images: dict[tuple[str | None, str], list[Path]] = defaultdict(list)
    for path in places.below(root):
        images[places.part_of(path, root), path.stem].append(path)
    xml, parts = dict[str, str](), defaultdict[str, list[str]](list)
    for path in files_:
        part = places.part_of(path, root)
        own = images.get((part, path.stem), [])
        if not own:
            raise DataError(f"{path}: no image with this name in {root}")
        near = [image for image in own if image.parent == path.parent] or own
        usual = (
            [image for image in near if image.parent.name.lower() in places.USUAL_IMAGES]
            if len(near) > 1
            else near
        )
        if len(usual or near) > 1 or str((usual or near)[0]) in xml:
            raise DataError(
                f"{path}: {own[0]} and {own[-1]} both have this name"
                if len(own) > 1
                else f"{path}: and {xml[str(near[0])]} have the same image"
            )
        image = str((usual or near)[0])
        xml[image] = str(path)
        parts[part or "all"].append(image)
    if "all" in parts and len(parts) > 1:
        raise DataError(
            f"{root}: {len(parts['all'])} images are in neither train/ nor val/, such as {parts['all'][0]}"
        )
    own_parts = places.parts_of(parts, root, FORMAT)
    reader = partial(_annotated, xml, "", False)
    return Folder(
        FORMAT, own_parts, reader, lambda: places.look(root, own_parts, [*xml.values()]), declared=False
    )


def _is_annotation(path: Path) -> bool:
    with path.open("rb") as file:
        return b"<annotation" in file.read(4096)


def _annotated(xml: dict[str, str], who: str, published: bool, image: str) -> Annotated:
    """One image with its annotation, each box checked against the image's own size."""
    path = Path(xml[image])
    if not Path(image).exists():
        raise DataError(f"{image}: no such image{who}")
    header = header_of(image)
    try:
        tree = ElementTree.parse(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such annotation{who}") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter two for its encoding
        raise DataError(f"{path}: not valid XML ({error})") from None
    found = Annotated(image, header, other_size=other_size(path, tree, image, (header.width, header.height)))
    if found.other_size and not published:
        raise DataError(
            f"{found.other_size}; use the images that were annotated, or correct <size> and boxes"
        )
    for thing in tree.iterfind("object"):
        label = same_name((thing.findtext("name") or "").strip())
        hard = (thing.findtext("difficult") or "0").strip()
        if not label:
            raise DataError(f"{path}: an object has no name")
        if hard not in ("0", "1"):
            raise DataError(f"{path}: a {label} has difficult={hard!r}; must be 0 or 1")
        corners = [thing.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
        x1, y1, x2, y2 = numbers(corners, f"{path}: a box of {label} with corners")
        found.add(label, (x1 - 1, y1 - 1, x2, y2), hard == "1", (x1, y1, x2, y2), empty=x2 <= x1 or y2 <= y1)
    return found


def other_size(path: Path, tree: Any, image: str, size: tuple[int, int]) -> str:
    """The difference between an annotation's `<size>` and the image's, which would misplace its boxes; empty
    if there is none.

    A side that is missing, empty or 0 is ignored, as some programs write it so; the depth is not checked.
    """
    said = [(tree.findtext(f"size/{side}") or "0").strip() or "0" for side in ("width", "height")]
    try:
        given = [float(text) for text in said]
        if not all(map(math.isfinite, given)):
            raise ValueError
    except ValueError:
        return f"{path}: a <size> of {' x '.join(said)}, not two numbers"
    if all(number in (0, side) for number, side in zip(given, size, strict=True)):
        return ""
    how = "; it is transposed" if given == [*reversed(size)] else ""
    return (
        f"{path}: annotated at {' x '.join(said)}, but {Path(image).name} is {size[0]} x {size[1]} after its"
        f" EXIF rotation{how}"
    )
