"""Data sets and networks have their usual names, arms are named by what differs, numbers have one format."""

import dataclasses
import json
import math

import pandas as pd
import pytest
from conftest import ROOT, call, make_folder, make_runs, only_row
from flagged import flags

from hbo.analysis import numbers, published, report, results, study, tables
from hbo.analysis.arms import LONG
from hbo.analysis.grouping import base, full_labels, labels
from hbo.config import resolve
from hbo.errors import UserError
from hbo.runs import identity, naming
from hbo.tasks import SETS

ROWS = results.load(ROOT / "ablations", "contraction")


@pytest.mark.parametrize(
    ("path", "name"),
    [("photos/birds", "birds"), ("photos/birds/train", "birds"), ("birds/data", "birds"), ("birds/Data/images/train/", "birds"),
     ("/data", "data"), ("VOCdevkit/BCCD", "BCCD"), ("../birds/.", "birds"), ("data", "data"), ("", None)],
)  # fmt: skip
def test_a_folder_is_named_by_its_telling_part(path, name):
    assert naming.last_name(path) == name


def test_an_existing_folder_is_named_by_its_whole_path(tmp_path, monkeypatch):
    (tmp_path / "birds" / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "birds")
    assert (
        naming.folder_name("data") == naming.folder_name("./data/train") == naming.folder_name(".") == "birds"
    )
    assert naming.folder_name("~nobody-here/birds/data") == "birds"
    assert naming.folder_name(None) is None


@pytest.mark.parametrize(
    ("study_", "name"),
    [
        ("contraction", "elpv"),
        ("contraction_cifar10", "CIFAR-10"),
        ("detection_bccd", "BCCD"),
        ("reid_coil20", "COIL-20"),
    ],
)
def test_committed_rows_name_their_data(study_, name):
    """In the title of the table, the columns of the paper's tables, the means."""
    it = study.read(study_)
    assert it.setting().startswith(f"{name} (")
    assert set(naming.data_names(it.done.to_dict("records"))) == {name}
    number = {"detect": 8, "reid": 9}.get(it.done["task"].iloc[0], 6)
    assert any(f" on {name} (" in column for column in tables.paper_table(number, it.done).frame.columns)


def test_no_column_or_title_is_just_folder():
    rows = results.load(ROOT / "ablations")
    words = [column for n in (6, 8, 9) for column in tables.paper_table(n, rows).frame.columns]
    words += [
        it.which + it.setting()
        for it in study.settings("contraction", "contraction_cifar10", "detection_bccd")
    ]
    words += map(str, results.summary(rows)["data"])
    assert not [word for word in words if "folder" in word]


def test_published_sets_have_their_names():
    titles = {name: naming.data_name({"data": name}) for name in SETS}
    assert (titles["imagenet"], titles["voc"], titles["market1501"], titles["cifar10"]) == (
        "ImageNet", "PASCAL VOC", "Market-1501", "CIFAR-10",
    )  # fmt: skip
    assert titles["elpv"] == "elpv"
    assert naming.data_name({"data": "imagenet", "images": "0123456789"}) == "part of ImageNet"
    assert naming.data_name({"data": "imagenet", "images": "0123456789"}, "imagenet100") == "imagenet100"


def test_different_images_have_different_names():
    """Two folders called `birds` have different fingerprints; a renamed copy is the same set."""
    rows = [
        {"data": "imagefolder", "identity": {"images": images}, "folder": folder}
        for images, folder in (
            ("0" * 10, "birds"),
            ("1" * 10, "birds"),
            ("2" * 10, "cats"),
            ("2" * 10, "copy of cats"),
        )
    ]
    assert naming.data_names(rows) == [f"birds ({'0' * 10})", f"birds ({'1' * 10})", "cats", "cats"]


