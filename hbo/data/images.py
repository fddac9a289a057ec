"""Image classification: folders of photographs, and small sets held in memory.

An item is (uint8 image (3, R, R), label, index); the task normalises on its device.
"""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from hbo.config import Run
from hbo.data.sampling import few, seeded, split
from hbo.errors import DataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
CHECKED = 100_000  # files whose headers are read before training; of a larger set, the first of each class
Opened = tuple["Images", "Images", list[str]]


class Source(NamedTuple):
    """Images as they come, by index: PIL, or uint8 tensors (C, H, W), C 1 or 3."""

    get: Callable[[int], "Image.Image | Tensor"]
    labels: list[int]

    def part(self, indices: list[int]) -> "Source":
        return Source(Part(self.get, indices), [self.labels[i] for i in indices])


class Part:
    """Some of a source's images, by their place; a class, since a closure cannot go to a spawned worker."""

    def __init__(self, get: Callable, indices: list[int]) -> None:
        self.get, self.indices = get, indices

    def __call__(self, i: int) -> "Image.Image | Tensor":
        return self.get(self.indices[i])


class Files:
    """Images read from their files; paths as text, since an ImageNet of Path objects takes a gigabyte."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __call__(self, i: int) -> Image.Image:
        return read_image(Path(self.paths[i]))


class Images(Dataset):
    """Images by (epoch, index), randomly transformed as a function of (seed, epoch, index) alone.

    Args:
        source: the images as they come.
        fixed: the part of the transform that is the same each time an image is seen.
        random: the part that follows, to (C, R, R).
        seed: of the run.
        in_memory: do the fixed part once, now.
    """

    def __init__(self, source: Source, fixed: v2.Transform, random: v2.Transform, seed: int, in_memory: bool) -> None:
        self.get, self.labels = source
        self.transform, self.seed, self.in_memory = v2.Compose([fixed, random]), seed, in_memory
        if in_memory and not isinstance(fixed, v2.Identity):
            self.get = [fixed(source.get(i)) for i in range(len(source.labels))].__getitem__
            self.transform = random

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int, int]:
        epoch, index = item
        image = self.get(index)
        with seeded(self.seed, epoch, index):
            image = self.transform(image)
        if isinstance(image, Image.Image):
            image = v2.functional.pil_to_tensor(image)
        return image.expand(3, -1, -1), self.labels[index], index


def whole(resize: int, crop: int) -> list[v2.Transform]:
    """The short side to `resize`, then the middle `crop` x `crop`."""
    return [v2.Resize(resize, antialias=True), *([v2.CenterCrop(crop)] if crop != resize else [v2.CenterCrop(resize)])]


def fixed_part(run: Run, train: bool) -> v2.Transform:
    """What is the same for an image each time it is seen; sets in memory do it once."""
    if not train:
        return v2.Compose(whole(run.eval_resize or run.resolution, run.resolution))
    return v2.Identity() if run.crop == "random" else v2.Compose(whole(run.resolution, run.resolution))


def random_part(run: Run, train: bool) -> v2.Transform:
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
    return v2.Compose(parts) if parts else v2.Identity()


def opened(run: Run, train: Source, val: Source, classes: list[str], in_memory: bool) -> Opened:
    """Training and reported images; `per_class` leaves some of the training part, `holdout` reports a share of that."""
    if run.per_class:
        train = train.part(few(train.labels, run.per_class, salt="per_class"))
    if run.holdout:
        rest, held = split(train.labels, run.holdout, salt="holdout")
        train, val = train.part(rest), train.part(held)
    make = lambda source, t: Images(source, fixed_part(run, t), random_part(run, t), run.seed, in_memory)
    return make(train, True), make(val, False), classes


# ---------------------------------------------------------------- folders


def data_dir(run: Run) -> Path:
    """The folder that `--data_dir` names."""
    if run.data_dir is None:
        raise DataError(f"data={run.data} needs --data_dir, the folder that holds it")
    path = Path(run.data_dir).expanduser()
    if not path.is_dir():
        raise DataError(f"data_dir={run.data_dir}: no such folder")
    return path


def scan(root: Path, split_name: str) -> dict[str, list[Path]]:
    """Class -> its images, both sorted by name.

    Raises:
        DataError: no such folder, images outside a class folder, an empty class, or a file that is no image by its name.
    """
    folder = root / split_name
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {root} must hold train/ and val/, each with a folder a class")
    entries = sorted(e for e in folder.iterdir() if not e.name.startswith("."))
    if loose := [e for e in entries if e.is_file() and e.suffix.lower() in SUFFIXES]:
        raise DataError(f"{loose[0]}: lies outside a class; sort the images of {folder} into a folder a class")
    classes = {}
    for entry in (e for e in entries if e.is_dir()):
        files = sorted(Path(e.path) for e in os.scandir(entry) if e.is_file() and not e.name.startswith("."))
        if not files:
            raise DataError(f"{entry}: an empty class; remove the folder or fill it")
        if odd := [f for f in files if f.suffix.lower() not in SUFFIXES]:
            raise DataError(f"{odd[0]}: no image by its name; remove it")
        classes[entry.name] = files
    if not classes:
        raise DataError(f"{folder}: holds no class folders")
    return classes


@lru_cache
def fingerprint(root: str | None) -> str:
    """What a folder of images holds, in ten digits: the names and sizes of its files, not where it lies.

    Raises:
        DataError: as `scan`.
    """
    if root is None or not Path(root).expanduser().is_dir():
        raise DataError(
            f"data_dir={root}: no such folder"
            if root
            else "data=imagefolder needs --data_dir, the folder that holds train/ and val/"
        )
    digest = hashlib.sha256()
    for part in ("train", "val"):
        for name, files in scan(Path(root).expanduser(), part).items():
            digest.update(repr([(part, name, file.name, file.stat().st_size) for file in files]).encode())
    return digest.hexdigest()[:10]


def check_headers(files: list[Path]) -> None:
    """Read the first bytes of each file.

    Raises:
        DataError: the first that is no image.
    """
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda path: read_image(path, header_only=True), files):
            pass


def read_image(path: Path, header_only: bool = False) -> Image.Image:
    """An image in RGB.

    Raises:
        DataError: cannot be read as an image; names the path.
    """
    try:
        with Image.open(path) as image:
            return image if header_only else image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not an image that can be read ({error})") from None


def folder(run: Run, root: Path | None = None, classes: int | None = None) -> Opened:
    """`root/train/CLASS/*` and `root/val/CLASS/*`."""
    root = root or data_dir(run)
    train, val = scan(root, "train"), scan(root, "val")
    if alien := sorted(val.keys() - train.keys()):
        raise DataError(f"{root / 'val' / alien[0]}: a class that {root / 'train'} lacks")
    if classes and len(train) != classes:
        raise DataError(
            f"{root / 'train'}: {len(train)} classes, where {run.data} has {classes}; for another set take --data imagefolder"
        )
    names = list(train)
    files = {s: [f for name in names for f in part.get(name, [])] for s, part in (("train", train), ("val", val))}
    labels = {
        s: [i for i, name in enumerate(names) for _ in part.get(name, [])] for s, part in (("train", train), ("val", val))
    }
    every = files["train"] + files["val"]
    check_headers(every if len(every) <= CHECKED else [fs[0] for part in (train, val) for fs in part.values()])
    source = {s: Source(Files([os.fspath(f) for f in files[s]]), labels[s]) for s in ("train", "val")}
    return opened(run, source["train"], source["val"], names, in_memory=False)


def imagenette(run: Run) -> Opened:
    """torchvision's, at 320 pixels."""
    root = download_dir(run)
    _torchvision(run, "Imagenette", root, split="train", size="320px")
    return folder(run, root / "imagenette2-320")


