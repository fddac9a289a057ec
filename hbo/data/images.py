"""Images with their transforms, by (epoch, index).

An item is (uint8 image (3, R, R), label, index); the task normalises on its device.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from hbo.config import Run
from hbo.data import cache, jpeg
from hbo.data.augment import Augment, Raw, Size, pack
from hbo.data.sampling import seeded
from hbo.data.sources import Get, Source
from hbo.tasks.classify.spec import QUALITY

AT_ONCE = 64  # images of a set in memory that are resized by one call
ENCODED = 64  # images that are encoded to estimate the size of a JPEG cache
# Images whose sizes are read to estimate the size of their cache; of a larger set, evenly spaced ones.
PROBED = 100_000
DRAFTED = 1_000  # images that are sampled to estimate how many are decoded smaller


class Images(Dataset):
    """Images by (epoch, index), randomly transformed as a function of (seed, epoch, index) alone; a batch by
    a list of those.

    Args:
        source: the images, untransformed.
        fixed: the part of the transform that is the same each time an image is seen.
        random: the part that follows, to (C, R, R).
        run: for the seed, the cache, and where to augment.
        in_memory: do the fixed part once, now.
    """

    def __init__(
        self, source: Source, fixed: v2.Transform, random: list[v2.Transform], run: Run, in_memory: bool
    ) -> None:
        self.get, self.labels = source
        self.source = source.get  # which knows its files, wherever the pixels are kept
        self.seed, self.in_memory = run.seed, in_memory
        self.augment = Augment(random)
        self.on_device = run.augment == "device" and bool(random)
        self.fixed, self.transform = fixed, v2.Compose([fixed, *random])
        self.drafts = run.decode == "draft" and self.augment.resized is not None
        self.pixels: cache.Pixels | None = None
        # Evaluation's images lose no detail.
        self.side = run.cached_side if self.augment.resized else None
        if run.cache != "none":
            # Validation images are exact.
            kept = cache.JPEG if run.cache == "jpeg" and self.side else cache.FORMAT
            self.pixels = cache.opened(
                run, cacheable(run.data, source.get, len(self.labels), fixed, self.side, kept)
            )
        elif in_memory:
            self.get = prepared(source, fixed).__getitem__
            self.fixed, self.transform = v2.Identity(), v2.Compose(random) if random else v2.Identity()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int, int]:
        epoch, index = item
        if self.pixels is not None:
            image, size = self.pixels[index]
            draws = self.draw(epoch, index, size)
            image = self.augment.finish(
                self.augment.cut(image, draws, size), draws, as_pil=not self.in_memory
            )
            return image.expand(3, -1, -1), self.labels[index], index
        if self.drafts:
            image, draws, size = self.draft(epoch, index)
            return as_tensor(self.augment.of_copy(image, draws, size)), self.labels[index], index
        image = self.get(index)
        with seeded(self.seed, epoch, index):
            image = self.transform(image)
        return as_tensor(image).expand(3, -1, -1), self.labels[index], index

    def __getitems__(self, items: list[tuple[int, int]]) -> tuple[Tensor | Raw, Tensor, Tensor]:
        """A batch: images (B, 3, R, R), or what the device is to augment; labels and indices (B,)."""
        indices = [index for _, index in items]
        images = (
            pack([self.raw(*item) for item in items])
            if self.on_device
            else stack([self[item][0] for item in items])
        )
        return images, torch.tensor([self.labels[i] for i in indices]), torch.tensor(indices)

    def raw(self, epoch: int, index: int) -> tuple[Tensor, list[Any]]:
        """An image as far as the loader makes it and, if the device does the rest, its draws."""
        if self.pixels is not None:
            image, size = self.pixels[index]
        else:
            image = as_tensor(self.fixed(self.get(index)))
            size = (image.shape[1], image.shape[2])
        draws = self.draw(epoch, index, size)
        return self.augment.cut(image, draws, size), draws

    def draft(self, epoch: int, index: int) -> tuple[Image.Image, list[Any], Size]:
        """An image decoded no larger than its crop needs, its draws, and its size as photographed."""
        files: Any = self.source  # of photographs, as `hbo.tasks.classify.spec` has checked
        size = files.shape(index)[:2]
        draws = self.draw(epoch, index, size)
        return files.draft(index, self.augment.shrink(draws)), draws, size

    def draw(self, epoch: int, index: int, size: Size) -> list[Any]:
        """The random part's draws for an image."""
        with seeded(self.seed, epoch, index):
            return self.augment.draw(size)

    def facts(self) -> dict[str, Any]:
        """For the row: what a cache, or decoding no more than a crop needs, did to the pixels of training."""
        if self.drafts:
            return {"drafted": self.drafted(), "jpeg_decoder": jpeg.said_decoder("PIL")}
        kept = self.pixels is not None and self.pixels.is_jpeg
        return self.upsampled() | ({"jpeg_decoder": jpeg.said_decoder()} if kept else {})

    def drafted(self) -> float:
        """For the row: the share of crops for which a smaller image is decoded, from evenly spaced images,
        one crop each.
        """
        files: Any = self.source
        chosen = range(0, len(self), math.ceil(len(self) / DRAFTED))
        smaller = lambda i: files.can_draft(i, self.augment.shrink(self.draw(0, i, files.shape(i)[:2])))
        return sum(map(smaller, chosen)) / len(chosen)

    def upsampled(self) -> dict[str, float]:
        """For the row: shares of the random-resized crops that have fewer pixels than they are resized to,
        with and without the cache.
        """
        if self.pixels is None or self.side is None:
            return {}
        shares = self.augment.upsampled(self.pixels.sizes())
        return dict(zip(("cache_upsampled", "uncached_upsampled"), shares, strict=True))


