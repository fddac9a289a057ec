"""Images to classify: folders of photographs, and sets held in memory."""

import math
import os
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from torchvision.transforms import v2

from hbo import files, headers
from hbo.config import Run
from hbo.data import Data, audit, check
from hbo.data.images import Images, whole
from hbo.data.sampling import at_most_per_class, split
from hbo.data.sources import Files, Source
from hbo.errors import DataError
from hbo.names import check_names
from hbo.tasks import SETS
from hbo.tasks.classify import layout


def fixed_part(run: Run, train: bool) -> v2.Transform:
    """What is the same for an image each time it is seen; sets in memory do it once."""
    if not train:
        return v2.Compose(whole(run.eval_resize or run.resolution, run.resolution))
    return v2.Identity() if run.crop == "random" else v2.Compose(whole(run.resolution, run.resolution))


def random_part(run: Run, train: bool) -> list[v2.Transform]:
    """Training's crops, flips and jitter."""
    parts: list[v2.Transform] = []
    if train and run.crop == "random":
        parts.append(v2.RandomResizedCrop(run.resolution, scale=(run.crop_area, 1.0), antialias=True))
    if train and run.crop == "pad":
        parts.append(v2.RandomCrop(run.resolution, padding=run.resolution // 8, padding_mode="reflect"))
    if train and run.flip != "none":
        parts.append(v2.RandomHorizontalFlip())
    if train and run.flip == "both":
        parts.append(v2.RandomVerticalFlip())
    if train and run.jitter:
        parts.append(v2.ColorJitter(brightness=run.jitter, contrast=run.jitter))
    return parts


def opened(run: Run, reported: bool = False, known: list[str] | None = None) -> Data:
    """Training and reported images of the run's set; see `hbo.tasks.build.open_data`.

    Raises:
        DataError: a missing folder, an empty class, a class in val that train lacks, a file that is no image.
        UserError: other classes than the known ones.
    """
    one = SETS[run.data]
    if one.load is not None:
        train, val, names = one.load(run)
        if known:
            check_names(names, known, f"data={run.data}", whole=True)
            train, val = (relabelled(part, names, known) for part in (train, val))
        return parts(run, train, val, known or names, in_memory=True)
    if one.fetch is not None:
        one.fetch(run)
    return folder(run, one.root(run.data, run.data_dir) / one.inner, reported, known)


def relabelled(source: Source, names: list[str], known: list[str]) -> Source:
    """The same images with the places of their classes among the known ones."""
    places = {name: known.index(name) for name in names}
    return Source(source.get, [places[names[label]] for label in source.labels])


def parts(run: Run, train: Source | None, val: Source | None, classes: list[str], in_memory: bool) -> Data:
    """Training and reported images; `per_class` leaves some of the training part, `holdout` reports a share of that.

    Args:
        run: all fields.
        train: images to train on; None where only the others were asked for.
        val: those to report.
        classes: names, in the order of the labels.
        in_memory: whether they are kept there.
    """
    if train is not None and run.per_class:
        train = train.part(at_most_per_class(train.labels, run.per_class, salt="per_class"))
    if train is not None and run.holdout:
        rest, held = split(train.labels, run.holdout, salt="holdout")
        train, val = train.part(rest), train.part(held)
    make = lambda source, t: source and Images(source, fixed_part(run, t), random_part(run, t), run, in_memory)
    images = make(train, True)
    return Data(images, make(val, False), classes, images.upsampled() if images else {})


def folder(run: Run, root: Path, reported: bool, known: list[str] | None) -> Data:
    """`root/train/CLASS/*` and `root/val/CLASS/*`; of a published set, as many classes as it has."""
    evaluated = "train" if run.holdout else "val"
    opening = (evaluated,) if reported else layout.PARTS
    found = {part: layout.scan(root, part) for part in opening}
    whole = (root / "train").is_dir()
    there = layout.classes(root / "train") if whole else list(found[evaluated])
    if "val" in found and (alien := sorted(found["val"].keys() - set(there))) and not known:
        raise DataError(f"{root / 'val' / alien[0]}: a class that {root / 'train'} lacks")
    one = SETS[run.data]
    if one.classes and len(there) != one.classes and whole:
        raise DataError(
            f"{root / 'train'}: {len(there)} classes, where {run.data} has {one.classes}; for another set take --data imagefolder"
        )
    if known:
        every = sorted({*there, *(name for part in found.values() for name in part)})
        check_names(every, known, os.fspath(root), whole)
    names = known or there
    paths = {part: [file for name in names for file in classes.get(name, [])] for part, classes in found.items()}
    bad, skipped, told = check.passed_over(run, {part: [os.fspath(file) for file in inside] for part, inside in paths.items()})
    found = {
        part: {name: [file for file in inside if os.fspath(file) not in bad] for name, inside in classes.items()}
        for part, classes in found.items()
    }
    paths = {part: [file for name in names for file in classes.get(name, [])] for part, classes in found.items()}
    every = [file for part in paths.values() for file in part]
    all_of_them = len(every) <= files.MANY
    looked_at = every if all_of_them else [inside[0] for part in found.values() for inside in part.values() if inside]
    turns = dict(zip(map(os.fspath, looked_at), headers.headers_of(looked_at), strict=True))
    source = {
        part: Source(
            Files([os.fspath(file) for file in paths[part]]),
            [i for i, name in enumerate(names) for _ in classes.get(name, [])],
        )
        for part, classes in found.items()
    }
    data = parts(run, source.get("train"), source.get("val"), names, in_memory=False)
    data = replace(data, train=None) if reported else data
    used = {os.path.dirname(file) for part in paths.values() for file in part}
    where = [root / evaluated] if reported else [root]
    odd = [audit.left_out(at, used, "an image lies in train/CLASS/ or val/CLASS/ itself") for at in where]
    odd = [(skipped, told), *odd, audit.exif(turns if all_of_them else None)]
    return audited(data, [*odd, audit.classes_without(data.val.labels, names)])


def audited(data: Data, odd: list[audit.Audit]) -> Data:
    """The set with what is odd in its folders, and with the images that are in both parts."""
    if data.train is not None:
        odd = [*odd, audit.in_both(*(audit.paths_of(part.source) for part in (data.train, data.val)))]
    facts = {name: value for found, _ in odd for name, value in found.items()}
    return replace(data, facts=data.facts | facts, warnings=[*data.warnings, *(line for _, told in odd for line in told)])


def sample(run: Run, images: int) -> Images:
    """Some of a folder's training images, to time loading by: the first of some classes, unchecked.

    Raises:
        DataError: the folder is not there, or holds none.
    """
    one = SETS[run.data]
    root = one.root(run.data, run.data_dir) / one.inner / "train"
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    classes = sorted(entry.path for entry in os.scandir(root) if entry.is_dir() and not files.is_litter(entry.name))
    chosen = classes[:: math.ceil(len(classes) / 16)] if classes else []
    each = [islice((e.path for e in os.scandir(c) if files.is_image(e.name)), images) for c in chosen]
    paths = [path for together in zip_longest(*each) for path in together if path][:images]
    if not paths:
        raise DataError(f"{root}: holds no images in a folder a class")
    return Images(Source(Files(paths), [0] * len(paths)), fixed_part(run, True), random_part(run, True), run, in_memory=False)


def torchvision_set(run: Run, name: str, **kwargs: Any) -> Any:
    """A data set of torchvision's in data_dir, downloaded if the run allows it; the folder is made then.

    Raises:
        DataError: it is not there, or could not be downloaded.
    """
    from torchvision import datasets

    if run.download and run.data_dir:
        files.expanded(run.data_dir).mkdir(parents=True, exist_ok=True)
    root = SETS[run.data].root(run.data, run.data_dir)
    try:
        return getattr(datasets, name)(root, download=run.download, **kwargs)
    except RuntimeError as error:
        if run.download:
            raise DataError(f"data={run.data}: could not be downloaded into {root} ({error})") from None
        raise DataError(f"{root}: holds no {run.data}; add --download, or name the folder that does") from None
