"""Figures show what the rows and the networks say."""

import dataclasses
import io
import math

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, call, make_runs, published
from PIL import Image
from scipy import stats

from hbo import cost
from hbo.analysis import figures, notebooks, results, study
from hbo.analysis import published as paper
from hbo.config import resolve
from hbo.errors import UserError
from hbo.tasks.build import network as build_net

STUDY = study.read("contraction", "mobilenetv2", source=ROOT / "ablations")


def table_2(seeds: int = 4, data: str = "digits", **changes) -> pd.DataFrame:
    """Rows of table 2's networks as if trained: the published value, shifted a few points by seed."""
    made = []
    for line, run in zip(published(2), paper.runs(2), strict=True):
        run = resolve(data=data, net=run.net, width=run.width, divisor=run.divisor)
        for seed in range(seeds):
            shift = (seed - (seeds - 1) / 2) / 100 * (2 if run.net == "hbonet" else 1)
            row = dataclasses.asdict(run) | {
                "study": "table2",
                "state": "done",
                "git": "x",
                "macs": 1e6 * float(line["mmacs"]),
            }
            made.append(
                row
                | {
                    "seed": seed,
                    "key": f"{run.net} {run.width} {seed}",
                    "top1": float(line["top1"]) / 100 + shift,
                }
                | changes
            )
    return results.frame(made)


def test_each_arm_is_drawn_at_its_fastest_runtime_and_top1():
    rows = STUDY.rows.copy()
    for i, arm in enumerate(STUDY.arms):
        here = rows["arm"] == arm
        rows.loc[here, ["latency_ms_onnx", "latency_ms_ncnn", "latency_ms_ncnn_int8"]] = [
            2.0 + i,
            1.0 + i,
            0.5 + i,
        ]
        rows.loc[here, "int8_top1_ncnn"] = rows.loc[here, "top1"] - 0.01
    measured = dataclasses.replace(STUDY, rows=rows.assign(latency_measured="at once"))
    figure = figures.runtimes(measured)
    drawn = {label: (x, y) for label, _, x, y, *_ in bars(figure.axes[0])}
    for i, arm in enumerate(STUDY.arms):
        top1 = 100 * STUDY.done[STUDY.done["arm"] == arm]["top1"].mean()
        n = (STUDY.done["arm"] == arm).sum()
        np.testing.assert_allclose(drawn[f"{arm}, ncnn, n={n}"], [1 + i, top1])
        np.testing.assert_allclose(drawn[f"{arm}, ncnn, int8, n={n}"], [0.5 + i, top1 - 1])
    assert "runtimes" in figures.of(measured)
    one = rows.assign(latency_measured="at once")
    one.loc[one["seed"] != 0, "int8_top1_ncnn"] = np.nan
    axes = figures.runtimes(dataclasses.replace(STUDY, rows=one)).axes[0]
    drawn = {found.get_label(): found.lines[0].get_ydata()[0] for found in axes.containers}
    for arm in STUDY.arms:  # both of the seed that was evaluated in 8 bits
        float_, int8 = drawn[f"{arm}, ncnn, n=1"], drawn[f"{arm}, ncnn, int8, n=1"]
        np.testing.assert_allclose(float_ - int8, 1)
    shown = measured.table().frame.set_index("arm").loc[STUDY.arms[1]]
    assert (shown["ms, onnx"], shown["ms, ncnn, int8"]) == ("3.00", "1.50")
    rows.loc[rows["arm"] == STUDY.arms[0], "latency_ms_onnx"] = 9.0
    apart = rows["arm"].eq(STUDY.arms[0]).map({True: "earlier", False: "later"})
    with pytest.raises(UserError, match="the arms were not all timed in one call"):
        figures.runtimes(dataclasses.replace(STUDY, rows=rows.assign(latency_measured=apart)))


def forest(**arguments):
    frame = pd.DataFrame(
        [
            {
                "label": "hbonet k=2",
                "difference": -0.006,
                "low": -0.03,
                "high": 0.018,
                "verdict": "undecided",
            },
            {
                "label": "hbonet k=3 (balanced)",
                "difference": 0.008,
                "low": 0.001,
                "high": 0.015,
                "verdict": "higher",
            },
            {
                "label": "mobilenetv2",
                "difference": 0.002,
                "low": math.nan,
                "high": math.nan,
                "verdict": "too few",
            },
        ]
    )
    return figures.forest(frame, "top-1", arms=STUDY.arms, **arguments)


def lines(figure):
    return {line.get_label(): line.get_xydata() for line in figure.axes[0].get_lines()}


def bars(axes):
    """(label, colour, place, mean, low, high) of each mean with an interval."""
    found = []
    for container in axes.containers:
        data, _, (segments,) = container.lines
        (segment,) = segments.get_segments()
        found.append(
            (
                container.get_label(),
                data.get_color(),
                data.get_xdata()[0],
                data.get_ydata()[0],
                *segment[:, 1],
            )
        )
    return found


