"""Ranked lists: queries next to the nearest gallery images, with correct and wrong ones marked.

    python -m hbo.analysis.ranks runs/default/KEY --data_dir DIR --to ranks.png
    python -m hbo.analysis.ranks runs/default/KEY --worst    # the queries with the lowest average precision

A run's folder has the lists (outcomes.npz). Each line of the picture shows a query, framed in
black, and its first ranks: green frames for the query's identity, red ones for another or a distractor
(0000). Images from the query's own camera, and junk, are not ranked.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from hbo.analysis.outcomes import opened
from hbo.errors import UserError, check_picture, one_line
from hbo.words import Parser

COLOURS = {"query": "black", "right": "#00a846", "wrong": "#e02020"}


class Ranking(NamedTuple):
    """A query and its first ranks: paths, and whether each shows the query's identity."""

    query: str
    average_precision: float
    top: list[tuple[str, bool]]


def rankings(
    folder: Path, data_dir: str | None = None, queries: int = 8, worst: bool = False
) -> list[Ranking]:
    """Queries of a run, evenly spaced through the data set, or the worst ones.

    Raises:
        UserError: the folder has no finished re-identifier, or its data have moved.
    """
    row, _, data, found = opened(folder, "reid", data_dir)
    who = np.array([identity for identity, *_ in data.val.labels])
    if len(who) != len(found["index"]) or (who[found["query"]] != found["identity"]).any():
        raise UserError(f"data_dir={data_dir or row['data_dir']}: not the run's data set")
    matched = np.flatnonzero(found["first"])
    if worst:
        chosen = matched[np.argsort(found["average_precision"][matched], kind="stable")[:queries]]
    else:
        chosen = matched[
            np.unique(np.linspace(0, len(matched) - 1, min(queries, len(matched))).round().astype(int))
        ]
    paths = data.val.paths
    return [
        Ranking(
            paths[found["query"][place]],
            float(found["average_precision"][place]),
            [
                (paths[i], bool(who[i] == found["identity"][place]))
                for i in found["top"][place].tolist()
                if i >= 0
            ],
        )
        for place in chosen.tolist()
    ]


def picture(lists: list[Ranking]) -> Figure:
    """One line per query: the query, then its ranking, in coloured frames."""
    from hbo.data.sources import read_image  # imports torchvision, which takes a second

    columns = 1 + max(len(ranking.top) for ranking in lists)
    figure = Figure(figsize=(1.05 * columns, 1.45 * len(lists) + 0.3), layout="constrained")
    for line, ranking in enumerate(lists):
        shown = [
            (ranking.query, "query"),
            *((path, "right" if right else "wrong") for path, right in ranking.top),
        ]
        for place, (path, kind) in enumerate(shown):
            axes: Any = figure.add_subplot(len(lists), columns, line * columns + place + 1)
            axes.imshow(np.asarray(read_image(Path(path))))
            axes.set(xticks=[], yticks=[])
            axes.set_title(
                f"AP {100 * ranking.average_precision:.0f} %" if place == 0 else str(place), fontsize=7, pad=2
            )
            # Identity, camera, sequence.
            axes.set_xlabel("_".join(Path(path).stem.split("_")[:2]), fontsize=6, labelpad=2)
            for spine in axes.spines.values():
                spine.set(color=COLOURS[kind], linewidth=3)
    return figure


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(prog="python -m hbo.analysis.ranks", description="A picture of a run's ranked lists.")
    parser.add_argument(
        "folder", type=Path, help="The key of a finished re-identifier, or its folder OUT/STUDY/KEY."
    )
    parser.add_argument("--data_dir", help="Folder of its data, if it has moved.")
    parser.add_argument(
        "--queries", type=int, default=8, help="Number of queries, evenly spaced through the data set. [8]"
    )
    parser.add_argument("--worst", action="store_true", help="Show those with the lowest average precision.")
    parser.add_argument(
        "--to",
        type=Path,
        default=Path("ranks.png"),
        help="File of the picture: .png, .pdf, .svg. [ranks.png]",
    )
    args = parser.parse_args(argv)
    with one_line():
        if args.queries < 1:
            raise UserError(f"queries={args.queries}: must be at least 1")
        check_picture(args.to, "to")
        picture(rankings(args.folder, args.data_dir, args.queries, args.worst)).savefig(args.to, dpi=110)
        print(args.to)


if __name__ == "__main__":
    main()
