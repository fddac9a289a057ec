"""One process per run: when many ask at once, after a crash, and when the holder cannot be checked."""

import json
import os
import subprocess
import sys
import time

import pytest
from services import wait_for

from hbo.runs import lock
from hbo.runs.lock import Busy, Lock

ASK = """
import sys, time
from pathlib import Path
from hbo.runs.lock import Busy, Lock
folder, until = Path(sys.argv[1]), float(sys.argv[2])
time.sleep(max(0, until - time.time()))
try:
    Lock(folder).acquire()
    print("mine", flush=True)
    sys.stdin.read()  # held until the others have asked, however long they took to start
except Busy:
    print("busy", flush=True)
"""


def ask(folder, at: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", ASK, str(folder), str(at)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def elsewhere(folder, age: float, number: int = 0):
    """A lock held by a process on another host, with its last heartbeat `age` seconds ago."""
    path = folder / f"lock.{number}"
    path.write_text(json.dumps({"host": "other", "space": "x", "pid": 1, "began": "1", "step": 3, "of": 9}))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


@pytest.mark.parametrize("dead", [False, True])
def test_one_of_many_simultaneous_processes_gets_the_lock(tmp_path, dead):
    if dead:
        elsewhere(tmp_path, age=100)
    at = time.time() + 2.5
    processes = [ask(tmp_path, at) for _ in range(6)]
    said = [process.stdout.readline().strip() for process in processes]  # pyright: ignore
    for process in processes:
        process.communicate()
    assert sorted(said) == ["busy"] * 5 + ["mine"]


def test_a_held_lock_is_busy_and_free_afterwards(tmp_path):
    held = Lock(tmp_path, lambda: {"step": 5, "of": 10}).acquire()
    with pytest.raises(Busy, match=str(os.getpid())):
        Lock(tmp_path).acquire()
    found = lock.read(tmp_path)
    assert found is not None
    assert (found["alive"], found["step"], found["of"]) == (True, 5, 10)
    held.release()
    assert lock.read(tmp_path) is None
    Lock(tmp_path).acquire().release()
    assert not list(tmp_path.iterdir())


def test_a_dead_process_on_this_host_is_noticed_at_once(tmp_path):
    process = ask(tmp_path, 0)
    assert process.stdout is not None
    assert process.stdout.readline() == "mine\n"
    with pytest.raises(Busy):
        Lock(tmp_path).acquire()
    process.kill()
    process.communicate()
    Lock(tmp_path).acquire().release()


def test_another_host_counts_as_dead_after_a_minute(tmp_path):
    path = elsewhere(tmp_path, age=lock.STALE - 5)
    with pytest.raises(Busy, match="other"):
        Lock(tmp_path).acquire()
    path.unlink()
    elsewhere(tmp_path, age=lock.STALE + 5)
    mine = Lock(tmp_path).acquire()
    assert [p.name for p in sorted(tmp_path.glob("lock.*"))] == ["lock.0", "lock.1"]
    mine.release()
    assert not list(tmp_path.glob("lock.*"))


def test_a_process_that_lost_its_lock_notices_and_leaves_it(tmp_path):
    sleeper = Lock(tmp_path).acquire()
    other = elsewhere(tmp_path, age=0, number=1)
    sleeper._beat()
    assert sleeper.lost
    sleeper.release()
    assert other.exists()


def test_a_heartbeat_renews_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.1)
    steps = iter(range(1000))
    held = Lock(tmp_path, lambda: {"step": next(steps)}).acquire()
    before = held.path.stat().st_mtime_ns  # pyright: ignore
    wait_for(lambda: (lock.read(tmp_path) or {}).get("step", 0) >= 2, 300)
    assert held.path.stat().st_mtime_ns > before  # pyright: ignore
    held.release()
