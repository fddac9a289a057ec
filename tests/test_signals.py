"""Signals and launchers: a run in a thread and after an interrupt, Ctrl-C twice, and every way that a
launcher can end.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT, call, only_row, start
from services import send, wait_for
from test_pool import BASE, fits, study, write

from hbo.errors import one_line
from hbo.runs import signals

pytestmark = [pytest.mark.usefixtures("short_networks"), pytest.mark.slow]
SHORT = {
    "data": "digits",
    "width": 0.1,
    "epochs": 1,
    "limit_batches": 6,
    "threads": 1,
    "lr": 0.01,
    "wandb": "disabled",
}


NOTEBOOK = f"""
import os, signal, sys
from hbo.runs.callbacks import Checkpointing
from hbo.config import resolve
from hbo.fit import fit
run = lambda seed: resolve(**{SHORT!r}, seed=seed, out=sys.argv[1])
batch_end = Checkpointing.on_train_batch_end
def interrupted(self, trainer, *rest):
    if trainer.global_step == 3:
        os.kill(os.getpid(), signal.SIGINT)
    batch_end(self, trainer, *rest)
Checkpointing.on_train_batch_end = interrupted
handler = signal.getsignal(signal.SIGINT)
try:
    fit(run(0))
except SystemExit as stop:
    print("stopped with", stop.code)
assert signal.getsignal(signal.SIGINT) is handler
Checkpointing.on_train_batch_end = batch_end
print(fit(run(1))["state"], fit(run(0))["state"])
"""


def test_after_an_interrupt_the_next_run_of_the_process_starts_clean(tmp_path):
    """As in a notebook: the interrupted run, another one, and the first one resumed."""
    out, err = call("-c", NOTEBOOK, tmp_path)
    assert out.split("\n")[:2] == ["stopped with 130", "done done"], err
    rows = study(tmp_path).values()
    assert sorted(len(row["resumed_at"]) for row in rows) == [0, 1]


THREAD = f"""
import sys, threading
from hbo.config import resolve
from hbo.fit import fit
found = []
thread = threading.Thread(target=lambda: found.append(fit(resolve(**{SHORT!r}, out=sys.argv[1]))["state"]))
thread.start()
thread.join()
print(*found)
"""


def test_a_run_in_a_thread_is_a_run(tmp_path):
    """`wandb.agent(function=...)`, Ray and Gradio call it in a thread, where Python allows no signal
    handlers.
    """
    call("hbo.fit", "--config", json.dumps(SHORT), "--out", tmp_path / "main")
    out, err = call("-c", THREAD, tmp_path / "thread")
    assert out.split() == ["done"], err
    (one, _), (two, _) = (only_row(tmp_path / name) for name in ("main", "thread"))
    assert (one["key"], one["loss"], one["correct"]) == (two["key"], two["loss"], two["correct"])


def test_a_second_ctrl_c_ends_a_run_without_a_traceback(tmp_path):
    process = start("hbo.fit", "--config", json.dumps({**BASE, "epochs": 900}), "--out", tmp_path)
    wait_for(lambda: list(tmp_path.glob("*/*/last.ckpt")))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGINT, err
    assert "Traceback" not in err


DURING = f"""
import os, signal, sys
from hbo.runs.callbacks import Checkpointing
from hbo import fit
def twice(self, *rest):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
Checkpointing.on_train_batch_end = twice
fit.signals.listen()
fit.main(["--config", {json.dumps(json.dumps(SHORT))}, "--out", sys.argv[1]])
"""


def test_a_second_ctrl_c_within_a_batch_has_ctrl_cs_exit_status(tmp_path):
    _, err = call("-c", DURING, tmp_path, expect=128 + signal.SIGINT)
    assert "Traceback" not in err
    assert signals.SAVING.decode() in err
    assert err.endswith(
        "interrupted without saving; the same command resumes from the last checkpoint, if there is one\n"
    )


def test_ctrl_c_before_training_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop, one_line():
        raise KeyboardInterrupt
    assert stop.value.code == 128 + signal.SIGINT
    assert capsys.readouterr().err == "interrupted\n"


def test_handlers_are_restored_and_their_state_cleared():
    before = {number: signal.getsignal(number) for number in signals.ALL}
    former = signals.listen_to_all(patient=True)
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGINT)
    assert (signals.noted, signals.presses) == (signal.SIGINT, 3)
    signals.restore(former)
    assert (signals.noted, signals.presses) == (0, 0)
    assert {number: signal.getsignal(number) for number in signals.ALL} == before


def test_a_hangup_ignored_by_nohup_stays_ignored():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals.restore(signals.listen_to_all())
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


# ------------------------------------------------------------ launchers


@pytest.fixture
def launched(tmp_path):
    """`hbo.sweep run` with two endless runs at once, both with a checkpoint."""
    file = write(tmp_path / "two.yaml", **{**BASE, "epochs": 5000}, seed=[0, 1])
    process = start(
        "hbo.sweep", "run", file, "--set", f"out={tmp_path / 'runs'}", "--workers", 2, start_new_session=True
    )
    wait_for(lambda: len(list(tmp_path.glob("runs/*/*/last.ckpt"))) == 2 or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    yield process
    process.kill()
    process.communicate()
    send(signal.SIGKILL, *fits(tmp_path))


def saved(tmp_path: Path) -> None:
    """No run is still training, and each row says that it was interrupted."""
    wait_for(lambda: not fits(tmp_path), 600, lambda: f"they work on: {fits(tmp_path)}")
    assert [row["state"] for row in study(tmp_path / "runs").values()] == ["interrupted"] * 2


@pytest.mark.parametrize("numbers", [
    [signal.SIGINT] * 2, [signal.SIGTERM], [signal.SIGTERM, signal.SIGINT, signal.SIGTERM],
    [signal.SIGHUP],
], ids=lambda numbers: "-".join(n.name for n in numbers))  # fmt: skip
def test_a_terminated_launcher_ends_its_workers_after_a_checkpoint(launched, tmp_path, numbers):
    for number in numbers:
        launched.send_signal(number)
        time.sleep(0.1)  # otherwise the kernel merges the two
    _, err = launched.communicate(timeout=300)
    assert not fits(tmp_path)
    saved(tmp_path)
    assert launched.returncode == 128 + numbers[-1] or launched.returncode == 128 + numbers[0], err
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1] == "stopped; every run is saved, and the same call resumes"


def test_a_killed_launcher_ends_its_workers_after_a_checkpoint(launched, tmp_path):
    launched.kill()
    launched.communicate()
    saved(tmp_path)


def test_a_third_ctrl_c_does_not_wait(launched, tmp_path):
    """Workers that no longer respond: stopped ones."""
    send(signal.SIGSTOP, *fits(tmp_path))
    for _ in range(3):
        launched.send_signal(signal.SIGINT)
        time.sleep(1)
    _, err = launched.communicate(timeout=300)
    assert launched.returncode == 128 + signal.SIGINT
    assert not fits(tmp_path)
    assert err.strip().splitlines()[-1].startswith("stopped; 2 runs were killed")
    assert "Traceback" not in err


BROKEN = """
import sys
from pathlib import Path
from hbo.sweep import board
from hbo.sweep.__main__ import main
update = board.Board.update
def broken(self):
    update(self)
    if len(list(Path(sys.argv[1]).glob("*/*/last.ckpt"))) == 2:
        raise OSError("no space left on device")
