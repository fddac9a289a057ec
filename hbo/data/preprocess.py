"""A photograph as a trained network was evaluated on it: read, resized, cropped, normalised."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from hbo import headers
from hbo.data.images import as_tensor
from hbo.data.sources import read_image, upright
from hbo.errors import UserError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for every set


@dataclass(frozen=True)
class Preprocess:
    """An image file, or PIL's image in memory, to what the network takes; both are turned as EXIF says."""

    resized: Callable[[Any], Any]
    """The evaluation's resize and crop, of an RGB image or a uint8 tensor (3, H, W)."""
    of_tensors: bool = False
    """Resize tensors: sets held in memory are. PIL's resize of an image differs from
    torch's by a level here and there."""

    def __call__(self, image: "str | Path | Image.Image") -> Float[Tensor, "3 h w"]:
        """Normalised, as the network takes it: `net(net.preprocess("cat.jpg")[None])`."""
        return normalised(self.pixels(image))

    def pixels(self, image: "str | Path | Image.Image") -> UInt8[Tensor, "3 h w"]:
        """The same before it is normalised.

        Raises:
            DataError: the file cannot be read as an image.
            UserError: an image in memory with more than 8 bits per channel.
        """
        if isinstance(image, Image.Image):
            if image.mode not in headers.MODES:
                raise UserError(
                    f"image: has mode {image.mode}; convert its pixels to 8 bits per channel first"
                )
            pil = upright(image)
        else:
            pil = read_image(Path(image))
        return as_tensor(self.resized(pil_to_tensor(pil) if self.of_tensors else pil))


def normalised(pixels: UInt8[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """(pixel / 255 - mean) / std, in the order of operations of `hbo.tasks.base.TaskModule`."""
    mean, std = (torch.tensor(numbers).view(3, 1, 1) * 255 for numbers in (MEAN, STD))
    return (pixels - mean).div_(std)
