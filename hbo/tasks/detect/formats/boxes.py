"""An image with its boxes, whatever their format; faulty boxes are clipped or dropped, and counted."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from hbo.errors import DataError
from hbo.headers import Header
from hbo.tasks.spec import Look

Box = tuple[float, float, float, float]


@dataclass
class Annotated:
    """An image with its boxes, (x1, y1, x2, y2) in continuous pixel coordinates, and their faults."""

    path: str
    header: Header
    boxes: list[Box] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    clipped: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    other_size: str = ""
    """The difference between the annotated size and the image's."""

    def add(
        self, name: str, box: Box, difficult: bool = False, said: Box | None = None, empty: bool = False
    ) -> None:
        """Add a box: clipped to the image, dropped if it has no area.

        Args:
            name: its class.
            box: continuous.
            difficult: not trained on, and ignored in evaluation.
            said: its corners as in the file, for messages.
            empty: whether it has no area by the file's own rule.
        """
        width, height = self.header.width, self.header.height
        inside = max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)
        text = f"{Path(self.path).stem}: {name} ({', '.join(f'{corner:g}' for corner in said or box)})"
        if empty or inside[2] <= inside[0] or inside[3] <= inside[1]:
            self.left_out.append(f"{text} has no area in {width} x {height}")
            return
        # Tolerance for the rounding of relative coordinates.
        if any(abs(a - b) > 1e-3 for a, b in zip(box, inside, strict=True)):
            self.clipped.append(f"{text} reaches outside {width} x {height}")
        self.boxes.append(inside)
        self.names.append(name)
        self.difficult.append(difficult)


class Folder(NamedTuple):
    """A folder of images with boxes, as found by the reader of its format."""

    format: str
    """The format's name, for messages."""
    parts: dict[str, list[str]]
    """Paths of the images of `train` and `val`, or of `all` if the folder is not split."""
    annotated: Callable[[str], Annotated]
    """The path of an image -> the image with its boxes."""
    look: Callable[[], Look]
    declared: bool = True
    """Whether it lists its classes, so that a class may occur only in the validation part."""
    lacks: str = ""
    """What an unsplit folder would need to be split, for messages."""

    def read(self, part: list[str], called: str) -> list[Annotated]:
        """Images with their boxes, in order.

        Raises:
            DataError: an image or annotation is missing or cannot be read.
        """
        with ThreadPoolExecutor(4) as pool:
            return list(
                tqdm(pool.map(self.annotated, part), called, len(part), unit="image", delay=3, leave=False)
            )


def numbers(values: object, where: str) -> list[float]:
    """Finite numbers.

    Raises:
        DataError: one is not finite; `where` says which.
    """
    assert isinstance(values, (list, tuple))
    try:
        found = [float(value) for value in values]
        if not all(map(math.isfinite, found)):
            raise ValueError
    except (TypeError, ValueError):
        raise DataError(
            f"{where} {values}, not {'four' if len(values) == 4 else len(values)} numbers"
        ) from None
    return found


def classes_of(images: list[Annotated]) -> list[str]:
    """Class names that occur in the images, sorted."""
    return sorted({name for image in images for name in image.names})
