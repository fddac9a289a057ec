"""Training's crops, flips and jitter in two steps: what is drawn, and what is then done to a uint8 tensor.

The draws are torchvision's own, in torchvision's order, so they are those of the plain path. Kept apart, they
can be drawn for a photograph and applied to a smaller copy of it, or on another device.
"""

import math
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from hbo.data.sampling import seeded

Size = tuple[int, int]  # height, width


class Augment:
    """Random transforms: at most a crop, then flips, then jitter.

    Args:
        parts: of torchvision; a random-resized crop comes first.
    """

    def __init__(self, parts: list[v2.Transform]) -> None:
        self.parts = parts

    def draw(self, size: Size) -> list[Any]:
        """What torchvision would draw for an image of this size, one entry per part;
        from torch's CPU randomness.
        """
        image = torch.empty((), dtype=torch.uint8).expand(1, *size)
        draws = [
            bool(torch.rand(1) < part.p)  # as torchvision draws it
            if isinstance(part, v2.RandomHorizontalFlip | v2.RandomVerticalFlip)
            else part.make_params([image])
            for part in self.parts
        ]
        for drawn in draws:
            # Jitter's order: a tensor would go to the device, to be read back.
            if isinstance(drawn, dict) and "fn_idx" in drawn:
                drawn["fn_idx"] = drawn["fn_idx"].tolist()
        return draws

    @property
    def resized(self) -> v2.RandomResizedCrop | None:
        """The random-resized crop, if there is one."""
        return self.parts[0] if self.parts and isinstance(self.parts[0], v2.RandomResizedCrop) else None

    def shrink(self, draws: list[Any]) -> int:
        """8, 4, 2 or 1: by how much an image may be reduced without enlarging its random-resized crop (1 if
        it is enlarged anyway).
        """
        assert self.resized is not None
        side = self.resized.size[0]  # pyright: ignore[reportIndexIssue]
        shortest = min(draws[0]["height"], draws[0]["width"])
        return next(by for by in (8, 4, 2, 1) if by == 1 or shortest >= by * side)

    def of_copy(self, image: Image.Image, draws: list[Any], size: Size) -> Image.Image:
        """The augmented image (R, R), made from a copy that is smaller by a whole factor.

        The crop is the same part of the photograph, to fractions of a pixel. With a copy of the same size
        the bits are those of torchvision's transforms.

        Args:
            image: the copy.
            draws: what was drawn for the photograph.
            size: the photograph's.
        """
        box = draws[0]
        by = round(max(size) / max(image.size))  # libjpeg rounds sides up; a pixel stands for by x by
        left, top = box["left"] / by, box["top"] / by
        right, bottom = left + box["width"] / by, top + box["height"] / by
        around = math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
        inner = left - around[0], top - around[1], right - around[0], bottom - around[1]
        crop: Any = self.parts[0]
        image = image.crop(around).resize(crop.size[::-1], Image.Resampling.BILINEAR, box=inner)
        for part, drawn in zip(self.parts[1:], draws[1:], strict=True):
            if not isinstance(drawn, bool):
                image = part.transform(image, drawn)
            elif drawn:
                image = part.transform(image, {})
        return image

    def cut(self, image: Tensor, draws: list[Any], size: Size) -> Tensor:
        """The random-resized crop's box, not yet resized, of an image (C, H, W) drawn
        for at `size`; else the image.
        """
        if self.resized is None:
            return image
        top, left, height, width = scaled(draws[0], size, (image.shape[1], image.shape[2]))
        # By rows of an image that lies in memory as (H, W, C): a copy that is quick, and that the resize
        # reads quickly.
        return image.permute(1, 2, 0)[top : top + height, left : left + width].contiguous().permute(2, 0, 1)

    def finish(self, image: Tensor, draws: list[Any], as_pil: bool = False) -> Tensor:
        """What follows `cut`, to (C, R, R), on the image's device; `as_pil`: jitter with PIL's rounding."""
        for part, drawn in zip(self.parts, draws, strict=True):
            if isinstance(part, v2.RandomResizedCrop):
                image = F.resize(image, part.size, antialias=True)  # pyright: ignore[reportArgumentType]
            elif isinstance(part, v2.RandomHorizontalFlip | v2.RandomVerticalFlip):
                image = part.transform(image, {}) if drawn else image
            elif isinstance(part, v2.ColorJitter) and as_pil:
                image = F.pil_to_tensor(part.transform(F.to_pil_image(image), drawn))
            else:
                image = part.transform(image, drawn)
        return image

    def upsampled(self, sizes: list[tuple[Size, Size]], draws: int = 10_000) -> tuple[float, float]:
        """Shares of the random-resized crops with fewer pixels a side than they are resized
        to: as stored, as photographed.

        Args:
            sizes: (photographed, stored) of the images, or of some of them, each drawn for alike.
            draws: how many in all; the same ones each time.
        """
        crop = self.resized
        assert crop is not None
        resolution = crop.size[0]  # pyright: ignore[reportIndexIssue]
        counts = [0, 0]
        with seeded("upsampled"):
            for i in range(draws):
                seen, stored = sizes[i % len(sizes)]
                box = crop.make_params([torch.empty((), dtype=torch.uint8).expand(1, *seen)])
                _, _, *small = scaled(box, seen, stored)
                for which, sides in enumerate((small, (box["height"], box["width"]))):
                    counts[which] += min(sides) < resolution
        return counts[0] / draws, counts[1] / draws


def scaled(box: dict[str, int], of: Size, to: Size) -> tuple[int, int, int, int]:
    """Top, left, height, width of the same part of an image at another
    size, each edge to the nearest pixel.
    """
    (y, dy), (x, dx) = ((to[i] / of[i], to[i]) for i in (0, 1))
    top, left = min(round(box["top"] * y), dy - 1), min(round(box["left"] * x), dx - 1)
    bottom, right = round((box["top"] + box["height"]) * y), round((box["left"] + box["width"]) * x)
    return top, left, max(bottom - top, 1), max(right - left, 1)


class Raw(NamedTuple):
    """A batch on its way to the device, which augments it: the images' bytes, joined, and their draws."""

    pixels: Tensor
    """uint8, (H, W, C) of each image, one after the other."""
    shapes: list[tuple[int, int, int]]
    draws: list[list[Any]]


def pack(images: list[tuple[Tensor, list[Any]]]) -> Raw:
    """Images (C, H, W) of any sizes, cut out already, each with its draws."""
    rows = [image.permute(1, 2, 0) for image, _ in images]
    shapes = [(row.shape[0], row.shape[1], row.shape[2]) for row in rows]
    return Raw(torch.cat([row.reshape(-1) for row in rows]), shapes, [draws for _, draws in images])


def unpack(raw: Raw, augment: Augment) -> Tensor:
    """The augmented batch (B, 3, R, R), made where its bytes lie."""
    flat = raw.pixels.split([h * w * c for h, w, c in raw.shapes])
    images = [
        augment.finish(pixels.view(shape).permute(2, 0, 1), draws).expand(3, -1, -1)
        for pixels, shape, draws in zip(flat, raw.shapes, raw.draws, strict=True)
    ]
    return torch.stack(images)
