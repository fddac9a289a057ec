"""Damaged, edited or foreign rows, locks, tables and curves are named and skipped, and nothing else stops."""

import csv
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from conftest import ROOT, make_folder, make_runs, make_voc

from hbo.analysis import results, study
from hbo.analysis.report import page
from hbo.config import resolve
from hbo.errors import UserError
from hbo.runs import checkpoint, identity, lock, rows
from hbo.sweep import plan, queued, timing
from hbo.sweep.__main__ import main as sweep
from hbo.sweep.study import read
from hbo.tasks.detect import layout

GOOD = {"state": "done", "seconds": 7.0, "top1": 0.5}
FOREIGN = [
    b"",
    b'{"state": "do', b"\0\xff\xfe", b"[]", b"null", b"7", b'{"state": "done"}', b"{}", b'{"name": "package"}', b"[" * 100_000,
    json.dumps({**GOOD, "top1": None}).encode(), json.dumps({**GOOD, "seconds": "7 s"}).encode(),
    json.dumps({**GOOD, "state": "finished"}).encode(),
    json.dumps({**GOOD, "state": ["done"]}).encode(), json.dumps({**GOOD, "task": ["a"]}).encode(),
    json.dumps({**GOOD, "top1": "50 %"}).encode(),
    json.dumps({**GOOD, "k": "two"}).encode(), json.dumps({**GOOD, "macs": "many"}).encode(),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> tuple[Path, list[Path]]:
    """A study of three runs: the first is finished, the second has a folder for a damaged file."""
    file = tmp_path / "s.yaml"
    file.write_text(
        "method: grid\nparameters:"
        f" {{data: {{value: digits}}, seed: {{values: [0, 1, 2]}}, out: {{value: {tmp_path}/runs}}}}\n"
    )
    places = [rows.folder(resolve(**row)) for row in read(file).rows]
    for place in places[:2]:
        place.mkdir(parents=True)
    rows.write(places[0], GOOD)
    return file, places


@pytest.mark.parametrize("content", FOREIGN, ids=range(len(FOREIGN)))
def test_a_broken_row_is_named_and_nothing_stops(folder, content, capsys):
    file, (first, second, _) = folder
    other = first.parents[1] / "other" / second.name  # from where a finished row would be reused
    third = first.parents[1] / "other" / "0123456789"
    for place in (second, other, third):
        place.mkdir(parents=True, exist_ok=True)
        (place / "row.json").write_bytes(content)
    found = plan.entries(read(file))
    assert [entry.state for entry in found] == ["done", "invalid", "missing"]
    assert "row.json: not a row" in found[1].error
    with pytest.raises(SystemExit) as stop:
        sweep(["status", str(file)])
    said = capsys.readouterr()
    assert stop.value.code == 0
    assert str(second / "row.json") in said.err
    assert "Traceback" not in said.err
    plan.price(found)
    timing._measured(found)
    table = results.load(first.parents[1])
    assert list(table["key"]) == [first.name]
    assert len([line for line in capsys.readouterr().err.splitlines() if str(third) in line]) <= 1


def test_an_edited_row_is_named(tmp_path, capsys):
    root = make_runs(tmp_path / "runs", "contraction", seed=[0], data=["elpv"])
    paths = sorted(root.glob("*/*/row.json"))
    row = json.loads(paths[0].read_text())
    paths[0].write_text(json.dumps({**row, "lr": row["lr"] * 2}))
    table = results.load(root)
    assert len(table) == len(paths) - 1
    said = capsys.readouterr().err
    assert str(paths[0]) in said
    assert "edited" in said


def test_a_run_of_a_version_with_another_switch_is_refused(tmp_path, capsys):
    """Without the switch it would be another network, and its row another run's."""
    root = make_runs(tmp_path / "runs", "contraction", seed=[0], data=["elpv"])
    path, *others = sorted(root.glob("*/*/row.json"))
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, "identity": {**identity.of_row(row), "act": "hardswish"}}))
    assert len(results.load(root)) == len(others)
    said = capsys.readouterr().err
    assert f"{path}: not a row (has act='hardswish', which only the version that wrote it knows); use" in said
    saved = {**asdict(resolve(data="digits")), "num_classes": 10, "act": "hardswish"}
    torch.save({"hyper_parameters": saved, "state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="has act='hardswish'"):
        checkpoint.trained(tmp_path / "last.ckpt", {})
    run = resolve(data="digits", backbone_checkpoint=str(tmp_path / "last.ckpt"))
    with pytest.raises(UserError, match="has act='hardswish'"):
        checkpoint.load_backbone(torch.nn.Identity(), run)


def test_images_that_a_run_was_trained_on_are_not_evaluated(tmp_path):
    """Another split of its own folder, or of a copy; the same flags on another folder are fine."""
    photos = make_folder(tmp_path / "photos", {"x": 5, "y": 5}, {}) / "train"
    others = make_folder(tmp_path / "others", {"x": 6, "y": 5}, {}) / "train"
    copy = shutil.copytree(photos, tmp_path / "copy")
    run = resolve(data="imagefolder", data_dir=str(photos), val_split=0.2)
    saved, path = {**asdict(run), "num_classes": 2}, tmp_path / "last.ckpt"
    (tmp_path / "row.json").write_text(
        json.dumps({**asdict(run), "state": "interrupted", "identity": run.identity()})
    )
    check = lambda **given: checkpoint._check_split(path, saved, given)
    for given in ({"val_split": 0.3}, {"holdout": 0.2}, {"val_split": 0.3, "data_dir": f"{photos}/"},
                  {"val_split": 0.3, "data_dir": str(copy)}):  # fmt: skip
        with pytest.raises(UserError, match="would be evaluated on images that it was trained on; remove --"):
            check(**given)
    for given in ({}, {"val_split": 0.2}, {"val_split": 0.3, "data_dir": str(others)}):
        check(**given)
    tuned = {**asdict(resolve(data="digits", holdout=0.2)), "num_classes": 10}
    checkpoint._check_split(path, tuned, {"holdout": 0.0})  # the reported images, which it never saw


def test_a_study_named_replaced_is_read(tmp_path):
    root = make_runs(tmp_path / "replaced" / "runs", "contraction", seed=[0], data=["elpv"])
    runs = results.load(root)
    place = next(root.glob("*/*/row.json")).parent
    rows.set_aside(place)
    assert len(results.load(root)) == len(runs) - 1
    make_runs(tmp_path / "more" / "replaced", "contraction", seed=[0], data=["elpv"])
    assert len(results.load(tmp_path / "more" / "replaced")) == len(runs)


@pytest.mark.parametrize(
    "content",
    [
        b"[1, 2]",
        b"\0\xff",
        b"7",
        b'{"pid": "me", "host": ["a"], "step": "3", "of": {}}',
        b'{"pid": -1, "step": true}',
    ],
)
def test_a_broken_lock_has_an_unknown_owner(folder, content):
    file, (_, second, _) = folder
    (second / "lock.0").write_bytes(content)
    (second / "lock.²").write_bytes(content)
    holder = lock.read(second)
    assert holder is not None
    assert holder["host"] == "?"
    found = plan.entries(read(file))
    assert plan.describe(found[1]).startswith("running")  # until it is a minute old


@pytest.mark.parametrize("content", [b"", b'{"job": ', b"[]", b"\0\xff", b"{}", b'{"job": 7}'])
def test_a_broken_job_file_stops_no_study(folder, content):
    file, (_, second, _) = folder
    (second / "slurm.json").write_bytes(content)
    found = plan.entries(read(file))
    queued.mark(found)
    assert [entry.state for entry in found] == ["done", "missing", "missing"]


def test_a_broken_curve_or_outcomes_file_loses_only_itself(tmp_path, capsys):
    root = make_runs(tmp_path / "runs", "contraction", seed=[0, 1], data=["elpv"])
    paths = [path.parent for path in sorted(root.glob("*/*/row.json"))]
    for path, content in zip(paths, (b"\0\xff\xfe", b"epoch,step\nx,y\n", b"a\n1,2,3\n"), strict=False):
        (path / "metrics.csv").write_bytes(content)
    row = json.loads((paths[0] / "row.json").read_text())
    row.pop("correct", None)
    (paths[0] / "row.json").write_text(json.dumps(row))
    (paths[0] / "outcomes.npz").write_bytes(b"PK no archive")
    assert len(results.load(root)) == len(paths)
    points = results.curves(root)
    assert set(points["key"]) == {path.name for path in paths[3:]}
    said = capsys.readouterr().err
    assert all(str(path / "metrics.csv") in said for path in paths[:3])
    assert str(paths[0] / "outcomes.npz") in said


@pytest.fixture
def lines() -> list[dict[str, str]]:
    with open(ROOT / "ablations" / "contraction.csv", newline="") as file:
        return list(csv.DictReader(file))


def save(path: Path, lines: list[dict[str, str]], **how: str) -> Path:
    with open(path, "w", newline="", encoding=how.pop("encoding", "utf-8")) as file:
        writer = csv.DictWriter(file, list(lines[0]), **how)  # pyright: ignore[reportArgumentType]
        writer.writeheader()
        writer.writerows(lines)
    return path


def test_a_csv_saved_by_a_spreadsheet_is_read_or_explained(tmp_path, lines, capsys):
    with pytest.raises(UserError, match=r"separated by ';'.*save it with commas"):
        results.load(save(tmp_path / "semicolons.csv", lines, delimiter=";"))
    strange = [{**line, "git": "é"} for line in lines]
    with pytest.raises(UserError, match="not UTF-8 text"):
        results.load(save(tmp_path / "latin.csv", strange, encoding="latin-1"))
    assert len(results.load(save(tmp_path / "bom.csv", lines, encoding="utf-8-sig"))) == len(lines)
    commas = [{**line, "top1": line["top1"].replace(".", ",")} for line in lines]
    with pytest.raises(UserError, match="contains no rows"):
        results.load(save(tmp_path / "commas.csv", commas))
    assert "top1='0," in capsys.readouterr().err
    (tmp_path / "short.csv").write_text("key,state\nabc,done,7,8\n")
    with pytest.raises(UserError, match="line 2 has 4 cells"):
        results.load(tmp_path / "short.csv")
    assert len(results.load(tmp_path)) == len(lines)  # the others are named and skipped


@pytest.mark.parametrize(
    "left_out", [["macs"], ["seconds", "f1", "depths"], [*study.READ, "balanced_accuracy"]]
)
def test_a_table_without_a_column_is_read_without_it(tmp_path, lines, left_out, capsys):
    for line in lines:
        for name in left_out:
            line.pop(name, None)
    path = save(tmp_path / "contraction.csv", lines)
    results.main([str(path)])
    study.main(["contraction", "--source", str(path)])
    assert "top-1" in capsys.readouterr().out
    page(study.read("contraction", source=path))


def test_names_with_blanks_in_a_list(tmp_path):
    root = make_voc(tmp_path / "set")
    names = ["holiday 1", "holiday 2", "holiday  3", "other"]
    for old, new in zip(("000000", "000001", "000002", "000003"), names, strict=True):
        (root / "Annotations" / f"{old}.xml").rename(root / "Annotations" / f"{new}.xml")
        (root / "JPEGImages" / f"{old}.jpg").rename(root / "JPEGImages" / f"{new}.jpg")
    listing = root / "ImageSets" / "Main" / "trainval.txt"
    listing.write_text("".join(f"{name}\n" for name in names))
    assert layout.names(root, "trainval") == names
    listing.write_text("000004  1\n000005 -1\nother\t0\n")  # a single class's list
    assert layout.names(root, "trainval") == ["000004", "000005", "other"]


def test_desktop_files_are_not_counted_as_images(tmp_path, capsys, monkeypatch):
    from conftest import make_folder

    from hbo.sweep import loading

    monkeypatch.setattr(timing, "calibrate", lambda run: 1e-3)
    monkeypatch.setattr(loading, "SECONDS", 0.01)
    root = make_folder(tmp_path / "set", {"a": 4, "b": 4}, {"a": 2, "b": 2})
    (root / "train" / "._a").mkdir()
    for name in ("train/a/._0.png", "val/b/._1.png", "._train", "train/._a/0.png"):
        (root / name).write_bytes(b"\0\5\x16\7")
    file = tmp_path / "s.yaml"
    fields = {
        "data": "imagefolder",
        "data_dir": str(root),
        "batch": 4,
        "out": str(tmp_path / "runs"),
        "workers": 0,
    }
    file.write_text(
        json.dumps(
            {"method": "grid", "parameters": {name: {"value": value} for name, value in fields.items()}}
        )
    )
    with pytest.raises(SystemExit) as stop:
        sweep(["plan", str(file)])
    assert stop.value.code == 0
    assert "not timed" not in capsys.readouterr().out
