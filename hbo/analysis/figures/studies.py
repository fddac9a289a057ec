"""Figures of one study: a metric against a switch and against costs, and learning curves."""

from dataclasses import fields
from itertools import pairwise
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hbo.analysis import results, stats
from hbo.analysis.figures import budgets, by_runtime, differences, style
from hbo.analysis.figures.style import GREY
from hbo.analysis.grouping import balanced, labels
from hbo.analysis.stats import SHOWN
from hbo.analysis.study import Study
from hbo.analysis.study_tables import LEVEL
from hbo.block import Block
from hbo.errors import UserError

COSTS = {
    "macs": (1e6, "million multiply-adds at the study's resolution"),
    "params": (1e6, "million parameters"),
    "latency_ms": (1, "milliseconds per image, median, deployed in ONNX Runtime, one thread"),
}


def of(study: Study) -> dict[str, Figure]:
    """Name -> figure, for all figures that the study's rows allow: a metric against each switch and each
    cost, budgets, learning curves.
    """
    ours = study.done[study.done["depths"].map(len) > 0]
    switches = [f.name for f in fields(Block) if ours[f.name].nunique() > 1 and f.name != "scheme"]
    found = {name: accuracy(study, name) for name in switches}
    if study.done["macs"].notna().all():
        found["macs"] = accuracy_cost(study, "macs")
        if budgets.has_gains(study.done, study.metric):
            found["budgets"] = budgets.by_budget(study.done, study.metric)
    if "latency_ms" in study.done and study.done["latency_ms"].notna().all():
        found["latency"] = accuracy_cost(study, "latency_ms")
    if by_runtime.has_times(study.done):
        found["runtimes"] = by_runtime.runtimes(study)
    judged: Any = study.comparisons()
    judged = judged[(judged["family"] != "trend") & judged["difference"].notna()]
    if len(judged):
        found["differences"] = differences.forest(
            judged, SHOWN[study.metric], study.asked.share, arms=study.arms
        )
    if not study.curves.empty:
        found["curves"] = learning_curves(study)
    return found


def accuracy(study: Study, switch: str, metric: str | None = None) -> Figure:
    """A metric against a switch: a faint dot per seed, the mean with its interval; one line for each
    combination of the other fields.

    With more combinations than colours, in a complete design, the runs of each value are pooled: the switch's
    main effect. Arms of networks without the switch are horizontal bands.
    """
    metric = metric or study.metric
    ours = study.done[study.done["depths"].map(len) > 0]
    if switch not in ours or ours[switch].nunique() < 2:
        raise UserError(f"{switch}: the arms do not differ in it")
    values = list(dict.fromkeys(ours.sort_values(switch)[switch]))
    is_scale = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    places = values if is_scale else list(range(len(values)))
    step = min(b - a for a, b in pairwise(places))
    series = _series(ours, switch)
    with style.styled():
        figure, axes = style.axes(_words(switch), f"{SHOWN[metric]}, %")
        for i, (name, runs) in enumerate(series.items()):
            shift = 0.12 * step * (i - (len(series) - 1) / 2)
            at = {value: place + shift for value, place in zip(values, places, strict=True)}
            _line(axes, study, runs, switch, metric, at, name or "hbonet", i)
        _bands(axes, study, metric)
        axes.set_xticks(places, [f"{v:g}" if is_scale else str(v) for v in values])
        axes.margins(x=0.12)
        axes.grid(visible=False, axis="x")
        if "majority" in ours and metric == "top1" and axes.get_ylim()[0] < 100 * ours["majority"].iloc[0]:
            axes.axhline(100 * ours["majority"].iloc[0], color=GREY, lw=0.8, label="largest class")
        style.legend(figure, axes, f"mean, {LEVEL:.0%} interval, dots: seeds")
    return figure


def _series(ours: Any, switch: str) -> dict[str, Any]:
    """Each line's shared values -> its runs."""
    alike = pd.Series(labels(ours, without=(switch,)), ours.index)
    series: dict[str, Any] = {str(name): group for name, group in ours.groupby(alike, sort=False)}
    names = results.varying(ours)
    # A factorial study, or a fraction: its main effect.
    if len(series) > len(style.COLOURS) and balanced(ours, names):
        return {f"over all {', '.join(_words(name) for name in names if name != switch)}": ours}
    return series


