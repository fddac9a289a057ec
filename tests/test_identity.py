"""Different runs are never averaged: keys, arms, cells and claims all derive from one identity."""

import dataclasses
import json
import re
import typing

import pandas as pd
import pytest
from conftest import ROOT, call, make_runs

from hbo.analysis import claims, figures, published, results, study, tables
from hbo.analysis.grouping import by_setting
from hbo.config import Run, key_of, resolve
from hbo.errors import UserError
from hbo.runs import identity, rows
from hbo.sweep import plan, timing

COMMITTED = [row for row, _ in results._read(str(ROOT / "ablations"), ())]
ROWS = results.load(ROOT / "ablations", "contraction")
# The rows have three values of k.
APART = [f for f in dataclasses.fields(Run) if f.name not in Run.NOT_IN_KEY | {"seed", "k"}]


def test_the_key_of_every_committed_row_follows_from_its_fields():
    assert len(COMMITTED) >= 574  # rows are added, and none is taken away
    for row in COMMITTED:
        assert type(row["key"]) is str
        assert key_of(identity.of_row(row)) == row["key"]
    assert resolve(k=2).key() == "8faa71d03b"


def test_a_run_and_its_row_have_one_identity():
    """From the fields as a run resolves them, and as read from CSV."""
    plain = [row for row in COMMITTED if row["data"] == "elpv"]
    assert len(plain) == 66
    for row in plain:
        given = {
            f.name: row[f.name]
            for f in dataclasses.fields(Run)
            if row.get(f.name) is not None and f.name != "match_macs"
        }
        run = resolve(**given)
        assert run.identity() == identity.of_row(row)
        assert run.key() == row["key"]
        assert identity.of_row(dataclasses.asdict(run)) == run.identity()


def other(field: dataclasses.Field) -> object:
    """A value of a field that differs from the committed rows'."""
    here = ROWS[field.name].iloc[0]
    for value in typing.get_args(field.type):
        if value is not type(None) and not isinstance(value, type) and value != here:
            return value
    if field.type is bool:
        return not here
    if "int" in str(field.type) or "float" in str(field.type):
        return 3 if pd.isna(here) else here * 2 + 1
    return "other"


def both(**changes: object) -> pd.DataFrame:
    """The committed rows, and the same seeds with these changes, new keys and 10 points more."""
    again = ROWS.assign(**changes, key=ROWS["key"] + "x", top1=ROWS["top1"] + 0.1)
    return pd.concat([ROWS, again], ignore_index=True)


def assert_apart(table: pd.DataFrame) -> None:
    """No number made from the table averages more than the six seeds of an arm."""
    assert set(results.summary(table)["n"]) == {6}
    assert len(results.summary(table)) == 6
    arms = table.assign(arm=study.labels(table)).groupby("arm")["key"].count()
    assert set(arms) == {6}
    assert len(arms) == 6
    cells = [str(cell) for cell in tables.paper_table(6, table).frame.to_numpy().ravel()]
    assert any("(n=6)" in cell for cell in cells)
    assert not [cell for cell in cells if "n=12" in cell]
    said = [v.note for v in claims.check(table) if v.table == 6]
    assert any("(n=6)" in note for note in said)
    assert not [note for note in said if "n=12" in note]


@pytest.mark.parametrize("field", APART, ids=lambda f: f.name)
def test_any_field_but_the_seed_separates_rows_everywhere(field):
    assert_apart(both(**{field.name: other(field)}))


@pytest.mark.parametrize(
    "changes",
    [
        {"devices": 2},
        {"num_nodes": 2},
        {"data": "imagefolder", "study": "elsewhere"},
        {"data": "imagenet", "crop": "random", "cache": "ram"},
        {"backbone_checkpoint": "a.ckpt", "backbone_weights": "a state dict (0123456789)"},
    ],
    ids=str,
)
def test_parts_of_an_identity_that_are_no_field_separate_rows_too(changes):
    assert_apart(both(**changes))


