"""Training images of identities, and queries with their gallery
(`hbo.tasks.reid.layout` and `names` find the files).

An item is (uint8 image (3, H, W), label, index). The label is the identity's number, from 0, in training;
in evaluation, on the queries and then the gallery, it is (identity, camera, whether it is a query).

Errors: an image whose name has no known form; an identity in both training and query or gallery (except in
MSMT17, which numbers them separately); no query with a match. Counted and named in the run's row: files with
other suffixes, which are skipped (hidden files are skipped silently); junk and distractors among the training
images, which are not trained on; queries without a match in the gallery (from another camera), which are not
in the means.
"""

import os
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
from hbo.tasks.reid import layout, names
from hbo.tasks.reid.layout import MARKET1501, PARTS, Layout, Seen
from hbo.tasks.reid.metrics import DISTRACTOR, JUNK

ENLARGED = 9 / 8  # side of a training image before the crop, relative to the input
NAMED = 20  # faults named in a row; all are counted
NOBODY = {"junk": JUNK, "distractor": DISTRACTOR}  # numbers that are not identities


class Sightings(Images):
    """Images with an identity number, or with (identity, camera, query) for retrieval."""

    def __init__(self, seen: list[Seen], shown: list[Any], run: Run, train: bool) -> None:
        self.paths = [one.path for one in seen]
        fixed, random = transform(run, train)
        super().__init__(Source(Files(self.paths), shown), fixed, random, run, in_memory=False)


def transform(run: Run, train: bool) -> tuple[v2.Transform, list[v2.Transform]]:
    """The whole image resized to H x W, whatever its shape; in training a crop of that size from an image an
    eighth larger, and flips.
    """
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


class Parts(NamedTuple):
    """The three parts, and their faults."""

    train: list[Seen]
    queries: list[Seen]
    gallery: list[Seen]
    facts: dict[str, Any]
    warnings: list[str]

    @property
    def identities(self) -> list[str]:
        """Names of the training identities, in order."""
        return names.ordered({one.who for one in self.train})

    def shown(self) -> list[tuple[int, int, int]]:
        """(identity, camera, whether it is a query) of the queries, then of the gallery."""
        retrieved = [*self.queries, *self.gallery]
        number = names.numbers({one.who for one in retrieved if one.kind == "identity"})
        who = [number[one.who] if one.kind == "identity" else NOBODY[one.kind] for one in retrieved]
        return [(who[i], one.camera, int(i < len(self.queries))) for i, one in enumerate(retrieved)]


def parts(root: Path, reported: bool = False, bad: Collection[str] = ()) -> Parts:
    """The images of the layout, without those at the `bad` paths; with `reported`, without training images.

    Raises:
        DataError: as `layout.layout_of` and `layout.images`; identities in both training and retrieval; no
        query with a match.
    """
    where = layout.layout_of(root, reported)
    read = {part: layout.images(root, part, where) for part in PARTS[1 if reported else 0 :]}
    every, queries, gallery = (
        [one for one in read.get(part, ([], []))[0] if one.path not in bad] for part in PARTS
    )
    train = [one for one in every if one.kind == "identity"]
    if not train and not reported:
        raise DataError(f"{root / where.folders[0]}: contains only junk and distractors")
    trained = {one.who for one in train}
    if not where.lists:
        _check_apart(
            root, where, trained, {one.who for one in [*queries, *gallery] if one.kind == "identity"}
        )
    cameras: dict[str, set[int]] = {}
    for one in gallery:
        if one.kind == "identity":
            cameras.setdefault(one.who, set()).add(one.camera)
    known = lambda one: one.kind == "identity" and bool(cameras.get(one.who, set()) - {one.camera})
    alone = [Path(one.path).name for one in queries if not known(one)]
    if len(alone) == len(queries):
        raise DataError(
            f"{root / where.folders[1]}: no query has a match in {where.folders[2]} from another camera"
        )
    strange = [name for _, others in read.values() for name in others]
    left_out = [one for one in every if one.kind != "identity"]
    facts = {
        "train_identities": len(trained),
        "query_images": len(queries),
        "gallery_images": len(gallery),
        "junk_images": sum(one.kind == "junk" for one in gallery),
        "distractor_images": sum(one.kind == "distractor" for one in gallery),
        "left_out_images": len(left_out),
        "other_files": len(strange),
        "unmatched_queries": len(alone),
        "faults": [f"{name}: not an image by its name" for name in strange][:NAMED]
        + [f"{name}: no match" for name in alone][:NAMED]
        + [f"{Path(one.path).name}: {one.kind}, not trained on" for one in left_out][:NAMED],
    }
    return Parts(train, queries, gallery, facts, _said_left_out(root / where.folders[0], left_out))


