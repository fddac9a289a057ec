"""Where images come from: files, or a tensor in memory; by index, decoded when asked for."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from PIL import ExifTags, Image, ImageFile
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from hbo import files
from hbo.errors import DataError

ORIENTATION = ExifTags.Base.Orientation
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations that change width for height
# What convert("RGB") keeps 8 bits of; it clips I;16, I and F to white, and knows no way from LAB.
MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)  # then a photograph is taken as it lies


class Get(Protocol):
    """Images as they come, by index: PIL, or uint8 tensors (C, H, W), C 1 or 3."""

    def __call__(self, i: int) -> "Image.Image | Tensor": ...

    def shape(self, i: int) -> tuple[int, int, int]:
        """Height, width, channels, without decoding."""
        ...

    def content(self) -> tuple[str, str]:
        """Hashes of what the images are (names, lengths) and of their version (times): for the cache."""
        ...

    def digest(self) -> str:
        """A hash of every byte, where `content` has looked at lengths and times alone; reads all files."""
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

    def shape(self, i: int) -> tuple[int, int, int]:
        return self.get.shape(self.indices[i])

    def content(self) -> tuple[str, str]:
        identity, version = self.get.content()
        return hashlib.sha256(repr((identity, self.indices)).encode()).hexdigest(), version

    def digest(self) -> str:
        return self.get.digest()


class Files:
    """Images read from their files; paths as text, since an ImageNet of Path objects takes a gigabyte."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __call__(self, i: int) -> "Image.Image | Tensor":
        return read_image(Path(self.paths[i]))

    def shape(self, i: int) -> tuple[int, int, int]:
        width, height = size_of(Path(self.paths[i]))
        return height, width, 3

    def content(self) -> tuple[str, str]:
        identity, version = hashlib.sha256(), hashlib.sha256()
        held, _ = files.contents(self.paths)  # of a set that is small enough, bytes: an archive unpacks with times of its own
        with ThreadPoolExecutor(4) as pool:
            stats = pool.map(os.stat, self.paths, chunksize=1000)
            for path, stat, what in zip(self.paths, stats, held, strict=True):
                identity.update(repr((path.split(os.sep)[-2:], stat.st_size)).encode())
                version.update(repr((stat.st_mtime_ns, what)).encode())
        return identity.hexdigest(), version.hexdigest()

    def digest(self) -> str:
        found = hashlib.sha256()
        for one in files.hashes(self.paths):
            found.update(one.encode())
        return found.hexdigest()


class Grey(Files):
    """The same, grey, as tensors."""

    def __call__(self, i: int) -> Tensor:
        return pil_to_tensor(read_image(Path(self.paths[i]), "L"))

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
        return hashlib.sha256(self.images.contiguous().numpy().data).hexdigest() + str(tuple(self.images.shape)), ""

    def digest(self) -> str:
        return ""  # `content` has looked at every byte


def check_headers(files: list[Path]) -> None:
    """Read the first bytes of each file.

    Raises:
        DataError: the first that is no image, or that would be read as another one.
    """
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(size_of, files):
            pass


def read_image(path: Path, mode: str = "RGB") -> Image.Image:
    """An image, turned as its EXIF says it is looked at, in PIL's mode; transparency is dropped.

    Raises:
        DataError: cannot be read as an image, or not as the one that it is; names the path.
    """
    with _opened(path) as image:
        image.load()
        image.info.pop("transparency", None)  # of a palette PIL warns, and drops it all the same
        turn = TURNS.get(_orientation(image))  # of a TIFF nothing is left to be done: PIL turns it
        return (image if turn is None else image.transpose(turn)).convert(mode)


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image as `read_image` gives it, from its header.

    Raises:
        DataError: as `read_image`, as far as a header tells.
    """
    with _opened(path) as image:
        width, height = image.size
        lies = image.format != "TIFF" and _orientation(image) in SIDEWAYS
        return (height, width) if lies else (width, height)


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The file as PIL opens it; what goes wrong with it inside is named."""
    try:
        with Image.open(path) as image:
            if image.mode not in MODES:
                raise DataError(
                    f"{path}: pixels of mode {image.mode}, more than the 8 bits a channel that networks here are given, which would"
                    f" be cut off; scale it to 8 bits, such as by `magick {path.name} -auto-level -depth 8 NEW.png`"
                )
            if (frames := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":  # a camera's, with its preview
                raise DataError(f"{path}: holds {frames} images, of which one would be read; save each as a file of its own")
            yield image
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not an image that can be read ({error})") from None


def _orientation(image: ImageFile.ImageFile) -> int:
    """EXIF's, 1 to 8; 1 where there is none, or none that can be read."""
    try:
        if image.format == "PNG" and "exif" not in image.info and not _has_late_words(image):
            return Image.Image.getexif(image).get(ORIENTATION, 1)  # PIL's own would decode the image first
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # PIL raises whatever broken bytes make of themselves; the pixels may be well
        return 1


def _has_late_words(image: ImageFile.ImageFile) -> bool:
    """Whether a PNG, not yet loaded, has metadata behind its pixels."""
    if not image.tile or image.fp is None:
        return False  # loaded, and so read to its end
    place = image.fp.tell()
    try:
        image.fp.seek(8)
        pixels = False
        while len(head := image.fp.read(8)) == 8:
            pixels |= head[4:] == b"IDAT"
            if pixels and head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            image.fp.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
        return False
    finally:
        image.fp.seek(place)
