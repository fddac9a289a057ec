"""One process a run: a lock in the run's folder, kept by its heartbeat.

The lock is a file `lock.N`; who holds the highest N holds the run. Its time is renewed every few seconds, and one that
was not for a minute is dead, since another host's process cannot be asked; one of this host is asked. Taking over is
making `lock.N+1`, which the file system grants to one process alone, on NFS too. Times are the file system's own, so that
hosts may disagree about the hour.
"""

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hbo.errors import UserError

BEAT, STALE = 5.0, 60.0  # seconds
BUSY = 75  # exit status of a run that another process trains: EX_TEMPFAIL


class Busy(UserError):
    """Another process has the run."""

    status = BUSY


class Lock:
    """Held from `acquire` to `release`; `lost` is set if it was taken for dead and taken over.

    Args:
        folder: of the run.
        progress: what to write into the lock at each beat, for those who wait.
    """

    def __init__(self, folder: Path, progress: Callable[[], dict[str, Any]] = dict) -> None:
        self.folder, self.progress = folder, progress
        self.path: Path | None = None
        self.lost = False
        self._stop = threading.Event()

    def acquire(self) -> "Lock":
        """Take it, or take it over from the dead.

        Raises:
            Busy: a living process has it; says which.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        holder = read(self.folder)
        if holder is not None and holder["alive"]:
            raise Busy(f"{self.folder}: process {holder['pid']} on {holder['host']} trains this run")
        path = self.folder / f"lock.{holder['number'] + 1 if holder else 0}"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            raise Busy(f"{self.folder}: another process has just taken this run") from None
        self.path = path
        self._beat()
        threading.Thread(target=self._keep_beating, daemon=True).start()
        return self

    def release(self) -> None:
        """Let it go; what was left by the dead goes too."""
        self._stop.set()
        if self.path is not None and not self.lost:
            for number, path in _all(self.folder):
                if number <= _number(self.path):
                    path.unlink(missing_ok=True)
        self.path = None

    def _keep_beating(self) -> None:
        while not self._stop.wait(BEAT):
            self._beat()

    def _beat(self) -> None:
        path = self.path
        if path is None:
            return
        try:
            if any(number > _number(path) for number, _ in _all(self.folder)):
                raise FileNotFoundError
            with open(path, "r+") as file:  # never made anew: gone means taken over
                file.write(json.dumps({**me(), **self.progress()}).ljust(300))
        except FileNotFoundError:
            self.lost = True
            self._stop.set()
        except OSError:
            pass  # a file system out of breath; after a minute of it the run is another's


def read(folder: Path) -> dict[str, Any] | None:
    """Who holds a run: host, pid, number, alive, and the progress that it noted; None where nobody does."""
    found = _all(folder)
    if not found:
        return None
    number, path = found[-1]
    text = b""
    try:
        age = _now(folder) - path.stat().st_mtime
        with contextlib.suppress(IsADirectoryError):
            text = path.read_bytes()
    except FileNotFoundError:
        return None
    holder = {"host": "?", "pid": 0} | _noted(text) | {"number": number, "age": age}
    here = me()
    if (holder["host"], holder.get("space")) == (here["host"], here["space"]):
        alive = _began(holder["pid"]) == holder.get("began")
    else:
        alive = age < STALE
    return holder | {"alive": alive}


def _noted(text: bytes) -> dict[str, Any]:
    """What a lock says, as far as it can be read: it may be read while it is written, or be no lock's."""
    try:
        holder = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    kinds = {"host": str, "pid": int, "space": str, "began": str, "step": int, "of": int, "seconds": (int, float)}
    good = lambda name, value: isinstance(value, kinds.get(name, object)) and not isinstance(value, bool)
    return {name: value for name, value in holder.items() if good(name, value)} if isinstance(holder, dict) else {}


def me() -> dict[str, Any]:
    """What tells this process from any other: a process number alone is used again."""
    return {"host": platform.node(), "space": _space(), "pid": os.getpid(), "began": _began(os.getpid())}


def _space() -> str | None:
    """The process numbers' space: two containers of one name have different ones, and cannot ask each other."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as boot:
            return f"{boot.read().strip()[:8]}-{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _began(pid: int) -> str | None:
    """When a process of this host began; None where there is none."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            state, *rest = stat.read().rsplit(")", 1)[1].split()
        return None if state in "ZX" else rest[18]
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):
        return None
    return "running"  # a system without /proc


def _all(folder: Path) -> list[tuple[int, Path]]:
    return sorted((_number(path), path) for path in folder.glob("lock.*") if path.suffix[1:].isdecimal())


def _number(path: Path) -> int:
    return int(path.suffix[1:])


def _now(folder: Path) -> float:
    """The file system's time."""
    probe = folder / f".now-{platform.node()}-{os.getpid()}-{threading.get_ident()}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:  # a folder that may only be read
        return time.time()
    finally:
        probe.unlink(missing_ok=True)
