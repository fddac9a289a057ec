"""Headers of image files: how large a photograph is, how its EXIF turns it, and whether its pixels can be taken.

Nothing is decoded, and PIL alone is imported: a set's fingerprint looks here too.
"""

import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image, ImageFile

from hbo import files
from hbo.errors import DataError, UnreadableError

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
END = 1 << 16  # bytes at either end of a file, where metadata lies
METADATA = (b"Exif", b"eXIf", b"EXIF", b"Raw profile", b"adobe")  # words without which no file says how it is turned
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)  # PIL's names no file; ours does


class Header(NamedTuple):
    """What the first bytes of an image say."""

    width: int
    height: int
    """As the image is looked at, turned."""
    turned: bool
    """By its EXIF. A TIFF does not count: PIL itself turns it, and always has."""
    broken: bool
    """It has EXIF that cannot be read, and is taken as it lies."""


def header_of(path: str | Path) -> Header:
    """An image's header.

    Raises:
        DataError: no image, or none that could be taken as it is, as far as a header tells.
    """
    with opened(Path(path)) as image:
        width, height = image.size
        found = orientation(image)
        turned = image.format != "TIFF" and found in TURNS
        if turned and found in SIDEWAYS:
            width, height = height, width
        return Header(width, height, turned, found is None)


def headers_of(paths: Sequence[str | Path]) -> list[Header]:
    """The header of each file.

    Raises:
        DataError: of the first that is no image, or that would be read as another one.
    """
    return files.in_threads(header_of, paths)


def any_turned(paths: Sequence[str | Path]) -> bool:
    """Whether EXIF turns a photograph of a set; of more than `files.MANY` none is looked at, which says nothing of them."""
    return len(paths) <= files.MANY and any(files.in_threads(_turned, paths))


def _turned(path: str | Path) -> bool:
    try:
        with open(path, "rb") as file:  # a fifth of the time that PIL takes for a file that has none of it
            ends = file.read(END)
            if len(ends) == END:
                file.seek(max(END, os.path.getsize(path) - END))
                ends += file.read()
        return any(word in ends for word in METADATA) and header_of(path).turned
    except (DataError, OSError):  # whoever opens the set says so
        return False


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The file as PIL opens it; what goes wrong with it inside is named."""
    try:
        with Image.open(path) as image:
            if image.mode not in MODES:
                raise UnreadableError(
                    f"{path}: pixels of mode {image.mode}, more than the 8 bits a channel that networks here are given, which would"
                    f" be cut off; scale it to 8 bits, such as by `magick {path.name} -auto-level -depth 8 NEW.png`"
                )
            if (frames := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":  # a camera's, with its preview
                raise UnreadableError(
                    f"{path}: holds {frames} images, of which one would be read; save each as a file of its own"
                )
            yield image
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableError(f"{path}: not an image that can be read ({error})") from None


def orientation(image: ImageFile.ImageFile) -> int | None:
    """EXIF's, 1 to 8, and 1 where there is no EXIF; None where there is one that cannot be read."""
    try:
        early = image.format == "PNG" and "exif" not in image.info and not _has_late_words(image)
        exif = Image.Image.getexif(image) if early else image.getexif()  # PIL's own would decode a PNG first
        if ORIENTATION in exif:
            found = exif[ORIENTATION]
            return found if isinstance(found, int) else None
        return None if _cut_short(image.info.get("exif")) else 1
    except Exception:  # PIL raises whatever broken bytes make of themselves; the pixels may be well
        return None


def _cut_short(exif: bytes | None) -> bool:
    """Whether EXIF ends before its first directory does; PIL gives what it has read by then."""
    data = (exif or b"").removeprefix(b"Exif\0\0")
    if not data:
        return False
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    (at,) = struct.unpack(f"{order}I", data[4:8])
    (entries,) = struct.unpack(f"{order}H", data[at : at + 2])
    return len(data) < at + 2 + 12 * entries


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
