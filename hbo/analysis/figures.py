"""Figures from rows: accuracy against cost and against each switch, cost by stage, learning curves.

Each function returns a matplotlib `Figure`; `save` writes it as PDF, SVG and PNG. Colours are Okabe and Ito's, which
colour-blind readers tell apart; markers, dashes and hatches say the same in grey.

    python -m hbo.analysis.figures contraction mobilenetv2 --of k --to contraction      # contraction.pdf, .svg, .png
"""

import io
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from hbo import cost
from hbo.analysis import published, results, stats
from hbo.analysis.grouping import crossed, labels
from hbo.analysis.stats import SHOWN
from hbo.analysis.study import LEVEL, Study, add_arguments, from_arguments
from hbo.analysis.tables import measured
from hbo.block import Block
from hbo.config import Run
from hbo.errors import UserError, one_line
from hbo.tasks import build
from hbo.words import Parser

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS, DASHES, HATCHES = "osD^vP*", ("-", "--", "-.", ":"), ("", "///", "...", "\\\\\\", "xx", "++", "oo")
STYLE: Any = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False, "svg.fonttype": "path", "svg.hashsalt": "hbo",
    "pdf.fonttype": 42,
}  # fmt: skip
SIZE = 6.5, 3.6  # inches: a column and a half of a paper


class Picture(Figure):
    """A figure that a notebook shows as PNG."""

    def _repr_png_(self) -> bytes:
        return as_bytes(self, "png")


def as_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as pdf, svg or png; the same figure gives the same bytes."""
    dates: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
    file = io.BytesIO()
    with rc_context(STYLE):
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once: a second time moves things by a hair
        figure.savefig(file, format=kind, dpi=160, metadata=dates[kind])
    return file.getvalue()


def save(figure: Figure, stem: Path) -> list[Path]:
    """STEM.pdf, .svg and .png."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("pdf", "svg", "png")]
    for path in paths:
        path.write_bytes(as_bytes(figure, path.suffix[1:]))
    return paths


def of(study: Study) -> dict[str, Figure]:
    """Name -> each figure that the study's rows allow: a metric against each switch and each cost, learning curves."""
    ours = study.done[study.done["depths"].map(len) > 0]
    switches = [f.name for f in fields(Block) if ours[f.name].nunique() > 1 and f.name != "scheme"]
    found = {name: accuracy(study, name) for name in switches}
    if study.done["macs"].notna().all():
        found["macs"] = accuracy_cost(study, "macs")
    if "latency_ms" in study.done and study.done["latency_ms"].notna().all():
        found["latency"] = accuracy_cost(study, "latency_ms")
    if not study.curves.empty:
        found["curves"] = learning_curves(study)
    return found


