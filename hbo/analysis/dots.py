"""A study's runs as dots on one axis, one line per arm: positions and texts for the page."""

import math
from typing import Any

from hbo.analysis.commands import command
from hbo.analysis.grouping import full_labels
from hbo.analysis.numbers import plain
from hbo.analysis.stats import SHOWN
from hbo.analysis.study import Study

APART, LANE = 2.5, 14  # dots closer than this percentage of the axis would touch; pixels between lanes
TICKS = 6  # at most


def dots(study: Study, colours: dict[str, str]) -> dict[str, Any]:
    """Positions in percent of the axis, and pixels from the top; `told` has key,
    identity and command of each run.

    Args:
        study: with finished runs.
        colours: arm -> its colour in the figures.
    """
    done, metric = study.done, study.metric
    low, high = _ends(100 * done[metric])
    place = lambda value: round(100 * (100 * value - low) / (high - low), 2)
    full, told, arms = full_labels(done), [], []
    for arm in study.arms:
        rows = done[done["arm"] == arm].sort_values([metric, "seed"])
        lanes: list[float] = []  # position of each lane's last dot
        points = []
        for row in rows.to_dict("records"):
            at = place(row[metric])
            lane = next((i for i, last in enumerate(lanes) if at - last >= APART), len(lanes))
            lanes[lane : lane + 1] = [at]
            points.append({"at": at, "top": 6 + LANE * lane, "run": len(told)})
            told.append(_told(row, arm, metric))
        arms.append(
            {"name": arm, "full": full[arm], "dots": points, "colour": colours[arm],
             "height": 12 + LANE * len(lanes),
             "mean": place(rows[metric].mean()) if len(rows) > 1 else None}
        )  # fmt: skip
    ticks = [{"at": round(100 * (t - low) / (high - low), 2), "said": f"{t:g}"} for t in _ticks(low, high)]
    return {"metric": SHOWN[metric], "arms": arms, "ticks": ticks, "told": told}


def _told(row: dict[str, Any], arm: str, metric: str) -> dict[str, Any]:
    said = f"{arm}, seed {plain(row['seed'])}: {SHOWN[metric]} {100 * row[metric]:.2f} %, key {row['key']}"
    return {
        "said": said,
        "key": row["key"],
        "arm": arm,
        metric: row[metric],
        "identity": row.get("identity"),
        "command": command(row),
    }


def _ends(values: Any) -> tuple[float, float]:
    """Limits of the axis: all values, with a margin."""
    low, high = float(values.min()), float(values.max())
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between the ends."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
