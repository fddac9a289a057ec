"""Images to classify: folders of photographs, and data sets in memory."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from torchvision.transforms import v2

from hbo import archives, files, headers
from hbo.config import Run
from hbo.data import Data, audit, check
from hbo.data.images import Images, whole
from hbo.data.sampling import at_most_per_class, split
from hbo.data.sources import Files, Source
from hbo.errors import DataError
from hbo.names import check_names
from hbo.tasks import SETS
from hbo.tasks.classify import layout, listed


def fixed_part(run: Run, train: bool) -> v2.Transform:
    """The fixed part of the transform; data sets in memory apply it once."""
    if not train:
        return v2.Compose(whole(run.eval_resize or run.resolution, run.resolution))
    return v2.Identity() if run.crop == "random" else v2.Compose(whole(run.resolution, run.resolution))


def random_part(run: Run, train: bool) -> list[v2.Transform]:
    """Random crops, flips and jitter of training."""
    parts: list[v2.Transform] = []
    if train and run.crop == "random":
        parts.append(v2.RandomResizedCrop(run.resolution, scale=(run.crop_area, 1.0), antialias=True))
    if train and run.crop == "pad":
        parts.append(v2.RandomCrop(run.resolution, padding=run.resolution // 8, padding_mode="reflect"))
    if train and run.flip != "none":
        parts.append(v2.RandomHorizontalFlip())
    if train and run.flip == "both":
        parts.append(v2.RandomVerticalFlip())
    if train and run.auto_augment != "none":
        parts.append(v2.TrivialAugmentWide() if run.auto_augment == "trivial" else v2.RandAugment())
    if train and run.jitter:
        parts.append(v2.ColorJitter(brightness=run.jitter, contrast=run.jitter))
    return parts


def opened(run: Run, reported: bool = False, known: list[str] | None = None) -> Data:
    """Training and validation images of the run's data set; see `hbo.tasks.build.open_data`.

    Raises:
        DataError: a missing folder, an empty class, a class in val that train lacks,
        a file that is not an image.
        UserError: the classes differ from the known ones.
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
    """The same images, labelled by the position of their class among the known ones."""
    places = {name: known.index(name) for name in names}
    return Source(source.get, [places[names[label]] for label in source.labels])


def parts(run: Run, train: Source | None, val: Source | None, classes: list[str], in_memory: bool) -> Data:
    """Training and validation images; `per_class` keeps a subset of the training images, `holdout` splits its
    validation images from them.

    Args:
        run: all fields.
        train: training images; None if only the others are needed.
        val: validation images.
        classes: names, in the order of the labels.
        in_memory: whether the images are in memory.
    """
    if train is not None and run.per_class:
        train = train.part(at_most_per_class(train.labels, run.per_class, salt="per_class"))
    if train is not None and run.holdout:
        rest, held = split(train.labels, run.holdout, salt="holdout")
        train, val = train.part(rest), train.part(held)
    make = lambda source, t: (
        source and Images(source, fixed_part(run, t), random_part(run, t), run, in_memory)
    )
    images = make(train, True)
    return Data(images, make(val, False), classes, images.facts() if images else {})


def read_parts(run: Run, root: Path, reported: bool) -> tuple[layout.Parts, list[str] | None]:
    """Part -> class -> its images, for the parts needed; and the names of all classes, None if unknown.

    An unsplit folder is split here: `val_split` of each class, by a rule that never changes. It ignores the
    seed, so that all arms and seeds of a study report the same images, as they do with a published split.

    Raises:
        DataError: as `layout.contents`, or a share without a validation image.
        UserError: as `layout.check_split`.
    """
    evaluated = "train" if run.holdout else "val"
    opening = (evaluated,) if reported else layout.PARTS
    how = layout.kind(root)
    if how == "archive":
        layout.check_split(root, run.val_split)
        packed: layout.Parts = {part: archives.members(root, part) for part in opening}
        known = "train" in archives.found(root)
        return packed, list(packed.get("train") or archives.members(root, "train")) if known else None
    if how == "parts" or not SETS[run.data].by_folder:
        if run.val_split:
            layout.check_split(root, run.val_split)
        train = layout.part_folder(root, "train")
        return {part: layout.scan(root, part) for part in opening}, layout.classes(
            train
        ) if train.is_dir() else None
    layout.check_split(root, run.val_split)
    found = layout.contents(root)
    if layout.WHOLE in found:
        classes = found[layout.WHOLE]
        labels = [name for name, inside in classes.items() for _ in inside]
        every = [file for inside in classes.values() for file in inside]
        found = {part: {name: [] for name in classes} for part in layout.PARTS}
        for part, indices in zip(layout.PARTS, split(labels, run.val_split, salt="val_split"), strict=True):
            for i in indices:
                found[part][labels[i]].append(every[i])
        if not any(found["val"].values()):
            raise DataError(
                f"val_split={run.val_split}: no validation image among the {len(every)} images of {root};"
                " use a larger share"
            )
    return {part: found[part] for part in opening}, list(found["train"])