def _check_apart(root: Path, where: Layout, trained: set[str], retrieved: set[str]) -> None:
    """Check that no identity is in both training and retrieval.

    Raises:
        DataError: names the first.
    """
    if both := names.ordered(trained & retrieved):
        train, query, gallery = where.folders
        raise DataError(
            f"{root}: identity {both[0]} ({len(both)} such identities) is in {train} and also in {query} or"
            f" {gallery}; training and retrieval must not share identities"
        )


def _said_left_out(folder: Path, left_out: list[Seen]) -> list[str]:
    """A warning about training images without an identity, with the remedy if they have one."""
    if not left_out:
        return []
    counts = {kind: sum(one.kind == kind for one in left_out) for kind in NOBODY}
    said = " and ".join(f"{n} of {kind}" for kind, n in counts.items() if n)
    zero = (
        "; 0000 means distractor in Market-1501: if it is an identity, give it another number"
        if counts["distractor"]
        else ""
    )
    return [f"{folder}: training skips {said} (such as {Path(left_out[0].path).name}){zero}"]


def opened(run: Run, reported: bool = False, known: list[str] | None = None) -> Data:
    """Training images, queries and gallery, the names of the training identities, and columns for the row.

    See `hbo.tasks.build.open_data`; retrieved identities are not trained on, so there are no known classes.

    Raises:
        DataError: as `parts`; a file that is not an image; or another data set with --data market1501.
    """
    one = SETS[run.data]
    root = one.root(run.data, run.data_dir)
    root = root if one.by_folder else layout.market1501(root)
    bad, skipped, passed = check.passed_over(run, _paths(root, reported)) if run.skip_bad else (set(), {}, [])
    found, where = parts(root, reported, bad), layout.layout_of(root, reported)
    counts = len(found.train), len(found.queries), len(found.gallery)
    other = (
        counts[1:] != MARKET1501[1:]
        if reported
        else (*counts, len(found.identities)) != (*MARKET1501, one.classes)
    )
    if not one.by_folder and other:
        raise DataError(
            f"{root}: {counts[0]} training images of {len(found.identities)} identities, {counts[1]}"
            f" queries and {counts[2]} gallery images, but Market-1501 has {MARKET1501[0]} of {one.classes},"
            f" {MARKET1501[1]} and {MARKET1501[2]}; for another data set use --data marketfolder"
        )
    if len(found.identities) < 2 and not reported:
        raise DataError(
            f"{root / where.folders[0]}: contains one identity; training needs at least two. Is"
            f" data_dir={root} the right folder?"
        )
    if run.instances and not reported and len(found.identities) < run.batch // run.instances:
        raise DataError(
            f"{root / where.folders[0]}: {len(found.identities)} identities, too few for batches of"
            f" {run.batch // run.instances}; use a smaller --batch or more --instances"
        )
    images = [one.path for part in found[:3] for one in part]
    turns = dict(zip(images, headers.headers_of(images), strict=True))
    number = {identity: i for i, identity in enumerate(found.identities)}
    labels = [number[one.who] for one in found.train]
    train = None if reported else Sightings(found.train, labels, run, train=True)
    retrieved = [*found.queries, *found.gallery]
    val = Sightings(retrieved, found.shown(), run, train=False)
    why = (
        "the lists do not name them" if where.lists else "images must be directly in one of the three folders"
    )
    odd = [audit.said_left_out(root, _unused(root, where, {*images, *bad}, reported), why)]
    if one.by_folder and not reported:
        odd.append(audit.in_both(*([image.path for image in part] for part in (found.train, retrieved))))
    odd += [audit.exif(turns), (skipped, passed)]
    facts = {name: value for facts, _ in odd for name, value in facts.items()}
    told = [*found.warnings, *(line for _, lines in odd for line in lines)]
    return Data(train, val, found.identities, found.facts | facts, told)


def _paths(root: Path, reported: bool) -> dict[str, list[str]]:
    """The training images and the evaluated images."""
    where = layout.layout_of(root, reported)
    path_of = lambda parts: [one.path for part in parts for one in layout.images(root, part, where)[0]]
    return {"train": [] if reported else path_of(PARTS[:1]), "val": path_of(PARTS[1:])}


def _unused(root: Path, where: Layout, used: set[str], reported: bool) -> dict[str, int]:
    """Folders below those of the layout -> images there that are not read; with lists, images not listed."""
    folders = dict.fromkeys(where.folders[1 if reported else 0 :])
    if not where.lists:
        return {
            f"{part}/{inner}/": n
            for part in folders
            for inner, n in files.images_by_folder(root / part, {str(root / part)}).items()
        }
    there = {
        part: sum(files.is_image(name) for _, names in files.folders_below(root / part) for name in names)
        for part in folders
    }
    read = {part: sum(path.startswith(f"{root / part}{os.sep}") for path in used) for part in folders}
    return {f"{part}/": there[part] - read[part] for part in folders if there[part] > read[part]}