@pytest.mark.slow
def test_a_run_records_the_name_of_its_folder(tmp_path):
    """The row has the folder's name, for the final lines and every table; the key does not, and the rest of
    the path is not recorded.
    """
    args = flags(data="imagefolder", width=0.1, resolution=32, epochs=1, batch=4, threads=1)
    keys = set()
    for name in ("birds", "cats"):
        folder = make_folder(tmp_path / name / "data", {"a": 4, "b": 4}, {"a": 2, "b": 2})
        out, _ = call("hbo.fit", *args, "--data_dir", folder, "--out", tmp_path / f"runs_{name}")
        row, _ = only_row(tmp_path / f"runs_{name}")
        assert row["folder"] == name
        assert "folder" not in row["identity"]
        assert f" on {name} (4 images)" in out
        keys.add(row["key"])
        table = results.load(tmp_path / f"runs_{name}")
        (tmp_path / f"{name}.csv").write_text(results.to_csv(table))
        pd.testing.assert_frame_equal(results.load(tmp_path / f"{name}.csv"), table, check_dtype=False)
        assert str(tmp_path) not in (tmp_path / f"{name}.csv").read_text()
        assert (
            study.read("default", source=tmp_path / f"runs_{name}")
            .setting()
            .startswith(f"{name} (8 training")
        )
    assert len(keys) == 1


def test_networks_have_the_papers_names():
    assert (
        naming.with_net_names("hbonet k=1 against torchvision:resnet50, mobilenetv2")
        == "HBONet k=1 against ResNet-50, MobileNetV2"
    )
    assert (
        naming.with_net_names("net=hbonet timm:hbonet runs/hbonet hbonets")
        == "net=hbonet timm:hbonet runs/hbonet hbonets"
    )
    for number in (2, 8, 9):
        for row in published.table(number).to_dict("records"):
            name = published.name_of(number, row)
            shown = naming.with_net_names(name)
            assert shown.replace("-", "").lower() == name.replace("-", "").lower()
            assert any(known in shown for known in naming.NETS.values())


# ------------------------------------------------------------ arms


def test_long_names_list_what_an_arm_changes():
    it = study.read("elpv_tuning")
    full = full_labels(it.done)
    assert max(map(len, full.values())) > 150
    assert len(set(full.values())) == len(full) == len(it.arms) == 15
    said = dict(word.split("=") for word in base(it.done).removeprefix("base: ").split())
    for arm, whole in full.items():
        changed = dict(word.split("=") for word in arm.split() if "=" in word)
        assert {
            name: changed.get(name, value)
            for name, value in said.items()
            if name not in ("eval_resize", "crop_area")
        } == {
            name: value
            for name, value in (word.split("=") for word in whole.split())
            if name not in ("eval_resize", "crop_area")
        }
    assert any(base(it.done) in note for note in it.table().notes)


@pytest.mark.parametrize(
    "names", [("contraction",), ("contraction", "mobilenetv2"), ("contraction_uniform",)]
)
def test_short_names_are_not_shortened(names):
    it = study.read(*names)
    assert base(it.done) == ""
    assert all(name == full for name, full in full_labels(it.done).items())


def test_arms_with_similar_changes_have_distinct_names():
    """Each field is changed in one arm: every arm still has a name of its own."""
    fields = {
        "epochs": 40,
        "batch": 64,
        "weight_decay": 1e-3,
        "warmup": 2.0,
        "label_smoothing": 0.1,
        "jitter": 0.2,
        "holdout": 0.1,
    }
    parts = [ROWS, *(ROWS.assign(**{name: value}, key=ROWS["key"] + name) for name, value in fields.items())]
    rows = pd.concat(parts, ignore_index=True)
    found = labels(rows)
    assert len(set(found)) == 3 * len(parts)
    assert max(map(len, found)) <= LONG
    assert [set(group) for _, group in rows.assign(arm=found).groupby("arm")["seed"]] == [
        set(range(6))
    ] * len(set(found))


# ------------------------------------------------------------ numbers


def test_numbers_have_one_format():
    nan, series = math.nan, lambda *values: pd.Series(values)
    assert [numbers.p_value(p) for p in (0.0, 0.0009, 0.001, 0.0344, 1.0, nan)] == [
        "<0.001",
        "<0.001",
        "0.001",
        "0.034",
        "1.000",
        "—",
    ]
    assert [numbers.points(x) for x in (0.0, -0.00001, -0.0003, 0.0123, -0.5, nan)] == [
        "+0.0",
        "+0.0",
        "-0.03",
        "+1.2",
        "-50.0",
        "—",
    ]
    assert (numbers.interval(nan, nan), numbers.interval(-0.01, 0.02)) == ("—", "-1.0 to +2.0")
    assert numbers.mean(series(0.5, 0.7, nan)) == "60.0 ± 14.1 (n=2)"
    assert (numbers.mean(series(nan, nan)), numbers.mean(series(0.5)), numbers.mean(series(None, 0.5))) == (
        "—",
        "50.0",
        "50.0 (n=1)",
    )
    assert [numbers.plain(v) for v in (64.0, 0.05, None, nan, True, "x", 4e-05)] == [
        "64",
        "0.05",
        "—",
        "—",
        "True",
        "x",
        "4e-05",
    ]
    assert identity.say("per_class", None) == "per_class=none"


