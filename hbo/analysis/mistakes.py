"""A classifier's most confident mistakes, and its confusion matrix.

    python -m hbo.analysis.mistakes KEY --to mistakes.png
    python -m hbo.analysis.mistakes runs/default/KEY --images 32 --data_dir DIR

A run's folder has the outcomes (outcomes.npz) of the validation images. The picture shows the images whose
wrong class got the highest probability, highest first, and the confusion matrix: one line per true class, in
shares of that class.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from torchmetrics.functional.classification import multiclass_confusion_matrix

from hbo.analysis.outcomes import Opened, opened
from hbo.errors import UserError, check_picture, one_line
from hbo.words import Parser

COLUMNS = 8  # images per row
NAMED = 20  # largest number of classes with names and numbers in the matrix


class Mistakes(NamedTuple):
    """A classifier's mistakes on its run's validation images."""

    opened: Opened
    classes: list[str]
    surest: list[int]
    """Indices of wrong outcomes, the most probable first; by loss for older runs without probabilities."""
    matrix: np.ndarray
    """(true, predicted) counts."""


def mistakes(folder: Path, data_dir: str | None = None) -> Mistakes:
    """The mistakes of a run.

    Raises:
        UserError: the folder has no finished classifier, or its data have moved.
    """
    import torch

    it = opened(folder, "classify", data_dir)
    labels, said = it.outcomes["label"], it.outcomes["prediction"]
    here = np.array(it.data.val.labels)
    if it.outcomes["index"].max() >= len(here) or (here[it.outcomes["index"]] != labels).any():
        raise UserError(f"data_dir={it.run.data_dir}: not the run's data set")
    sure = it.outcomes.get("score", it.outcomes["loss"])
    wrong = np.flatnonzero(labels != said)
    classes = it.data.classes
    matrix = multiclass_confusion_matrix(
        torch.from_numpy(said), torch.from_numpy(labels), len(classes)
    ).numpy()
    return Mistakes(it, classes, wrong[np.argsort(-sure[wrong], kind="stable")].tolist(), matrix)


def lines(found: Mistakes, most: int = 5) -> list[str]:
    """The number of mistakes, and the most frequent confusions."""
    seen = len(found.opened.outcomes["label"])
    said = [f"{len(found.surest)} of {seen} images are wrong ({100 * len(found.surest) / seen:.2f} %)"]
    off = found.matrix * (1 - np.eye(len(found.classes), dtype=int))
    for place in np.argsort(-off, axis=None, kind="stable")[:most]:
        true, taken = np.unravel_index(place, off.shape)
        if off[true, taken]:
            share = off[true, taken] / found.matrix[true].sum()
            said.append(
                f"  {found.classes[true]} predicted as {found.classes[taken]}:"
                f" {off[true, taken]} ({100 * share:.1f} %)"
            )
    if "score" not in found.opened.outcomes:
        said.append("  sorted by loss, as this older run has no probabilities")
    return said


def picture(found: Mistakes, images: int = 16) -> Figure:
    """The most confident mistakes in a grid, above the confusion matrix."""
    shown = found.surest[:images]
    rows = -(-len(shown) // COLUMNS)
    side = min(max(3.0, 0.45 * len(found.classes)), 9.0)
    figure = Figure(figsize=(1.4 * COLUMNS, 1.75 * rows + side + 0.8), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[max(1.75 * rows, 0.3), side + 0.8])
    above, below = parts
    above.suptitle(
        "Most confident mistakes: true class, then predicted class" if shown else "No mistakes", fontsize=10
    )
    for place, one in enumerate(shown):
        axes: Any = above.add_subplot(rows, COLUMNS, place + 1)
        image, *_ = found.opened.data.val[0, int(found.opened.outcomes["index"][one])]
        axes.imshow(image.permute(1, 2, 0).numpy())
        axes.set_axis_off()
        axes.set_title(_caption(found, one), fontsize=7)
    _draw_matrix(below.add_subplot(), found)
    return figure


def _caption(found: Mistakes, one: int) -> str:
    outcomes = found.opened.outcomes
    sure = f" {100 * outcomes['score'][one]:.0f} %" if "score" in outcomes else ""
    return f"{found.classes[outcomes['label'][one]]}\n{found.classes[outcomes['prediction'][one]]}{sure}"


def _draw_matrix(axes: Any, found: Mistakes) -> None:
    totals = found.matrix.sum(1, keepdims=True)
    shares = found.matrix / np.maximum(totals, 1)
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(found.classes) > NAMED:
        return
    places = range(len(found.classes))
    axes.set_xticks(places, found.classes, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(places, found.classes, fontsize=7)
    for true in places:
        for said in places:
            if found.matrix[true, said]:
                colour = "white" if shares[true, said] > 0.5 else "black"
                axes.text(
                    said, true, found.matrix[true, said], ha="center", va="center", fontsize=7, color=colour
                )


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(
        prog="python -m hbo.analysis.mistakes",
        description="A picture of a classifier's most confident mistakes.",
    )
    parser.add_argument(
        "folder", type=Path, help="The key of a finished classifier, or its folder OUT/STUDY/KEY."
    )
    parser.add_argument("--data_dir", help="Folder of its data, if it has moved.")
    parser.add_argument("--images", type=int, default=16, help="Number of mistakes to show. [16]")
    parser.add_argument(
        "--to",
        type=Path,
        default=Path("mistakes.png"),
        help="File of the picture: .png, .pdf, .svg. [mistakes.png]",
    )
    args = parser.parse_args(argv)
    with one_line():
        if args.images < 0:
            raise UserError(f"images={args.images}: must not be negative")
        check_picture(args.to, "to")
        found = mistakes(args.folder, args.data_dir)
        picture(found, args.images).savefig(args.to, dpi=110)
        print(*lines(found), args.to, sep="\n")


if __name__ == "__main__":
    main()
