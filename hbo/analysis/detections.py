"""Detections over photographs: found, missed and false ones marked.

    python -m hbo.analysis.detections runs/default/KEY --data_dir DIR --to detections.png

A run's folder has them (outcomes.npz), drawn over the reported images of its data set, a grid of them. Lines: green, an
object that was found; orange, a detection of none (or a second one of the same); red, an object that was missed; grey, a
difficult one, which does not count.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from hbo.analysis import results
from hbo.analysis.tables import Table
from hbo.data.sources import read_image
from hbo.errors import DataError, UserError, check_picture, one_line
from hbo.runs import rows
from hbo.tasks.detect.voc_map import IGNORED, TRUE, match
from hbo.words import Parser

COLOURS = {"found": "#00a846", "false": "#ff8c00", "missed": "#e02020", "difficult": "#909090"}
LIKELY = 0.5  # scores from which a detection is drawn


class Mark(NamedTuple):
    """A box to draw: what became of it, its corners in pixels, and what stands beside it."""

    kind: str
    box: list[float]
    text: str


def marks(found: dict[str, Tensor], truth: dict[str, Tensor], classes: Sequence[str], score: float = LIKELY) -> list[Mark]:
    """What is drawn over an image, from its detections of at least `score`, matched as the metric matches at 0.5."""
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


def grid(images: Sequence[Any], marked: Sequence[list[Mark]], titles: Sequence[str], columns: int = 4) -> Figure:
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
            axes.text(x1, y1, text, fontsize=5, color="white", va="bottom", bbox={"facecolor": colour, "pad": 0.6, "lw": 0})
    kinds = [kind for kind in COLOURS if any(kind == mark.kind for drawn in marked for mark in drawn)]
    if kinds:
        handles = [Patch(facecolor="none", edgecolor=COLOURS[kind], label=kind) for kind in kinds]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(kinds), frameon=False)
    return figure


def picture(folder: Path, data_dir: str | None = None, images: int = 8, score: float = LIKELY) -> Figure:
    """The reported images of a run with its detections: evenly through the set.

    Raises:
        UserError: the folder holds no finished detector, or its data lie elsewhere now.
    """
    from hbo.config import Run, resolve
    from hbo.metrics import by_image
    from hbo.tasks.build import open_data

    row = rows.read(folder)
    if not row or row.get("state") != "done" or row.get("task") != "detect":
        raise UserError(f"{folder}: no finished detector's run; take a folder of one, OUT/STUDY/KEY")
    asked = {name: row[name] for name in Run.__dataclass_fields__ if name in row and name not in ("variant", "match_macs")}
    run = resolve(**asked | ({"data_dir": data_dir} if data_dir else {}))
    try:
        data = open_data(run)
    except DataError as error:
        raise UserError(f"{error}; --data_dir says where it lies now") from None
    with np.load(folder / "outcomes.npz", allow_pickle=False) as saved:
        outcomes = {name: torch.from_numpy(saved[name]) for name in saved.files}
    preds, target = by_image(outcomes)
    places = outcomes["index"].tolist()
    same = (_is_reported(data.val, place, run.resolution, t) for place, t in zip(places, target, strict=True))
    if list(data.classes) != row["classes"] or not all(same):
        raise UserError(f"data_dir={run.data_dir}: not the set that the run reports on, of {row['classes']}")
    chosen = np.unique(np.linspace(0, len(preds) - 1, min(images, len(preds))).round().astype(int)).tolist()
    shown, marked, titles = [], [], []
    for place in chosen:
        path = Path(data.val.paths[places[place]])
        image = read_image(path)
        scale = torch.tensor([*image.size, *image.size]) / run.resolution  # boxes are of the resized image
        found, truth = ({**part[place], "boxes": part[place]["boxes"] * scale} for part in (preds, target))
        shown.append(image)
        marked.append(marks(found, truth, row["classes"], score))
        titles.append(path.stem)
    return grid(shown, marked, titles)


def _is_reported(data: Any, place: int, resolution: int, reported: dict[str, Tensor]) -> bool:
    """Whether the image at that place has the objects of an outcome, whose boxes are of the resized image."""
    if place >= len(data):
        return False
    width, height = read_image(Path(data.paths[place]), header_only=True).size
    scale, here = torch.tensor([width, height] * 2) / resolution, data.targets[place]
    same = here["labels"].equal(reported["labels"]) and here["difficult"].equal(reported["difficult"])
    return same and here["boxes"].allclose(reported["boxes"] * scale, atol=0.1)


def per_class(done: pd.DataFrame) -> Table:
    """Average precision of each class, an arm a line, of a detection study's finished rows (`Study.done`)."""
    names = [name for name in done.columns if name.startswith("ap_") and done[name].notna().any()]
    lines = []
    for arm, group in done.groupby("arm", sort=False):
        said = {name.removeprefix("ap_"): results.mean(group[name].dropna()) for name in names}
        lines.append({"arm": arm, "n": len(group)} | said)
    note = "Average precision, 11 points at an overlap of 0.5, in percent: mean ± sample deviation over n seeds."
    return Table("Class by class", pd.DataFrame(lines), [note])


def one(image: Image.Image, found: dict[str, Tensor], classes: Sequence[str], title: str) -> Figure:
    """One image with what was detected on it, where nobody knows what is there."""
    pairs = zip(found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True)
    return grid([image], [[Mark("found", box, f"{classes[label]} {score:.2f}") for box, score, label in pairs]], [title])


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(prog="python -m hbo.analysis.detections", description="A run's detections over its images.")
    parser.add_argument("folder", type=Path, help="OUT/STUDY/KEY of a finished detector.")
    parser.add_argument("--data_dir", help="Where its data lie now; left out: where they lay.")
    parser.add_argument("--images", type=int, default=8, help="How many, evenly through the set. [8]")
    parser.add_argument("--score", type=float, default=LIKELY, help="Least score of a detection that is drawn. [0.5]")
    parser.add_argument(
        "--to", type=Path, default=Path("detections.png"), help="The picture: .png, .pdf, .svg. [detections.png]"
    )
    args = parser.parse_args(argv)
    with one_line():
        if args.images < 1:
            raise UserError(f"images={args.images}: must be at least 1")
        check_picture(args.to, "to")
        picture(args.folder, args.data_dir, args.images, args.score).savefig(args.to, dpi=110)
        print(args.to)


if __name__ == "__main__":
    main()
