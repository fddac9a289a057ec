"""Run `python -m MODULE` from a process that has already imported the packages: each command saves some ten
seconds of CPU time.

The standard library's forkserver imports what every command imports (but never `hbo`, so that a command still
runs from its first line). Each command is a fork: a process with its own number, session if asked for,
working directory, environment, output and exit status, which can be signalled and killed. A command that
starts such commands itself, as `hbo.sweep run` does, forks them too.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import short

PACKAGES = [
    "torch",
    "torchvision",
    "pytorch_lightning",
    "torchmetrics",
    "wandb",
    "numpy",
    "pandas",
    "yaml",
    "tqdm",
    "jsonargparse",
    "jaxtyping",
    "einops",
    "sklearn.datasets",
    "torchvision.models",
    "torchvision.transforms.v2",
]


# Where several tests share the cores, two threads of a command would wait for each other (docs/train.md). This
# holds for what has no --threads; conftest imports this file before numpy and torch read the variable.
if os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") != "1":
    os.environ.setdefault("OMP_NUM_THREADS", "1")

CONTEXT: ForkServerContext = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(PACKAGES)


def _run(words: list[str], env: dict[str, str], cwd: str, out: str, err: str, new_session: bool) -> None:
    """Run `python -m MODULE ...` or `python -c CODE ...` in the fork."""
    if new_session:
        os.setsid()
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    subprocess.Popen = Forked
    _as_python(words, env, cwd)


def _as_python(words: list[str], env: dict[str, str], cwd: str) -> None:
    opened = lambda number, mode: open(number, mode, 1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdin, sys.stdout, sys.stderr = opened(0, "r"), opened(1, "w"), opened(2, "w")
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    kind, what, *sys.argv[1:] = words
    sys.argv[0] = what if kind == "-m" else kind
    sys.path[0] = cwd
    short.install()
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


class Forked(subprocess.Popen):
    """`python -m hbo.MODULE ...` as a fork, if that is safe; everything else (a notebook's kernel) as usual."""

    def _execute_child(self, args, *rest):  # of the standard library; `rest` as in Python 3.10 to 3.14
        words = [os.fspath(word) for word in args] if isinstance(args, list) else []
        ours = words[:2] == [sys.executable, "-m"] and words[2:3] != [] and words[2].startswith("hbo.")
        if not ours or not _can_fork():
            return super()._execute_child(args, *rest)
        _, preexec_fn, _, _, cwd, env, _, _, _, *pipes = rest[:15]
        start_new_session = rest[20]
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            for number, pipe in enumerate((pipes[0], pipes[3], pipes[5])):
                if pipe != -1:
                    os.dup2(pipe, number)
            if start_new_session:
                os.setsid()
            _forget()
            if preexec_fn is not None:
                preexec_fn()
            _end_with(lambda: _as_python(words[1:], dict(env or os.environ), cwd or os.getcwd()))
        self._child_created = True
        self._close_pipe_fds(*pipes)
        return None


def _can_fork() -> bool:
    """Whether all threads are Python's own and only wait (a lock's heartbeat, tqdm's monitor). A fork would
    lose the threads of C++ and of W&B.
    """
    threads = [thread.name for thread in threading.enumerate()]
    native = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0
    return native == len(threads) and not any("wandb" in name for name in threads)


def _forget() -> None:
    """Drop what a new program does not inherit: signal handlers, and imported modules of hbo."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in sys.modules if name.partition(".")[0] == "hbo"]:
        del sys.modules[name]


def _end_with(run: Callable[[], None]) -> NoReturn:
    """Run, and end the process with Python's exit status."""
    status = 1
    try:
        run()
        status = 0
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


class Process:
    """A command that runs in a fork, with what the tests use of `subprocess.Popen`.

    Args:
        words: `-m MODULE ARG...` or `-c CODE ARG...`.
        env: its whole environment.
        cwd: its working directory.
        start_new_session: make it the leader of a session, and so of a process group.
    """

    def __init__(
        self, words: list[str], env: dict[str, str], cwd: str, start_new_session: bool = False
    ) -> None:
        self._words, self._said = words, ("", "")
        self._folder = TemporaryDirectory()
        self._files = [Path(self._folder.name, name) for name in ("out", "err")]
        args = (words, env, cwd, *map(str, self._files), start_new_session)
        self._process = CONTEXT.Process(target=_run, args=args)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, -n after signal n; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """As `returncode`."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal the process, if it still runs."""
        if self.returncode is None:
            with suppress(ProcessLookupError):  # the server knows that it has ended, and this process not yet
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """Wait for its end; returns standard output and standard error.

        Raises:
            TimeoutError: it is still running.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutError(f"{' '.join(self._words)}: more than {timeout} s")
        if os.path.exists(self._folder.name):
            out, err = (path.read_text() if path.exists() else "" for path in self._files)
            self._said = out, err
            self._folder.cleanup()
        return self._said


@atexit.register
def _end() -> None:
    """Kill what a failed test has left: multiprocessing would wait for it."""
    for process in multiprocessing.active_children():
        process.kill()
