"""What is drawn is what the rows and the networks say."""

import io

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, published
from PIL import Image
from scipy import stats

from hbo import cost
from hbo.analysis import figures, study
from hbo.config import resolve
from hbo.errors import UserError
from hbo.tasks.build import network as build_net

STUDY = study.read("contraction", "mobilenetv2", source=ROOT / "ablations")


def lines(figure):
    return {line.get_label(): line.get_xydata() for line in figure.axes[0].get_lines()}


def test_figure_1_is_table_2():
    drawn = lines(figures.figure1())
    for net, label in (("hbonet", "HBONet, published"), ("mobilenetv2", "MobileNetV2, published")):
        points = [(float(row["mmacs"]), float(row["top1"])) for row in published(2) if row["model"] == net]
        np.testing.assert_allclose(drawn[label], sorted(points))
    assert not [label for label in drawn if "measured" in label]
    assert figures.figure1().axes[0].get_xscale() == "log"


def bars(figure):
    """Label -> (places, means, lows, highs) of what has error bars."""
    found = {}
    for container in figure.axes[0].containers:
        data, _, (segments,) = container.lines
        ends = np.array([segment[:, 1] for segment in segments.get_segments()])
        found[container.get_label()] = (data.get_xdata(), data.get_ydata(), ends[:, 0], ends[:, 1])
    return found


def test_means_and_intervals_are_scipys():
    done = STUDY.done
    ((label, drawn),) = bars(figures.accuracy(STUDY, "k")).items()
    assert label == "hbonet, n=6"
    for i, k in enumerate((1, 2, 3)):
        top1 = 100 * done[(done["net"] == "hbonet") & (done["k"] == k)]["top1"]
        interval = stats.t.interval(0.95, len(top1) - 1, top1.mean(), stats.sem(top1))
        np.testing.assert_allclose([d[i] for d in drawn[1:]], [top1.mean(), *interval])
    for label, (x, mean, low, high) in bars(figures.accuracy_cost(STUDY)).items():
        rows = done[done["arm"] == label.split(",")[0]]
        top1 = 100 * rows["top1"]
        interval = stats.t.interval(0.95, len(top1) - 1, top1.mean(), stats.sem(top1))
        np.testing.assert_allclose([x[0], mean[0], low[0], high[0]], [rows["macs"].iloc[0] / 1e6, top1.mean(), *interval])


def test_a_switch_of_a_factorial_study_is_its_main_effect():
    """With more lines than colours, all runs of a value together."""
    rows = STUDY.done[STUDY.done["net"] == "hbonet"]
    many = [rows.assign(concat_ratio=i / 10, top1=rows["top1"] + i / 100) for i in range(9)]
    crossed = pd.concat(many, ignore_index=True)
    crossed["arm"] = study.labels(crossed)
    it = study.Study(("factorial",), crossed, STUDY.curves, crossed["arm"].iloc[0])
    ((label, drawn),) = bars(figures.accuracy(it, "k")).items()
    assert label == "over all concatenation ratio, n=54"
    np.testing.assert_allclose(drawn[1], [100 * crossed[crossed["k"] == k]["top1"].mean() for k in (1, 2, 3)])


def test_every_seed_is_a_dot():
    drawn = [y for label, xy in lines(figures.accuracy(STUDY, "k")).items() if label.startswith("_child") for y in xy[:, 1]]
    top1 = 100 * STUDY.done[STUDY.done["net"] == "hbonet"]["top1"]
    assert set(np.round(top1, 9)) <= set(np.round(drawn, 9))


def test_learning_curves_are_medians():
    rows = STUDY.done[["key", "arm"]].merge(STUDY.curves, on="key")
    for label, xy in lines(figures.learning_curves(STUDY)).items():
        values = rows[rows["arm"] == label].pivot_table(index="epoch", columns="key", values="val/top1")
        np.testing.assert_allclose(xy, np.c_[values.index + 1, 100 * np.median(values.to_numpy(), axis=1)])


@pytest.mark.parametrize(
    "fields",
    [{"k": 0}, {"k": 3, "width": 0.5}, {"k": 2, "contract": "blurpool"}, {"k": 2, "upsample": "transposed"}, {"net": "mobilenetv2"},
     {"k": 2, "upsample": "pixelshuffle"}, {"net": "torchvision:shufflenet_v2_x0_5"}],
    ids=str,
)  # fmt: skip
def test_multiply_adds_by_map_sum_up_to_the_count(fields):
    net = build_net(resolve(data="imagenet", **fields), 1000)
    found = figures.by_height(net, 224)
    assert sum(found.values()) == cost.macs(net, 224)
    assert set(found) == {112, 56, 28, 14, 7, 1}


def test_contraction_moves_work_to_smaller_maps():
    """The same multiply-adds within 4 %, further down with each unit: what the block is for."""
    ours = [figures.by_height(build_net(resolve(data="imagenet", width=0.25, divisor=8, k=k), 1000), 224) for k in (0, 1, 2, 3)]
    large = [sum(macs for height, macs in found.items() if height >= 28) / sum(found.values()) for found in ours]
    assert large == sorted(large, reverse=True)


def test_stages_are_the_costs():
    runs = {f"k={k}": resolve(data="imagenet", width=0.25, divisor=8, k=k) for k in (1, 2)}
    figure = figures.stage_costs(runs)
    for container, run in zip(figure.axes[0].containers, runs.values(), strict=True):
        expected = [c.macs / 1e6 for name, c in cost.count(build_net(run, 1000), 224).items() if name != "total"]
        np.testing.assert_allclose([bar.get_height() for bar in container], expected)
    with pytest.raises(UserError, match="has no stages"):
        figures.stage_costs({"v2": resolve(data="imagenet", net="mobilenetv2")})


def test_the_same_figure_gives_the_same_bytes_and_fits_its_canvas():
    for name, figure in figures.of(STUDY).items():
        for kind in ("pdf", "svg", "png"):
            assert figures.as_bytes(figure, kind) == figures.as_bytes(figures.of(STUDY)[name], kind)
        image = np.asarray(Image.open(io.BytesIO(figures.as_bytes(figure, "png"))).convert("L"))
        assert (image == 255).mean() > 0.5
        for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
            assert (edge == 255).all(), f"{name}: something is cut off"


def test_what_was_not_measured_is_said():
    without = study.Study(
        STUDY.names, STUDY.rows.drop(columns="latency_ms", errors="ignore"), STUDY.curves.iloc[:0], STUDY.baseline
    )
    with pytest.raises(UserError, match=r"infer --studies contraction mobilenetv2"):
        figures.accuracy_cost(without, "latency_ms")
    with pytest.raises(UserError, match="no learning curves"):
        figures.learning_curves(without)
    with pytest.raises(UserError, match="upsample: the arms do not differ"):
        figures.accuracy(STUDY, "upsample")
    assert {"latency", "curves"}.isdisjoint(figures.of(without))
