"""Resizes, flips and jitters a whole batch of crops: `hbo.data.augment.unpack`, which goes image by image,
within one level of 255.

A resize is two matrix products, for rows and columns, whatever the image's size, and a flip reverses their
order: a GPU makes the batch in a few calls instead of some ten per image. On a CPU, image by image is faster.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import (
    ColorJitter,
    RandomCrop,
    RandomHorizontalFlip,
    RandomVerticalFlip,
)
from torchvision.transforms.v2 import functional as F

from hbo.data.augment import Augment, Raw

LARGEST = 1 << 28  # padded values of images that are resized together: a gigabyte of floats


def unpack(raw: Raw, augment: Augment) -> Tensor:
    """The augmented batch (B, 3, R, R) uint8, made where its bytes lie.

    Args:
        raw: images that have the same number of channels; where they are not resized, of one size.
        augment: a crop at most, then flips, then jitter of brightness and contrast.
    """
    kinds = [type(part) for part in augment.parts]
    drawn = dict(zip(kinds, zip(*raw.draws, strict=True), strict=True))
    flips = [
        torch.tensor(drawn.get(kind, [False] * len(raw.shapes)), device=raw.pixels.device)
        for kind in (RandomVerticalFlip, RandomHorizontalFlip)
    ]
    if (crop := augment.resized) is not None:
        images = _resized(raw, crop.size[0], flips)  # pyright: ignore[reportIndexIssue]
    else:
        images = _cropped(raw, drawn.get(RandomCrop), flips)
    if ColorJitter in drawn:
        images = _jittered(images, list(drawn[ColorJitter]))
    return images.expand(-1, 3, -1, -1)


def _resized(raw: Raw, side: int, flips: list[Tensor]) -> Tensor:
    """Each image (H, W, C) to (C, side, side), antialiased as torch does it, and flipped."""
    device, channels = raw.pixels.device, raw.shapes[0][2]
    flat = raw.pixels.split([h * w * c for h, w, c in raw.shapes])
    out = torch.empty(len(flat), channels, side, side, dtype=torch.uint8, device=device)
    for group in _groups(raw.shapes):
        shapes = [raw.shapes[i] for i in group]
        height, width = (max(shape[axis] for shape in shapes) for axis in (0, 1))
        padded = torch.zeros(len(group), channels, height, width, device=device)
        for place, i, (h, w, c) in zip(padded, group, shapes, strict=True):
            place[:, :h, :w] = flat[i].view(h, w, c).permute(2, 0, 1)
        places = torch.tensor(group, device=device)
        rows, columns = (
            _weights([shape[axis] for shape in shapes], side, flips[axis][places]) for axis in (0, 1)
        )
        made = rows[:, None] @ (padded @ columns[:, None].mT)
        out[places] = made.round_().clamp_(0, 255).to(torch.uint8)
    return out


def _groups(shapes: list[tuple[int, int, int]]) -> Iterator[list[int]]:
    """Images of similar sizes, as many together as `LARGEST` allows."""
    group: list[int] = []
    height = width = 0
    for i in sorted(range(len(shapes)), key=lambda i: shapes[i][0] * shapes[i][1]):
        h, w, c = shapes[i]
        height, width = max(height, h), max(width, w)
        if group and (len(group) + 1) * height * width * c > LARGEST:
            yield group
            group, height, width = [], h, w
        group.append(i)
    yield group


def _weights(sizes: list[int], side: int, flip: Tensor) -> Tensor:
    """(B, side, N): the weights of at most N source pixels in each of `side` pixels; 0 beyond the image's
    size.

    A triangle as wide as a pixel of the larger grid, as in `interpolate(mode="bilinear", antialias=True)`.
    """
    size = torch.tensor(sizes, dtype=torch.float64, device=flip.device)[:, None, None]
    scale = size / side
    middle = scale * (torch.arange(side, device=flip.device)[:, None] + 0.5)
    at = torch.arange(max(sizes), device=flip.device) + 0.5
    weights = (1 - (at - middle).abs() / scale.clamp(min=1)).clamp(min=0) * (at < size)
    weights = (weights / weights.sum(-1, keepdim=True)).float()
    return torch.where(flip[:, None, None], weights.flip(1), weights)


def _cropped(raw: Raw, crops: Any, flips: list[Tensor]) -> Tensor:
    """Images of one size, shifted by what was drawn, and flipped: copies of pixels, and so exact."""
    (shape,) = set(raw.shapes)
    images = raw.pixels.view(-1, *shape).permute(0, 3, 1, 2)
    device, batch = images.device, torch.arange(len(images), device=images.device)
    size, starts = shape[:2], [[0] * len(images)] * 2
    if crops is not None:
        first = crops[0]
        if first["needs_pad"]:
            images = F.pad(images, padding=first["padding"], padding_mode="reflect")
        size = first["height"], first["width"]
        starts = [[drawn[name] for drawn in crops] for name in ("top", "left")]
    places = []
    for start, length, flip in zip(starts, size, flips, strict=True):
        place = torch.arange(length, device=device).expand(len(images), -1)
        place = torch.where(flip[:, None], place.flip(1), place)
        places.append(place + torch.tensor(start, device=device)[:, None])
    return images[batch[:, None, None], :, places[0][:, :, None], places[1][:, None, :]].permute(0, 3, 1, 2)


def _jittered(images: Tensor, draws: list[dict[str, Any]]) -> Tensor:
    """Brightness and contrast, in the order that was drawn for each image; as torchvision rounds."""
    factor = lambda name: torch.tensor([d[name] for d in draws], dtype=torch.float32, device=images.device)
    bright, strong = (factor(name).view(-1, 1, 1, 1) for name in ("brightness_factor", "contrast_factor"))
    first = torch.tensor([d["fn_idx"].index(0) < d["fn_idx"].index(1) for d in draws], device=images.device)
    first = first.view(-1, 1, 1, 1)
    images = torch.where(first, _brightened(images, bright), images)
    images = _contrasted(images, strong)
    return torch.where(first, images, _brightened(images, bright))


def _brightened(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp_(0, 255).to(torch.uint8)


def _contrasted(images: Tensor, factor: Tensor) -> Tensor:
    """Around the mean of each image's grey."""
    grey = images.float()
    if images.shape[1] == 3:
        red, green, blue = grey.unbind(1)
        grey = (0.2989 * red + 0.587 * green + 0.114 * blue).floor_()
    mean = grey.flatten(1).mean(1).view(-1, 1, 1, 1)
    return (images * factor + mean * (1 - factor)).clamp_(0, 255).to(torch.uint8)
