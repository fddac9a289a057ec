"""COCO's JSON: annotations/instances_train2017.json with train2017/, train/_annotations.coco.json beside its
images, and similar layouts.

A box is (x, y, width, height) in pixels from 0. A crowd's box (`iscrowd`) is treated like VOC's difficult
objects: not trained on, ignored in evaluation.
"""

import json
import os
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from hbo import files
from hbo.errors import DataError
from hbo.headers import header_of
from hbo.names import same_name
from hbo.tasks.detect.formats import places
from hbo.tasks.detect.formats.boxes import Annotated, Folder, numbers

FORMAT = "COCO's JSON"
# Image, annotations, names of classes, file.
Entry = tuple[dict[str, Any], list[dict[str, Any]], dict[Any, str], str]


def found(root: Path) -> Folder | None:
    """The folder if it contains such JSON, else None.

    Raises:
        DataError: two files for one part; missing images; see `places.parts_of`.
    """
    listings = {path: content for path in _candidates(root) if (content := _coco(path)) is not None}
    if not listings:
        return None
    by_part: dict[str, list[Path]] = defaultdict(list)
    for path in listings:
        by_part[places.part_in(path.stem) or places.part_of(path, root) or "all"].append(path)
    if twice := [paths for paths in by_part.values() if len(paths) > 1] or [[*listings]] * (
        "all" in by_part and len(by_part) > 1
    ):
        names = ", ".join(str(path.relative_to(root)) for path in twice[0])
        raise DataError(
            f"{root}: {names} are COCO's JSON of the same or an unknown part; keep one per part, such as"
            f" train.json and val.json"
        )
    entries: dict[str, Entry] = {}
    parts = {part: _images(root, part, path, listings[path], entries) for part, (path,) in by_part.items()}
    parts = places.parts_of(parts, root, FORMAT)
    read = [str(path) for path in listings]
    return Folder(FORMAT, parts, partial(_annotated, entries), lambda: places.look(root, parts, read))


def _candidates(root: Path) -> list[Path]:
    """JSON files in the folder and its direct subfolders; only those named instances, if there are any, as
    COCO's captions are beside them.
    """
    folders = [
        root,
        *sorted(
            Path(entry.path)
            for entry in os.scandir(root)
            if entry.is_dir() and not files.is_litter(entry.name)
        ),
    ]
    paths = [
        path for folder in folders for path in sorted(folder.glob("*.json")) if not files.is_litter(path.name)
    ]
    return [path for path in paths if path.stem.startswith("instances")] or paths


def _coco(path: Path) -> dict[str, Any] | None:
    """The contents of a file if it is such JSON.

    Raises:
        DataError: the JSON cannot be read.
    """

    def load() -> Any:
        try:
            return json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not valid JSON ({error})") from None

    content = files.looked_up(("coco", str(path), path.stat().st_mtime_ns), load)
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        return None
    return (
        content
        if all(isinstance(one, dict) and "bbox" in one for one in content["annotations"][:1])
        else None
    )


def _images(
    root: Path, part: str, path: Path, content: dict[str, Any], entries: dict[str, Entry]
) -> list[str]:
    """The paths of a file's images, in its order; adds each with its annotations to `entries`."""
    try:
        names = {one["id"]: same_name(str(one["name"]).strip()) for one in content["categories"]}
        boxes: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for one in content["annotations"]:
            boxes[one["image_id"]].append(one)
        listed = {one["id"]: str(one["file_name"]) for one in content["images"]}
        where = _place(root, part, path, [*listed.values()])
        if len(listed) != len(content["images"]):
            raise DataError(f"{path}: two images have the same id")
        found: dict[str, None] = {}
        for image in content["images"]:
            name = os.path.normpath(where / str(image["file_name"]))
            if name in found:
                raise DataError(f"{path}: names {image['file_name']} more than once")
            entries[name] = (image, boxes.pop(image["id"], []), names, str(path))
            found[name] = None
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: an image, annotation or category has no {error}, which COCO's JSON requires"
        ) from None
    if boxes:
        raise DataError(f"{path}: an annotation has image_id {next(iter(boxes))}, but no image has this id")
    if not found:
        raise DataError(f"{path}: lists no image")
    return [*found]


def _place(root: Path, part: str, path: Path, names: list[str]) -> Path:
    """The folder to which the file's image names are relative."""
    own = path.stem.removeprefix("instances_")
    called = [
        name
        for name in (own, part, *(word for word, means in places.WORDS.items() if means == part))
        if name != "all"
    ]
    around = [
        path.parent,
        *(root / name for name in called),
        *(root / "images" / name for name in called),
        root / "images",
        root,
    ]
    around += [
        Path(entry.path)
        for entry in os.scandir(root)
        if entry.is_dir() and entry.name.lower() in places.USUAL_IMAGES
    ]
    around += (
        [path.parent / "images", Path("/")] if names and os.path.isabs(names[0]) else [path.parent / "images"]
    )
    around = list(dict.fromkeys(around))
    where = next((folder for folder in around if any((folder / name).is_file() for name in names[:20])), None)
    if where is None:
        there = ", ".join(
            os.path.join(os.path.relpath(folder, root), "") for folder in around if folder.is_dir()
        )
        raise DataError(
            f"{path}: none of its images, such as {names[0] if names else 'none'}, is in {there} of {root}"
        )
    return where


def _annotated(entries: dict[str, Entry], path: str) -> Annotated:
    image, boxes, names, listing = entries[path]
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such image, which {listing} names")
    header = header_of(path)
    size = image.get("width") or header.width, image.get("height") or header.height
    if size != (header.width, header.height):
        how = "; it is transposed" if size == (header.height, header.width) else ""
        raise DataError(
            f"{listing}: {os.path.basename(path)} is annotated at {size[0]} x {size[1]}, but is"
            f" {header.width} x"
            f" {header.height} after its EXIF rotation{how}; use the images that were annotated, or correct"
            " size and boxes"
        )
    found = Annotated(path, header)
    for one in boxes:
        what = f"{listing}: {os.path.basename(path)}"
        if (name := names.get(one.get("category_id"))) is None:
            raise DataError(
                f"{what}: category_id {one.get('category_id')!r} is not among its categories {[*names][:10]}"
            )
        given = one.get("bbox")
        if not isinstance(given, list) or len(given) != 4:
            raise DataError(f"{what}: a box of {name} is {given!r}; must be [x, y, width, height]")
        x, y, width, height = numbers(given, f"{what}: a box of {name} with [x, y, width, height]")
        found.add(name, (x, y, x + width, y + height), bool(one.get("iscrowd", 0)))
    return found
