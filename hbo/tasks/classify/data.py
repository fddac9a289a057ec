"""Images to classify: folders of photographs, and sets held in memory."""

import math
import os
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from torchvision.transforms import v2

from hbo import files
from hbo.config import Run
from hbo.data import Data
from hbo.data.images import Images, whole
from hbo.data.sampling import few, split
from hbo.data.sources import Files, Source, check_headers
from hbo.errors import DataError
from hbo.tasks import SETS
from hbo.tasks.classify.layout import scan

CHECKED = 100_000  # files whose headers are read before training; of a larger set, the first of each class


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


def opened(run: Run) -> Data:
    """Training and reported images of the run's set.

    Raises:
        DataError: a missing folder, an empty class, a class in val that train lacks, a file that is no image.
    """
    one = SETS[run.data]
    if one.load is not None:
        return parts(run, *one.load(run), in_memory=True)
    if one.fetch is not None:
        one.fetch(run)
    return folder(run, one.root(run.data, run.data_dir) / one.inner, one.classes)


def parts(run: Run, train: Source, val: Source, classes: list[str], in_memory: bool) -> Data:
    """Training and reported images; `per_class` leaves some of the training part, `holdout` reports a share of that."""
    if run.per_class:
        train = train.part(few(train.labels, run.per_class, salt="per_class"))
    if run.holdout:
        rest, held = split(train.labels, run.holdout, salt="holdout")
        train, val = train.part(rest), train.part(held)
    make = lambda source, t: Images(source, fixed_part(run, t), random_part(run, t), run, in_memory)
    images = make(train, True)
    return Data(images, make(val, False), classes, images.upsampled())


def folder(run: Run, root: Path, classes: int | None) -> Data:
    """`root/train/CLASS/*` and `root/val/CLASS/*`; of a published set, as many classes as it has."""
    train, val = scan(root, "train"), scan(root, "val")
    if alien := sorted(val.keys() - train.keys()):
        raise DataError(f"{root / 'val' / alien[0]}: a class that {root / 'train'} lacks")
    if classes and len(train) != classes:
        raise DataError(
            f"{root / 'train'}: {len(train)} classes, where {run.data} has {classes}; for another set take --data imagefolder"
        )
    names = list(train)
    paths = {s: [f for name in names for f in part.get(name, [])] for s, part in (("train", train), ("val", val))}
    labels = {
        s: [i for i, name in enumerate(names) for _ in part.get(name, [])] for s, part in (("train", train), ("val", val))
    }
    every = paths["train"] + paths["val"]
    check_headers(every if len(every) <= CHECKED else [fs[0] for part in (train, val) for fs in part.values()])
    source = {s: Source(Files([os.fspath(f) for f in paths[s]]), labels[s]) for s in ("train", "val")}
    return parts(run, source["train"], source["val"], names, in_memory=False)


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
