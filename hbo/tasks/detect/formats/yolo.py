"""YOLO's text: a data.yaml with classes and parts, and beside each images/ a labels/ with lines of
`class cx cy width height`.

Numbers are relative to the image's sides. A longer line is a polygon, of which the bounding box is used. An
image without a label file has no objects.
"""

import os
import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from hbo import values
from hbo.errors import DataError, UserError
from hbo.headers import header_of
from hbo.names import same_name
from hbo.tasks.detect.formats import places
from hbo.tasks.detect.formats.boxes import Annotated, Folder, numbers

FORMAT = "YOLO's labels"
FAR = 1.5  # larger numbers are pixels


def found(root: Path) -> Folder | None:
    """The folder if it has a YAML file with `names`, else None.

    Raises:
        DataError: missing parts, no label file for any image; see `places.parts_of`.
    """
    settings = [
        (path, content)
        for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
        if (content := _yaml(path))
    ]
    if not settings:
        return None
    if len(settings) > 1:
        raise DataError(
            f"{root}: {' and '.join(path.name for path, _ in settings)} both have class names; keep one"
        )
    ((listing, content),) = settings
    classes = _classes(listing, content["names"])
    said = {part: content[word] for word, part in places.WORDS.items() if content.get(word)}
    if said:
        parts = {
            part: _images(root, listing, content, given)
            for part, given in said.items()
            if part != "test" or "val" not in said
        }
        if list(parts) == ["train"]:
            parts = {"all": parts["train"]}
    else:
        parts = {}
        for path in places.below(root):
            parts.setdefault(places.part_of(path, root) or "all", []).append(str(path))
    if not parts:
        raise DataError(f"{root}: {listing.name}, but no image")
    parts = places.parts_of(parts, root, FORMAT)
    labels = {path: _labels(path) for paths in parts.values() for path in paths}
    if not any(map(os.path.isfile, labels.values())):
        image, label = next(iter(labels.items()))
        raise DataError(f"{root}: {FORMAT}, but no image has a label file; that of {image} would be {label}")
    read = [str(listing), *labels.values()]
    return Folder(FORMAT, parts, partial(_annotated, labels, classes), lambda: places.look(root, parts, read))


def _yaml(path: Path) -> dict[str, Any] | None:
    try:
        content = values.load(path.read_text(encoding="utf-8-sig"))
    except (UserError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid YAML ({error})") from None
    return content if isinstance(content, dict) and isinstance(content.get("names"), (list, dict)) else None


def _classes(listing: Path, names: Any) -> dict[int, str]:
    try:
        found = {
            int(number): same_name(str(name).strip())
            for number, name in (names.items() if isinstance(names, dict) else enumerate(names))
        }
    except (TypeError, ValueError):
        raise DataError(
            f"{listing}: names={names!r}; must be a list of classes, or a mapping from number to class"
        ) from None
    if not found or not all(found.values()):
        raise DataError(f"{listing}: names={names!r}; each class needs a name")
    return found


def _images(root: Path, listing: Path, content: dict[str, Any], given: Any) -> list[str]:
    """The images of a part: a folder, a list of paths, or several of these."""
    found: list[str] = []
    for one in given if isinstance(given, list) else [given]:
        place = _place(root, listing, content, str(one))
        if place.is_dir():
            found += map(str, places.below(place))
            continue
        lines = [line.strip() for line in place.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        for line in lines:
            around = [place.parent / line, root / line, root / re.sub(r"^(\.{0,2}/)+", "", line)]
            path = next((path for path in around if path.is_file()), None)
            if path is None:
                raise DataError(f"{place}: lists {line}, which does not exist")
            found.append(os.path.normpath(path))
    if not found:
        raise DataError(f"{listing}: {given} contains no images")
    if twice := [path for path, number in Counter(found).items() if number > 1]:
        raise DataError(f"{listing}: {given} names {twice[0]} more than once")
    return found


def _place(root: Path, listing: Path, content: dict[str, Any], given: str) -> Path:
    """The folder or list that data.yaml means: its `path` is often from another machine, and
    `../train/images` often means train/images.
    """
    plain = re.sub(r"^(\.{0,2}/)+", "", given)
    above = [Path(str(content["path"])), listing.parent / str(content["path"])] if content.get("path") else []
    around = [*(folder / given for folder in above), listing.parent / given, listing.parent / plain]
    around += [root.joinpath(*Path(plain).parts[i:]) for i in range(1, len(Path(plain).parts))]
    found = next((path for path in around if path.exists()), None)
    if found is None:
        raise DataError(
            f"{listing}: {given} does not exist; tried"
            f" {', '.join(dict.fromkeys(map(os.path.normpath, around)))}"
        )
    return Path(os.path.normpath(found))


def _labels(image: str) -> str:
    """The label file of an image: in labels/ in place of the last images/ of its path, else in its folder."""
    head, word, tail = image.rpartition(f"{os.sep}images{os.sep}")
    where = f"{head}{os.sep}labels{os.sep}{tail}" if word else image
    return os.path.splitext(where)[0] + ".txt"


def _annotated(labels: dict[str, str], classes: dict[int, str], path: str) -> Annotated:
    found = Annotated(path, header_of(path))
    width, height = found.header.width, found.header.height
    try:
        text = Path(labels[path]).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return found
    except UnicodeDecodeError:
        raise DataError(f"{labels[path]}: labels must be text") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not (words := line.split()):
            continue
        where = f"{labels[path]}, line {number}"
        if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
            raise DataError(
                f"{where}: {len(words)} numbers; must be class, centre x, centre y, width, height, or class"
                " and a polygon"
            )
        given = numbers(words, f"{where}:")
        if given[0] not in classes:
            raise DataError(
                f"{where}: class {words[0]} is not among data.yaml's {', '.join(map(str, classes))}"
            )
        if max(given[1:]) > FAR:
            raise DataError(
                f"{where}: {max(given[1:]):g}; numbers must be relative to the image's sides, from 0 to 1"
            )
        if len(words) == 5:
            cx, cy, w, h = given[1:]
            corners = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
        else:
            corners = min(given[1::2]), min(given[2::2]), max(given[1::2]), max(given[2::2])
        x1, y1, x2, y2 = corners
        found.add(classes[int(given[0])], (x1 * width, y1 * height, x2 * width, y2 * height))
    return found
