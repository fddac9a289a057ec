"""Augmenting a whole batch gives the same as augmenting image by image; it is done on GPUs, and tested here
on the CPU.
"""

import pytest
import torch
from torchvision.transforms import v2

from hbo.data import augment, batched
from hbo.data.augment import Augment, pack

FLIPS = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
JITTER = v2.ColorJitter(brightness=0.4, contrast=0.4)
CROP = v2.RandomResizedCrop(24, antialias=True)


def raw(parts, sizes, channels=3):
    """A batch of noise, cropped, with its random draws."""
    torch.manual_seed(0)
    how, images = Augment(parts), []
    for size in sizes:
        image = torch.randint(0, 256, (channels, *size), dtype=torch.uint8)
        draws = how.draw(size)
        images.append((how.cut(image, draws, size), draws))
    return pack(images), how


SIZES = [(30, 90), (24, 24), (10, 13), (200, 31), (64, 48), (25, 23)] * 4
SHIFT = v2.RandomCrop(24, padding=3, padding_mode="reflect")


@pytest.mark.parametrize(("parts", "sizes", "channels", "levels"), [
    ([CROP], SIZES, 3, 1),
    ([CROP, *FLIPS], SIZES, 3, 1),
    ([CROP, FLIPS[0], JITTER], SIZES, 3, 3),
    ([CROP], SIZES, 1, 1),
    ([SHIFT, *FLIPS, JITTER], [(24, 24)] * 24, 3, 0),
    ([*FLIPS, JITTER], [(24, 30)] * 24, 1, 0),
    ([FLIPS[1]], [(24, 30)] * 24, 3, 0),
], ids=["crop", "flips", "jitter", "grey", "shift", "grey-jitter", "flip"])  # fmt: skip
def test_batched_augmentation_equals_image_by_image_within_one_level(
    parts, sizes, channels, levels, monkeypatch
):
    """Jitter can turn a difference of one level into three; without a resize the result is bit-identical."""
    batch, how = raw(parts, sizes, channels)
    one, whole = augment.unpack(batch, how), batched.unpack(batch, how)
    assert whole.dtype == torch.uint8
    assert one.shape == whole.shape
    difference = (one.int() - whole.int()).abs()
    assert difference.max() <= levels
    assert difference.float().mean() < 0.3
    monkeypatch.setattr(batched, "LARGEST", 40_000)  # split into several groups
    assert torch.equal(whole, batched.unpack(batch, how))
