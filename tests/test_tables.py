"""The paper's tables: published cells as published, costs as counted, no measurement under another run's
name.
"""

import dataclasses

import pytest
from conftest import ROOT, call, published

from hbo import cost
from hbo.analysis import published as paper
from hbo.analysis import results
from hbo.analysis.tables import ABSENT, paper_table, stage_table
from hbo.config import resolve
from hbo.tasks.build import network as build_net

ROWS = results.load(ROOT / "ablations", "contraction")
PRINTED = [  # table 1 as printed in the paper: input, t, c, n, s (PAPER.md)
    ("224x224x3", ABSENT, 32, 1, 2), ("112x112x32", "1", 20, 1, 1), ("112x112x20", "2", 36, 1, 1),
    ("112x112x36", "2", 72, 3, 2),
    ("56x56x72", "2", 96, 4, 2), ("28x28x96", "2", 192, 4, 2), ("14x14x192", "2", 288, 1, 1),
    ("14x14x288", ABSENT, 144, 1, 1),
    ("14x14x144", "6", 200, 2, 2), ("7x7x200", "6", 400, 1, 1), ("7x7x400", ABSENT, 1600, 1, 1),
]  # fmt: skip


def test_table_1_of_the_network_is_as_printed():
    """At divisor 4 no channel count of width 1 is rounded; at the published 8 two are, as the notes say."""
    frame = stage_table(resolve(data="imagenet", width=1.0, divisor=4)).frame
    found = [tuple(line) for line in frame[["input", "t", "c", "n", "s"]].values.tolist()]
    assert found[:-1] == PRINTED
    table = paper_table(1)
    assert any("20 to 24, 36 to 40" in note for note in table.notes)
    assert sum(float(x) for x in table.frame["M multiply-adds"]) == pytest.approx(305.6, abs=0.6)
    operators = stage_table(resolve(data="imagenet", width=1.0, first_stage="paper", k=3)).frame.set_index(
        "stage"
    )["operator"]
    assert operators["1"] == operators["3"] == "harmonious bottleneck, k = 3"
    assert (operators["4"], operators["5"], operators["8"]) == (
        "harmonious bottleneck, k = 2",
        "harmonious bottleneck, k = 1",
        "inverted residual",
    )


@pytest.mark.parametrize("number", range(2, 10))
def test_every_published_cell_is_shown(number):
    frame = paper_table(number, ROWS).frame
    rows = published(number)
    assert len(frame) == len(rows)
    for row, line in zip(rows, frame.to_dict("records"), strict=True):
        for column, title in {
            "top1": "top-1",
            "top5": "top-5",
            "map": "mAP",
            "voc07_map": "mAP",
            "rank1": "rank-1",
        }.items():
            if column in row:
                assert float(line[f"{title} published"]) == float(row[column])
        if "mmacs" in row:
            assert float(line["M multiply-adds published"]) == float(row["mmacs"])
            if number < 7:
                assert abs(float(line["counted"]) - float(row["mmacs"])) <= 1
        assert all(value == ABSENT for name, value in line.items() if name.endswith(" measured"))


def fields_of(**changes):
    """The committed rows, as if from another run."""
    return ROWS.assign(**changes)


def imagenet(**changes):
    """The same rows with the paper's protocol: all its fields except the network's and the seed."""
    run = resolve(data="imagenet", width=0.25, divisor=8)
    protocol = [
        f.name
        for f in dataclasses.fields(run)
        if f.name not in {*run.NETWORK, "seed", "out", "study", "data_dir"}
    ]
    return fields_of(**{name: getattr(run, name) for name in protocol} | changes)


def test_only_the_papers_protocol_counts_as_measured():
    frame = paper_table(6, imagenet()).frame
    for k, line in zip((1, 2, 3), frame.to_dict("records"), strict=True):
        top1 = 100 * ROWS[ROWS["k"] == k]["top1"]
        assert line["top-1 measured"] == f"{top1.mean():.1f} ± {top1.std():.1f} (n=6)"
    for change in ({"epochs": 149}, {"batch": 128}, {"limit_batches": 9}, {"per_class": 5}, {"lr": 0.1}):
        frame = paper_table(6, imagenet(**change)).frame
        assert set(frame["top-1 measured"]) == {ABSENT}
        assert any(name.startswith("top-1 on ImageNet (224 px") for name in frame.columns)


