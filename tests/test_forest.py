"""Figures of differences: one row per line, and room for any label."""

from itertools import chain, combinations

import numpy as np
import pandas as pd
import pytest
from test_figures import STUDY, forest

from hbo.analysis import figures
from hbo.analysis.figures import style
from hbo.errors import UserError


def test_a_forest_plot_has_one_row_per_line():
    axes = forest(margin=0.01).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        "hbonet k=2",
        "hbonet k=3 (balanced)",
        "mobilenetv2",
    ]
    points = [line for line in axes.get_lines() if line.get_marker() not in ("|", "None")]
    np.testing.assert_allclose([line.get_xydata()[0] for line in points], [[-0.6, 0], [0.8, 1], [0.2, 2]])
    intervals = [line.get_xdata() for line in axes.get_lines() if line.get_marker() == "|"]
    np.testing.assert_allclose(intervals, [[-3, 1.8], [0.1, 1.5]])
    looks = figures.looks(STUDY.arms)
    assert [line.get_color() for line in points] == [
        looks[arm].colour for arm in ("hbonet k=2", "hbonet k=3", "mobilenetv2")
    ]
    # Decided lines have filled markers.
    assert [line.get_markerfacecolor() == line.get_color() for line in points] == [
        False,
        True,
        False,
    ]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first on top
    (band,) = [patch for patch in axes.patches if patch.get_alpha()]
    assert (band.get_x(), band.get_width()) == (-1, 2)
    assert "1.0 points do not matter" in axes.get_xlabel()
    with pytest.raises(UserError, match="no column verdict"):
        figures.forest(pd.DataFrame({"label": [], "difference": [], "low": [], "high": []}), "top-1")


def overlaps(texts):
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    return any(a.overlaps(b) for a, b in combinations(boxes, 2))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("width", "least"), [("text", 2.5), ("column", 1)])
@pytest.mark.parametrize(
    "label",
    [
        "k=2 against k=1, mean",
        "upsample=bilinear against upsample=nearest, more at concat_ratio=0.25 than at concat_ratio=0.5",
        "mobilenetv2 classifier_epochs=2 epochs=12 backbone=f3dd556b95 weight_decay=4e-05 against "
        "hbonet classifier_epochs=2 epochs=12 backbone=6fe41d3718",
        "x" * 140,
    ],
    ids=len,
)
def test_a_forest_plot_has_room_for_any_label(label, width, least):
    line = {"label": label, "difference": 0.185, "low": -0.136, "high": 0.234, "verdict": "undecided"}
    with figures.page(width):
        figure = figures.forest(pd.DataFrame([line] * 3), "balanced accuracy", 0.01)
    figures.as_bytes(figure, "png")  # lays it out
    figure.draw_without_rendering()
    axes, (beside,) = figure.axes[0], figure.axes[0].child_axes
    assert axes.get_window_extent().width / figure.dpi >= least
    page = figure.bbox
    low, high = axes.get_xlim()
    drawn = [
        text for x, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True) if low <= x <= high
    ]
    ticks = [axes.get_yticklabels(), beside.get_yticklabels(), drawn]
    for text in [*chain(*ticks), axes.xaxis.label]:
        box = text.get_window_extent()
        inside = page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert inside, text.get_text()
    assert not any(map(overlaps, ticks))
    assert "".join(axes.get_yticklabels()[0].get_text().split()) == label.replace(" ", "")


def test_a_label_breaks_only_where_it_is_too_long():
    label = "k=2 against k=1, more at residual=False than at residual=True"
    assert style.wrapped(label, 61) == label
    assert style.wrapped(label, 45).splitlines() == [
        "k=2 against k=1,", "more at residual=False than at residual=True"
    ]  # fmt: skip
    assert style.wrapped(label, 40).splitlines() == [
        "k=2 against k=1,", "more at residual=False", "than at residual=True"
    ]  # fmt: skip
    assert style.wrapped("hbonet k=2 against mobilenetv2", 24).splitlines() == [
        "hbonet k=2", "against mobilenetv2"
    ]  # fmt: skip