def _axes(xlabel: str, ylabel: str, size: tuple[float, float] = SIZE) -> tuple[Figure, Any]:
    figure = Picture(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def figure1(rows: pd.DataFrame | None = None) -> Figure:
    """Figure 1: top-1 on ImageNet against multiply-adds, log axis, as published; and measured, where there are rows."""
    with rc_context(STYLE):
        figure, axes = _axes("million multiply-adds (224 x 224)", "top-1 on ImageNet, %")
        table: Any = published.table(2)
        names = {"hbonet": "HBONet", "mobilenetv2": "MobileNetV2"}
        for (net, name), colour, marker, dash in zip(names.items(), COLOURS, MARKERS, DASHES, strict=False):
            line = table[table["model"] == net].sort_values("mmacs")
            axes.plot(line["mmacs"], line["top1"], dash, marker=marker, color=colour, mfc="white", label=f"{name}, published")
            lift = (0, 7) if net == "hbonet" else (0, -13)
            for point in line.to_dict("records"):
                axes.annotate(
                    f"{point['width']:g}", (point["mmacs"], point["top1"]), xytext=lift, textcoords="offset points",
                    ha="center", fontsize=7, color=colour,
                )  # fmt: skip
            groups = {} if rows is None else measured(rows, published.runs(2), "top1").get("", {})
            found = [(groups[i]["macs"].iloc[0] / 1e6, 100 * groups[i]["top1"].mean()) for i in line.index if i in groups]
            if found:
                axes.plot(*zip(*found, strict=True), linestyle="", marker=marker, color=colour, label=f"{name}, measured")
        _log(axes, "x")
        axes.set_ylim(30, 78)
        axes.legend(loc="lower right", title="small figures: width")
    return figure


def accuracy(study: Study, switch: str, metric: str | None = None) -> Figure:
    """A metric against a switch: each seed a faint dot, the mean with its interval; a line for each of the other fields' values.

    With more of those than colours, and every combination there, all runs of a value are taken together: the switch's main
    effect. Arms of other networks, which do not have the switch, are bands across.
    """
    metric = metric or study.metric
    ours = study.done[study.done["depths"].map(len) > 0]
    if switch not in ours or ours[switch].nunique() < 2:
        raise UserError(f"{switch}: the arms do not differ in it")
    others = study.done[study.done["depths"].map(len) == 0]
    values = list(dict.fromkeys(ours.sort_values(switch)[switch]))
    alike = pd.Series(labels(ours, without=(switch,)), ours.index)
    series: dict[str, Any] = {name: group for name, group in ours.groupby(alike, sort=False)}
    fields = results.varying(ours)
    if len(series) > len(COLOURS) and crossed(ours, fields):  # a factorial study: its main effect
        series = {f"over all {', '.join(_words(name) for name in fields if name != switch)}": ours}
    with rc_context(STYLE):
        figure, axes = _axes(_words(switch), f"{SHOWN[metric]}, %")
        for i, (name, group) in enumerate(series.items()):
            shift = 0.12 * (i - (len(series) - 1) / 2)
            places, means, lows, highs = [], [], [], []
            for value, runs in group.groupby(switch, sort=False):
                at = values.index(value) + shift
                found = stats.describe(100 * runs[metric], LEVEL)
                axes.plot(
                    [at + 0.03] * len(runs), 100 * runs[metric], ".", color=COLOURS[i % 7], alpha=0.35, markersize=5, zorder=1
                )
                places.append(at)
                means.append(found.mean)
                lows.append(found.mean - found.low if found.n > 1 else 0)
                highs.append(found.high - found.mean if found.n > 1 else 0)
            order = np.argsort(places)
            arrays = [np.asarray(a)[order] for a in (places, means, lows, highs)]
            n = "/".join(dict.fromkeys(str(len(runs)) for _, runs in group.groupby(switch)))
            axes.errorbar(
                arrays[0], arrays[1], yerr=arrays[2:], color=COLOURS[i % 7], marker=MARKERS[i % 7], linestyle=DASHES[i % 4], capsize=3,
                label=f"{name or 'hbonet'}, n={n}",
            )  # fmt: skip
        for j, (name, runs) in enumerate(others.groupby("arm", sort=False)):
            found = stats.describe(100 * runs[metric], LEVEL)
            colour = COLOURS[(len(series) + j) % len(COLOURS)]
            if found.n > 1:
                axes.axhspan(found.low, found.high, color=colour, alpha=0.13, lw=0)
            axes.axhline(found.mean, color=colour, linestyle=":", label=f"{name}, n={found.n}")
        axes.set_xticks(range(len(values)), [str(v) for v in values])
        axes.grid(visible=False, axis="x")
        if "majority" in ours and metric == "top1" and axes.get_ylim()[0] < 100 * ours["majority"].iloc[0]:
            axes.axhline(100 * ours["majority"].iloc[0], color="#777777", lw=0.8, label="largest class")
        _legend(figure, axes, f"mean, {LEVEL:.0%} interval, dots: seeds")
    return figure


def accuracy_cost(study: Study, cost: str = "macs", metric: str | None = None) -> Figure:
    """A metric against what an arm costs: `macs`, `params` or `latency_ms` (see hbo.bench.infer)."""
    metric = metric or study.metric
    scale, label = {
        "macs": (1e6, "million multiply-adds at the study's resolution"),
        "params": (1e6, "million parameters"),
        "latency_ms": (1, "milliseconds an image, median, deployed in ONNX Runtime, one thread"),
    }[cost]
    done = study.done
    if cost not in done or done[cost].isna().all():
        raise UserError(f"{cost}: not measured; `python -m hbo.bench infer --studies {' '.join(study.names)}` does")
    with rc_context(STYLE):
        figure, axes = _axes(label, f"{SHOWN[metric]}, %")
        arms = sorted(study.arms, key=lambda arm: done.loc[done["arm"] == arm, cost].iloc[0])
        step, before = 0, -math.inf
        for arm in arms:
            i = study.arms.index(arm)  # an arm has its colour in every figure
            runs = done[done["arm"] == arm]
            found, x = stats.describe(100 * runs[metric], LEVEL), runs[cost].iloc[0] / scale
            step, before = step + 1 if x < 1.03 * before else 0, x
            beside = axes.transData + ScaledTranslation(7 * step / 72, 0, figure.dpi_scale_trans)
            bars = [[found.mean - found.low], [found.high - found.mean]] if found.n > 1 else None
            axes.errorbar(
                [x], [found.mean], yerr=bars, color=COLOURS[i % 7], marker=MARKERS[i % 7], capsize=3, linestyle="",
                label=f"{arm}, n={found.n}", transform=beside,
            )  # fmt: skip
            axes.update_datalim([(x, found.mean), *((x, y) for y in (found.low, found.high) if found.n > 1)])
        costs = [done[cost].min() / scale, done[cost].max() / scale]
        axes.set_xlim(0.9 * costs[0], 1.1 * costs[1])  # arms of equal cost look equal
        _legend(figure, axes, f"mean, {LEVEL:.0%} interval;\narms within 3 % of each\nother stand side by side")
    return figure


def stage_costs(runs: dict[str, Run], resolution: int = 224, classes: int = 1000, what: str = "macs") -> Figure:
    """Multiply-adds, or `params`, of each stage of table 1; a bar a network, by name.

    Raises:
        UserError: a network that is no table of stages.
    """
    nets = {name: build.network(run, classes) for name, run in runs.items()}
    if strange := [name for name, net in nets.items() if not hasattr(net, "labels")]:
        raise UserError(f"{strange[0]}: has no stages of table 1; `resolution_costs` compares any networks")
    counted = {name: cost.count(net, resolution) for name, net in nets.items()}
    stages = [stage for stage in next(iter(counted.values())) if stage != "total"]
    heights = {name: [getattr(costs[stage], what) / 1e6 for stage in stages] for name, costs in counted.items()}
    label = {"macs": "million multiply-adds", "params": "million parameters"}[what]
    return _bars(
        heights, [s.replace("stage ", "") for s in stages], "stage of table 1", f"{label} ({resolution} x {resolution})"
    )


def resolution_costs(runs: dict[str, Run], resolution: int = 224, classes: int = 1000) -> Figure:
    """Multiply-adds by the height of the map that they write: where a network spends, whatever its stages are."""
    found = {name: by_height(build.network(run, classes), resolution) for name, run in runs.items()}
    heights = sorted({height for costs in found.values() for height in costs}, reverse=True)
    bars = {name: [costs.get(height, 0) / 1e6 for height in heights] for name, costs in found.items()}
    return _bars(bars, [f"{h} x {h}" for h in heights], "map", f"million multiply-adds ({resolution} x {resolution})")


def by_height(net: torch.nn.Module, resolution: int) -> dict[int, int]:
    """Height of a map -> multiply-adds of the layers that write maps of that height; sums up to `hbo.cost.macs`."""
    found: dict[int, int] = {}

    def note(module: Any, args: tuple[Any, ...], out: Any) -> None:
        weight, transposed = module.weight, isinstance(module, torch.nn.ConvTranspose2d)
        pixels = math.prod((args[0] if transposed else out).shape[2:])
        height = int(out.shape[2]) if out.ndim == 4 else 1
        found[height] = found.get(height, 0) + pixels * weight.numel()

    hooks = [m.register_forward_hook(note) for m in net.modules() if getattr(getattr(m, "weight", None), "ndim", 0) in (2, 4)]
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, 3, resolution, resolution))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _bars(heights: dict[str, list[float]], ticks: list[str], xlabel: str, ylabel: str) -> Figure:
    with rc_context(STYLE):
        figure, axes = _axes(xlabel, ylabel)
        width = 0.8 / len(heights)
        for i, (name, values) in enumerate(heights.items()):
            places = np.arange(len(ticks)) + (i - (len(heights) - 1) / 2) * width
            axes.bar(
                places, values, width, color=COLOURS[i % 7], hatch=HATCHES[i % 7], edgecolor="white", linewidth=0.5,
                label=f"{name}: {sum(values):.1f} M",
            )  # fmt: skip
        axes.set_xticks(range(len(ticks)), ticks, rotation=30 if len(max(ticks, key=len)) > 8 else 0)
        axes.grid(visible=False, axis="x")
        axes.legend()
    return figure


