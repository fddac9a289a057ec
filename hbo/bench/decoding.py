"""Decoders of `--cache jpeg`, compared with PIL (`hbo.bench data`)."""

import importlib.util
import io
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor

from hbo.bench import turns

MOST = 64  # photographs


def measured(photographs: Any, count: int) -> dict[str, Any]:
    """Images/s of CPU time by decoder, one per turn, and whether the pixels are PIL's.

    Args:
        photographs: a JPEG cache (`hbo.data.cache.Pixels`).
        count: turns.
    """
    files = [photographs.stored(i) for i in range(min(MOST, len(photographs)))]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*superseded.*TorchCodec.*")  # it is measured, not used
        same = {
            name: all(map(torch.equal, map(one, files), map(_pil, files))) for name, one in decoders().items()
        }
        found = turns.take_turns({name: partial(rate, one, files) for name, one in decoders().items()}, count)
    return {"images": len(files), "images_per_second": found, "as_pil": same}


def rate(decode: Callable[[Tensor], Tensor], files: list[Tensor]) -> float:
    """Images/s of this process's CPU time."""
    start = time.process_time()
    for content in files:
        decode(content)
    return len(files) / (time.process_time() - start)


def decoders() -> dict[str, Callable[[Tensor], Tensor]]:
    """The installed decoders: JPEG's bytes -> (H, W, 3) uint8."""
    found = {"PIL": _pil}
    if hasattr(torchvision.io, "decode_jpeg"):  # deprecated since 0.29
        found["torchvision"] = _torchvision
    if importlib.util.find_spec("simplejpeg"):
        found["simplejpeg"] = _simplejpeg
    return found


def _pil(content: Tensor) -> Tensor:
    with Image.open(io.BytesIO(content.numpy().data)) as image:
        return torch.from_numpy(np.array(image.convert("RGB")))


def _torchvision(content: Tensor) -> Tensor:
    image: Any = torchvision.io.decode_jpeg(content, torchvision.io.ImageReadMode.RGB)
    return image.permute(1, 2, 0)


def _simplejpeg(content: Tensor) -> Tensor:
    import simplejpeg  # pyright: ignore[reportMissingImports]

    return torch.from_numpy(simplejpeg.decode_jpeg(content.numpy().data, colorspace="RGB"))