def test_means_and_intervals_are_scipys():
    done = STUDY.done
    figure = figures.accuracy(STUDY, "k")
    assert "hbonet, n=6" in lines(figure)
    for k, (_, _, *drawn) in zip((1, 2, 3), bars(figure.axes[0]), strict=True):
        top1 = 100 * done[(done["net"] == "hbonet") & (done["k"] == k)]["top1"]
        interval = stats.t.interval(0.95, len(top1) - 1, top1.mean(), stats.sem(top1))
        np.testing.assert_allclose(drawn, [k, top1.mean(), *interval])
    for label, _, *drawn in bars(figures.accuracy_cost(STUDY).axes[0]):
        rows = done[done["arm"] == label.split(",")[0]]
        top1 = 100 * rows["top1"]
        interval = stats.t.interval(0.95, len(top1) - 1, top1.mean(), stats.sem(top1))
        np.testing.assert_allclose(drawn, [rows["macs"].iloc[0] / 1e6, top1.mean(), *interval])


def test_an_arm_has_the_same_colour_in_every_figure():
    looks = figures.looks(STUDY.arms)
    assert len({(look.colour, look.marker) for look in figures.looks(map(str, range(56))).values()}) == 56
    by_cost = {
        label.split(",")[0]: colour for label, colour, *_ in bars(figures.accuracy_cost(STUDY).axes[0])
    }
    by_k = {f"hbonet k={x:.0f}": colour for _, colour, x, *_ in bars(figures.accuracy(STUDY, "k").axes[0])}
    curves = {
        line.get_label(): line.get_color() for line in figures.learning_curves(STUDY).axes[0].get_lines()
    }
    for arm, look in looks.items():
        assert {by_cost[arm], by_k.get(arm, look.colour), curves[arm]} == {look.colour}


@pytest.mark.parametrize("cost", ["macs", "latency_ms"])
def test_a_point_is_at_its_cost(cost):
    """In the axes' own units, whatever else is drawn."""
    axes = figures.accuracy_cost(STUDY, cost).axes[0]
    scale = {"macs": 1e6, "latency_ms": 1}[cost]
    expected = [runs[cost].iloc[0] / scale for _, runs in STUDY.done.groupby("arm", sort=False)]
    assert [container.lines[0].get_xdata()[0] for container in axes.containers] == expected
    assert all(container.lines[0].get_transform() == axes.transData for container in axes.containers)


def test_a_switch_of_a_factorial_study_is_its_main_effect():
    """With more lines than colours, all runs with a value are pooled."""
    rows = STUDY.done[STUDY.done["net"] == "hbonet"]
    many = [rows.assign(concat_ratio=i / 10, top1=rows["top1"] + i / 100) for i in range(9)]
    crossed = pd.concat(many, ignore_index=True)
    crossed["arm"] = study.labels(crossed)
    it = study.Study(("factorial",), crossed, STUDY.curves, crossed["arm"].iloc[0])
    figure = figures.accuracy(it, "k")
    assert "over all concatenation ratio, n=54" in lines(figure)
    drawn = lines(figure)["_over all concatenation ratio"]
    np.testing.assert_allclose(
        drawn[:, 1], [100 * crossed[crossed["k"] == k]["top1"].mean() for k in (1, 2, 3)]
    )


def test_every_seed_is_a_dot():
    drawn = [
        y
        for label, xy in lines(figures.accuracy(STUDY, "k")).items()
        if label.startswith("_child")
        for y in xy[:, 1]
    ]
    top1 = 100 * STUDY.done[STUDY.done["net"] == "hbonet"]["top1"]
    assert set(np.round(top1, 9)) <= set(np.round(drawn, 9))


def test_learning_curves_are_medians():
    rows = STUDY.done[["key", "arm"]].merge(STUDY.curves, on="key")
    for label, xy in lines(figures.learning_curves(STUDY)).items():
        values = rows[rows["arm"] == label].pivot_table(index="epoch", columns="key", values="val/top1")
        np.testing.assert_allclose(xy, np.c_[values.index + 1, 100 * np.median(values.to_numpy(), axis=1)])


def test_learning_curves_join_the_evaluated_epochs():
    """Evaluated every other epoch, an arm is one line with its band."""
    curves = STUDY.curves.copy()
    curves.loc[curves["epoch"] % 2 == 0, "val/top1"] = np.nan
    axes = figures.learning_curves(dataclasses.replace(STUDY, curves=curves)).axes[0]
    evaluated = sorted(set(curves["epoch"][curves["epoch"] % 2 == 1] + 1))
    assert len(axes.get_lines()) == len(axes.collections) == len(STUDY.arms)
    for line, band in zip(axes.get_lines(), axes.collections, strict=True):
        assert list(line.get_xdata()) == evaluated
        assert np.isfinite(line.get_ydata()).all()
        assert set(band.get_paths()[0].vertices[:, 0]) == set(evaluated)


def test_a_single_epoch_is_a_tick_of_its_own():
    curves = STUDY.curves[STUDY.curves["epoch"] == 0]
    axes = figures.learning_curves(dataclasses.replace(STUDY, curves=curves)).axes[0]
    assert (list(axes.get_xticks()), axes.get_xlim()) == ([1], (0, 2))


