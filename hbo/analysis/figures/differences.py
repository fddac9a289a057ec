"""A forest plot of a study's judged differences, one per line."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hbo.analysis.figures import style
from hbo.analysis.numbers import bounded, points
from hbo.errors import UserError

COLUMNS = ("label", "difference", "low", "high", "verdict")
LABEL = {"text": 40, "column": 24}  # characters in a line of a label: leaves room for the axes
ROW = 0.26  # inches, a row whose label has one line
DECIDED = ("higher", "lower", "equivalent")  # drawn filled; other verdicts are drawn hollow


def forest(
    frame: pd.DataFrame,
    metric_name: str,
    margin: float | None = None,
    title: str = "",
    arms: Sequence[str] = (),
) -> Figure:
    """Differences with their intervals, one line per row of the frame, the first on top.

    Args:
        frame: columns label, difference, low, high (fractions, drawn within +-1; nan without an
            interval) and verdict. Filled
            markers are higher, lower or equivalent; hollow ones are undecided.
        metric_name: its title, such as top-1.
        margin: differences within it do not matter (a fraction): a shaded band.
        title: above the axes.
        arms: the study's arms in order: a label that starts with an arm's name gets the arm's colour and
            marker.

    Raises:
        UserError: a column is missing, or the frame is empty.
    """
    if missing := [name for name in COLUMNS if name not in frame]:
        raise UserError(f"forest: the frame has no column {', '.join(missing)}")
    if frame.empty:
        raise UserError("forest: the frame has no row")
    lines: list[dict[str, Any]] = [
        line | {name: bounded(line[name]) for name in ("difference", "low", "high")}
        for line in frame.to_dict("records")
    ]
    with style.styled():
        narrow = style.is_narrow()
        labels = [style.wrapped(str(line["label"]), LABEL["column" if narrow else "text"]) for line in lines]
        heights = [1 + style.LINE / ROW * label.count("\n") for label in labels]
        total = sum(heights)
        places = [
            below - height / 2 - 0.5 for below, height in zip(accumulate(heights), heights, strict=True)
        ]
        figure = style.new((0.95 if narrow else 0.75) + ROW * total)
        axes = figure.add_subplot()
        axes.axvline(0, color=style.GREY, lw=0.8, zorder=1)
        xlabel = f"difference in {metric_name}, points"
        if margin is not None:
            gap = "\n" if narrow else " "
            xlabel += f";{gap}shaded: \N{PLUS-MINUS SIGN}{100 * margin:.1f} points do not matter"
            axes.axvspan(-100 * margin, 100 * margin, color="#BBBBBB", alpha=0.35, lw=0, zorder=0)
        for y, line in zip(places, lines, strict=True):
            _line(axes, y, line, _look(str(line["label"]), arms))
        axes.set_yticks(places, labels)
        axes.set_ylim(total - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(xlabel)
        axes.set_title(title, loc="left", fontsize=8)
        beside = axes.secondary_yaxis("right")
        beside.set_yticks(places, [_said(line) for line in lines])
        beside.tick_params(axis="y", length=0)
        beside.spines["right"].set_visible(False)
    return figure


def _line(axes: Any, y: float, line: dict[str, Any], look: style.Look) -> None:
    difference, low, high = (100 * line[name] for name in ("difference", "low", "high"))
    if not math.isnan(low):
        axes.plot([low, high], [y, y], "-", color=look.colour, marker="|", markersize=6, zorder=2)
    fill = look.colour if line["verdict"] in DECIDED else "white"
    axes.plot(
        [difference],
        [y],
        color=look.colour,
        marker=look.marker,
        mfc=fill,
        markersize=6,
        linestyle="",
        zorder=3,
    )


def _look(label: str, arms: Sequence[str]) -> style.Look:
    looks = style.looks(arms)
    named = max((arm for arm in arms if label == arm or label.startswith(f"{arm} ")), key=len, default=None)
    return style.Look("black", "o", "-", "") if named is None else looks[named]


def _said(line: dict[str, Any]) -> str:
    """The verdict, with the numbers if there is room."""
    if style.is_narrow():
        return str(line["verdict"])
    interval = "" if math.isnan(line["low"]) else f" [{points(line['low'])}, {points(line['high'])}]"
    return f"{points(line['difference'])}{interval}  {line['verdict']}"
