"""Values that no run can have are errors that name the field, the value and the reason."""

import pytest

from hbo.config import Run, resolve
from hbo.errors import UserError
from hbo.runs import trainer


@pytest.mark.parametrize(("given", "word"), [
    ({"batch": 33, "devices": 2}, "batch=33: must be divisible by 2 devices; try 32"),
    ({"resolution": 16}, "at least 32"),
    ({"lr": 0}, "positive"),
    ({"epochs": 0}, "at least 1"),
    ({"warmup": 99}, "shorter"),
    ({"study": "a/b"}, "folder"),
    ({"seed": 5000000000}, r"2\*\*32"),
    ({"eval_resize": 32}, "at least the resolution"),
    ({"batch": 1}, "at least 2 images"),
    ({"study": ".."}, "folder"),
    ({"data": "voc", "crop": "pad"}, "crop=pad: is not used by task=detect"),
    ({"data": "voc", "cache": "ram"}, "cache=ram: is not used by task=detect"),
    ({"data": "digits", "head": "full"}, "head=full: is not used by task=classify"),
    ({"head": "full"}, "head=full: is not used by task=classify; remove it, or add --task detect$"),
    ({"data": "digits", "head": "full"}, "remove it$"),
    ({"task": "reid", "holdout": 0.2}, "remove it$"),
    ({"data": "digits", "freeze_bn": True}, "freeze_bn=True: needs --backbone_checkpoint"),
    ({"data": "voc", "eval_resize": 400}, "eval_resize=400: detection uses the whole image"),
    ({"data": "voc", "freeze_bn": True}, "needs --backbone_checkpoint"),
    ({"data": "voc", "compile": True}, "not supported for detection"),
    ({"data": "voc", "min_scale": 0.95}, "min_scale=0.95"),
    ({"data": "voc", "milestones": "480,360"}, "later than the one before"),
    ({"data": "voc", "milestones": "480,560"}, "within the 560 epochs"),
    ({"data": "voc", "milestones": "early"}, "must be epochs separated by commas"),
    ({"data": "digits", "milestones": "2"}, "is required by schedule=step"),
    ({"data": "digits", "schedule": "step"}, "is required by schedule=step"),
    ({"data": "digits", "warmup_from": 0.001}, "needs --warmup"),
    ({"data": "voc", "warmup_from": 0.001}, "below 0.001"),
    ({"data": "voc", "backbone_checkpoint": "/none.pth"}, "no such file"),
])  # fmt: skip
def test_a_value_out_of_range_or_against_another_is_an_error(given, word):
    with pytest.raises(UserError, match=word):
        resolve(**given).key()


def test_a_busy_machine_is_told_of_one_thread(monkeypatch):
    """On two cores with six busy processes two threads took many times one thread's time."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for load, threads, said in ((6.0, 2, True), (6.0, 1, False), (1.5, 2, False)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0, 0))
        assert bool(trainer.slowed(threads)) is said
    monkeypatch.setattr("os.getloadavg", lambda: (6.0, 0, 0))
    assert trainer.slowed(2).endswith("; Ctrl-C, then the same command with --threads 1, resumes it")
    assert "threads" in Run.NOT_IN_KEY


def test_the_hint_is_printed_without_a_terminal(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(trainer, "slowed", lambda threads: "a busy machine")
    monkeypatch.setattr(trainer.pl, "Trainer", lambda **given: None)
    monkeypatch.setattr(trainer.cluster, "plugins", lambda run: None)
    run = resolve(data="digits", accelerator="cpu")
    for callbacks, said in (([object()], "a busy machine\n"), ([], "")):  # in training, not in evaluation
        trainer.make_trainer(run, tmp_path, callbacks)
        assert capsys.readouterr().err == said