def _line(
    axes: Any, study: Study, runs: Any, switch: str, metric: str, at: dict[Any, float], name: str, place: int
) -> None:
    """A line over a switch's values: one arm's points in its colour, several arms' in
    black; every second line hollow.
    """
    dash, hollow = style.DASHES[place % len(style.DASHES)], place % 2 == 1
    looks, groups = (
        style.looks(study.arms),
        [(v, runs[runs[switch] == v]) for v in at if (runs[switch] == v).any()],
    )
    n = "/".join(dict.fromkeys(str(len(group)) for _, group in groups))
    means = [100 * group[metric].mean() for _, group in groups]
    beside = 0.04 * (max(at.values()) - min(at.values())) / len(at)
    axes.plot([at[v] for v, _ in groups], means, dash, color=GREY, lw=1, zorder=1.5, label=f"_{name}")
    axes.plot(
        [], [], dash, color=GREY, lw=1, marker="o", mfc="white" if hollow else GREY, label=f"{name}, n={n}"
    )
    for value, group in groups:
        arms = group["arm"].unique()
        look = looks[arms[0]] if len(arms) == 1 else style.Look("black", "o", dash, "")
        dots = [at[value] + beside] * len(group)
        axes.plot(dots, 100 * group[metric], ".", color=look.colour, alpha=0.4, markersize=4, zorder=1)
        _mean(axes, at[value], group[metric], look, mfc="white" if hollow else look.colour)


def _mean(axes: Any, x: float, values: Any, look: style.Look, capsize: float = 2.5, **more: Any) -> None:
    """A mean with its interval, if any; `values` are fractions."""
    found = stats.describe(values, LEVEL).percent()
    bars = [[found.mean - found.low], [found.high - found.mean]] if found.n > 1 else None
    axes.errorbar(
        [x],
        [found.mean],
        yerr=bars,
        color=look.colour,
        marker=look.marker,
        capsize=capsize,
        linestyle="",
        **more,
    )


def _bands(axes: Any, study: Study, metric: str) -> None:
    """Arms of networks without switches: a horizontal line each, with the interval as a band."""
    others = study.done[study.done["depths"].map(len) == 0]
    for arm, runs in others.groupby("arm", sort=False):
        found, look = stats.describe(runs[metric], LEVEL).percent(), style.looks(study.arms)[str(arm)]
        if found.n > 1:
            axes.axhspan(found.low, found.high, color=look.colour, alpha=0.13, lw=0)
        axes.axhline(found.mean, color=look.colour, linestyle=":", label=f"{arm}, n={found.n}")


def accuracy_cost(study: Study, cost: str = "macs", metric: str | None = None) -> Figure:
    """A metric against an arm's cost: `macs`, `params` or `latency_ms` (see hbo.bench.infer)."""
    metric = metric or study.metric
    scale, label = COSTS[cost]
    done = study.done
    if cost not in done or done[cost].isna().all():
        raise UserError(
            f"{cost}: not measured; run `python -m hbo.bench infer --studies {' '.join(study.names)}`"
        )
    with style.styled():
        label = label.replace(", deployed", ",\ndeployed") if style.is_narrow() else label
        figure, axes = style.axes(label, f"{SHOWN[metric]}, %")
        for i, (arm, look) in enumerate(style.looks(study.arms).items()):
            runs = done[done["arm"] == arm]
            caps = 2 + 1.5 * (3 - i % 4)  # caps of several sizes, so that intervals at one cost stay visible
            _mean(axes, runs[cost].iloc[0] / scale, runs[metric], look, caps, label=f"{arm}, n={len(runs)}")
        costs = [done[cost].min() / scale, done[cost].max() / scale]
        axes.set_xlim(0.9 * costs[0], 1.1 * costs[1])  # so that arms of equal cost look equal
        style.legend(figure, axes, f"mean, {LEVEL:.0%} interval")
    return figure


def learning_curves(study: Study, metric: str | None = None) -> Figure:
    """A metric after each evaluated epoch: median over seeds, band between the quartiles."""
    metric = metric or f"val/{study.metric}"
    if study.curves.empty or metric not in study.curves:
        raise UserError(f"{metric}: the source has no learning curves of it")
    rows: Any = study.done[["study", "key", "arm"]].merge(study.curves, on=["study", "key"])
    percent = 1 if metric.endswith("loss") else 100
    with style.styled():
        part, name = metric.split("/")
        what = {"val": "reported images", "train": "training images"}[part]
        figure, axes = style.axes("epoch", f"{SHOWN.get(name, name)}{', %' * (percent == 100)}, {what}")
        for arm, look in style.looks(study.arms).items():
            curve = (
                rows[rows["arm"] == arm].groupby("epoch")[metric].quantile([0.25, 0.5, 0.75]).unstack()
                * percent
            ).dropna()  # with eval_every, epochs that were not evaluated
            epochs = curve.index + 1
            axes.plot(
                epochs, curve[0.5], look.dash, color=look.colour, marker=look.marker, markersize=3, label=arm
            )
            axes.fill_between(epochs, curve[0.25], curve[0.75], color=look.colour, alpha=0.12, lw=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if (seen := rows.loc[rows[metric].notna(), "epoch"].unique() + 1).size == 1:
            axes.set(xlim=(seen[0] - 1, seen[0] + 1), xticks=seen)  # else it is from 0.945 to 1.055
        style.legend(figure, axes, "median, band: quartiles")
    return figure


def _words(switch: str) -> str:
    return {"k": "k, contraction units", "concat_ratio": "concatenation ratio"}.get(switch, switch)
