"""Where images come from: files, or a tensor in memory; by index, decoded when asked for."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from hbo import files, headers, packed


class Get(Protocol):
    """Untransformed images by index: PIL, or uint8 tensors (C, H, W), C 1 or 3."""

    def __call__(self, i: int) -> "Image.Image | Tensor": ...

    def shape(self, i: int) -> tuple[int, int, int]:
        """Height, width, channels, without decoding."""
        ...

    def content(self) -> tuple[str, str]:
        """Hashes of what the images are (names, lengths) and of their version (times): for the cache."""
        ...

    def stored(self) -> Sequence[int]:
        """The images in storage order."""
        ...

    def digest(self) -> str:
        """A hash of every byte, if `content` has looked only at lengths and times; reads all files."""
        ...


class Source(NamedTuple):
    """Images and their labels."""

    get: Get
    labels: list[int]

    def part(self, indices: list[int]) -> "Source":
        return Source(Part(self.get, indices), [self.labels[i] for i in indices])


class Part:
    """Some of a source's images, by their place; a class, since a closure cannot go to a spawned worker."""

    def __init__(self, get: Get, indices: list[int]) -> None:
        self.get, self.indices = get, indices

    def __call__(self, i: int) -> "Image.Image | Tensor":
        return self.get(self.indices[i])

    def draft(self, i: int, shrink: int) -> Image.Image:
        return self.get.draft(self.indices[i], shrink)  # pyright: ignore[reportAttributeAccessIssue]

    def can_draft(self, i: int, shrink: int) -> bool:
        return self.get.can_draft(self.indices[i], shrink)  # pyright: ignore[reportAttributeAccessIssue]

    def shape(self, i: int) -> tuple[int, int, int]:
        return self.get.shape(self.indices[i])

    def content(self) -> tuple[str, str]:
        identity, version = self.get.content()
        return hashlib.sha256(repr((identity, self.indices)).encode()).hexdigest(), version

    def stored(self) -> Sequence[int]:
        whole = self.get.stored()
        if isinstance(whole, range):
            return range(len(self.indices))
        rank = {i: r for r, i in enumerate(whole)}
        return sorted(range(len(self.indices)), key=lambda i: rank[self.indices[i]])

    def digest(self) -> str:
        return self.get.digest()


class Files:
    """Images read from their files; paths as text, since an ImageNet of Path objects takes a gigabyte."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __call__(self, i: int) -> "Image.Image | Tensor":
        return read_image(self.paths[i])

    def draft(self, i: int, shrink: int) -> Image.Image:
        """The image at 1/`shrink` of its size (1, 2, 4 or 8), sides rounded up, if it is a JPEG; else as it
        is.
        """
        return read_image(self.paths[i], shrink=shrink)

    def can_draft(self, i: int, shrink: int) -> bool:
        """Whether `draft` makes it smaller."""
        with headers.opened(self.paths[i]) as image:
            return can_draft(image, shrink)

    def shape(self, i: int) -> tuple[int, int, int]:
        width, height = size_of(self.paths[i])
        return height, width, 3

    def content(self) -> tuple[str, str]:
        identity, version = hashlib.sha256(), hashlib.sha256()
        # Bytes, if the set is small enough: unpacked archives have new file times.
        held, _ = files.contents(self.paths)
        with ThreadPoolExecutor(4) as pool:
            stats = pool.map(lambda path: (packed.size_of(path), packed.version_of(path)), self.paths)
            for path, (size, time), what in zip(self.paths, stats, held, strict=True):
                identity.update(repr((path.split(os.sep)[-2:], size)).encode())
                version.update(repr((time, what)).encode())
        return identity.hexdigest(), version.hexdigest()

    def stored(self) -> Sequence[int]:
        return packed.as_stored(self.paths)

    def digest(self) -> str:
        found = hashlib.sha256()
        for one in files.hashes(self.paths):
            found.update(one.encode())
        return found.hexdigest()


class Grey(Files):
    """The same, grey, as tensors."""

    def __call__(self, i: int) -> Tensor:
        return pil_to_tensor(read_image(self.paths[i], "L"))

    def shape(self, i: int) -> tuple[int, int, int]:
        return *super().shape(i)[:2], 1


class Stack:
    """Images of one size in a tensor (N, C, H, W) uint8."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __call__(self, i: int) -> Tensor:
        return self.images[i]

    def shape(self, i: int) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return height, width, channels

    def content(self) -> tuple[str, str]:
        return hashlib.sha256(self.images.contiguous().numpy().data).hexdigest() + str(
            tuple(self.images.shape)
        ), ""

    def stored(self) -> Sequence[int]:
        return range(len(self.images))

    def digest(self) -> str:
        return ""  # `content` has looked at every byte


def read_image(path: str | Path, mode: str = "RGB", shrink: int = 1) -> Image.Image:
    """An image, rotated by its EXIF, in PIL's mode; transparency is dropped.

    Args:
        path: its file.
        mode: PIL's.
        shrink: 1, 2, 4 or 8: decode a JPEG at 1/`shrink` of its size. If EXIF rotates it, its sides must be
            multiples of that, so that no partial pixel comes first.

    Raises:
        DataError: cannot be read as an image, or not as the one that it is; names the path.
    """
    with headers.opened(path) as image:
        if can_draft(image, shrink):
            image.draft(None, (image.width // shrink, image.height // shrink))
        image.load()
        image.info.pop("transparency", None)  # of a palette PIL warns, and drops it all the same
        return upright(image, mode)


def can_draft(image: ImageFile, shrink: int) -> bool:
    """Whether `read_image` decodes the image at 1/`shrink` of its size."""
    divided = image.width % shrink == 0 == image.height % shrink
    return (
        shrink > 1
        and isinstance(image, JpegImageFile)
        and (divided or headers.orientation(image) not in headers.TURNS)
    )


def upright(image: Image.Image, mode: str = "RGB") -> Image.Image:
    """An image rotated by its EXIF, in PIL's mode, and without that EXIF."""
    image.load()  # PIL has already rotated a TIFF
    turn = headers.TURNS.get(headers.orientation(image) or 1)
    found = (image if turn is None else image.transpose(turn)).convert(mode)
    found.info = {}  # else the next reader would rotate it again
    return found


def size_of(path: str | Path) -> tuple[int, int]:
    """Width and height of an image as `read_image` gives it, from its header.

    Raises:
        DataError: as `read_image`, as far as a header tells.
    """
    found = headers.header_of(path)
    return found.width, found.height