def folder(run: Run, root: Path, reported: bool, known: list[str] | None) -> Data:
    """The images of a folder or of a CSV; a published data set must have its number of classes."""
    found, all_classes = read_parts(run, root, reported)
    evaluated, whole = "train" if run.holdout else "val", all_classes is not None
    there = list(found[evaluated]) if all_classes is None else all_classes
    if "val" in found and (alien := sorted(found["val"].keys() - set(there))) and not known:
        raise DataError(
            f"{layout.part_folder(root, 'val') / alien[0]}: a class that the training images of {root} lack"
        )
    one = SETS[run.data]
    if one.classes and len(there) != one.classes and whole:
        raise DataError(
            f"{root / 'train'}: {len(there)} classes, but {run.data} has {one.classes}; for another data set"
            " use --data imagefolder"
        )
    if known:
        every = sorted({*there, *(name for part in found.values() for name in part)})
        check_names(every, known, os.fspath(root), whole)
    names = known or there
    paths = {
        part: [file for name in names for file in classes.get(name, [])] for part, classes in found.items()
    }
    bad, skipped, told = check.passed_over(
        run, {part: [os.fspath(file) for file in inside] for part, inside in paths.items()}
    )
    found = {
        part: {
            name: [file for file in inside if os.fspath(file) not in bad] for name, inside in classes.items()
        }
        for part, classes in found.items()
    }
    paths = {
        part: [file for name in names for file in classes.get(name, [])] for part, classes in found.items()
    }
    every = [file for part in paths.values() for file in part]
    all_of_them = len(every) <= files.MANY
    looked_at = (
        every if all_of_them else [inside[0] for part in found.values() for inside in part.values() if inside]
    )
    turns = dict(zip([os.fspath(file) for file in looked_at], headers.headers_of(looked_at), strict=True))
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
    if layout.kind(root) == "classes":  # split here; a class with one image has none in the validation part
        used |= {os.fspath(root / name) for name in there}
    odd = [
        (skipped, told),
        left_out(root, used, evaluated if reported else None),
        audit.exif(turns if all_of_them else None),
    ]
    number = {name: sum(len(classes.get(name, [])) for classes in found.values()) for name in names}
    single = [name for name in names if run.val_split and number[name] == 1]
    return audited(data, [*odd, audit.classes_without(data.val.labels, names, single)])


def left_out(root: Path, used: set[str], part: str | None) -> audit.Audit:
    """Warnings about images that are not read, and about which of several folders is the validation part.

    Args:
        root: the folder, or the list.
        used: folders whose images are read.
        part: the only part needed, if not both.
    """
    how = layout.kind(root)
    if how == "csv":  # a CSV lists its images itself
        told = listed.said_parts(root if root.is_file() else listed.found(root)[0])
        return {}, [told] if told else []
    if how == "archive":
        facts, _ = audit.said_left_out(root, {}, "")
        told = archives.said_parts(root)
        return facts, [told] if told else []
    if how == "classes":
        return audit.left_out(root, used, "images must be directly in CLASS/")
    where = root if part is None else layout.part_folder(root, part)
    facts, told = audit.left_out(
        where, used, f"images must be directly in train/CLASS/ or val/CLASS/{layout.said_parts(root)}"
    )
    reported = layout.part_folder(root, "val").name
    return facts | ({"reported_folder": f"{reported}/"} if reported != "val" else {}), told


def audited(data: Data, odd: list[audit.Audit]) -> Data:
    """The data set, with warnings about its folders and about images in both parts."""
    if data.train is not None:
        train, val = (audit.paths_of(part.source) for part in (data.train, data.val))
        labels = [[data.classes[label] for label in part.labels] for part in (data.train, data.val)]
        odd = [*odd, audit.in_both(train, val, labels=(labels[0], labels[1]))]
    facts = {name: value for found, _ in odd for name, value in found.items()}
    return replace(
        data, facts=data.facts | facts, warnings=[*data.warnings, *(line for _, told in odd for line in told)]
    )


def sample(run: Run, images: int) -> Images:
    """A sample of a folder's training images for timing the loader: the first of some classes, unchecked.

    Raises:
        DataError: the folder does not exist, or contains none.
    """
    one = SETS[run.data]
    root = one.root(run.data, run.data_dir) / one.inner
    if (how := layout.kind(root)) == "archive":
        each = [[os.fspath(file) for file in inside] for inside in archives.members(root, "train").values()]
        return _sample(run, each, images, f"{root}: holds no images")
    if how == "csv":
        found = layout.contents(root)
        inside = found.get("train", found.get(layout.WHOLE, {})).values()
        each = [[os.fspath(file) for file in one] for one in inside]
        return _sample(run, each, images, f"{root}: lists no images")
    root = root if how == "classes" else layout.part_folder(root, "train")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    classes = sorted(
        entry.path for entry in os.scandir(root) if entry.is_dir() and not files.is_litter(entry.name)
    )
    chosen = classes[:: math.ceil(len(classes) / 16)] if classes else []
    each = [islice((e.path for e in os.scandir(c) if files.is_image(e.name)), images) for c in chosen]
    return _sample(run, each, images, f"{root}: contains no images in class folders")


def _sample(run: Run, each: Sequence[Iterable[str]], images: int, none: str) -> Images:
    """At most this many images, from each class in turn. `none`: the error if there is no image."""
    paths = [path for together in zip_longest(*each) for path in together if path][:images]
    if not paths:
        raise DataError(none)
    return Images(
        Source(Files(paths), [0] * len(paths)),
        fixed_part(run, True),
        random_part(run, True),
        run,
        in_memory=False,
    )


def torchvision_set(run: Run, name: str, **kwargs: Any) -> Any:
    """A data set of torchvision's in data_dir; downloaded, and the folder made, if the run allows it.

    Raises:
        DataError: it is missing, or could not be downloaded.
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
        raise DataError(
            f"{root}: does not contain {run.data}; add --download, or name the folder that does; for"
            " class folders use --data imagefolder"
        ) from None
