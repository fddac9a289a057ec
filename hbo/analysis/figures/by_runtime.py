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
    column = f"{deployed.TOP1}{runtime}"
    return Quickest(runtime, there[name], runs[column].dropna() if int8 else runs["top1"])


def runtimes(study: Study) -> Figure:
    """Top-1 against milliseconds per image: an arm in single precision a filled marker, in 8 bits a hollow
    one, both of the same seeds; of all seeds for an arm without 8 bits.

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
            runs = done[done["arm"] == arm]
            eight = quickest(runs, int8=True)
            same = runs if eight is None or eight.top1.empty else runs.loc[eight.top1.index]
            for int8, found in ((False, quickest(runs, int8=False)), (True, eight)):
                if found is None:
                    continue
                about = stats.describe(found.top1 if int8 else same["top1"], LEVEL).percent()
                bars = [[about.mean - about.low], [about.high - about.mean]] if about.n > 1 else None
                axes.errorbar(
                    [found.ms], [about.mean], yerr=bars, color=look.colour, marker=look.marker, linestyle="",
                    mfc="white" if int8 else look.colour,
                    label=f"{arm}, {found.runtime}{', int8' * int8}, n={about.n}",
                )  # fmt: skip
        same_seeds = "\nfloat and int8: same seeds" * any(name.startswith(deployed.TOP1) for name in done)
        style.legend(figure, axes, f"mean, {LEVEL:.0%} interval{same_seeds}")
    return figure
