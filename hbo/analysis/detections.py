"""Detections on photographs, with found, missed and false ones marked.

    python -m hbo.analysis.detections runs/default/KEY --data_dir DIR --to detections.png

The detections come from a run's folder (outcomes.npz), and are drawn in a grid of validation images. Colours:
green, a found object; orange, a false detection (or a second one of the same object); red, a missed object;
grey, a difficult one, which does not count.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from hbo.analysis import results
from hbo.analysis.outcomes import opened
from hbo.analysis.tables import Table
from hbo.data.sources import read_image, size_of
from hbo.errors import UserError, check_picture, one_line
from hbo.metrics import by_image
from hbo.tasks.detect.draw import LIKELY, grid, marks
from hbo.words import Parser


def picture(folder: Path, data_dir: str | None = None, images: int = 8, score: float = LIKELY) -> Figure:
    """Validation images of a run with its detections, evenly spaced through the data set.

    Raises:
        UserError: the folder has no finished detector, or its data have moved.
    """
    row, run, data, saved = opened(folder, "detect", data_dir)
    outcomes = {name: torch.from_numpy(values) for name, values in saved.items() if name != "name"}
    preds, target = by_image(outcomes)
    places = outcomes["index"].tolist()
    same = (_is_reported(data.val, place, run.resolution, t) for place, t in zip(places, target, strict=True))
    if not all(same):
        raise UserError(f"data_dir={run.data_dir}: not the run's data set, with classes {row['classes']}")
    chosen = np.unique(np.linspace(0, len(preds) - 1, min(images, len(preds))).round().astype(int)).tolist()
    shown, marked, titles = [], [], []
    for place in chosen:
        path = Path(data.val.paths[places[place]])
        image = read_image(path)
        scale = torch.tensor([*image.size, *image.size]) / run.resolution  # boxes are in the resized image
        found, truth = ({**part[place], "boxes": part[place]["boxes"] * scale} for part in (preds, target))
        shown.append(image)
        marked.append(marks(found, truth, row["classes"], score))
        titles.append(path.stem)
    return grid(shown, marked, titles)


def _is_reported(data: Any, place: int, resolution: int, reported: dict[str, Tensor]) -> bool:
    """Whether the image at this index has the objects of an outcome, whose boxes are in the resized image."""
    if place >= len(data):
        return False
    width, height = size_of(Path(data.paths[place]))
    scale, here = torch.tensor([width, height] * 2) / resolution, data.targets[place]
    same = here["labels"].equal(reported["labels"]) and here["difficult"].equal(reported["difficult"])
    return same and here["boxes"].allclose(reported["boxes"] * scale, atol=0.1)


def per_class(done: pd.DataFrame) -> Table:
    """Average precision of each class, one line per arm, from a detection study's
    finished rows (`Study.done`).
    """
    names = [name for name in done.columns if name.startswith("ap_") and done[name].notna().any()]
    lines = []
    for arm, group in done.groupby("arm", sort=False):
        said = {name.removeprefix("ap_"): results.mean(group[name].dropna()) for name in names}
        lines.append({"arm": arm, "n": len(group)} | said)
    note = "Average precision (11 points, IoU 0.5) in percent: mean ± sample standard deviation over n seeds."
    return Table("Class by class", pd.DataFrame(lines), [note])


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(prog="python -m hbo.analysis.detections", description="A run's detections on its images.")
    parser.add_argument(
        "folder", type=Path, help="The key of a finished detector, or its folder OUT/STUDY/KEY."
    )
    parser.add_argument("--data_dir", help="Folder of its data, if it has moved.")
    parser.add_argument(
        "--images", type=int, default=8, help="Number of images, evenly spaced through the data set. [8]"
    )
    parser.add_argument(
        "--score", type=float, default=LIKELY, help="Minimum score of a drawn detection. [0.5]"
    )
    parser.add_argument(
        "--to",
        type=Path,
        default=Path("detections.png"),
        help="File of the picture: .png, .pdf, .svg. [detections.png]",
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
