"""Data sets to classify, one entry each: recipe, size, and source of the images.

Those with `load` are kept in memory as uint8, with the fixed part of their transform applied once.
"""

import importlib.util
import os
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

from hbo import files
from hbo.tasks.classify import layout
from hbo.tasks.spec import NAMED, PUBLISHED, DataSet, Look

CIFAR = {
    "resolution": 32,
    "eval_resize": 32,
    "epochs": 60,
    "batch": 128,
    "lr": 0.1,
    "crop": "pad",
    "weight_decay": 5e-4,
}
ELPV = (2624, "0abe6fe770")  # photographs, and the first digits of their labels' hash, in version 1.0
Parts = Any  # images to train on, images to report (`hbo.data.sources.Source`), names of classes


def elpv(run: Any) -> Parts:
    from hbo.data.sources import Grey, Source
    from hbo.tasks.classify.elpv import load

    paths, (train, y_train), (val, y_val), classes = load()
    grey = lambda part: Grey([paths[i] for i in part])
    return Source(grey(train), y_train), Source(grey(val), y_val), classes


def look_at_elpv(_: Path | None) -> Look:
    """The package elpv: its labels, and the number of photographs."""
    found = importlib.util.find_spec("elpv_dataset")
    if found is None or found.origin is None:
        return None, NAMED
    root = Path(found.origin).parent / "data"
    labels = sha256((root / "labels.csv").read_bytes()).hexdigest()[:10]
    if (sum(files.is_image(entry.name) for entry in os.scandir(root / "images")), labels) == ELPV:
        return None, PUBLISHED
    return labels, "labels"


def digits(run: Any) -> Parts:
    """scikit-learn's 1,797 digits of 8 x 8; a quarter of each class is the validation part."""
    import torch
    from sklearn.datasets import load_digits

    from hbo.data.sampling import split
    from hbo.data.sources import Source, Stack

    pixels, target = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels * 15.9375).to(torch.uint8).view(-1, 1, 8, 8)  # 0..16 -> 0..255
    labels = [int(y) for y in target]
    parts = (
        Source(Stack(images[part]), [labels[i] for i in part]) for part in split(labels, 0.25, salt="digits")
    )
    return *parts, [str(i) for i in range(10)]


def cifar(run: Any) -> Parts:
    """Torchvision's."""
    import torch

    from hbo.data.sources import Source, Stack
    from hbo.tasks.classify.data import torchvision_set

    sets = [torchvision_set(run, run.data.upper(), train=train) for train in (True, False)]
    train, val = (Source(Stack(torch.from_numpy(s.data).permute(0, 3, 1, 2)), list(s.targets)) for s in sets)
    return train, val, sets[0].classes


def look_at_cifar(root: Path | None) -> Look:
    """Torchvision's files, identified by the checksums that torchvision checks."""
    from torchvision.datasets import CIFAR10, CIFAR100

    for kind in (CIFAR10, CIFAR100):
        if root is None or root.name != kind.base_folder:
            continue
        parts = [(root / name, wanted) for name, wanted in [*kind.train_list, *kind.test_list]]
        if not all(path.is_file() for path, _ in parts):
            return None, NAMED
        if all(md5(path.read_bytes(), usedforsecurity=False).hexdigest() == wanted for path, wanted in parts):
            return None, "checksums, as published"
        return sha256(b"".join(path.read_bytes() for path, _ in parts)).hexdigest()[:10], "bytes"
    return None, NAMED


def fetch_imagenette(run: Any) -> None:
    """torchvision's, at 320 pixels."""
    from hbo.tasks.classify.data import torchvision_set

    torchvision_set(run, "Imagenette", split="train", size="320px")


def fake(run: Any) -> Parts:
    """Random images of the run's resolution with random labels, for tests and timing."""
    import torch

    from hbo.data.sources import Source, Stack

    generator = torch.Generator().manual_seed(0)
    shape = (3, run.resolution, run.resolution)
    draw = lambda n: Source(
        Stack(torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator)),
        torch.randint(0, 10, (n,), generator=generator).tolist(),
    )
    return draw(256), draw(64), [str(i) for i in range(10)]


SETS = {
    "elpv": DataSet(
        {
            "width": 0.25,  # table 6's network
            "divisor": 8,
            "resolution": 96,
            "eval_resize": 96,
            "crop": "none",
            "flip": "both",  # a cell has no orientation
            "epochs": 24,
            "batch": 32,
            "weight_decay": 5e-4,
            "class_weights": "balanced",
        },
        images=(1968, 656),
        classes=2,
        look=look_at_elpv,
        load=elpv,
        licence="CC BY-NC-SA 4.0",
    ),
    "imagenet": DataSet(
        {},
        images=(1281167, 50000),
        classes=1000,
        look=lambda root: layout.look(root, (1281167, 50000)),
        holds="train/ and val/",
        photographs=True,
        title="ImageNet",
    ),
    "imagefolder": DataSet(
        {},
        look=layout.look,
        count=layout.count,
        holds="train/ and val/",
        marks=layout.PARTS,
        lists=".csv",
        photographs=True,
    ),
    "cifar10": DataSet(
        CIFAR,
        images=(50000, 10000),
        classes=10,
        look=look_at_cifar,
        load=cifar,
        inner="cifar-10-batches-py",
        title="CIFAR-10",
    ),
    "cifar100": DataSet(
        CIFAR,
        images=(50000, 10000),
        classes=100,
        look=look_at_cifar,
        load=cifar,
        inner="cifar-100-python",
        title="CIFAR-100",
    ),
    "imagenette": DataSet(
        {"resolution": 160, "epochs": 60, "batch": 64, "crop_area": 0.35},
        images=(9469, 3925),
        classes=10,
        look=lambda root: layout.look(root, (9469, 3925)),
        fetch=fetch_imagenette,
        inner="imagenette2-320",
        photographs=True,
        title="Imagenette",
    ),
    "digits": DataSet(
        {"resolution": 32, "eval_resize": 32, "epochs": 5, "batch": 64, "crop": "none", "flip": "none"},
        images=(1348, 449),
        classes=10,
        load=digits,
        licence="CC BY 4.0",
    ),
    "fake": DataSet(
        {"resolution": 64, "eval_resize": 64, "epochs": 1, "batch": 32, "crop": "none"},
        images=(256, 64),
        classes=10,
        load=fake,
    ),
}