def as_tensor(image: "Image.Image | Tensor") -> Tensor:
    """(C, H, W) uint8."""
    return v2.functional.pil_to_tensor(image) if isinstance(image, Image.Image) else image


def stack(images: list[Tensor]) -> Tensor:
    """A batch (B, 3, R, R), channels last where the images are."""
    channels, height, width = images[0].shape
    if images[0].stride(0) == 1 and channels == 3:
        batch = torch.empty(len(images), height, width, channels, dtype=torch.uint8).permute(0, 3, 1, 2)
    else:
        batch = torch.empty(len(images), channels, height, width, dtype=torch.uint8)
    for place, image in zip(batch, images, strict=True):
        place.copy_(image)
    return batch


def cacheable(
    data: str, get: Get, images: int, fixed: v2.Transform, side: int | None, kept: int = cache.FORMAT
) -> cache.Content:
    """The contents of a cache: the images after their fixed part, and with the short side at most `side`,
    if given; decoded, or as JPEG.
    """

    def make(i: int) -> tuple[Tensor, Size]:
        image = fixed(get(i))
        height, width = v2.functional.get_size(image)
        if side is not None and min(height, width) > side:
            image = v2.functional.resize(image, [side], antialias=True)
        return as_tensor(image).permute(1, 2, 0), (height, width)

    def size() -> tuple[int, bool]:
        if kept == cache.JPEG:
            some = range(0, images, math.ceil(images / ENCODED))
            return round(images / len(some) * sum(len(jpeg.encoded(make(i)[0])) for i in some)), False
        if not isinstance(fixed, v2.Identity):
            height, width = fixed.transforms[-1].size  # pyright: ignore  (of the centre crop)
            return images * height * width * get.shape(0)[2], True
        chosen = range(0, images, math.ceil(images / PROBED))
        with ThreadPoolExecutor(4) as pool:
            shapes = list(pool.map(get.shape, chosen))
        each = [reduced(height, width, side) * channels for height, width, channels in shapes]
        return round(images / len(each) * sum(each)), len(each) == images

    identity, version = get.content()
    what = repr((identity, str(fixed), side, *([QUALITY] if kept == cache.JPEG else [])))
    return cache.Content(data, what, version, get.digest, images, get.stored(), size, make, kept)


def reduced(height: int, width: int, side: int | None) -> int:
    """Pixels of an image whose short side is brought down to `side`, as torchvision rounds."""
    short, long = sorted((height, width))
    return height * width if side is None or short <= side else side * int(side * long / short)


def prepared(source: Source, fixed: v2.Transform) -> list[Tensor]:
    """The fixed part of every image of a set in memory, many at a time: a call takes longer than its
    arithmetic. To the bit, and in the layout, that each would get by itself.

    Args:
        source: images of one size, (C, H, W).
        fixed: the same for each of them.
    """

    def make(some: Tensor) -> Tensor:
        one_by_one: list[Any] = [source.get(i) for i in some.tolist()]
        images = torch.stack(one_by_one)
        if not one_by_one[0].is_contiguous():
            images = images.contiguous(memory_format=torch.channels_last)
        return fixed(images)

    with ThreadPoolExecutor(4) as pool:  # decoding leaves Python's lock
        parts = pool.map(make, torch.arange(len(source.labels)).split(AT_ONCE))
        return [image for part in parts for image in part]


def whole(resize: int, crop: int) -> list[v2.Transform]:
    """The short side to `resize`, then the middle `crop` x `crop`."""
    return [
        v2.Resize(resize, antialias=True),
        *([v2.CenterCrop(crop)] if crop != resize else [v2.CenterCrop(resize)]),
    ]
