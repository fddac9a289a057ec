"""Images with boxes, of PASCAL VOC or of a folder in any of the formats (`hbo.tasks.detect.formats`).

An item is (uint8 image (3, R, R), {boxes (N, 4), labels (N,), difficult (N,)}, index),
boxes in pixels of that image.

Faulty boxes are counted and named in the run's row: a box that reaches outside its image is clipped, and a
box without area (in VOC: xmax <= xmin or ymax <= ymin, before or after clipping) is dropped, in both parts.
Anything else is an error: a missing file, an unknown class, a `<size>` that differs from the
image's. In the published VOC, which nobody will correct, such a `<size>` is counted and named, and
its boxes are used as they are.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from hbo.config import Run
from hbo.data import Data, audit, check
from hbo.data.sampling import seeded, split
from hbo.data.sources import read_image
from hbo.errors import DataError, UserError
from hbo.names import few_names
from hbo.tasks import SETS
from hbo.tasks.detect import formats, layout
from hbo.tasks.detect.formats import Annotated, places, voc

CLASSES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip
GREY = (124, 116, 104)  # ImageNet's mean, the border of an image that is zoomed out
ONLY = {"vocfolder": "VOC"}  # data sets that allow only one format
NAMED = 20  # faults named in a row; all are counted
Target = dict[str, Tensor]


class Boxes(Dataset):
    """Images with boxes by (epoch, index); random transforms depend only on (seed, epoch, index).

    Args:
        images: the annotated images.
        classes: names, in the order of their labels.
        transform: of {"image", "boxes", "labels"}, to an image (3, R, R).
        seed: of the run.
        difficult: keep difficult objects; evaluation needs them, in order to ignore them.
    """

    in_memory = False

    def __init__(
        self, images: list[Annotated], classes: list[str], transform: v2.Transform, seed: int, difficult: bool
    ) -> None:
        self.transform, self.seed = transform, seed
        self.paths = [image.path for image in images]
        self.sizes = [(image.header.width, image.header.height) for image in images]
        self.targets: list[Target] = []
        for image in images:
            hard = torch.tensor(image.difficult, dtype=torch.bool)
            labels = torch.tensor([classes.index(name) for name in image.names], dtype=torch.long)
            target = {"boxes": torch.tensor(image.boxes).reshape(-1, 4), "labels": labels, "difficult": hard}
            self.targets.append(
                target if difficult else {name: values[~hard] for name, values in target.items()}
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Target, int]:
        epoch, index = item
        image = v2.functional.pil_to_tensor(read_image(Path(self.paths[index])))
        target: dict[str, Any] = dict(self.targets[index])
        size = image.shape[-2:]
        boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)  # pyright: ignore
        with seeded(self.seed, epoch, index):
            image, target = self.transform(tv_tensors.Image(image), target | {"boxes": boxes})
        return image.as_subclass(Tensor), {k: v.as_subclass(Tensor) for k, v in target.items()}, index

    def __getitems__(self, items: list[tuple[int, int]]) -> tuple[Tensor, list[Target], Tensor]:
        """A batch: images (B, 3, R, R), a dict of targets per image, indices (B,)."""
        images, targets, indices = zip(*(self[item] for item in items), strict=True)
        return torch.stack(images), list(targets), torch.tensor(indices)


def transform(run: Run, train: bool) -> v2.Transform:
    """SSD's augmentation in training; then, as in evaluation, a resize to R x R, whatever the shape.

    The photometric distortion is applied last, on R x R pixels, in a quarter of the time; SSD
    applies it first. It acts on each pixel separately, except for contrast, whose mean grey includes
    the border that zoom-out adds.
    """
    parts: list[Any] = []
    if train and run.ssd_augment:
        parts += [v2.RandomZoomOut(fill=GREY), v2.RandomIoUCrop()]
    if train and run.flip != "none":
        parts.append(v2.RandomHorizontalFlip())
    if train and run.flip == "both":
        parts.append(v2.RandomVerticalFlip())
    parts.append(v2.Resize((run.resolution, run.resolution), antialias=True))
    if train:
        parts.append(v2.SanitizeBoundingBoxes(labels_getter=_beside_boxes))
    if train and run.ssd_augment:
        parts.append(v2.RandomPhotometricDistort())
    return v2.Compose(parts)


def _beside_boxes(sample: Any) -> tuple[Tensor, Tensor]:
    """The values that are dropped together with their box."""
    return sample[1]["labels"], sample[1]["difficult"]


# ---------------------------------------------------------------- files


def read(root: Path, split_name: str) -> list[Annotated]:
    """The images of a list in VOC's layout with their boxes, in its order.

    Raises:
        DataError: a folder, list, image or annotation is missing or cannot be read.
    """
    folder = voc.listed(root, [split_name])
    return folder.read(folder.parts[split_name], f"{root.name} {split_name}")


class Found(NamedTuple):
    """Training images, validation images, class names; and what was skipped: paths, columns, warnings."""

    train: list[Annotated]
    val: list[Annotated]
    classes: list[str]
    bad: set[str]
    odd: audit.Audit


def found_in(run: Run, reported: bool, known: list[str] | None) -> Found:
    """Contents of the run's folder; only the annotations needed are read."""
    one = SETS[run.data]
    root = one.root(run.data, run.data_dir)
    both = not reported or (one.by_folder and not known)  # the classes come from the training images
    folders = (
        [split_as_asked(run, root, formats.opened(root, ONLY.get(run.data)))]
        if one.by_folder
        else published(root, both or bool(run.holdout))
    )
    if one.by_folder and both and "train" not in folders[0].parts:
        raise DataError(f"{folders[0].lacks}; training needs its images")
    wanted = {"train": both or bool(run.holdout), "val": both or not run.holdout}
    parts = {
        name: [(folder, folder.parts.get(name, [])) for folder in folders]
        for name, is_wanted in wanted.items()
        if is_wanted
    }
    there = {
        name: [path for _, paths in those for path in paths if os.path.isfile(path)]
        for name, those in parts.items()
    }
    bad, facts, told = check.passed_over(run, there if run.skip_bad else {})
    images = {
        name: [
            image
            for folder, paths in those
            for image in folder.read([p for p in paths if p not in bad], f"{root.name} {name}")
        ]
        for name, those in parts.items()
    }
    train, val = images.get("train", []), images.get("val", [])
    return Found(
        train,
        val,
        known or (formats.classes(folders[0], train, val) if one.by_folder else CLASSES),
        bad,
        (facts, told),
    )