def test_a_column_names_its_difference_from_the_next():
    """A part of the identity that a run lacks is shown as absent; no Python default is printed."""
    rows_ = ROWS.assign(data="imagenet", crop="random", identity=None)
    table = pd.concat([rows_, rows_.assign(cache="ram", key=ROWS["key"] + "x")], ignore_index=True)
    titles = [name for name in tables.paper_table(6, table).frame.columns if name.startswith("top-1 on")]
    assert titles == [f"top-1 on ImageNet (64 px, 20 epochs, cached_side={side})" for side in ("none", 64)]


def test_images_and_backbones_are_identified_by_contents():
    """Two folders with one name, two checkpoints with one path: rows tell them apart by `identity`."""
    for name, values in (
        ("images", ("0123456789", "9876543210")),
        ("backbone", ("0123456789", "9876543210")),
    ):
        data = {"data": "imagefolder"} if name == "images" else {}
        parts = [
            ROWS.assign(
                **data,
                key=ROWS["key"] + value,
                identity=[{name: value}] * len(ROWS),
                top1=ROWS["top1"] + i / 10,
            )
            for i, value in enumerate(values)
        ]
        table = pd.concat(parts, ignore_index=True)
        assert_apart(table)
        assert {identity.of_row(row)[name] for row in table.to_dict("records")} == set(values)


@pytest.mark.parametrize("name", sorted(Run.NOT_IN_KEY - {"devices", "num_nodes"}))
def test_fields_that_change_no_result_give_one_run_that_counts_once(name):
    field = Run.__dataclass_fields__[name]
    if name not in ROWS:
        pytest.skip(f"{name} is no column")
    table = pd.concat([ROWS, ROWS.assign(**{name: other(field)})], ignore_index=True)
    assert set(results.summary(table)["n"]) == {6}
    assert len(results.summary(table)) == 3


def test_the_same_seed_twice_is_an_error_that_names_the_keys():
    table = pd.concat([ROWS, ROWS.head(1).assign(key="abcdef0123", top1=0.9)], ignore_index=True)
    for made in (results.summary, lambda t: tables.paper_table(6, t), claims.check):
        with pytest.raises(
            UserError, match=f"keys {ROWS['key'].iloc[0]} and abcdef0123: the same run with the same seed, 0"
        ):
            made(table)


def test_an_older_row_is_not_averaged_with_other_folders(tmp_path):
    """Its row does not record which folder it used: it is grouped by data_dir, or else by study, and the
    tables say so.
    """
    old = [row | {"data": "imagefolder"} for row in COMMITTED if row["study"] == "contraction"]
    for i, row in enumerate(old):
        folder = tmp_path / "mixed" / f"{i:010x}"
        folder.mkdir(parents=True)
        row = {**row, "key": folder.name, "study": "mixed", "data_dir": "a" if row["seed"] % 2 else "b"}
        (folder / "row.json").write_text(json.dumps(row))
    table = results.load(tmp_path)
    assert set(results.summary(table)["n"]) == {3}
    assert set(results.summary(table)["data"]) == {"a", "b"}
    shown = tables.paper_table(6, table)
    assert any("not recorded (a), not recorded (b)" in note for note in shown.notes)
    assert {"top-1 on a (64 px, 20 epochs)", "top-1 on b (64 px, 20 epochs)"} <= set(shown.frame.columns)


@pytest.mark.parametrize(("number", "resolution"), [(3, 96), (4, 96), (5, 192)])
def test_a_measurement_is_only_in_the_line_of_its_resolution(number, resolution):
    lines = published.table(number).to_dict("records")
    width = next(
        float(row["width"]) for row in lines if row["model"] == "hbonet" and row["resolution"] == resolution
    )
    net = resolve(data="elpv", net="hbonet", width=width, resolution=resolution)
    divisor = next(
        run.divisor for run in published.runs(number) if run and run.width == width and run.net == "hbonet"
    )
    fields = dataclasses.asdict(net) | {"divisor": divisor}
    of_it = ROWS[ROWS["k"] == 1].assign(
        **{name: v for name, v in fields.items() if name in ROWS and name != "seed"}
    )
    for px, lines_with_it in ((resolution, 1), (64, 0)):
        frame = tables.paper_table(number, of_it.assign(resolution=px, eval_resize=px)).frame
        shown = frame[[name for name in frame.columns if " on " in name]]
        assert (shown != tables.ABSENT).to_numpy().sum() == lines_with_it


