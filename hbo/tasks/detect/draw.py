"""Boxes on photographs: green, a found object; orange, a false detection; red, a missed
object; grey, a difficult one.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from hbo.tasks.detect.voc_map import IGNORED, TRUE, match

COLOURS = {"found": "#00a846", "false": "#ff8c00", "missed": "#e02020", "difficult": "#909090"}
LIKELY = 0.5  # minimum score of a drawn detection


class Mark(NamedTuple):
    """A box to draw: its kind (a key of `COLOURS`), its corners in pixels, and its caption."""

    kind: str
    box: list[float]
    text: str


def marks(
    found: dict[str, Tensor], truth: dict[str, Tensor], classes: Sequence[str], score: float = LIKELY
) -> list[Mark]:
    """The boxes to draw: detections of at least `score`, matched at IoU 0.5, as in the metric."""
    out = []
    for label, name in enumerate(classes):
        likely = (found["labels"] == label) & (found["scores"] >= score)
        true = truth["labels"] == label
        boxes, scores, hard = found["boxes"][likely], found["scores"][likely], truth["difficult"][true]
        matched = match(boxes, scores, truth["boxes"][true], hard, 0.5)
        met = set(matched.truth[matched.outcome == TRUE])
        for place, box in enumerate(truth["boxes"][true].tolist()):
            if place not in met:
                out.append(Mark("difficult" if hard[place] else "missed", box, name))
        for box, s, outcome in zip(boxes.tolist(), scores.tolist(), matched.outcome, strict=True):
            if outcome != IGNORED:
                out.append(Mark("found" if outcome == TRUE else "false", box, f"{name} {s:.2f}"))
    return out


def grid(
    images: Sequence[Any], marked: Sequence[list[Mark]], titles: Sequence[str], columns: int = 4
) -> Figure:
    """Images (PIL or (H, W, 3) arrays) with their marks in a grid."""
    from matplotlib.patches import Patch, Rectangle

    columns = min(columns, len(images))
    lines = -(-len(images) // columns)
    figure = Figure(figsize=(4 * columns, 3.2 * lines + 0.4), layout="constrained")
    for place, (image, drawn, title) in enumerate(zip(images, marked, titles, strict=True)):
        axes: Any = figure.add_subplot(lines, columns, place + 1)
        axes.imshow(np.asarray(image))
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
        for kind, (x1, y1, x2, y2), text in drawn:
            colour = COLOURS[kind]
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.3))
            axes.text(
                x1,
                y1,
                text,
                fontsize=5,
                color="white",
                va="bottom",
                bbox={"facecolor": colour, "pad": 0.6, "lw": 0},
            )
    kinds = [kind for kind in COLOURS if any(kind == mark.kind for drawn in marked for mark in drawn)]
    if kinds:
        handles = [Patch(facecolor="none", edgecolor=COLOURS[kind], label=kind) for kind in kinds]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(kinds), frameon=False)
    return figure


def one(image: Image.Image, found: dict[str, Tensor], classes: Sequence[str], title: str) -> Figure:
    """One image with its detections, without ground truth."""
    pairs = zip(found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True)
    return grid(
        [image],
        [[Mark("found", box, f"{classes[label]} {score:.2f}") for box, score, label in pairs]],
        [title],
    )
