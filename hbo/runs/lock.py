"""One process per run: a lock in the run's folder, with a heartbeat.

The lock is a file `lock.N`; the process with the highest N holds the run. Its time is renewed every few
seconds. A lock without renewal for a minute is dead, as a process on another host cannot be checked; one on
this host can. To take over, a process creates `lock.N+1`, which the file system grants to only one process,
on NFS too. Times are the file system's, so that clocks of hosts may differ.
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
PROBED = 60.0  # seconds between two readings of a file system's time
BUSY = 75  # exit status if another process trains the run: EX_TEMPFAIL


class Busy(UserError):
    """Another process holds the run."""

    status = BUSY


class Lock:
    """Held from `acquire` to `release`; `lost` is set if another process considered it dead and took over.

    Args:
        folder: the run's.
        progress: what to write into the lock at each beat, for waiting processes.
    """

    def __init__(self, folder: Path, progress: Callable[[], dict[str, Any]] = dict) -> None:
        self.folder, self.progress = folder, progress
        self.path: Path | None = None
        self.lost = False
        self._stop = threading.Event()

    def acquire(self) -> "Lock":
        """Acquire the lock, or take over a dead one.

        Raises:
            Busy: a living process holds it; names the process.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        holder = read(self.folder)
        if holder is not None and holder["alive"]:
            raise Busy(
                f"{self.folder}: process {holder['pid']} on {holder['host']} is training this run;"
                " once it has ended, the same command prints its result"
            )
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
        """Release the lock, and remove dead ones."""
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
            with open(path, "r+") as file:  # never recreated: a missing file means taken over
                file.write(json.dumps({**me(), **self.progress()}).ljust(300))
        except FileNotFoundError:
            self.lost = True
            self._stop.set()
        except OSError:
            pass  # a stalled file system; after a minute another process may take the run


def read(folder: Path) -> dict[str, Any] | None:
    """The holder of a run: host, pid, number, alive, and its progress; None if there is none."""
    found = _all(folder)
    if not found:
        return None
    number, path = found[-1]
    text = b""
    try:
        beaten = path.stat().st_mtime
        with contextlib.suppress(IsADirectoryError):
            text = path.read_bytes()
    except FileNotFoundError:
        return None
    holder = {"host": "?", "pid": 0} | _noted(text) | {"number": number}
    here = me()
    if (holder["host"], holder.get("space")) == (here["host"], here["space"]):
        alive = _began(holder["pid"]) == holder.get("began")
    else:
        alive = _now(folder) - beaten < STALE
    return holder | {"alive": alive}


def _noted(text: bytes) -> dict[str, Any]:
    """The contents of a lock, as far as readable: it may be half written, or not be a lock."""
    try:
        holder = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    kinds = {
        "host": str,
        "pid": int,
        "space": str,
        "began": str,
        "step": int,
        "of": int,
        "seconds": (int, float),
    }
    good = lambda name, value: isinstance(value, kinds.get(name, object)) and not isinstance(value, bool)
    return (
        {name: value for name, value in holder.items() if good(name, value)}
        if isinstance(holder, dict)
        else {}
    )


def me() -> dict[str, Any]:
    """Identifies this process; a process number alone is reused."""
    return {"host": platform.node(), "space": _space(), "pid": os.getpid(), "began": _began(os.getpid())}


def _space() -> str | None:
    """The PID namespace: two containers with the same host name have different ones,
    and cannot check each other.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id") as boot:
            return f"{boot.read().strip()[:8]}-{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _began(pid: int) -> str | None:
    """Start time of a process on this host; None if there is none."""
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
    return "running"  # no /proc on this system


def _all(folder: Path) -> list[tuple[int, Path]]:
    return sorted((_number(path), path) for path in folder.glob("lock.*") if path.suffix[1:].isdecimal())


def _number(path: Path) -> int:
    return int(path.suffix[1:])


_offsets: dict[int, tuple[float, float]] = {}  # a device -> when it was asked, and how far ahead its time was


def _now(folder: Path) -> float:
    """The file system's time: of a file made for it once a minute, and extrapolated from there."""
    device, now = folder.stat().st_dev, time.monotonic()
    if device not in _offsets or now - _offsets[device][0] > PROBED:
        _offsets[device] = now, _probe(folder) - now
    return now + _offsets[device][1]


def _probe(folder: Path) -> float:
    probe = folder / f".now-{platform.node()}-{os.getpid()}-{threading.get_ident()}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:  # a read-only folder
        return time.time()
    finally:
        probe.unlink(missing_ok=True)
