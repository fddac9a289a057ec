"""Boxes in PASCAL VOC's layout: ROOT/Annotations/ID.xml, JPEGImages/ID.jpg, ImageSets/Main/SPLIT.txt.

An item is (uint8 image (3, R, R), {boxes (N, 4), labels (N,), difficult (N,)}, index), boxes in pixels of that image.

VOC counts pixels from 1 and means the last one too; here a box is continuous: (xmin - 1, ymin - 1, xmax, ymax). What is
wrong with a box has one rule each, is counted in the run's row and named there: a box that reaches outside its image is
clipped to it, one without area (xmax <= xmin or ymax <= ymin, before or after clipping) is left out, in both parts.
Everything else is refused: a missing file, a class that is unknown, a `<size>` that is not the image's. Of the published set,
whose annotations nobody will mend, such a `<size>` is counted and named, and its boxes are taken as they are.
"""

import math
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from tqdm import tqdm

from hbo import files
from hbo.config import Run
from hbo.data import Data, audit, check
from hbo.data.sampling import seeded, split
from hbo.data.sources import read_image
from hbo.errors import DataError, UserError
from hbo.headers import Header, header_of
from hbo.names import same_name
from hbo.tasks import SETS
from hbo.tasks.detect import layout

CLASSES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip
GREY = (124, 116, 104)  # ImageNet's mean, around an image that is zoomed out
NAMED = 20  # faults that a row names; it counts all
Target = dict[str, Tensor]


@dataclass
class Annotated:
    """An image with its boxes as they are in its file, and what was wrong with them."""

    path: str
    header: Header
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    clipped: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    other_size: str = ""
    """Why its `<size>` is not the image's."""


class Boxes(Dataset):
    """Images with boxes by (epoch, index), randomly transformed as a function of (seed, epoch, index) alone.

    Args:
        images: the annotated images.
        classes: names, in the order of their labels.
        transform: of {"image", "boxes", "labels"}, to an image (3, R, R).
        seed: of the run.
        difficult: keep difficult objects, which evaluation needs to ignore them.
    """

    in_memory = False

    def __init__(
        self, images: list[Annotated], classes: list[str], transform: v2.Transform, seed: int, difficult: bool
    ) -> None:
        self.transform, self.seed = transform, seed
        self.paths = [image.path for image in images]
        self.targets: list[Target] = []
        for image in images:
            hard = torch.tensor(image.difficult, dtype=torch.bool)
            labels = torch.tensor([classes.index(name) for name in image.names], dtype=torch.long)
            target = {"boxes": torch.tensor(image.boxes).reshape(-1, 4), "labels": labels, "difficult": hard}
            self.targets.append(target if difficult else {name: values[~hard] for name, values in target.items()})

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Target, int]:
        epoch, index = item
        image = v2.functional.pil_to_tensor(read_image(Path(self.paths[index])))
        target: dict[str, Any] = dict(self.targets[index])
        boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=image.shape[-2:])  # pyright: ignore
        with seeded(self.seed, epoch, index):
            image, target = self.transform(tv_tensors.Image(image), target | {"boxes": boxes})
        return image.as_subclass(Tensor), {k: v.as_subclass(Tensor) for k, v in target.items()}, index

    def __getitems__(self, items: list[tuple[int, int]]) -> tuple[Tensor, list[Target], Tensor]:
        """A batch: images (B, 3, R, R), a dict of targets an image, indices (B,)."""
        images, targets, indices = zip(*(self[item] for item in items), strict=True)
        return torch.stack(images), list(targets), torch.tensor(indices)