@pytest.mark.parametrize(
    "change",
    [{"scheme": "uniform"}, {"upsample": "bilinear"}, {"width": 0.5}, {"divisor": 2}, {"first_stage": "paper"}, {"kernel": 3},
     {"net": "mobilenetv2"}, {"state": "failed"}, {"holdout": 0.2}],
    ids=str,
)  # fmt: skip
def test_another_network_is_not_measured_here(change):
    frame = paper_table(6, imagenet(**change)).frame
    assert set(frame["top-1 measured"]) == {ABSENT}
    assert not [name for name in frame.columns if " on " in name]


def test_other_data_have_their_own_column_and_a_shared_row_counts_once():
    import pandas as pd

    twice = pd.concat([ROWS, ROWS.assign(study="again")], ignore_index=True)
    for rows in (ROWS, twice):
        (column,) = [name for name in paper_table(6, rows).frame.columns if " on " in name]
        assert column == "top-1 on elpv (64 px, 20 epochs)"
        assert [cell.endswith("(n=6)") for cell in paper_table(6, rows).frame[column]] == [True] * 3
    two = pd.concat([ROWS, ROWS.assign(lr=0.1, key=ROWS["key"] + "x")], ignore_index=True)
    names = [name for name in paper_table(6, two).frame.columns if " on " in name]
    assert names == ["top-1 on elpv (64 px, 20 epochs, lr=0.05)", "top-1 on elpv (64 px, 20 epochs, lr=0.1)"]


@pytest.mark.parametrize("number", range(1, 10))
def test_markdown_has_the_frames_cells(number):
    table = paper_table(number, ROWS)
    lines = [line for line in table.markdown().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert cells == [[str(cell) for cell in line] for line in table.frame.values.tolist()]


def test_the_rivals_are_those_of_the_table():
    assert list(paper.RIVALS) == [row["model"] for row in published(7)]


def detectors(**changes):
    """Two finished detectors of table 8's first line, seeds 0 and 1, trained by the paper's protocol."""
    run = resolve(data="voc", net="mobilenetv2", width=1.0)
    keys = {f.name for f in dataclasses.fields(run)}
    common = {name: getattr(run, name) for name in keys} | {
        "state": "done",
        "git": "x",
        "backbone_weights": "a state dict (0)",
    }
    rows = [common | {"seed": seed, "key": f"k{seed}", "map": 0.69 + 0.02 * seed} for seed in (0, 1)]
    return results.frame([row | changes for row in rows])


def test_table_8_has_the_detectors_cost_and_the_measured_metrics():
    table = paper_table(8, detectors())
    frame = table.frame.set_index("")
    assert frame.loc["SSD320 mobilenetv2 1.0", "mAP published"] == "70.4"
    assert frame.loc["SSD320 mobilenetv2 1.0", "mAP measured"] == "70.0 ± 1.4 (n=2)"
    assert set(frame["mAP measured"].drop("SSD320 mobilenetv2 1.0")) == {ABSENT}
    for row in published(8):
        if not row["width"]:
            continue
        run = resolve(data="voc", net=row["backbone"], width=float(row["width"]))
        counted = cost.count(build_net(run, 20), 320)["total"]
        line = frame.loc[f"SSD320 {row['backbone']} {float(row['width'])}"]
        assert line["M multiply-adds counted"] == f"{counted.macs / 1e6:.1f}"
        assert line["M parameters counted"] == f"{counted.params / 1e6:.2f}"
    for line, net, size in (
        ("Pelee pelee", "pytorchcv:peleenet", 304),
        ("SSD300 mobilenet", "pytorchcv:mobilenet_w1", 300),
        ("SSDLite fd-mobilenet", "pytorchcv:fdmobilenet_w1", 320),
    ):
        counted = cost.count(build_net(resolve(data="voc", net=net, resolution=size), 20), size)["total"]
        assert frame.loc[line, "M multiply-adds counted"] == f"{counted.macs / 1e6:.1f}"
    assert any("the paper prints no costs" in note for note in table.notes)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 56},
        {"head": "full"},
        {"min_scale": 0.1},
        {"freeze_bn": True},
        {"data": "vocfolder"},
        {"backbone_weights": "random"},
    ],
    ids=str,
)
def test_a_detector_with_other_training_has_its_own_column(change):
    frame = paper_table(8, detectors(**change)).frame
    assert set(frame["mAP measured"]) == {ABSENT}
    assert [name for name in frame.columns if name.startswith("mAP on ")]


