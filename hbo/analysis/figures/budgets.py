"""Figure 1 for any data set: a metric against multiply-adds, one line per network, and
the gains over a baseline below.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from hbo.analysis import contrasts, gains, published, results, stats
from hbo.analysis.figures import style
from hbo.analysis.gains import BASELINE
from hbo.analysis.grouping import by_setting
from hbo.analysis.numbers import bounded
from hbo.analysis.protocols import measured
from hbo.analysis.stats import SHOWN
from hbo.analysis.study_tables import LEVEL
from hbo.errors import UserError
from hbo.runs import identity
from hbo.runs.rows import main_metric

NAMES = {"hbonet": "HBONet", "mobilenetv2": "MobileNetV2"}
# Fields that vary along a line.
SIZES = {
    "net",
    "width",
    "divisor",
    "match_macs",
    "resolution",
    "eval_resize",
    "cached_side",
}


@dataclass(frozen=True)
class Point:
    """A network of one size: million multiply-adds, its runs' metric (n,) as
    fractions, and the point's label.
    """

    cost: float
    values: np.ndarray
    mark: str = ""


@dataclass(frozen=True)
class Line:
    """A network over its sizes. `rest`: what else distinguishes its runs from other lines'."""

    net: str
    points: list[Point]
    rest: str = ""
    published: bool = False

    @property
    def name(self) -> str:
        """Its name in the legend."""
        return NAMES.get(self.net, self.net) + f" {self.rest}" * bool(self.rest)


Pair = tuple[Point, Point]


def figure1(rows: pd.DataFrame | None = None) -> Figure:
    """Figure 1: top-1 on ImageNet as published in table 2, and as measured with the paper's protocol, if
    there are rows.
    """
    found = [] if rows is None else _by_paper(rows)
    return _draw([*_published(), *found], "top-1 on ImageNet, %", "million multiply-adds (224 x 224)")


def by_budget(rows: pd.DataFrame, metric: str | None = None) -> Figure:
    """One line per network over its multiply-adds: mean and interval over seeds;
    below, its gain over MobileNetV2.

    A gain is drawn if two networks' multiply-adds are within 10 %, with Welch's interval. Without MobileNetV2
    it is over the first network. Published points are drawn if rows have the protocol of table 2.

    Args:
        rows: from `results.load`, of one data set and task.
        metric: a column; None: the task's main metric.

    Raises:
        UserError: no finished run has the metric and multiply-adds, or the rows have several data sets.
    """
    done = results.finished(rows)
    metric = metric or main_metric(done.iloc[0])
    lines = lines_of(done, metric)
    if metric == "top1" and _by_paper(done):
        lines = [*_published(), *lines]
    sizes = done["resolution"].unique()
    size = (
        f" ({sizes[0]:.0f} x {sizes[0]:.0f})"
        if len(sizes) == 1 and done["task"].iloc[0] == "classify"
        else ""
    )
    return _draw(lines, f"{SHOWN.get(metric, metric)}, %", f"million multiply-adds{size}")


def has_gains(rows: pd.DataFrame, metric: str) -> bool:
    """Whether the finished rows have at least two budgets at which two networks can be compared."""
    try:
        lines = lines_of(rows, metric)
    except UserError:
        return False
    return any(len({p.cost for p, _ in pairs}) > 1 for _, pairs in gains_of(lines))


