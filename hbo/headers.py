"""Headers of image files: size, EXIF orientation, and whether the pixels have a supported format.

Nothing is decoded, and only PIL is imported: a data set's fingerprint uses this file too.
"""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image, ImageFile

from hbo import files, packed
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
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
# Modes that convert("RGB") converts in 8 bits; it clips I;16, I and F to white, and cannot convert LAB.
MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
END = 1 << 16  # bytes at both ends of a file, where metadata is
# A file with an orientation contains one of these.
METADATA = (
    b"Exif",
    b"eXIf",
    b"EXIF",
    b"Raw profile",
    b"adobe",
)
# What PIL raises on broken bytes: a TIFF's second page without a size is a TypeError, for instance.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)  # PIL's names no file; ours does


class Header(NamedTuple):
    """What an image's header says."""

    width: int
    height: int
    """Size after the EXIF rotation."""
    turned: bool
    """Whether EXIF rotates it. Not for TIFF, which PIL rotates itself."""
    broken: bool
    """Its EXIF cannot be read; the image is used unrotated."""


def header_of(path: str | Path) -> Header:
    """Read an image's header.

    Raises:
        DataError: not an image, or one that cannot be used as it is, as far as its header says.
    """
    with opened(path) as image:
        width, height = image.size
        found = orientation(image)
        turned = image.format != "TIFF" and found in TURNS
        if turned and found in SIDEWAYS:
            width, height = height, width
        return Header(width, height, turned, found is None)


def headers_of(paths: Sequence[str | Path]) -> list[Header]:
    """The header of each file.

    Raises:
        DataError: for the first that is not an image or cannot be used as it is.
    """
    return files.in_threads(header_of, paths)


def any_turned(paths: Sequence[str | Path]) -> bool:
    """Whether EXIF rotates a photograph of a data set; False, unchecked, for more than `files.MANY` files."""
    return len(paths) <= files.MANY and any(files.in_threads(_turned, paths))


def _turned(path: str | Path) -> bool:
    try:
        with packed.opened(path) as file:  # a fifth of PIL's time for a file without EXIF
            ends = file.read(END)
            if len(ends) == END:
                file.seek(max(END, packed.size_of(path) - END))
                ends += file.read()
        return any(word in ends for word in METADATA) and header_of(path).turned
    except (DataError, OSError):  # reported when the set is opened
        return False


@contextmanager
def opened(path: str | Path) -> Iterator[ImageFile.ImageFile]:
    """Open a file with PIL; errors within the context name the file."""
    try:
        with Image.open(packed.opened(path) if isinstance(path, packed.Packed) else path) as image:
            if image.mode not in MODES:
                raise UnreadableError(
                    f"{path}: its pixels have mode {image.mode}, and only 8 bits per channel are supported;"
                    " convert"
                    f" it, such as by `magick {os.path.basename(path)} -auto-level -depth 8 NEW.png`"
                )
            if (
                frames := getattr(image, "n_frames", 1)
            ) > 1 and image.format != "MPO":  # a camera's image with its preview
                raise UnreadableError(
                    f"{path}: contains {frames} images, only one would be read; save each in its own file"
                )
            yield image
    except DataError:
        raise
    except BROKEN as error:
        raise UnreadableError(f"{path}: not a readable image ({error})") from None


def orientation(image: Image.Image) -> int | None:
    """EXIF's orientation, 1 to 8; 1 without EXIF, None if it cannot be read."""
    try:
        early = image.format == "PNG" and "exif" not in image.info and not _has_late_words(image)
        exif = Image.Image.getexif(image) if early else image.getexif()  # a PNG's own method decodes it first
        if ORIENTATION in exif:
            found = exif[ORIENTATION]
            return found if isinstance(found, int) else None
        return None if _cut_short(image.info.get("exif")) else 1
    except Exception:  # PIL raises anything on broken bytes; the pixels may be fine
        return None


def _cut_short(exif: bytes | None) -> bool:
    """Whether EXIF ends within its first directory; PIL then returns only what it has read."""
    data = (exif or b"").removeprefix(b"Exif\0\0")
    if not data:
        return False
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    (at,) = struct.unpack(f"{order}I", data[4:8])
    (entries,) = struct.unpack(f"{order}H", data[at : at + 2])
    return len(data) < at + 2 + 12 * entries


def _has_late_words(image: Image.Image) -> bool:
    """Whether a PNG, not yet loaded, has metadata after its pixels."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or image.fp is None:
        return False  # loaded, so read to its end
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