board.Board.update = broken
main(["run", sys.argv[2], "--set", f"out={sys.argv[1]}", "--workers", "2"])
"""


def test_a_failing_launcher_ends_its_workers_after_a_checkpoint(tmp_path):
    file = write(tmp_path / "two.yaml", **{**BASE, "epochs": 5000}, seed=[0, 1])
    try:
        _, err = call("-c", BROKEN, tmp_path / "runs", file, expect=2)
        assert not fits(tmp_path)
        saved(tmp_path)
        assert err.strip().splitlines()[-1] == "error: no space left on device"
    finally:
        send(signal.SIGKILL, *fits(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_the_script_of_agents_ends_its_agents(tmp_path, number):
    """sweeps/agents.sh with a stand-in for `wandb agent` that records the signal."""
    agent = tmp_path / "wandb"
    agent.write_text(
        '#!/bin/bash\ntrap "touch $0.$$.told; exit" TERM\ntouch $0.$$.up\nwhile :; do read -t 1 <> <(:); done\n'
    )
    agent.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        [ROOT / "sweeps" / "agents.sh", "entity/project/sweep", "3"], env=env, cwd=ROOT
    )
    try:
        wait_for(lambda: len(list(tmp_path.glob("*.up"))) == 3, 600)
        process.send_signal(number)
        wait_for(lambda: len(list(tmp_path.glob("*.told"))) == 3, 600)
        process.wait(600)
    finally:
        process.kill()
        for path in tmp_path.glob("*.up"):
            if not path.with_suffix(".told").exists():
                os.kill(int(path.suffixes[0][1:]), signal.SIGKILL)


def test_a_thread_handles_no_signals():
    found = []
    thread = threading.Thread(target=lambda: found.append(signals.listen_to_all()))
    thread.start()
    thread.join()
    assert found == [{}]