def spoiled(tmp_path, **changes):
    """A study's runs, one of them with changed values; the folder, and that run's key."""
    root = make_runs(tmp_path, "contraction")
    path = sorted(root.glob("*/*/row.json"))[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return root, path.parent.name


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_without_a_metric_is_named_and_left_out(tmp_path, capsys, value):
    root, key = spoiled(tmp_path, top1=value)
    it = study.read("contraction", source=root)
    assert len(it.done) == 17
    assert key not in set(it.done["key"])
    table = it.table()
    assert any("without top-1" in note and key in note for note in table.notes)
    assert sorted(table.frame["n"]) == [5, 6, 6]
    assert sorted(results.summary(results.load(root))["n"]) == [5, 6, 6]
    assert f"contraction, {key}: its top1 is" in capsys.readouterr().err
    for text in (
        table.markdown(),
        it.differences().markdown(),
        results.markdown(results.summary(results.load(root))),
    ):
        assert "nan" not in text
        assert "inf" not in text


def test_whole_numbers_stay_whole_beside_a_failed_run(tmp_path):
    """Its row has no fields, which turns the whole table's integers into floats."""
    root = make_runs(tmp_path, "contraction")
    early = root / "contraction" / "0" / "row.json"
    early.parent.mkdir()
    early.write_text(json.dumps({"state": "failed", "error": "no such folder", "seed": 9}))
    rows = results.load(root)
    assert rows["k"].dtype.kind == "f"
    done = results.finished(rows)
    whole = [f.name for f in dataclasses.fields(resolve()) if f.type is int and f.name in done]
    assert {"k", "kernel", "resolution", "epochs", "batch", "seed"} <= set(whole)
    assert all(done[name].dtype.kind == "i" for name in whole)
    assert study.read("contraction", source=root).arms == ["k=1", "k=2", "k=3"]
    text = results.markdown(results.summary(rows.assign(eval_resize=rows["eval_resize"].astype(float))))
    assert ".0 |" not in "\n".join(line.rsplit("|", 6)[0] for line in text.splitlines())


COLUMNS = sorted(
    set(ROWS.columns)
    - {f.name for f in dataclasses.fields(resolve())}
    - {"study", "key", "state", "top1", "identity"}
)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_row_without_a_column_is_read(tmp_path, column):
    """In rows from older versions or elsewhere: every table and the means still work."""
    text = results.to_csv(ROWS.drop(columns=[column, "identity"]))
    (tmp_path / "contraction.csv").write_text(text)
    it = study.read("contraction", source=tmp_path)
    shown = [
        it.table(),
        it.differences(),
        it.provenance(),
        it.images(),
        it.effects(),
        tables.paper_table(6, results.load(tmp_path)),
    ]
    assert it.arms == ["k=1", "k=2", "k=3"]
    assert not [table for table in shown if table is not None and "nan" in table.markdown()]
    results.summary(results.load(tmp_path))


def test_a_field_that_no_row_has_is_an_error():
    with pytest.raises(UserError, match="optimiser: the rows of contraction have no such column"):
        study.read("contraction", optimiser="sgd")


def test_rows_with_few_columns_make_a_page(tmp_path):
    """Fields, key, state and a metric: what any source has."""
    keep = [f.name for f in dataclasses.fields(resolve()) if f.name in ROWS] + [
        "study",
        "key",
        "state",
        "top1",
    ]
    (tmp_path / "contraction.csv").write_text(results.to_csv(ROWS[list(dict.fromkeys(keep))]))
    page = report.page(study.read("contraction", source=tmp_path))
    assert "nan" not in page.split("<script>")[0].replace("data:image", "").lower().replace("finance", "")
