"""Accuracy against the time of an image, each arm in its quickest runtime, as `hbo.bench infer --trained`
measured it.
"""

from typing import Any, NamedTuple

from matplotlib.figure import Figure

from hbo.analysis import stats
from hbo.analysis.figures import style
from hbo.analysis.stats import SHOWN
from hbo.analysis.study import Study
from hbo.analysis.study_tables import LEVEL
from hbo.errors import UserError
from hbo.runs import deployed


class Quickest(NamedTuple):
    """An arm's quickest file: its runtime, milliseconds per image, and top-1 of its runs, as fractions."""

    runtime: str
    ms: float
    top1: Any


def has_times(done: Any) -> bool:
    """Whether every arm was measured, all in one measurement: other times cannot be compared."""
    if deployed.MEASURED not in done:
        return False
    measured = done[done[deployed.MEASURED].notna()]
    return measured[deployed.MEASURED].nunique() == 1 and set(measured["arm"]) == set(done["arm"])


def quickest(runs: Any, int8: bool) -> Quickest | None:
    """The quickest file of an arm's runs, in single precision or in 8 bits; None if nothing was measured.

    The time is the median over the measured runs. Top-1 is that of all runs; in 8 bits, that of the
    runs whose file was evaluated.
    """
    names = [
        name for name in runs if name.startswith(deployed.LATENCY) and name.endswith(deployed.INT8) == int8
    ]
    there = {name: float(runs[name].median()) for name in names if runs[name].notna().any()}
    if not there:
        return None
    name = min(there, key=lambda name: there[name])
    runtime = name.removeprefix(deployed.LATENCY).removesuffix(deployed.INT8)
    top1 = runs[f"{deployed.TOP1}{runtime}" if int8 else "top1"].dropna()
    return Quickest(runtime, there[name], top1)


def runtimes(study: Study) -> Figure:
    """Top-1 against milliseconds per image: an arm in single precision a filled marker, in 8 bits a hollow
    one.

    Raises:
        UserError: an arm was not measured, or arms in different measurements.
    """
    done = study.done
    if not has_times(done):
        raise UserError(
            "runtimes: the arms were not all timed in one call; use `python -m hbo.bench infer --trained RUN"
            " ...`"
        )
    with style.styled():
        figure, axes = style.axes(
            "milliseconds per image, quickest runtime, one thread", f"{SHOWN['top1']}, %"
        )
        for arm, look in style.looks(study.arms).items():
            for int8 in (False, True):
                found = quickest(done[done["arm"] == arm], int8)
                if found is None:
                    continue
                about = stats.describe(found.top1, LEVEL).percent()
                bars = [[about.mean - about.low], [about.high - about.mean]] if about.n > 1 else None
                axes.errorbar(
                    [found.ms], [about.mean], yerr=bars, color=look.colour, marker=look.marker, linestyle="",
                    mfc="white" if int8 else look.colour,
                    label=f"{arm}, {found.runtime}{', int8' * int8}, n={about.n}",
                )  # fmt: skip
        style.legend(figure, axes, f"mean, {LEVEL:.0%} interval")
    return figure
