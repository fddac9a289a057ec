"""The share of each class's objects that some anchor covers, before training; and the
`min_scale` that covers most.

    python -m hbo.analysis.anchors --data_dir DIR
    python -m hbo.analysis.anchors --data_dir DIR --min_scale 0.1 --strides 8,16,32

An object is covered if an anchor overlaps it by 0.5 or more. Objects of the training images are counted,
without difficult ones.
"""

import sys
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from hbo import config, flags
from hbo.config import Run
from hbo.errors import UserError, one_line
from hbo.tasks import build
from hbo.tasks.detect.anchors import Anchors
from hbo.text import aligned

OVERLAP = 0.5
SCALES = (0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3)
PART = 512  # objects whose overlaps are in memory at once


def main(argv: list[str] | None = None) -> None:
    """The command line: the flags of `hbo.fit`."""
    parser = flags.make_parser(
        "hbo.analysis.anchors", "The share of each class's objects that some anchor covers."
    )
    with one_line():
        given = flags.given(parser, sys.argv[1:] if argv is None else argv)
        run = config.resolve(**{"task": "detect", "batch": 2} | given)  # a folder of any size
        if run.task != "detect":
            raise UserError(
                f"data={run.data}: is for task={run.task}, which has no anchors; use --data detectfolder"
            )
        print("\n".join(report(run)))


def report(run: Run) -> list[str]:
    """The table, one line per class, and the proposed `min_scale`."""
    data = build.open_data(run)
    boxes, labels = objects(data.train, run.resolution)
    sizes = map_sizes(run)
    best = {scale: best_overlaps(run, boxes, sizes, scale) for scale in sorted({*SCALES, run.min_scale})}
    shares = {scale: by_class(found >= OVERLAP, labels, len(data.classes)) for scale, found in best.items()}
    proposed = propose(shares, run.min_scale)
    columns = dict.fromkeys([run.min_scale, proposed])
    counts = labels.bincount(minlength=len(data.classes)).tolist()
    side = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt() / run.resolution
    head = ("class", "objects", "median side", *(f"covered at {scale:g}" for scale in columns))
    lines = [
        (
            name,
            str(n),
            f"{float(side[labels == i].median()):.3f}",
            *(f"{100 * float(shares[scale][i]):.0f} %" for scale in columns),
        )
        for i, (name, n) in enumerate(zip(data.classes, counts, strict=True))
        if n
    ]
    what = (
        f"{run.anchors} anchors of strides {run.strides} at {run.resolution} px; a side is the square root"
        " of a box's area relative to the image's"
    )
    told = (
        f"--min_scale {proposed:g} covers most, on average over the classes"
        if proposed != run.min_scale
        else "no other min_scale covers more"
    )
    return [
        what,
        "",
        *aligned([head, *lines], right=range(1, len(head))),
        "",
        f"{told} (tried: {', '.join(f'{s:g}' for s in best)})",
    ]


def objects(images: Any, resolution: int) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4) in the image resized to R x R, and their labels (N,).

    Args:
        images: a detection set's `Boxes`.
        resolution: R.

    Raises:
        UserError: no boxes.
    """
    scaled = []
    for target, (width, height) in zip(images.targets, images.sizes, strict=True):
        scaled.append(target["boxes"] * (resolution / torch.tensor([width, height, width, height])))
    boxes, labels = torch.cat(scaled), torch.cat([target["labels"] for target in images.targets])
    if not len(boxes):
        raise UserError("no object in the training part")
    return boxes, labels


def map_sizes(run: Run) -> list[tuple[int, int]]:
    """Heights and widths of the maps that the run's detector uses."""
    detector: Any = build.network(run, 1)
    return detector.sizes


def best_overlaps(run: Run, boxes: Tensor, sizes: list[tuple[int, int]], min_scale: float) -> Tensor:
    """The largest overlap of each object with an anchor, (N,)."""
    anchors = Anchors(run.anchors, min_scale, len(sizes)).boxes(sizes, run.resolution)
    return torch.cat([box_iou(part, anchors).amax(1) for part in boxes.split(PART)])


def by_class(covered: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The share of each class's objects that is covered, (classes,); NaN for a class without objects."""
    return torch.stack([covered[labels == label].float().mean() for label in range(classes)])


def propose(shares: dict[float, Tensor], now: float) -> float:
    """The scale that covers most, averaged over the classes. It is the current one unless another is a point
    better; of equal ones it is the largest.
    """
    means = {scale: float(found.nanmean()) for scale, found in shares.items()}
    best = max(sorted(means, reverse=True), key=lambda scale: round(means[scale], 3))
    return best if means[best] > means[now] + 0.01 else now


if __name__ == "__main__":
    main()