def lines_of(done: pd.DataFrame, metric: str) -> list[Line]:
    """The lines of finished rows, in the order of their networks.

    Raises:
        UserError: as `by_budget`.
    """
    known = {metric, "macs"} <= set(done.columns)
    there: Any = done[done[metric].notna() & done["macs"].notna()] if known else done.head(0)
    if there.empty:
        raise UserError(f"metric={metric!r}: no finished run has it and multiply-adds")
    if len(settings := by_setting(there)) > 1:
        raise UserError(
            f"rows with different settings cannot be compared: {'; '.join(which for which, _ in settings)};"
            " give the rows of one"
        )
    arms = results.arms(there)
    own: dict[str, list[identity.Identity]] = {}
    for one, _ in arms:
        own.setdefault(identity.value(one, "net"), []).append(one)
    found: dict[tuple[str, str], list[Point]] = {}
    for one, runs in arms:
        net = identity.value(one, "net")
        names = [name for name in identity.varying(own[net]) if name not in SIZES]
        rest = " ".join(identity.say(name, identity.value(one, name)) for name in names)
        found.setdefault((net, rest), []).append(
            Point(runs["macs"].iloc[0] / 1e6, runs[metric].to_numpy(float))
        )
    return [Line(net, sorted(points, key=lambda p: p.cost), rest) for (net, rest), points in found.items()]


def pairs_of(line: Line, base: Sequence[Line]) -> list[Pair]:
    """A line's points, each with the nearest point of the base at its budget; from the base's line with the
    same `rest`, else its only line.
    """
    alike = [other for other in base if other.rest == line.rest] or list(base)
    if len(alike) != 1:
        return []
    nearest = [(p, min(alike[0].points, key=lambda q: abs(math.log(q.cost / p.cost)))) for p in line.points]
    return [(p, q) for p, q in nearest if contrasts.same_budget(p.cost, q.cost)]


def gains_of(lines: Sequence[Line]) -> list[tuple[Line, list[Pair]]]:
    """Each line with its points paired with the baseline's; published lines only with published ones."""
    found = []
    for is_published in (True, False):
        kind = [line for line in lines if line.published == is_published]
        base = [line for line in kind if line.net == _over(lines)]
        pairs = [(line, pairs_of(line, base)) for line in kind if line.net != _over(lines)]
        found += [(line, its) for line, its in pairs if its]
    return found


def _over(lines: Sequence[Line]) -> str:
    """The baseline of the gains: MobileNetV2, else the first network."""
    return BASELINE if any(line.net == BASELINE for line in lines) else lines[0].net


def _published() -> list[Line]:
    table: Any = published.table(2)
    lines = []
    for net in NAMES:
        rows = table[table["model"] == net].sort_values("mmacs").to_dict("records")
        points = [Point(row["mmacs"], np.array([row["top1"] / 100]), f"{row['width']:g}") for row in rows]
        lines.append(Line(net, points, published=True))
    return lines


def _by_paper(rows: pd.DataFrame) -> list[Line]:
    """Table 2's lines from rows with its protocol."""
    groups, nets = measured(rows, published.runs(2), "top1").get("", {}), published.table(2)["model"]
    lines = []
    for net in NAMES:
        found = [runs for i, runs in sorted(groups.items()) if nets[i] == net]
        points = [Point(runs["macs"].iloc[0] / 1e6, runs["top1"].to_numpy(float)) for runs in found]
        lines += [Line(net, sorted(points, key=lambda p: p.cost))] if points else []
    return lines


def _draw(lines: list[Line], ylabel: str, xlabel: str) -> Figure:
    looks = style.looks(
        [*(NAMES if any(line.published for line in lines) else ()), *(line.net + line.rest for line in lines)]
    )
    found = gains_of(lines)
    with style.styled():
        figure = style.new((3.9 if style.is_narrow() else 4.2) if found else 3.0)
        top, *rest = np.atleast_1d(
            figure.subplots(2 if found else 1, sharex=True, height_ratios=(2, 1) if found else None)
        )
        for line in lines:
            _curve(top, line, looks[line.net + line.rest])
        top.set_ylabel(ylabel)
        top.margins(y=0.12)
        for below in rest:
            for line, pairs in found:
                _gains(below, line, pairs, looks[line.net + line.rest])
            below.axhline(0, color=style.GREY, lw=0.8, zorder=1)
            below.margins(y=0.12)
            below.set_ylabel("gain, points")
            below.set_title(_headline(NAMES.get(_over(lines), _over(lines)), found), fontsize=7, loc="left")
        _log_axis((rest or [top])[0], [p.cost for line in lines for p in line.points])
        (rest or [top])[0].set_xlabel(xlabel)
        interval = f"mean, {LEVEL:.0%} interval, each on its own" * any(not line.published for line in lines)
        widths = "small numbers: width" * any(line.published for line in lines)
        style.legend(figure, top, "\n".join(filter(None, (interval, widths))))
    return figure


