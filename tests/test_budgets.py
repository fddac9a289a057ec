"""Figure 1: networks over their multiply-adds, and the gains."""

import numpy as np
import pandas as pd
import pytest
from conftest import published
from scipy import stats
from test_figures import STUDY, lines, table_2

from hbo.analysis import figures, study
from hbo.errors import UserError


def test_figure_1_has_the_points_of_table_2():
    drawn = lines(figures.figure1())
    for net, label in (("hbonet", "HBONet, published"), ("mobilenetv2", "MobileNetV2, published")):
        points = [(float(row["mmacs"]), float(row["top1"])) for row in published(2) if row["model"] == net]
        np.testing.assert_allclose(drawn[label], sorted(points))
    assert not [label for label in drawn if "measured" in label]
    assert figures.figure1().axes[0].get_xscale() == "log"


def test_each_network_is_a_line_and_the_gains_have_welchs_interval():
    rows = table_2()
    top, below = figures.by_budget(rows).axes
    assert top.get_xscale() == below.get_xscale() == "log"
    assert top.get_shared_x_axes().joined(top, below)
    # Not adjusted for the family, as the study's page has them.
    assert below.get_title(loc="left").startswith(
        "gain over MobileNetV2, each interval on its own; each halving"
    )
    drawn = {line.get_label(): line.get_xydata() for line in top.get_lines()}
    # No published values.
    assert {"HBONet, n=4", "MobileNetV2, n=4"} == {label for label in drawn if not label.startswith("_")}
    mean = {net: rows[rows["net"] == net].groupby("macs")["top1"].mean() for net in ("hbonet", "mobilenetv2")}
    np.testing.assert_allclose(drawn["HBONet, n=4"], np.c_[mean["hbonet"].index / 1e6, 100 * mean["hbonet"]])
    gains = {line.get_label(): line.get_xydata() for line in below.get_lines()}["HBONet, gain"]
    ends = [
        segments.get_segments()[0][:, 1]
        for _, _, (segments,) in (container.lines for container in below.containers)
    ]
    for (macs, ours), (_, theirs), point, (low, high) in zip(
        rows[rows["net"] == "hbonet"].groupby("macs"),
        rows[rows["net"] != "hbonet"].groupby("macs"),
        gains,
        ends,
        strict=True,
    ):
        welch = stats.ttest_ind(
            100 * ours["top1"], 100 * theirs["top1"], equal_var=False
        ).confidence_interval(0.95)
        np.testing.assert_allclose(point, [macs / 1e6, 100 * (ours["top1"].mean() - theirs["top1"].mean())])
        np.testing.assert_allclose([low, high], [welch.low, welch.high])


def test_networks_are_paired_within_10_percent_of_their_multiply_adds():
    rows = table_2()
    ours = rows["net"] == "hbonet"
    for factor, gains in ((1.0, 6), (1.05, 5), (1.2, 0)):  # 14.7 M and 13 M differ by more
        figure = figures.by_budget(rows.assign(macs=rows["macs"].where(~ours, factor * rows["macs"])))
        pairs = [
            len(line.get_xdata())
            for ax in figure.axes[1:]
            for line in ax.get_lines()
            if line.get_label() == "HBONet, gain"
        ]
        assert (pairs or [0]) == [gains]


def test_published_points_are_drawn_only_beside_the_papers_protocol():
    assert "HBONet, published" in lines(figures.by_budget(table_2(data="imagenet")))
    for rows in (table_2(data="imagenet", epochs=149), table_2()):
        assert not [label for label in lines(figures.by_budget(rows)) if "published" in label]


def test_rows_of_several_data_sets_are_an_error():
    two = pd.concat([table_2(), table_2(data="elpv", key="x")], ignore_index=True)
    two["key"] = [f"{i}" for i in range(len(two))]
    with pytest.raises(UserError, match="different settings"):
        figures.by_budget(two)
    with pytest.raises(UserError, match="map"):
        figures.by_budget(table_2(), "map")


def test_a_study_over_widths_has_the_figure():
    rows = table_2()
    rows["arm"] = study.labels(rows)
    it = study.Study(
        ("table2",), rows.assign(depths=[[] for _ in rows.index]), STUDY.curves.iloc[:0], rows["arm"].iloc[0]
    )
    assert "budgets" in figures.of(it)
    assert "budgets" not in figures.of(STUDY)  # only one budget
