"""Photographs kept as JPEG (`--cache jpeg`): a tenth of the pixels' size, decoded at each access.

If simplejpeg is installed (`pip install -e '.[jpeg]'`), it decodes to the same pixels as PIL, in less time.
The row names the decoder (`jpeg_decoder`).
"""

import importlib.util
import io
from importlib.metadata import version

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from hbo.tasks.classify.spec import QUALITY

DECODER = "simplejpeg" if importlib.util.find_spec("simplejpeg") else "PIL"


def said_decoder(decoder: str | None = None) -> str:
    """The decoder (None: of a cache) with its version: pixels are the same only if the libjpeg is."""
    name = decoder or DECODER
    return f"{name} {version('pillow' if name == 'PIL' else name)}"


def encoded(image: Tensor) -> bytes:
    """An image (H, W, C) uint8 as JPEG; colours at half the resolution, as cameras keep them."""
    file = io.BytesIO()
    to_pil_image(image.permute(2, 0, 1)).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def decoded(content: Tensor, channels: int) -> Tensor:
    """JPEG's bytes (N,) uint8 as an image (C, H, W) uint8, which lies in memory as (H, W, C)."""
    if DECODER == "simplejpeg":
        import simplejpeg  # pyright: ignore[reportMissingImports]

        pixels = simplejpeg.decode_jpeg(content.numpy().data, colorspace="RGB" if channels == 3 else "GRAY")
    else:
        with Image.open(io.BytesIO(content.numpy().data)) as image:
            pixels = np.array(image)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)
