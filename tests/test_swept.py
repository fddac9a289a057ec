"""A file given to `wandb sweep` itself: no code of ours has read it, so the run asks what its sweep varies."""

import pytest

from hbo import fit
from hbo.config import resolve
from hbo.errors import UserError
from hbo.flags import parse
from hbo.runs import labels, swept, tracking

RUN = resolve(data="digits")


@pytest.fixture
def sweep(monkeypatch):
    """Set the parameters that the server would answer with."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")

    def set_to(**parameters):
        monkeypatch.setattr(swept, "_parameters", lambda sweep: parameters)

    return set_to


@pytest.mark.parametrize(
    ("name", "parameter", "said"),
    [
        ("threads", {"values": [1, 2]}, "threads: 2 and 1 are the same run, as threads is in no key"),
        ("workers", {"values": [None, "3"]}, "workers: None and 3 are the same run"),
        ("accelerator", {"values": ["auto", "cpu"]}, "accelerator: auto and cpu are the same run"),
        ("out", {"values": ["runs", "x"]}, "out: runs and x are the same run"),
        ("study", {"values": ["default", "x"]}, "study: default and x are the same run"),
        ("cache", {"values": ["none", "ram"]}, "cache: none and ram are the same run"),  # no pixel changes
        ("log_every", {"min": 0, "max": 9}, "log_every: 0 and 9 are the same run"),
        ("variant", {"values": ["k=1 threads=1", "k=1 threads=2"]}, "threads: 2 and 1 are the same run"),
    ],
)
def test_a_row_of_a_sweep_over_what_no_key_holds_is_invalid(sweep, monkeypatch, name, parameter, said):
    """Otherwise W&B would show one run's result and seconds under the other's settings."""
    sweep(**{name: parameter})
    told: list[UserError] = []
    monkeypatch.setattr(tracking, "refuse", told.append)
    with pytest.raises(UserError) as error:
        fit._check_possible(RUN)
    assert str(error.value).startswith(said)
    assert told == [error.value]


def test_other_sweeps_pass(sweep):
    """Two devices make another run; a single value compares nothing; a path may change what is in the key."""
    sweep(
        devices={"values": [1, 2]}, threads={"value": 4}, workers={"values": [RUN.workers]},
        data_dir={"values": ["a", "b"]}, lr={"values": ["1e-2", 0.1]}, seed={"min": 0, "max": 9},
        variant={"values": ["k=1 threads=2", "k=2 threads=1", "x", None]},
    )  # fmt: skip
    swept.check(RUN)
    assert labels.varying() == ["data_dir", "devices", "lr", "seed", "variant"]


def test_without_an_answer_that_is_said(monkeypatch, capsys):
    monkeypatch.setenv("WANDB_SWEEP_ID", "of no server")
    monkeypatch.delenv("WANDB_ENTITY", raising=False)
    swept.check(RUN)
    assert "what sweep of no server varies is unknown, and was not checked" in capsys.readouterr().err


def test_a_number_that_reaches_the_run_as_text_is_the_number():
    """PyYAML 1.1 takes 1e-2 for text, and so does the file of arguments that W&B's agent writes."""
    by_flag, by_file = parse(["--lr", "1e-2"]), parse(["--config", '{"lr": "1e-2"}'])
    assert (by_flag.lr, by_file.lr) == (0.01, 0.01)
    assert {by_flag.key(), by_file.key()} == {resolve(lr=0.01).key()}


def test_the_notes_have_the_question_of_the_sweep(monkeypatch, tmp_path):
    """`wandb sweep` writes no question.json; one that exists is the study's own."""
    run = resolve(data="digits", out=str(tmp_path))
    assert labels.notes(run) is None
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    asked = {"primary": {"versus": ["k=2 against k=1"], "margin": 1.0}, "parameters": {}}
    monkeypatch.setattr(swept, "_config", lambda sweep: asked)
    assert labels.notes(run) == "versus: k=2 against k=1; margin: 1.0"
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "question.json").write_text('{"versus": ["k=3 against k=1"]}')
    assert labels.notes(run) == "versus: k=3 against k=1"
