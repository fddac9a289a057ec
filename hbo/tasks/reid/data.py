"""Images of identities in Market-1501's layout: ROOT/bounding_box_train/, query/ and bounding_box_test/ (the gallery).

A name is PPPP_cCsS_FFFFFF_NN.jpg: identity, camera, sequence, frame, place in the frame; identity -1 is junk, 0000 a distractor.
An item is (uint8 image (3, H, W), what it shows, index): in training the identity's number, from 0; in evaluation, over the
queries and then the gallery, (identity, camera, whether it is a query).

What is odd has one rule each. Refused: an image whose name is none of these, an identity that is trained on and retrieved,
queries that all lack a match. Counted in the run's row and named there: files that are no images by their ending, such as
Thumbs.db, which are passed over, as are hidden ones, in silence; junk and distractors among the training images, left out;
queries without a match in the gallery (theirs from another camera), left out of the means.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from torchvision.transforms import v2

from hbo import files, headers
from hbo.config import Run
from hbo.data import Data, audit, check
from hbo.data.images import Images
from hbo.data.sources import Files, Source
from hbo.errors import DataError
from hbo.tasks import SETS
from hbo.tasks.reid import layout
from hbo.tasks.reid.layout import GALLERY, MARKET1501, QUERY, TRAIN
from hbo.tasks.reid.metrics import DISTRACTOR, JUNK

NAME = re.compile(r"(-1|\d{4,})_c(\d+)s\d+_\d+_\d+")
ENLARGED = 9 / 8  # of the sides of training images, from which the crops are cut
NAMED = 20  # oddities that a row names; it counts all


class Seen(NamedTuple):
    """An image by its name."""

    path: str
    identity: int
    camera: int


class Sightings(Images):
    """Images with a number each, or, to be retrieved, with (identity, camera, query)."""

    def __init__(self, seen: list[Seen], shown: list[Any], run: Run, train: bool) -> None:
        self.paths = [one.path for one in seen]
        fixed, random = transform(run, train)
        super().__init__(Source(Files(self.paths), shown), fixed, random, run, in_memory=False)


def transform(run: Run, train: bool) -> tuple[v2.Transform, list[v2.Transform]]:
    """The whole image to H x W, whatever its shape; in training a crop of that size from one larger by an eighth, and flips."""
    height, width = run.size
    if not train:
        return v2.Compose([v2.Resize((height, width), antialias=True)]), []
    parts: list[v2.Transform] = [v2.RandomCrop((height, width))]
    if run.flip != "none":
        parts.append(v2.RandomHorizontalFlip())
    if run.flip == "both":
        parts.append(v2.RandomVerticalFlip())
    larger = round(height * ENLARGED), round(width * ENLARGED)
    return v2.Compose([v2.Resize(larger, antialias=True)]), parts


# ---------------------------------------------------------------- files


def read(root: Path, part: str, bad: Collection[str] = ()) -> tuple[list[Seen], list[str]]:
    """The images of a folder by name, but for those at the paths that are `bad`; and the files that are none.

    Raises:
        DataError: no such folder, no image in it, or an image whose name does not parse.
    """
    names, others = layout.names(root, part)
    seen, odd = [], []
    for name in names:
        if found := NAME.fullmatch(os.path.splitext(name)[0]):
            path = os.fspath(root / part / name)
            seen += [] if path in bad else [Seen(path, int(found[1]), int(found[2]))]
        else:
            odd.append(name)
    if odd:
        raise DataError(
            f"{root / part / odd[0]}: not named PPPP_cCsS_FFFFFF_NN ({len(odd)} such names there); rename or remove it"
        )
    return seen, [f"{part}/{name}" for name in others]


class Parts(NamedTuple):
    """The three folders, and what was odd."""

    train: list[Seen]
    queries: list[Seen]
    gallery: list[Seen]
    facts: dict[str, Any]

    @property
    def identities(self) -> list[int]:
        """Those that are trained on, in order."""
        return sorted({one.identity for one in self.train})


def parts(root: Path, reported: bool = False, bad: Collection[str] = ()) -> Parts:
    """The images of the layout, but for those at the paths that are `bad`; where only what is `reported` is asked for, nothing of those that are trained on.

    Raises:
        DataError: as `read`; identities both trained on and retrieved; no query with a match.
    """
    (queries, *more), (gallery, *most) = (read(root, part, bad) for part in (QUERY, GALLERY))
    every, *others = ([], []) if reported else read(root, TRAIN, bad)
    train = [one for one in every if one.identity not in (JUNK, DISTRACTOR)]
    if not train and not reported:
        raise DataError(f"{root / TRAIN}: holds junk and distractors alone")
    trained = {one.identity for one in train}
    retrieved = {one.identity for one in [*queries, *gallery]}
    if both := sorted(trained & retrieved):
        raise DataError(
            f"{root}: identity {both[0]:04d} ({len(both)} such identities) is in {TRAIN}, and in {QUERY} or {GALLERY} too; who is"
            " retrieved must not have been trained on"
        )
    cameras: dict[int, set[int]] = {}
    for one in gallery:
        cameras.setdefault(one.identity, set()).add(one.camera)
    known = lambda one: one.identity not in (JUNK, DISTRACTOR) and bool(cameras.get(one.identity, set()) - {one.camera})
    alone = [Path(one.path).name for one in queries if not known(one)]
    if len(alone) == len(queries):
        raise DataError(f"{root / QUERY}: no query has its identity in {GALLERY} from another camera")
    strange = [name for part in (*others, *more, *most) for name in part]
    facts = {
        "train_identities": len(trained),
        "query_images": len(queries),
        "gallery_images": len(gallery),
        "junk_images": sum(one.identity == JUNK for one in gallery),
        "distractor_images": sum(one.identity == DISTRACTOR for one in gallery),
        "left_out_images": len(every) - len(train),
        "other_files": len(strange),
        "unmatched_queries": len(alone),
        "faults": [f"{name}: no image by its name" for name in strange][:NAMED]
        + [f"{name}: no match" for name in alone][:NAMED],
    }
    return Parts(train, queries, gallery, facts)


def opened(run: Run, reported: bool = False, known: list[str] | None = None) -> Data:
    """Training images, queries and gallery, the trained identities by name, and what was found, for the row.

    See `hbo.tasks.build.open_data`; who is retrieved was not trained on, so that there are no known classes.

    Raises:
        DataError: as `parts`; a file that is no image; or another set under Market-1501's name.
    """
    one = SETS[run.data]
    root = one.root(run.data, run.data_dir)
    root = root if one.by_folder else layout.market1501(root)
    folders = {"train": () if reported else (TRAIN,), "val": (QUERY, GALLERY)}
    paths = {
        part: [os.fspath(root / at / n) for at in those for n in layout.names(root, at)[0]] for part, those in folders.items()
    }
    bad, skipped, passed = check.passed_over(run, paths)
    found = parts(root, reported, bad)
    counts = len(found.train), len(found.queries), len(found.gallery)
    other = counts[1:] != MARKET1501[1:] if reported else (*counts, len(found.identities)) != (*MARKET1501, one.classes)
    if not one.by_folder and other:
        raise DataError(
            f"{root}: {counts[0]} training images of {len(found.identities)} identities, {counts[1]} queries and {counts[2]} in the"
            f" gallery, where Market-1501 has {MARKET1501[0]} of {one.classes}, {MARKET1501[1]} and {MARKET1501[2]};"
            " for another set take --data marketfolder"
        )
    if len(found.identities) < 2 and not reported:
        raise DataError(
            f"{root / TRAIN}: holds one identity; training needs at least two. Is data_dir={root} the right folder?"
        )
    if run.instances and not reported and len(found.identities) < run.batch // run.instances:
        raise DataError(
            f"{root / TRAIN}: {len(found.identities)} identities, too few for batches of {run.batch // run.instances};"
            " take a smaller --batch or more --instances"
        )
    images = [one.path for part in found[:3] for one in part]
    turns = dict(zip(images, headers.headers_of(images), strict=True))
    number = {identity: i for i, identity in enumerate(found.identities)}
    labels = [number[one.identity] for one in found.train]
    train = None if reported else Sightings(found.train, labels, run, train=True)
    retrieved = [*found.queries, *found.gallery]
    shown = [(one.identity, one.camera, int(i < len(found.queries))) for i, one in enumerate(retrieved)]
    val = Sightings(retrieved, shown, run, train=False)
    below = {f"{part}/{inner}/": n for those in folders.values() for part in those for inner, n in _below(root / part).items()}
    odd = [audit.said_left_out(root, below, "an image lies in one of the three folders itself")]
    if one.by_folder and not reported:
        odd.append(audit.in_both(*([image.path for image in part] for part in (found.train, retrieved))))
    odd += [audit.exif(turns), (skipped, passed)]
    facts = {name: value for facts, _ in odd for name, value in facts.items()}
    told = [line for _, lines in odd for line in lines]
    return Data(train, val, [f"{identity:04d}" for identity in found.identities], found.facts | facts, told)


def _below(folder: Path) -> dict[str, int]:
    return files.images_by_folder(folder, {str(folder)})