def test_a_plan_uses_only_times_of_the_same_run(tmp_path):
    """Seconds at another precision do not predict this one's."""
    from hbo.sweep.study import read

    path = tmp_path / "s.yaml"
    path.write_text(
        "method: grid\nparameters: {data: {value: digits}, k: {value: 1}, seed: {values: [0, 1]}}\n"
    )
    sweep = read(path, {"out": str(tmp_path)})
    first, _ = (resolve(**row) for row in sweep.rows)
    rows.folder(first).mkdir(parents=True)
    row = dataclasses.asdict(first) | {
        "state": "done",
        "machine": rows.machine(),
        "images_per_second": 10.0,
        "seconds": 77.0,
    }
    row |= {"activation_bytes": 400_000, "elementwise": 1000}
    for change, words in (
        ({}, "rows of this machine"),
        ({"augment": "device"}, "scaled"),
        ({"precision": "bf16-mixed"}, "calibration"),
    ):
        rows.write(rows.folder(first), row | change)
        entries = plan.entries(sweep)
        plan.price(entries)
        assert words in timing.estimate(entries)
        assert (entries[1].seconds == 77.0 + timing.START) == (not change)


# ------------------------------------------------------------ settings


def test_several_data_sets_are_shown_side_by_side_and_not_judged_together():
    with pytest.raises(UserError, match=r"several settings.*: elpv; CIFAR-10;"):
        study.read("contraction", "contraction_cifar10")
    found = study.settings("contraction", "contraction_cifar10")
    assert [it.done["data"].unique().tolist() for it in found] == [["elpv"], ["imagefolder"]]
    assert [set(it.done.groupby("arm")["key"].count()) for it in found] == [{6}, {3}]
    out, _ = call("hbo.analysis.study", "contraction", "contraction_cifar10")
    one, two = out.split("## ")[1:]
    assert one.startswith("elpv\n")
    assert two.startswith("CIFAR-10\n")
    assert "mobilenetv2" in two
    assert "mobilenetv2" not in one


def test_a_detector_is_not_judged_against_a_retriever():
    found = study.settings("detection_bccd", "reid_coil20")
    assert [it.done["task"].unique().tolist() for it in found] == [["detect"], ["reid"]]
    for it in found:
        assert it.metric == "map"
        assert len(it.comparisons()) == len(it.arms) - 1
    with pytest.raises(UserError, match="BCCD; COIL-20"):
        study.read("detection_bccd", "reid_coil20", metric="map")


def test_studies_with_other_training_are_settings_and_varied_fields_are_arms():
    again = ROWS.assign(study="longer", epochs=40, key=ROWS["key"] + "x")
    assert [which for which, _ in by_setting(pd.concat([ROWS, again], ignore_index=True))] == [
        "epochs=20",
        "epochs=40",
    ]
    together = pd.concat([ROWS, again.assign(study="contraction")], ignore_index=True)
    assert [which for which, _ in by_setting(together)] == [""]
    assert set(study.labels(together)) == {f"k={k} epochs={e}" for k in (1, 2, 3) for e in (20, 40)}


def test_arms_that_print_alike_stay_separate():
    rates = pd.concat([ROWS, ROWS.assign(lr=0.0500001, key=ROWS["key"] + "x")], ignore_index=True)
    assert set(study.labels(rates)) == {f"k={k} lr={lr}" for k in (1, 2, 3) for lr in ("0.05", "0.0500001")}


def test_a_page_has_one_section_per_setting(tmp_path):
    out, _ = call("hbo.analysis.report", "contraction", "contraction_cifar10", "--to", tmp_path / "page.html")
    assert [line.split(": ")[1] for line in out.splitlines()] == ["elpv", "CIFAR-10"]
    page = (tmp_path / "page.html").read_text()
    assert page.index("<h2>elpv") < page.index("<h2>CIFAR-10")
    assert page.count("<h3>How it was run</h3>") == 2


