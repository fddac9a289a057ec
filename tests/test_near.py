"""A changed flag begins a new run: the unfinished one that it leaves is named, with the command that resumes it."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import make_folder

from hbo import fit
from hbo.config import resolve, to_yaml
from hbo.errors import UserError
from hbo.runs import labels, lock, near, rows


def left(out: Path, state: str = "interrupted", **given) -> Path:
    """The folder of a run as an interruption leaves it."""
    run = resolve(**{"data": "digits", "out": str(out)} | given)
    folder = rows.folder(run)
    folder.mkdir(parents=True)
    fields = asdict(run)
    rows.write(folder, fields | {"state": state, "key": run.key(), "identity": run.identity()})
    (folder / "last.ckpt").write_bytes(b"")
    (folder / "config.yaml").write_text(to_yaml(run))
    return folder


def said(out: Path, **given) -> str | None:
    run = resolve(**{"data": "digits", "out": str(out)} | given)
    return near.unfinished(run, rows.folder(run))


def test_the_unfinished_run_is_named_with_what_differs(tmp_path):
    folder = left(tmp_path, epochs=8)
    line = said(tmp_path, epochs=3) or ""
    assert f"run {folder.name} of this study is unfinished and has epochs=8 (here 3)" in line
    assert line.endswith(f"python -m hbo.fit --config {folder / 'config.yaml'} resumes it")


def test_photographs_that_have_changed_are_named_as_the_reason(tmp_path):
    """Its config names the same folder: with today's photographs it would begin the new run."""
    photos = make_folder(tmp_path / "made", {"x": 5, "y": 5}, {}) / "train"
    shown = {"data": "imagefolder", "data_dir": str(photos), "val_split": 0.2, "batch": 2}
    copy = shutil.copytree(photos, tmp_path / "copy")
    folder = left(tmp_path / "runs", **shown)
    resumes = f"python -m hbo.fit --config {folder / 'config.yaml'} resumes it"
    (photos / "x" / "0.png").rename(photos / "y" / "new.png")
    changed = f"the photographs in {photos} have changed since; restore them, then {resumes}"
    line = said(tmp_path / "runs", **shown) or ""
    assert line.endswith(f"; run {folder.name} of this study is unfinished, but {changed}")
    line = said(tmp_path / "runs", **{**shown, "seed": 1, "lr": 0.5}) or ""
    assert "is unfinished and has lr=" in line
    assert line.endswith(f"(here 0.5), but {changed}")
    (copy / "x" / "0.png").unlink()  # another folder: the config resumes it
    line = said(tmp_path / "runs", **shown | {"data_dir": str(copy)}) or ""
    assert "has images=" in line
    assert line.endswith(f": {resumes}")


@pytest.mark.parametrize("study", [False, True])
def test_it_is_printed_without_a_terminal_except_in_a_study(study, tmp_path, monkeypatch, capsys):
    folder = left(tmp_path, epochs=8)
    monkeypatch.setattr(fit, "fit", lambda run: (_ for _ in ()).throw(UserError("stop here")))
    if study:
        monkeypatch.setenv(labels.VARIES, "epochs")
    with pytest.raises(SystemExit):
        fit.main(["--data", "digits", "--epochs", "3", "--out", str(tmp_path)])
    assert (f"run {folder.name} of this study is unfinished" in capsys.readouterr().err) != study


@pytest.mark.parametrize(("state", "theirs", "ours"), [
    ("done", {"epochs": 8}, {}),  # finished
    ("interrupted", {"seed": 1}, {}),  # another seed is meant
    ("interrupted", {"epochs": 8, "lr": 0.01, "k": 2}, {}),  # another run
    ("interrupted", {}, {}),  # the same: it resumes
    ("interrupted", {"epochs": 8, "study": "b"}, {}),
])  # fmt: skip
def test_others_are_not(tmp_path, state, theirs, ours):
    left(tmp_path, state, **theirs)
    assert said(tmp_path, **ours) is None


@pytest.mark.parametrize("alive", [True, False])
def test_one_that_is_being_trained_is_not_and_one_that_was_killed_is(tmp_path, alive):
    """SIGKILL leaves the state and the lock of a training."""
    folder = left(tmp_path, "unfinished", epochs=8)
    (folder / "lock.0").write_text(json.dumps(lock.me() | ({} if alive else {"began": "another"})))
    assert (said(tmp_path) is None) == alive


def test_a_file_that_is_no_row_is_passed_over(tmp_path):
    folder = left(tmp_path, epochs=8)
    (folder / "row.json").write_text(json.dumps({"state": "odd"}))
    assert said(tmp_path) is None