def published(root: Path, train: bool) -> list[formats.Folder]:
    """PASCAL VOC's folders; those for training only if needed."""
    found = []
    for where, name in layout.devkit(root):
        part = "val" if name == "test" else "train"
        if part == "val" or train:
            folder = voc.listed(where, [name], published=True)
            found.append(folder._replace(parts={part: folder.parts[name]}))
    return found


def split_as_asked(run: Run, root: Path, folder: formats.Folder) -> formats.Folder:
    """The folder in two parts: its own, or split by `val_split`, with the same images for every seed.

    Raises:
        UserError: it has parts and val_split is given, or the reverse.
    """
    if "all" not in folder.parts:
        if run.val_split:
            sizes = ", ".join(f"{len(paths)} images in {name}" for name, paths in folder.parts.items())
            raise UserError(
                f"val_split={run.val_split}: {root} is already split ({sizes}); remove --val_split, or use"
                " --holdout instead"
            )
        return folder
    if not run.val_split:
        said = (
            folder.lacks
            or f"{root}: {folder.format}, {len(folder.parts['all'])} images, not split into train and val"
        )
        raise DataError(f"{said}; --val_split 0.2 validates on a fifth of the images")
    paths = sorted(folder.parts["all"])
    train, val = (
        [paths[i] for i in part] for part in split([0] * len(paths), run.val_split, salt="val_split")
    )
    return folder._replace(parts={"train": train, "val": val})