def test_detectors_from_two_checkpoints_are_two_columns():
    """Even with the paper's protocol: the starting weights are part of a detector's identity."""
    one, two = (
        detectors(backbone_weights=f"a state dict ({digest})") for digest in ("0123456789", "9876543210")
    )
    both = results.frame(
        [*one.to_dict("records"), *(row | {"key": row["key"] + "x"} for row in two.to_dict("records"))]
    )
    frame = paper_table(8, both).frame.set_index("")
    names = [name for name in frame.columns if name.startswith("mAP by the paper")]
    assert names == [
        f"mAP by the paper (its protocol, backbone {digest})" for digest in ("0123456789", "9876543210")
    ]
    assert [frame.loc["SSD320 mobilenetv2 1.0", name] for name in names] == ["70.0 ± 1.4 (n=2)"] * 2
    assert set(frame["mAP measured"]) == {ABSENT}


def test_a_classifier_is_not_in_table_8():
    frame = paper_table(8, detectors(task="classify")).frame
    assert not [name for name in frame.columns if " on " in name]
    assert set(frame["mAP measured"]) == {ABSENT}


@pytest.mark.slow
def test_table_8_from_the_command_line():
    text = call("hbo.analysis.tables", 8)[0]
    assert "| SSD320 hbonet 0.25 | 55.9 |" in text
    assert "Table 8" in text


def test_table_9_measures_only_runs_from_a_checkpoint():
    """The paper starts from ImageNet weights and first trains the classifier alone for 10 epochs."""
    import pandas as pd

    run = resolve(data="market1501", net="hbonet", width=0.5, backbone_checkpoint="some.pth")
    rows = pd.concat(
        [ROWS.head(1).assign(**dataclasses.asdict(run) | {"seed": n}, key=str(n)) for n in (1, 2)]
    )
    rows = rows.assign(map=[0.7, 0.72], rank1=[0.9, 0.91])
    line = paper_table(9, rows).frame.set_index("").loc["hbonet 0.5"]
    assert (line["mAP measured"], line["rank-1 measured"]) == ("71.0 ± 1.4 (n=2)", "90.5 ± 0.7 (n=2)")
    for change in (
        {"classifier_epochs": 0},
        {"bn_neck": True},
        {"distance": "cosine"},
        {"optimizer": "sgd"},
        {"aspect": 1.0},
    ):
        frame = paper_table(9, rows.assign(**change)).frame
        assert set(frame["mAP measured"]) == {ABSENT}
        assert "mAP on Market-1501 (256 px, 90 epochs)" in frame
    other = paper_table(9, rows.assign(data="marketfolder")).frame.set_index("")
    assert other.loc["hbonet 0.5", "mAP on marketfolder (256 px, 90 epochs)"] == "71.0 ± 1.4 (n=2)"


def test_table_9_counts_the_feature_extractor_at_256_by_128():
    """ResNet-50 by hand from torchvision's published 4.089 G at 224 x 224 with 1,000 classes: scaled by the
    pixels, without the classifier.
    """
    frame = paper_table(9, ROWS).frame.set_index("")
    assert float(frame.loc["resnet50", "M parameters counted"]) == pytest.approx(25.557 - 2.049, abs=0.01)
    scaled = (4089.2 - 2.048) * (256 * 128) / 224**2
    assert float(frame.loc["resnet50", "M multiply-adds counted"]) == pytest.approx(scaled, rel=1e-3)