def learning_curves(study: Study, metric: str | None = None) -> Figure:
    """A metric after each epoch: median over seeds, band between the quartiles."""
    metric = metric or f"val/{study.metric}"
    if study.curves.empty or metric not in study.curves:
        raise UserError(f"{metric}: the source has no learning curves of it")
    rows: Any = study.done[["study", "key", "arm"]].merge(study.curves, on=["study", "key"])
    percent = 1 if metric.endswith("loss") else 100
    with rc_context(STYLE):
        part, name = metric.split("/")
        what = {"val": "reported images", "train": "training images"}[part]
        figure, axes = _axes("epoch", f"{SHOWN.get(name, name)}{', %' * (percent == 100)}, {what}")
        for i, arm in enumerate(study.arms):
            curve = rows[rows["arm"] == arm].groupby("epoch")[metric].quantile([0.25, 0.5, 0.75]).unstack() * percent
            epochs, dash, colour, marker = curve.index + 1, DASHES[i % 4], COLOURS[i % 7], MARKERS[i % 7]
            axes.plot(epochs, curve[0.5], dash, color=colour, marker=marker, markersize=3, label=arm)
            axes.fill_between(epochs, curve[0.25], curve[0.75], color=colour, alpha=0.12, lw=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(figure, axes, "median, band: quartiles")
    return figure


def _legend(figure: Figure, axes: Any, title: str) -> None:
    """To the right of the axes, where it hides nothing."""
    legend = figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", title=title, fontsize=8)
    legend.get_title().set_fontsize(8)


def _log(axes: Any, axis: str) -> None:
    getattr(axes, f"set_{axis}scale")("log")
    ruler = getattr(axes, f"{axis}axis")
    ruler.set_ticks([10, 20, 40, 80, 160, 320])
    ruler.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ruler.set_minor_formatter(NullFormatter())


def _words(switch: str) -> str:
    return {"k": "k, contraction units", "concat_ratio": "concatenation ratio"}.get(switch, switch)


def main(argv: list[str] | None = None) -> None:
    """The command line: one figure of a study, or all that its rows allow."""
    parser = Parser(prog="python -m hbo.analysis.figures", description="Figures of a study.")
    add_arguments(parser)
    parser.add_argument("--of", help="One of them: a switch, macs, latency or curves. [all, as TO_NAME]")
    parser.add_argument("--to", type=Path, help="Where, without the suffix. [STUDY]")
    args = parser.parse_args(argv)
    with one_line():
        for study in from_arguments(args):
            found, to = of(study), args.to or Path(study.names[0])
            to = to.with_name(to.name + study.stem)
            if args.of and args.of not in found:
                raise UserError(f"of={args.of!r}: the rows allow {', '.join(found)}")
            chosen = {to: found[args.of]} if args.of else {to.with_name(f"{to.name}_{n}"): f for n, f in found.items()}
            for stem, figure in chosen.items():
                print(*save(figure, stem))


if __name__ == "__main__":
    main()