# ------------------------------------------------------------ reading rows


def test_a_key_is_text_whatever_it_looks_like(tmp_path):
    keys = ["31246e1835", "8632884943", "1e10", "0012345678", "Infinity"]
    path = tmp_path / "s.csv"
    path.write_text("key,state,git,milestones\n" + "".join(f"{key},done,052e830811,60\n" for key in keys))
    found = [(row["key"], row["git"], row["milestones"]) for row in results.read_csv(path)]
    assert found == [(key, "052e830811", "60") for key in keys]
    assert results.read_csv(ROOT / "ablations" / "elpv_tuning.csv")[-1]["key"] == "31246e1835"


def test_a_csv_of_other_data_is_not_a_study(tmp_path):
    assert set(results.load(ROOT / "ablations")["study"]) == {row["study"] for row in COMMITTED}
    with pytest.raises(UserError, match=r"latency\.csv: contains no rows of runs"):
        results.load(ROOT / "ablations" / "latency.csv")
    make_runs(tmp_path, "contraction", k=[1])
    table = results.load(tmp_path)
    assert set(table["identity"].map(json.dumps)) == {
        json.dumps(identity.of_row(row)) for row in table.to_dict("records")
    }


def at_resolutions(*protocols: dict[str, object]) -> pd.DataFrame:
    """Rows of table 3's HBONet 0.8 with several protocols, two seeds each, none with the paper's protocol."""
    line = next(run for run in published.runs(3) if run and run.net == "hbonet" and run.resolution == 96)
    base = dataclasses.asdict(line) | {"data": "imagefolder", "epochs": 2, "identity": None}
    same = ROWS[(ROWS["k"] == 1) & (ROWS["seed"] < 2)].assign(
        **{n: v for n, v in base.items() if n != "seed" and n in ROWS}
    )
    return pd.concat(
        [same.assign(**one, key=same["key"] + f"x{i}") for i, one in enumerate(protocols)], ignore_index=True
    )


def titles_of(table: pd.DataFrame) -> list[str]:
    return [name for name in tables.paper_table(3, table).frame.columns if name.startswith("top-1 on")]


def px(resolution: int, **others: object) -> dict[str, object]:
    return {"resolution": resolution, "eval_resize": round(resolution / 0.875), **others}


def test_columns_of_several_resolutions_name_their_differences():
    """On one line or on several: the columns differ in more than their resolutions."""
    found = titles_of(at_resolutions(px(96), px(128), px(96, precision="bf16-mixed")))
    assert [re.sub(r"^.*precision=|\)$", "", title) for title in found] == ["32-true", "bf16-mixed"]


def test_a_cache_of_the_evaluated_size_differs_from_one_of_a_fixed_size():
    """At 128 px both have a side of 146 px; at 96 px they differ, so they have separate columns."""
    relative = [px(96, cache="disk"), px(128, cache="disk")]
    found = titles_of(at_resolutions(*relative, px(96, cache="disk", cache_size=146)))
    assert [re.sub(r"^.*cached_side=|\)$", "", title) for title in found] == ["eval_resize", "146"]


def test_a_figure_averages_arms_only_if_they_are_crossed():
    arms = [ROWS.assign(concat_ratio=i / 10, key=ROWS["key"] + str(i)) for i in range(9)]
    for rows_, lines in ((arms, 1), ([*arms[:8], arms[8].assign(precision="bf16-mixed")], 9)):
        table = pd.concat(rows_, ignore_index=True)
        table["arm"] = study.labels(table)
        it = study.Study(("many",), table[table["net"] == "hbonet"], ROWS.head(0), table["arm"].iloc[0])
        drawn = figures.accuracy(it, "k").axes[0].get_legend_handles_labels()[1]
        assert len([name for name in drawn if ", n=" in name]) == lines
        assert (it.effects() is None) == (lines > 1)