@pytest.mark.parametrize("number", range(2, 10))
def test_a_published_gain_is_the_difference_of_its_cells(number):
    """In tables 2, 3, 4, 8 and 9, where the paper prints it: in HBONet's lines, over MobileNetV2 with the
    same budget.
    """
    frame, rows = paper_table(number, ROWS).frame, published(number)
    titles = {"top1": "top-1", "voc07_map": "mAP", "map": "mAP", "rank1": "rank-1"}
    shown = [name for name in titles if f"{titles[name]} gain published" in frame and name in rows[0]]
    assert bool(shown) == (number in (2, 3, 4, 8, 9))
    for name in shown:
        gained = frame[f"{titles[name]} gain published"].to_list()
        nets = [row.get("model", row.get("backbone")) for row in rows]
        theirs = [row for row, net in zip(rows, nets, strict=True) if net == "mobilenetv2"]
        ours = [(row, cell) for row, net, cell in zip(rows, nets, gained, strict=True) if net == "hbonet"]
        assert gained.count(ABSENT) == len(rows) - len(ours)
        for (row, cell), other in zip(ours, theirs, strict=True):
            assert row.get("resolution") == other.get("resolution")
            if "mmacs" in row:
                assert abs(float(row["mmacs"]) - float(other["mmacs"])) <= 0.1 * float(row["mmacs"])
            else:
                assert row["width"] == other["width"]
            assert float(cell) == pytest.approx(float(row[name]) - float(other[name]))


def test_gains_are_those_printed_in_the_paper():
    """The abstract's 6.6 and 6.3, and table 9's at width 0.1, which the paper prints as 3.9."""
    assert paper_table(2).frame["top-1 gain published"].iloc[-1] == "+6.6"
    assert paper_table(8).frame["mAP gain published"].iloc[7] == "+6.3"
    assert paper_table(9).frame["mAP gain published"].iloc[7] == "+4.0"
    assert any("the paper prints 3.9" in note for note in paper_table(9).notes)


def test_a_measured_gain_has_welchs_interval_and_both_n():
    from scipy import stats

    ours, theirs = detectors(net="hbonet"), detectors()
    both = results.frame(
        [*ours.to_dict("records"), *(row | {"key": f"m{row['seed']}"} for row in theirs.to_dict("records"))]
    )
    both["map"] = [0.72, 0.75, 0.69, 0.71]
    line = paper_table(8, both).frame.set_index("").loc["SSD320 hbonet 1.0"]
    welch = stats.ttest_ind([72.0, 75], [69.0, 71], equal_var=False).confidence_interval(0.95)
    assert line["mAP gain measured"] == f"+3.5 [{welch.low:+.1f}, {welch.high:+.1f}] (n=2 and 2)"
    one = paper_table(8, both[both["key"] != "k1"]).frame.set_index("").loc["SSD320 hbonet 1.0"]
    assert one["mAP gain measured"] == "+2.0 (n=1 and 2)"
    alone = paper_table(8, ours).frame
    assert set(alone["mAP gain measured"]) == {ABSENT}
    elsewhere = paper_table(8, both.assign(epochs=56)).frame.set_index("")
    assert elsewhere.loc["SSD320 hbonet 1.0", "mAP gain on PASCAL VOC (320 px, 56 epochs)"].endswith(
        "(n=2 and 2)"
    )


def test_gains_are_beside_their_metric():
    names = list(paper_table(2).frame.columns)
    assert names[1:5] == ["top-1 published", "top-1 measured", "top-1 gain published", "top-1 gain measured"]


def test_a_column_without_comparisons_is_shown_only_alone():
    """Two networks on one set, one of them also on another: the second set has a column only when it is
    alone.
    """
    import pandas as pd

    rows = pd.concat(
        [
            ROWS.head(1).assign(**dataclasses.asdict(resolve(data="digits", net=net, width=0.25)), key=net)
            for net in ("hbonet", "mobilenetv2")
        ]
    )
    alone = ROWS.head(1).assign(**dataclasses.asdict(resolve(data="elpv", width=0.25)), key="alone")
    title = lambda rows: [name for name in paper_table(2, rows).frame if name.startswith("top-1 on ")]
    assert title(alone) == ["top-1 on elpv (96 px, 24 epochs)"]
    assert title(pd.concat([rows, alone])) == ["top-1 on digits (32 px, 5 epochs)"]
