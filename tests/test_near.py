"""A changed flag begins a new run: the unfinished one that it leaves is named, with the command that resumes it."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from hbo.config import resolve, to_yaml
from hbo.runs import lock, near, rows


def left(out: Path, state: str = "interrupted", **given) -> Path:
    """The folder of a run as an interruption leaves it."""
    run = resolve(data="digits", out=str(out), **given)
    folder = rows.folder(run)
    folder.mkdir(parents=True)
    fields = asdict(run)
    rows.write(folder, fields | {"state": state, "key": run.key(), "identity": run.identity()})
    (folder / "last.ckpt").write_bytes(b"")
    (folder / "config.yaml").write_text(to_yaml(run))
    return folder


def said(out: Path, **given) -> str | None:
    run = resolve(data="digits", out=str(out), **given)
    return near.unfinished(run, rows.folder(run))


def test_the_unfinished_run_is_named_with_what_differs(tmp_path):
    folder = left(tmp_path, epochs=8)
    line = said(tmp_path, epochs=3) or ""
    assert f"run {folder.name} of this study is unfinished and has epochs=8 (here 3)" in line
    assert line.endswith(f"python -m hbo.fit --config {folder / 'config.yaml'} resumes it")


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