def download_dir(run: Run) -> Path:
    """The folder of a set that may be downloaded; made, if so."""
    if run.download and run.data_dir:
        Path(run.data_dir).expanduser().mkdir(parents=True, exist_ok=True)
    return data_dir(run)


def _torchvision(run: Run, name: str, root: Path, **kwargs):
    from torchvision import datasets

    try:
        return getattr(datasets, name)(root, download=run.download, **kwargs)
    except RuntimeError as error:
        if run.download:
            raise DataError(f"data={run.data}: could not be downloaded into {root} ({error})") from None
        raise DataError(f"{root}: holds no {run.data}; add --download, or name the folder that does") from None


# ---------------------------------------------------------------- in memory


def stacked(run: Run) -> Opened:
    """A set held in memory as uint8, what is fixed of its transform done once."""
    (train, y_train), (val, y_val), classes = _STACKS[run.data](run)
    return opened(run, Source(train.__getitem__, y_train), Source(val.__getitem__, y_val), classes, in_memory=True)


Stack = tuple[Tensor, list[int]]  # images (N, C, H, W) uint8, labels


def _elpv(run: Run) -> tuple[Stack, Stack, list[str]]:
    from hbo.data.elpv import load

    return load()


def _digits(run: Run) -> tuple[Stack, Stack, list[str]]:
    """scikit-learn's 1,797 digits of 8 x 8; a quarter of each class is reported."""
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels * 15.9375).to(torch.uint8).view(-1, 1, 8, 8)  # 0..16 -> 0..255
    labels = [int(y) for y in target]
    return *parts(images, labels, *split(labels, 0.25, salt="digits")), [str(i) for i in range(10)]


def _cifar(run: Run) -> tuple[Stack, Stack, list[str]]:
    root = download_dir(run)
    sets = [_torchvision(run, run.data.upper(), root, train=train) for train in (True, False)]
    train, val = ((torch.from_numpy(s.data).permute(0, 3, 1, 2), list(s.targets)) for s in sets)
    return train, val, sets[0].classes


def _fake(run: Run) -> tuple[Stack, Stack, list[str]]:
    """Random images of the run's resolution, with random labels: for tests and timing; there is nothing to learn."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: (
        torch.randint(0, 256, (n, 3, run.resolution, run.resolution), dtype=torch.uint8, generator=generator),
        torch.randint(0, 10, (n,), generator=generator).tolist(),
    )
    return draw(256), draw(64), [str(i) for i in range(10)]


def parts(images: Tensor, labels: list[int], train: list[int], val: list[int]) -> tuple[Stack, Stack]:
    """The two parts of a set by their indices."""
    return (images[train], [labels[i] for i in train]), (images[val], [labels[i] for i in val])


_STACKS: dict[str, Callable[[Run], tuple[Stack, Stack, list[str]]]] = {
    "elpv": _elpv,
    "digits": _digits,
    "cifar10": _cifar,
    "cifar100": _cifar,
    "fake": _fake,
}
