"""A network's multiply-adds by stage of table 1, and by the size of the map."""

import math
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from hbo import cost
from hbo.analysis.figures import style
from hbo.config import Run
from hbo.errors import UserError
from hbo.tasks import build


def stage_costs(
    runs: dict[str, Run], resolution: int = 224, classes: int = 1000, what: str = "macs"
) -> Figure:
    """Multiply-adds, or `params`, of each stage of table 1, as one bar per named network.

    Raises:
        UserError: a network without a stage table.
    """
    nets = {name: build.network(run, classes) for name, run in runs.items()}
    if strange := [name for name, net in nets.items() if not hasattr(net, "labels")]:
        raise UserError(f"{strange[0]}: has no stages of table 1; use `resolution_costs` for any network")
    counted = {name: cost.count(net, resolution) for name, net in nets.items()}
    stages = [stage for stage in next(iter(counted.values())) if stage != "total"]
    heights = {
        name: [getattr(costs[stage], what) / 1e6 for stage in stages] for name, costs in counted.items()
    }
    label = {"macs": "million multiply-adds", "params": "million parameters"}[what]
    ticks = [s.replace("stage ", "") for s in stages]
    return _bars(heights, ticks, "stage of table 1", f"{label} ({resolution} x {resolution})")


def resolution_costs(runs: dict[str, Run], resolution: int = 224, classes: int = 1000) -> Figure:
    """Multiply-adds by the height of the output map, for networks with any stages."""
    found = {name: by_height(build.network(run, classes), resolution) for name, run in runs.items()}
    heights = sorted({height for costs in found.values() for height in costs}, reverse=True)
    bars = {name: [costs.get(height, 0) / 1e6 for height in heights] for name, costs in found.items()}
    return _bars(
        bars, [f"{h} x {h}" for h in heights], "map", f"million multiply-adds ({resolution} x {resolution})"
    )


def by_height(net: torch.nn.Module, resolution: int) -> dict[int, int]:
    """Height of a map -> multiply-adds of the layers that write maps of this height;
    the sum is `hbo.cost.macs`.
    """
    found: dict[int, int] = {}

    def note(module: Any, args: tuple[Any, ...], out: Any) -> None:
        weight, transposed = module.weight, isinstance(module, torch.nn.ConvTranspose2d)
        pixels = math.prod((args[0] if transposed else out).shape[2:])
        height = int(out.shape[2]) if out.ndim == 4 else 1
        found[height] = found.get(height, 0) + pixels * weight.numel()

    hooks = [
        m.register_forward_hook(note)
        for m in net.modules()
        if getattr(getattr(m, "weight", None), "ndim", 0) in (2, 4)
    ]
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, 3, resolution, resolution))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _bars(heights: dict[str, list[float]], ticks: list[str], xlabel: str, ylabel: str) -> Figure:
    with style.styled():
        figure, axes = style.axes(xlabel, ylabel)
        width = 0.8 / len(heights)
        for i, ((name, values), look) in enumerate(
            zip(heights.items(), style.looks(heights).values(), strict=True)
        ):
            places = np.arange(len(ticks)) + (i - (len(heights) - 1) / 2) * width
            axes.bar(
                places, values, width, color=look.colour, hatch=look.hatch, edgecolor="white", linewidth=0.5,
                label=f"{name}: {sum(values):.1f} M",
            )  # fmt: skip
        axes.set_xticks(range(len(ticks)), ticks, rotation=45 if style.is_narrow() and len(ticks) > 6 else 0)
        axes.grid(visible=False, axis="x")
        style.legend(figure, axes)
    return figure
