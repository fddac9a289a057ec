"""Layouts of re-identification data sets, and the identities of their images; pure functions of a path.

Three folders, named as in Market-1501, as in VeRi-776, or plainly, with identities in the file names
(`hbo.tasks.reid.names`); or MSMT17's two, with lists whose lines are
`0000/0000_000_01_0303morning_0015_0.jpg 0`.
"""

import os
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from hbo import files
from hbo.errors import DataError
from hbo.tasks.reid.names import FORMS, Kind, Shown, by_list, by_name
from hbo.tasks.spec import PUBLISHED, Look, digits

PARTS = ("train", "query", "gallery")
MARKET1501 = (12936, 3368, 19732)  # training images, queries, gallery
LISTS = (("list_train.txt", "list_val.txt"), ("list_query.txt",), ("list_gallery.txt",))


class Layout(NamedTuple):
    """Names of the folders of the three parts, and of each part's lists, if any."""

    folders: tuple[str, str, str]
    lists: tuple[tuple[str, ...], ...] = ()

    def needs(self, reported: bool) -> list[str]:
        """Required files and folders; to evaluate, without the training part. MSMT17's list_val.txt, of
        training images, is optional.
        """
        parts = range(1 if reported else 0, 3)
        return list(
            dict.fromkeys(
                [*(self.folders[i] for i in parts), *(self.lists[i][0] for i in parts if self.lists)]
            )
        )

    def says(self) -> str:
        """The folders, for messages."""
        folders = " and ".join(f"{name}/" for name in dict.fromkeys(self.folders))
        return (
            folders + " with " + ", ".join(name for names in self.lists for name in names)
            if self.lists
            else folders
        )


MARKET = Layout(("bounding_box_train", "query", "bounding_box_test"))
LAYOUTS = (
    MARKET,
    Layout(("image_train", "image_query", "image_test")),  # VeRi-776
    Layout(("train", "query", "gallery")),
    Layout(("train", "test", "test"), LISTS),  # MSMT17, and its version 2
    Layout(("mask_train_v2", "mask_test_v2", "mask_test_v2"), LISTS),
)
FOLDERS = MARKET.folders


class Seen(NamedTuple):
    """An image with identity and camera."""

    path: str
    who: str
    camera: int
    kind: Kind = "identity"


def market1501(root: Path) -> Path:
    """The folder that contains the three; it may be the one that Market-1501's archive creates."""
    inner = root / "Market-1501-v15.09.15"
    return inner if inner.is_dir() else root


def layout_of(root: Path, reported: bool = False) -> Layout:
    """The layout of a folder.

    Args:
        root: the data set's folder.
        reported: only queries and gallery are needed.

    Raises:
        DataError: no known layout; says what the nearest one lacks, and what was found.
    """
    lacking = {
        layout: [name for name in layout.needs(reported) if not (root / name).exists()] for layout in LAYOUTS
    }
    layout = min(LAYOUTS, key=lambda one: (len(lacking[one]) / len(one.needs(reported)), LAYOUTS.index(one)))
    if not lacking[layout]:
        return layout
    held = sorted(
        entry.name + "/" * entry.is_dir() for entry in os.scandir(root) if not files.is_litter(entry.name)
    )
    more = f" and {len(held) - 10} more" if len(held) > 10 else ""
    nothing = len(lacking[layout]) == len(layout.needs(reported))
    others = " (for other layouts see docs/detect-and-retrieve.md)" if nothing else ""
    raise DataError(
        f"{root / lacking[layout][0]}: no such {'file' if lacking[layout][0].endswith('.txt') else 'folder'};"
        f" {root} must contain {layout.says()}{others}; it contains"
        f" {', '.join(held[:10]) or 'nothing'}{more}{files.nearby(root, FOLDERS)}"
    )


def folders(root: Path) -> list[str]:
    """The folders of images, in any layout; the training folder may be missing.

    Raises:
        DataError: as `layout_of`.
    """
    layout = layout_of(root, reported=True)
    return [name for name in dict.fromkeys(layout.folders) if (root / name).is_dir()]


