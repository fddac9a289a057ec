"""Images listed in a CSV: path,label[,split]; paths are relative to the CSV. Pure functions of a path."""

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from hbo import files
from hbo.errors import DataError
from hbo.names import same_name
from hbo.packed import File

REPORTED = ("val", "valid", "validation", "test")  # the first that exists is the validation part
Part = Literal["train", "val", "whole"]
WHOLE: Part = "whole"
Parts = dict[Part, dict[str, list[File]]]  # part -> class -> its images
COLUMNS = ("path", "label", "split")


def found(root: Path) -> list[Path]:
    """The CSV files of a folder, sorted."""
    if not root.is_dir():
        return []
    entries = (e for e in os.scandir(root) if e.is_file() and not files.is_litter(e.name))
    return sorted(Path(e.path) for e in entries if e.name.lower().endswith(".csv"))


def read(path: Path) -> Parts:
    """Part -> class -> its images, all sorted; the single part `whole` without a column `split`.

    Raises:
        DataError: not such a list, an image that is missing or listed twice; names the line.
    """
    parts: dict[str, dict[str, list[File]]] = {}
    seen: dict[Path, int] = {}
    inside: dict[Path, dict[str, list[str]]] = {}
    for line, (name, label, split) in _lines(path):
        where = f"{path}, line {line}"
        if not label:
            raise DataError(f"{where}: no label for {name or 'an image'}")
        if split not in ("train", *REPORTED, WHOLE):
            raise DataError(f"{where}: split {split!r} must be train or one of {', '.join(REPORTED)}")
        image = _image(path.parent, name, where, inside)
        if seen.setdefault(image, line) != line:
            raise DataError(f"{where}: {name} is also in line {seen[image]}")
        parts.setdefault(split, {}).setdefault(same_name(label), []).append(image)
    if not parts:
        raise DataError(f"{path}: lists no images")
    if WHOLE in parts:
        return {WHOLE: _sorted(parts[WHOLE])}
    reported = next((name for name in REPORTED if name in parts), None)
    if "train" not in parts or reported is None:
        raise DataError(
            f"{path}: its column split must have train and one of {', '.join(REPORTED)}; it has"
            f" {', '.join(parts)}"
        )
    return {"train": _sorted(parts["train"]), "val": _sorted(parts[reported])}


def said_parts(path: Path) -> str:
    """A note on which of several parts is used for validation; empty if there is one."""
    there = {split for _, (*_, split) in _lines(path)}
    used, *others = [name for name in REPORTED if name in there] or [""]
    return f"{path}: {used} is used for validation, {' and '.join(others)} is not used" if others else ""


def _sorted(classes: dict[str, list[File]]) -> dict[str, list[File]]:
    """The order of a folder with class folders: by label, then by file name."""
    return {name: sorted(classes[name], key=lambda image: (image.name, image)) for name in sorted(classes)}


def _lines(path: Path) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Line number, path, label and split of each line that is not empty.

    Raises:
        DataError: the file is not text, has other columns, or a quote that is not closed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a CSV in UTF-8 ({type(error).__name__})") from None
    first = text.partition("\n")[0]
    # Strict: else a quote that is not closed takes all lines after it into its cell.
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=max(",;\t", key=first.count),
        skipinitialspace=True,
        strict=True,
    )
    places: list[int] | None = None
    while True:
        begun = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}, line {begun}: a quote must be closed before the next comma, and doubled within a"
                f" quoted cell ({error})"
            ) from None
        if not any(cells):
            continue
        if places is None:
            places, headed = _places(path, cells)
            if headed:
                continue
        if len(cells) <= max(places):
            raise DataError(
                f"{path}, line {reader.line_num}: has {len(cells)} columns, the first line {max(places) + 1}"
                " or more"
            )
        values = [cells[i] for i in places]
        yield reader.line_num, (values[0], values[1], values[2].lower() if len(values) > 2 else WHOLE)


def _places(path: Path, first: list[str]) -> tuple[list[int], bool]:
    """The columns of path, label and split, and whether the first line is a header;
    without one they are in this order.
    """
    names = [cell.lower() for cell in first]
    if {"path", "label"} <= set(names):
        return [names.index(column) for column in COLUMNS if column in names], True
    if len(first) in (2, 3) and files.is_image(first[0]):
        return [*range(len(first))], False
    raise DataError(
        f"{path}: the first line must be path,label or path,label,split; it is {','.join(first)[:200]}"
    )


def _image(folder: Path, name: str, where: str, inside: dict[Path, dict[str, list[str]]]) -> Path:
    """The listed image; if its name differs from a file's only in case, and only one matches, that file.

    Raises:
        DataError: no such file, or its name is not an image's.
    """
    image = folder / name.replace("\\", "/")
    if not files.is_image(image.name):
        raise DataError(
            f"{where}: {name or 'an empty path'}: not an image by its name"
            f" ({', '.join(sorted(files.IMAGES))})"
        )
    parent = image.parent
    if parent not in inside:
        inside[parent] = {}
        for entry in os.scandir(parent) if parent.is_dir() else ():
            inside[parent].setdefault(entry.name.lower(), []).append(entry.name)
    same = inside[parent].get(image.name.lower(), [])
    if image.name in same:
        return image
    if len(same) == 1:
        return parent / same[0]
    raise DataError(f"{where}: {image}: no such file; paths are relative to the folder of the CSV")