def transform(run: Run, train: bool) -> v2.Transform:
    """SSD's augmentation in training; the whole of what is left to R x R, whatever its shape, always.

    The photometric distortion comes last, on R x R pixels, where SSD has it first: it takes a quarter of the time there. It works
    on each pixel by itself but for the contrast, whose mean grey takes in what zoom-out has put around the photograph.
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
    """What goes where its box goes."""
    return sample[1]["labels"], sample[1]["difficult"]


# ---------------------------------------------------------------- files


def read(root: Path, split_name: str, bad: Collection[str] = (), published: bool = False) -> list[Annotated]:
    """The images of a split with their boxes, in the order of its list, but for those at the paths that are `bad`.

    Args:
        root: with Annotations/, JPEGImages/ and ImageSets/.
        split_name: of a list.
        bad: paths.
        published: take annotations whose `<size>` is not their image's.

    Raises:
        DataError: a folder, list, image or annotation that is missing, or that cannot be read.
    """
    names, found = layout.names(root, split_name), layout.images(root)
    if twice := [found[name] for name in names if len(found.get(name, [])) > 1]:
        raise DataError(
            f"{twice[0][1]}: {Path(twice[0][0]).name} lies beside it, and the list {split_name}.txt does not say which of them; remove one"
        )
    images = {name: paths[0] for name, paths in found.items()}
    names = [name for name in names if images.get(name) not in bad]
    one = partial(_annotated, root, images, published)
    with ThreadPoolExecutor(4) as pool:
        return list(tqdm(pool.map(one, names), f"{root.name} {split_name}", len(names), unit="image", delay=3, leave=False))


def _annotated(root: Path, images: dict[str, str], published: bool, name: str) -> Annotated:
    """One image with its annotation, each box checked against the image's own size."""
    path = root / "Annotations" / f"{name}.xml"
    if name not in images:
        raise DataError(f"{root / 'JPEGImages' / name}.jpg: no such image, which a list of {root / 'ImageSets' / 'Main'} names")
    header = header_of(images[name])
    width, height = header.width, header.height
    try:
        tree = ElementTree.parse(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such annotation, which a list of {root / 'ImageSets' / 'Main'} names") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter two of its encoding
        raise DataError(f"{path}: not XML that can be read ({error})") from None
    found = Annotated(images[name], header, other_size=other_size(path, tree, images[name], (width, height)))
    if found.other_size and not published:
        raise DataError(f"{found.other_size}; take the images that were annotated, or mend <size> and boxes")
    for thing in tree.iterfind("object"):
        label = same_name((thing.findtext("name") or "").strip())
        hard = (thing.findtext("difficult") or "0").strip()
        if not label:
            raise DataError(f"{path}: an object without a name")
        if hard not in ("0", "1"):
            raise DataError(f"{path}: a {label} that is difficult={hard!r}; must be 0 or 1")
        corners = [thing.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
        try:
            x1, y1, x2, y2 = (float(corner) for corner in corners if corner is not None)
            if not all(map(math.isfinite, (x1, y1, x2, y2))):
                raise ValueError
        except ValueError:
            raise DataError(f"{path}: a box of {label} with corners {corners}, not four numbers") from None
        said = f"{name}: {label} ({x1:g}, {y1:g}, {x2:g}, {y2:g})"
        box = max(x1 - 1, 0.0), max(y1 - 1, 0.0), min(x2, width), min(y2, height)
        if x2 <= x1 or y2 <= y1 or box[2] <= box[0] or box[3] <= box[1]:
            found.left_out.append(f"{said} has no area in {width} x {height}")
            continue
        if box != (x1 - 1, y1 - 1, x2, y2):
            found.clipped.append(f"{said} reaches outside {width} x {height}")
        found.boxes.append(box)
        found.names.append(label)
        found.difficult.append(hard == "1")
    return found


def other_size(path: Path, tree: Any, image: str, size: tuple[int, int]) -> str:
    """Why an annotation's `<size>` is not its image's, so that boxes that fit by chance would be elsewhere; nothing where it is.

    A side that is missing, empty or 0 says nothing, as some programs write it; the depth is not looked at.
    """
    said = [(tree.findtext(f"size/{side}") or "0").strip() or "0" for side in ("width", "height")]
    try:
        numbers = [float(text) for text in said]
        if not all(map(math.isfinite, numbers)):
            raise ValueError
    except ValueError:
        return f"{path}: a <size> of {' x '.join(said)}, not two numbers"
    if all(number in (0, side) for number, side in zip(numbers, size, strict=True)):
        return ""
    how = "; it is transposed" if numbers == [*reversed(size)] else ""
    return (
        f"{path}: annotated at {' x '.join(said)}, where {Path(image).name} is {size[0]} x {size[1]} as its EXIF turns it{how}"
    )


def vocfolder(root: Path) -> tuple[list[Annotated], list[Annotated], list[str]]:
    """A folder in VOC's layout: trainval is trained on, test is reported; the classes are trainval's, by name."""
    train, val = (read(where, split_name) for where, split_name in layout.one_folder(root))
    check_apart(root, train, val)
    return train, val, classes_of(train)


def check_apart(root: Path, train: list[Annotated], val: list[Annotated]) -> None:
    """Refuse an image that both lists name."""
    if both := sorted({image.path for image in train} & {image.path for image in val}):
        raise DataError(f"{root / 'ImageSets' / 'Main'}: trainval.txt and test.txt both name {Path(both[0]).stem}")


def classes_of(images: list[Annotated]) -> list[str]:
    """Names of what is in the images, sorted."""
    return sorted({name for image in images for name in image.names})


class Found(NamedTuple):
    """Images to train on, those to report, names of the classes; and what was passed over: paths, facts, warnings."""

    train: list[Annotated]
    val: list[Annotated]
    classes: list[str]
    bad: set[str]
    odd: audit.Audit


def found_in(run: Run, reported: bool, known: list[str] | None) -> Found:
    """What the run's folder holds; no list is read that is not needed."""
    one = SETS[run.data]
    root = one.root(run.data, run.data_dir)
    *trained, last = layout.one_folder(root) if one.by_folder else layout.devkit(root)
    both = not reported or (one.by_folder and not known)
    lists = {"train": trained if both or run.holdout else [], "val": [last] if both or not run.holdout else []}
    listed = (
        {part: [path for at in those for path in layout.listed(*at)] for part, those in lists.items()} if run.skip_bad else {}
    )
    bad, facts, told = check.passed_over(run, listed)
    train, val = ([image for at in lists[part] for image in read(*at, bad, not one.by_folder)] for part in ("train", "val"))
    if one.by_folder:
        check_apart(root, train, val)
    return Found(train, val, known or (classes_of(train) if one.by_folder else CLASSES), bad, (facts, told))


def opened(run: Run, reported: bool = False, known: list[str] | None = None) -> Data:
    """Training and reported images, class names, and what was found in the annotations, for the row; see `hbo.tasks.build.open_data`.

    Raises:
        DataError: as `read`; or a class that is unknown, naming the file.
        UserError: a class that is none of the known ones.
    """
    train, val, classes, bad, skipped = found_in(run, reported, known)
    for image in [*train, *val]:
        if alien := sorted(set(image.names) - set(classes)):
            what = f"{image.path}: annotated with {alien[0]!r}, a class that is none"
            if known:
                raise UserError(f"{what} of the checkpoint's, which is of the classes {known}")
            owner = "of trainval.txt" if SETS[run.data].by_folder else "VOC's"
            raise DataError(f"{what} {owner}: {', '.join(classes)}")
    if not classes:
        raise DataError(f"data_dir={run.data_dir}: no box in any image of trainval.txt")
    if run.holdout:
        rest, held = split([0] * len(train), run.holdout, salt="holdout")
        train, val = [train[i] for i in rest], [train[i] for i in held]
    every = [*train, *val]
    faults = [text for image in every if (text := image.other_size)]
    faults += [f"{text}: {rule}" for rule, part in (("left out", "left_out"), ("clipped", "clipped")) for image in every for text in getattr(image, part)]  # fmt: skip
    odd = [audited(run, train, val, bad)] if SETS[run.data].by_folder and not reported else []
    others = [image.other_size for image in every if image.other_size]
    odd += [audit.exif({image.path: image.header for image in every}), skipped]
    if others:
        odd.append(({}, [f"{len(others)} annotations name another size than their image's ({others[0]}); taken as they are"]))
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
        None if reported else make(train, True), make(val, False), classes, facts, [line for _, lines in odd for line in lines]
    )


def audited(run: Run, train: list[Annotated], val: list[Annotated], bad: set[str]) -> audit.Audit:
    """Photographs that no list names, and those that are in both parts."""
    images = SETS[run.data].root(run.data, run.data_dir) / "JPEGImages"
    listed = bad | {image.path for image in [*train, *val]}
    alone = sum(path not in listed for paths in layout.images(images.parent).values() for path in paths)
    below = {f"{folder}/": n for folder, n in files.images_by_folder(images, {str(images)}).items()}
    left_out = audit.said_left_out(
        images, ({"./": alone} if alone else {}) | below, "neither trainval.txt nor test.txt names them"
    )
    both = audit.in_both(*([image.path for image in part] for part in (train, val)))
    return left_out[0] | both[0], left_out[1] + both[1]