@pytest.mark.parametrize(
    "fields",
    [{"k": 0}, {"k": 3, "width": 0.5}, {"k": 2, "contract": "blurpool"}, {"k": 2, "upsample": "transposed"}, {"net": "mobilenetv2"},
     {"k": 2, "upsample": "pixelshuffle"}, {"net": "torchvision:shufflenet_v2_x0_5"}],
    ids=str,
)  # fmt: skip
def test_multiply_adds_by_map_add_up_to_the_count(fields):
    net = build_net(resolve(data="imagenet", **fields), 1000)
    found = figures.by_height(net, 224)
    assert sum(found.values()) == cost.macs(net, 224)
    assert set(found) == {112, 56, 28, 14, 7, 1}


def test_contraction_moves_work_to_smaller_maps():
    """The multiply-adds agree within 4 %, and move to smaller maps with each unit, as the block intends."""
    ours = [
        figures.by_height(build_net(resolve(data="imagenet", width=0.25, divisor=8, k=k), 1000), 224)
        for k in (0, 1, 2, 3)
    ]
    large = [
        sum(macs for height, macs in found.items() if height >= 28) / sum(found.values()) for found in ours
    ]
    assert large == sorted(large, reverse=True)


def test_stages_have_their_counted_costs():
    runs = {f"k={k}": resolve(data="imagenet", width=0.25, divisor=8, k=k) for k in (1, 2)}
    figure = figures.stage_costs(runs)
    for container, run in zip(figure.axes[0].containers, runs.values(), strict=True):
        expected = [
            c.macs / 1e6 for name, c in cost.count(build_net(run, 1000), 224).items() if name != "total"
        ]
        np.testing.assert_allclose([bar.get_height() for bar in container], expected)
    with pytest.raises(UserError, match="has no stages"):
        figures.stage_costs({"v2": resolve(data="imagenet", net="mobilenetv2")})


@pytest.mark.parametrize(
    ("width", "inches", "font"), [("text", 6.875, "sans-serif"), ("column", 3.25, "serif")]
)
def test_the_same_figure_gives_the_same_bytes_and_fits_its_canvas(width, inches, font):
    with figures.page(width, font):
        found, again = (
            {**figures.of(STUDY), "forest": forest(), "budgets": figures.by_budget(table_2())}
            for _ in range(2)
        )
    for name, figure in found.items():
        drawn = {kind: figures.as_bytes(figure, kind) for kind in ("pdf", "svg", "png")}
        assert drawn == {kind: figures.as_bytes(again[name], kind) for kind in drawn}
        assert figure.get_figwidth() == inches
        image = np.asarray(Image.open(io.BytesIO(drawn["png"])).convert("L"))
        assert (image == 255).mean() > 0.5
        for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
            assert (edge == 255).all(), f"{name}: something is cut off"


def test_a_missing_measurement_is_an_error():
    without = study.Study(
        STUDY.names,
        STUDY.rows.drop(columns="latency_ms", errors="ignore"),
        STUDY.curves.iloc[:0],
        STUDY.baseline,
    )
    with pytest.raises(UserError, match=r"infer --studies contraction mobilenetv2"):
        figures.accuracy_cost(without, "latency_ms")
    with pytest.raises(UserError, match="no learning curves"):
        figures.learning_curves(without)
    with pytest.raises(UserError, match="upsample: the arms do not differ"):
        figures.accuracy(STUDY, "upsample")
    assert {"latency", "curves"}.isdisjoint(figures.of(without))


@pytest.mark.parametrize("page", [{"width": "wide"}, {"font": "mono"}], ids=str)
def test_an_unknown_page_is_an_error(page):
    with pytest.raises(UserError, match="choose from"), figures.page(**page):
        pass


def test_an_svg_needs_no_font_and_a_pdf_embeds_its_own():
    assert b"<text" not in figures.as_bytes(forest(), "svg")
    assert b"/Type3" not in figures.as_bytes(forest(), "pdf")


def test_the_command_takes_a_folder_of_runs_and_a_page(tmp_path):
    runs = make_runs(tmp_path / "runs", "contraction", "mobilenetv2", seed=[0, 1])
    out, _ = call("hbo.analysis.figures", runs / "contraction", runs / "mobilenetv2", "--to", f"{tmp_path}/out/", "--of", "k",
                  "--format", "pdf", "--width", "column", "--font", "serif")  # fmt: skip
    assert out.split() == [f"{tmp_path}/out/contraction.pdf"]
    # In points: 3.25 inches.
    assert b"/MediaBox [ 0 0 234 " in (tmp_path / "out" / "contraction.pdf").read_bytes()


@pytest.mark.parametrize("script", notebooks.scripts(), ids=lambda path: path.stem)
def test_each_notebook_cell_with_a_figure_has_a_picture(script):
    for cell in nbformat.read(script.with_suffix(".ipynb"), as_version=4).cells:
        last = cell.source.strip().split("\n")[-1]
        outputs = cell.get("outputs", [])
        if last.startswith(("figures.", "diagrams.")):
            assert any("image/png" in out.get("data", {}) for out in outputs), last
        for out in outputs:
            assert "image/png" in out.get("data", {}) or "<Figure size" not in str(out), last
