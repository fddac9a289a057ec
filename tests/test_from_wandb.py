"""Rows and curves from W&B: a server error is an error, not a truncated row."""

import io
import json
from typing import Any

import pytest
import wandb

from hbo.analysis import from_wandb
from hbo.errors import UserError

ROW = {"key": "abc", "state": "done", "k": 2, "depths": [1, 2]}


class Api:
    """Stands in for the client's Api, with one run; its files raise `failing`, as in the client."""

    def __init__(self, has: str | None, failing: Exception | None = None, **run: Any) -> None:
        self.settings = {"base_url": "http://here"}
        self.has, self.failing = has, failing
        self.id, self.state, self.heartbeatAt = "abc", "finished", "now"
        self.summary = {"key": "abc", "state": "done", "depths": "cut short"}
        self.config: dict[str, Any] = {"k": 2}
        self.points: list[dict[str, Any]] = []
        vars(self).update(run)

    def runs(self, *_: Any, **__: Any) -> list["Api"]:
        return [self]

    def files(self, names: list[str]) -> list["Api"]:
        if self.failing:
            raise self.failing
        return [self] * (self.has is not None)

    def file(self, name: str) -> "Api":
        return self.files([name])[0]

    def download(self, **_: Any) -> io.StringIO:
        return io.StringIO(self.has)

    def scan_history(self) -> list[dict[str, Any]]:
        return self.points


@pytest.fixture
def read(monkeypatch, tmp_path):
    """Read one project from the client's answers; the cache is in `tmp_path`."""
    monkeypatch.setattr(from_wandb, "has_key", lambda: True)  # the client reads its settings once per process
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def reader(api: Api) -> from_wandb.Found:
        monkeypatch.setattr(wandb, "Api", lambda: api)
        (found,) = from_wandb.read("local/hbo")
        return found

    return reader


@pytest.mark.parametrize(
    ("has", "failing", "said"),
    [
        (None, ConnectionError("no answer"), "wandb:local/hbo/abc: ConnectionError: no answer"),
        (None, wandb.errors.CommError("HTTP 403"), "wandb:local/hbo/abc: CommError: HTTP 403"),
        ('{"key": "a', None, "wandb:local/hbo/abc: JSONDecodeError: "),
    ],
)
def test_an_error_is_no_row_that_is_cut_short(read, tmp_path, has, failing, said):
    """One line for the user, and nothing in the cache: the next reading has the row."""
    with pytest.raises(UserError) as error:
        read(Api(has, failing))
    assert str(error.value).startswith(said)
    assert list(tmp_path.rglob("*.json")) == []
    assert read(Api(json.dumps(ROW))).row == ROW
    assert read(Api(None, ConnectionError())).row == ROW  # from the cache


def test_a_run_without_the_file_has_the_summarys_row(read):
    assert read(Api(None)).row == {"k": 2, "key": "abc", "state": "done", "depths": "cut short"}


def test_the_curve_is_the_last_attempts(read):
    first, second = ({"epoch": 0, "step": 3, "val/top1": top1, "_step": 7} for top1 in (0.5, 0.25))
    update = {"step": 3, "update/loss": 1.0}
    old = read(Api(None, id="old", points=[first, update]))
    assert old.curve == [{"epoch": 0, "step": 3, "val/top1": 0.5}]
    summary = {"key": "abc", "state": "done", "attempt": 2, "epoch": 0, "step": 3}
    found = read(Api(None, summary=summary, points=[first, update | {"attempt": 2}, second | {"attempt": 2}]))
    assert found.curve == [{"epoch": 0, "step": 3, "val/top1": 0.25}]
    assert found.row == {"k": 2, "key": "abc", "state": "done"}
