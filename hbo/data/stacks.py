"""Small sets held in memory: elpv, CIFAR, digits, and made-up images."""

from collections.abc import Callable

import torch

from hbo.config import Run
from hbo.data.images import Opened, download_dir, opened, torchvision_set
from hbo.data.sampling import split
from hbo.data.sources import Grey, Source, Stack


def stacked(run: Run) -> Opened:
    """A set held in memory as uint8, what is fixed of its transform done once."""
    return opened(run, *_STACKS[run.data](run), in_memory=True)


Parts = tuple[Source, Source, list[str]]  # to train on, reported, class names


def _elpv(run: Run) -> Parts:
    from hbo.data.elpv import load

    paths, (train, y_train), (val, y_val), classes = load()
    grey = lambda part: Grey([paths[i] for i in part])
    return Source(grey(train), y_train), Source(grey(val), y_val), classes


def _digits(run: Run) -> Parts:
    """scikit-learn's 1,797 digits of 8 x 8; a quarter of each class is reported."""
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels * 15.9375).to(torch.uint8).view(-1, 1, 8, 8)  # 0..16 -> 0..255
    labels = [int(y) for y in target]
    parts = (Source(Stack(images[part]), [labels[i] for i in part]) for part in split(labels, 0.25, salt="digits"))
    return *parts, [str(i) for i in range(10)]  # pyright: ignore[reportReturnType]


def _cifar(run: Run) -> Parts:
    root = download_dir(run)
    sets = [torchvision_set(run, run.data.upper(), root, train=train) for train in (True, False)]
    train, val = (Source(Stack(torch.from_numpy(s.data).permute(0, 3, 1, 2)), list(s.targets)) for s in sets)
    return train, val, sets[0].classes


def _fake(run: Run) -> Parts:
    """Random images of the run's resolution, with random labels: for tests and timing; there is nothing to learn."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, run.resolution, run.resolution)
    draw = lambda n: Source(
        Stack(torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator)),
        torch.randint(0, 10, (n,), generator=generator).tolist(),
    )
    return draw(256), draw(64), [str(i) for i in range(10)]


_STACKS: dict[str, Callable[[Run], Parts]] = {
    "elpv": _elpv,
    "digits": _digits,
    "cifar10": _cifar,
    "cifar100": _cifar,
    "fake": _fake,
}