def opened(run: Run, reported: bool = False, known: list[str] | None = None) -> Data:
    """Training and validation images, class names, and the row's columns about the annotations; see
    `hbo.tasks.build.open_data`.

    Raises:
        DataError: as `read`; or an unknown class, naming the file.
        UserError: a class that is not among the known ones.
    """
    train, val, classes, bad, skipped = found_in(run, reported, known)
    by_folder = SETS[run.data].by_folder
    for image in [*train, *val]:
        if alien := sorted(set(image.names) - set(classes)):
            what = f"{image.path}: annotated with {alien[0]!r}, which is not a class"
            if known:
                raise UserError(f"{what} of the checkpoint, whose classes are {known}")
            owner = f"of {trained_on(run)}" if by_folder else "of VOC"
            raise DataError(f"{what} {owner}: {', '.join(classes)}")
    if not classes:
        raise DataError(f"data_dir={run.data_dir}: no boxes in the images of {trained_on(run)}")
    if run.holdout:
        rest, held = split([0] * len(train), run.holdout, salt="holdout")
        train, val = [train[i] for i in rest], [train[i] for i in held]
    every = [*train, *val]
    faults = [text for image in every if (text := image.other_size)]
    for rule, part in (("left out", "left_out"), ("clipped", "clipped")):
        faults += [f"{text}: {rule}" for image in every for text in getattr(image, part)]
    odd = [audited(run, train, val, bad)] if by_folder and not reported else []
    others = [image.other_size for image in every if image.other_size]
    odd += [audit.exif({image.path: image.header for image in every}), skipped]
    if others:
        odd.append(
            (
                {},
                [
                    f"{len(others)} annotations have another size than their image ({others[0]}); their"
                    " boxes are used"
                ],
            )
        )
    facts = {name: value for found, _ in odd for name, value in found.items()} | {
        "train_boxes": sum(len(image.boxes) - sum(image.difficult) for image in train),
        "val_boxes": sum(len(image.boxes) for image in val),
        "difficult_boxes": sum(sum(image.difficult) for image in every),
        "clipped_boxes": sum(len(image.clipped) for image in every),
        "left_out_boxes": sum(len(image.left_out) for image in every),
        "other_sizes": len(others),
        "faults": faults[:NAMED],
    }
    make = lambda images, t: Boxes(images, classes, transform(run, t), run.seed, difficult=not t)
    return Data(
        None if reported else make(train, True),
        make(val, False),
        classes,
        facts,
        [line for _, lines in odd for line in lines],
    )


def trained_on(run: Run) -> str:
    """Name of the training part, for messages."""
    lists = SETS[run.data].root(run.data, run.data_dir) / "ImageSets" / "Main"
    return "trainval.txt" if (lists / "trainval.txt").is_file() else "the training part"


def audited(run: Run, train: list[Annotated], val: list[Annotated], bad: set[str]) -> audit.Audit:
    """Warnings about photographs in no part and in both, and about classes without training objects."""
    root = SETS[run.data].root(run.data, run.data_dir)
    used = bad | {image.path for image in [*train, *val]}
    if (root / "ImageSets").is_dir():
        root, why = root / "JPEGImages", "neither trainval.txt nor test.txt lists them"
        if trained_on(run) != "trainval.txt":
            why = "no list in use names them"
    else:
        why = "they are in neither part, or have no annotation"
    alone = Counter(
        os.path.relpath(path.parent, root) for path in places.below(root) if str(path) not in used
    )
    left_out = audit.said_left_out(
        root, {f"{folder}/": number for folder, number in sorted(alone.items())}, why
    )
    both = audit.in_both(*([image.path for image in part] for part in (train, val)))
    untaught = sorted(set(formats.classes_of(val)) - set(formats.classes_of(train)))
    told = (
        [f"{few_names(untaught)}: in the validation images, but no training image has such an object"]
        if untaught
        else []
    )
    return left_out[0] | both[0], left_out[1] + both[1] + told