def _curve(axes: Any, line: Line, look: style.Look) -> None:
    """Draw a line's means, with intervals from two runs on; published ones hollow."""
    n = "/".join(dict.fromkeys(str(len(p.values)) for p in line.points))
    label = f"{line.name}, {'published' if line.published else f'n={n}'}"
    costs, means = [p.cost for p in line.points], [100 * p.values.mean() for p in line.points]
    fill, dash = ("white", "--") if line.published else (look.colour, "-")
    axes.plot(costs, means, dash, color=look.colour, marker=look.marker, mfc=fill, label=label)
    for p, mean in zip(line.points, means, strict=True):
        _interval(axes, p.cost, *_ends(p.values), look)
        if p.mark:
            lift, place = (5, "bottom") if line.net == "hbonet" else (-5, "top")
            axes.annotate(
                p.mark, (p.cost, mean), xytext=(0, lift), textcoords="offset points", ha="center", va=place,
                fontsize=6.5,
                color=look.colour,
            )  # fmt: skip


def _gains(axes: Any, line: Line, pairs: list[Pair], look: style.Look) -> None:
    """Draw a line's gains over the baseline at the same budget."""
    found = [gains.gain(p.values, q.values, LEVEL) for p, q in pairs]
    fill, dash = ("white", "--") if line.published else (look.colour, "-")
    costs, values = [p.cost for p, _ in pairs], [100 * g.value for g in found]
    axes.plot(
        costs, values, dash, color=look.colour, marker=look.marker, mfc=fill, label=f"{line.name}, gain"
    )
    for (p, _), g in zip(pairs, found, strict=True):
        _interval(axes, p.cost, 100 * bounded(g.low), 100 * bounded(g.high), look)


def _ends(values: np.ndarray) -> tuple[float, float]:
    """A mean's interval in percent; nan for a single run."""
    found = stats.describe(values, LEVEL).percent()
    return found.low, found.high


def _interval(axes: Any, x: float, low: float, high: float, look: style.Look) -> None:
    if not math.isnan(low):
        axes.errorbar(
            [x],
            [(low + high) / 2],
            yerr=(high - low) / 2,
            color=look.colour,
            linestyle="",
            marker="",
            zorder=2,
        )


def _headline(over: str, found: Sequence[tuple[Line, list[Pair]]]) -> str:
    """The baseline, and how much each gain grows as the budget shrinks, if there are several budgets. The
    study's page adjusts its intervals for all lines of a family; these are not.
    """
    lines = []
    for line, pairs in found:
        budgets = [(math.sqrt(p.cost * q.cost), p.values, q.values) for p, q in pairs]
        if len({cost for cost, _, _ in budgets}) > 1:
            slope = gains.trend(budgets, LEVEL)
            lines.append(f"{line.name} {f'{100 * slope.value:+.1f}, published' if line.published else slope}")
    measured = any(not line.published for line, _ in found)
    start = f"gain over {over}" + ", each interval on its own" * measured
    gap = "\n" if style.is_narrow() else " "
    return "\n".join([start + f";{gap}each halving of the budget adds:" * bool(lines), *lines])


def _log_axis(axes: Any, costs: Sequence[float]) -> None:
    """A log axis with ticks at doublings of 10, or at round numbers if it is too short for two of them."""
    axes.set_xscale("log")
    low, high = min(costs) / 1.2, max(costs) * 1.2
    ticks = [10 * 2.0**n for n in range(-20, 30) if low <= 10 * 2.0**n <= high]
    ticks = (
        ticks if len(ticks) > 1 else [t for t in MaxNLocator(4).tick_values(low, high) if low <= t <= high]
    )
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