def images(root: Path, part: str, layout: Layout) -> tuple[list[Seen], list[str]]:
    """The images of a part in order, and other files, as paths from the root; hidden files are skipped.

    Raises:
        DataError: no image in it, or one without an identity in its name or in a list.
    """
    place = PARTS.index(part)
    folder = root / layout.folders[place]
    if layout.lists:
        return _listed(root, folder, layout.lists[place]), []
    found = sorted(e.name for e in os.scandir(folder) if not e.is_dir() and not e.name.startswith("."))
    names = [name for name in found if files.is_image(name)]
    if not names:
        below = files.images_by_folder(folder)
        inner = (
            f" itself, but {sum(below.values())} in subfolders ({', '.join(list(below)[:5])}); move them up"
        )
        raise DataError(f"{folder}: contains no images{inner if below else ''}")
    shown = {name: by_name(os.path.splitext(name)[0]) for name in names}
    if odd := [name for name in names if shown[name] is None]:
        raise DataError(
            f"{folder / odd[0]}: its name does not have the form {FORMS} ({len(odd)} of the {len(names)}"
            " images do not); rename or remove it"
        )
    seen = [Seen(os.fspath(folder / name), *what) for name, what in shown.items() if what is not None]
    return seen, [f"{layout.folders[place]}/{name}" for name in found if not files.is_image(name)]


def _listed(root: Path, folder: Path, lists: tuple[str, ...]) -> list[Seen]:
    """The images that lists name.

    Raises:
        DataError: a malformed line, an image that is missing or listed twice.
    """
    seen = []
    for path in (root / name for name in lists if (root / name).is_file()):
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: a list must be text in UTF-8 ({error})") from None
        for number, line in enumerate(lines, start=1):
            if line.strip():
                name, shown = _line(line)
                if shown is None:
                    raise DataError(
                        f"{path}, line {number}: {line.strip()!r} is not PATH NUMBER, such as"
                        " 0000/0000_000_01_0303morning_0015_0.jpg 0, where 01 is the camera"
                    )
                seen.append(Seen(os.fspath(folder / name), *shown))
    if not seen:
        raise DataError(f"{root / lists[0]}: an empty list")
    paths = [one.path for one in seen]
    there = files.in_threads(os.path.isfile, paths)
    if absent := [path for path, found in zip(paths, there, strict=True) if not found]:
        raise DataError(
            f"{absent[0]}: listed in {lists[0]}, but missing ({len(absent)} of {len(paths)} images are)"
        )
    if twice := [path for path, n in Counter(paths).items() if n > 1]:
        raise DataError(f"{twice[0]}: listed more than once in {' and '.join(lists)}")
    return seen


def _line(line: str) -> tuple[str, Shown | None]:
    """The path on a line, and the image's identity and camera."""
    name, _, label = line.strip().rpartition(" ")
    name = name.strip()
    stem = os.path.splitext(os.path.basename(name))[0]
    return name, by_list(stem, label) if label.isascii() and label.isdigit() and files.is_image(
        os.path.basename(name)
    ) else None


# ------------------------------------------------------------ contents of a folder


def look(root: Path, published: tuple[int, ...] | None = None) -> Look:
    """The fingerprint of the images of all three parts; None if they have the published numbers.

    Parts are hashed under Market-1501's names, so that a data set renamed to another layout keeps its
    fingerprint. Identities from lists are hashed too.
    """
    layout = layout_of(root)
    parts = [images(root, part, layout)[0] for part in PARTS]
    if published and tuple(map(len, parts)) == published:
        return None, PUBLISHED
    named = [(folder, one) for folder, part in zip(FOLDERS, parts, strict=True) for one in part]
    paths = [one.path for _, one in named]
    held, whole = files.contents(paths)
    digest = sha256()
    for (folder, one), what in zip(named, held, strict=True):
        listed = f" {one.who}" if layout.lists else ""
        digest.update(f"{folder} {os.path.basename(one.path)} {what}{listed}\n".encode())
    return digits(digest, whole, paths)


def count(root: Path) -> tuple[int, int, int]:
    """Numbers of training images, evaluated images and training identities of a user's folder.

    Raises:
        DataError: as `hbo.tasks.reid.data.parts`.
    """
    from hbo.tasks.reid.data import parts

    found = parts(root)
    return len(found.train), len(found.queries) + len(found.gallery), len(found.identities)
