"""Services that the tests start locally: a W&B server, W&B's real sweep agents, and SLURM."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, call

from hbo.runs import lock

# As in sweeps/*.yaml.
COMMAND = [
    "${env}",
    "${interpreter}",
    "-m",
    "hbo.fit",
    "--config",
    "${args_json_file}",
]
AGENT = ["wandb", "agent", "--forward-signals", "--term-timeout", "240"]
needs_slurm = pytest.mark.skipif(
    not shutil.which("sbatch") or os.getuid() != 0, reason="needs SLURM's daemons (slurm-wlm, munge) and root"
)
Environment = dict[str, str]


def wait_for(test: Callable[[], Any], seconds: float = 600, what: Callable[[], object] = lambda: "") -> Any:
    """Wait until `test` is true and return its value; on a timeout, fail and show `what`."""
    end = time.monotonic() + seconds
    while not (found := test()):
        assert time.monotonic() < end, f"not within {seconds} s: {what()}"
        time.sleep(0.05)
    return found


def rows(out: Path) -> dict[str, dict[str, Any]]:
    """Key -> row, over all studies in a folder; each key may occur only once."""
    found = [json.loads(path.read_text()) for path in out.glob("*/*/row.json")]
    assert len({row["key"] for row in found}) == len(found), "a key twice"
    return {row["key"]: row for row in found}


# --------------------------------------------------------------------------------- W&B


@contextmanager
def wandb_server(folder: Path) -> Iterator[Environment]:
    """W&B's server on a free local port; yields the environment of its clients, which leave the home folder
    alone.
    """
    command = [sys.executable, str(Path(__file__).parent / "wandb_server" / "server.py"), "--port", "0"]
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(
            [*command, "--dir", str(folder / "server")], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert url.startswith("http"), (folder / "server.log").read_text()
        own = {
            name: str(folder / name.lower())
            for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "NETRC")
        }
        (folder / "agents").mkdir()
        yield {
            **{name: value for name, value in os.environ.items() if not name.startswith("WANDB_")},
            **own,
            "WANDB_BASE_URL": url,
            "WANDB_API_KEY": 40 * "a",
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_DIR": str(folder / "agents"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # for `python` and `wandb`
        }
    finally:
        server.terminate()
        server.communicate()


def new_sweep(folder: Path, env: Environment, primary: Any = None, **parameters: Any) -> str:
    """Create a grid sweep with `wandb sweep`; each list is swept over. Returns ENTITY/PROJECT/ID. `primary`:
    the file's question.
    """
    parameters = {name: {"values" if isinstance(v, list) else "value": v} for name, v in parameters.items()}
    path = folder / f"{time.monotonic_ns()}.yaml"
    top = {"method": "grid", "command": COMMAND} | ({"primary": primary} if primary else {})
    path.write_text(yaml.safe_dump(top | {"parameters": parameters}, sort_keys=False))
    _, said = wandb_command("sweep", "--project", "hbo", path, env=env)
    return said.rsplit("wandb agent ", 1)[1].split()[0]


def wandb_command(*words: object, env: Environment) -> tuple[str, str]:
    """`wandb WORD...` with W&B's own command line; its output and errors."""
    code = "import sys; from wandb.cli.cli import cli; cli.main(sys.argv[1:])"
    return call("-c", code, *words, env=with_wandb(env))


def with_wandb(env: Environment) -> dict[str, str | None]:
    """The environment for a command that talks to W&B, without this process's own W&B settings (the tests disable
    W&B, and `hbo` makes its client silent).
    """
    own = [name for name in os.environ if name.startswith("WANDB_")]
    return {**dict.fromkeys(["WANDB_MODE", *own]), **env}


def found_in_wandb(env: Environment, cache: Path) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each run's row and curve as `hbo` reads them from the server, in a process of its own: W&B's settings do not
    leak into this one.
    """
    code = (
        "import json; from hbo.analysis import from_wandb; "
        "print(json.dumps([(found.row, found.curve) for found in from_wandb.read('local/hbo')]))"
    )
    out, _ = call("-c", code, env=with_wandb(env) | {"XDG_CACHE_HOME": str(cache)})
    return [(row, curve) for row, curve in json.loads(out)]


@contextmanager
def started(command: list[str], env: Environment, log: Path) -> Iterator[subprocess.Popen]:
    """A process in the repository's root that logs to a file; it and its runs are stopped at the end of the
    block.
    """
    with open(log, "w") as file:
        process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        # A second SIGTERM makes an agent hurry its runs.
        for number in (
            signal.SIGTERM,
            signal.SIGTERM,
            signal.SIGKILL,
        ):
            if process.poll() is None:
                process.send_signal(number)
                with_patience(process, 60)


def with_patience(process: subprocess.Popen, seconds: float) -> int | None:
    """The exit status; None if the process is still running after `seconds`."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def family(pid: int) -> list[int]:
    """A process and all its descendants, as SLURM finds the processes of a job."""
    children = [
        child for path in Path("/proc").glob(f"{pid}/task/*/children") for child in path.read_text().split()
    ]
    return [pid, *(each for child in children for each in family(int(child)))]


def send(number: int, *processes: int) -> int:
    """Signal these processes; returns how many were left (one may have ended since it was found)."""
    left = 0
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)
            left += 1
    return left


def suspend(out: Path, many: int) -> dict[Path, int]:
    """Suspend this many runs at their first checkpoints, so that none finishes before it is signalled; returns
    folder -> process.
    """
    found: dict[Path, int] = {}

    def enough() -> bool:
        for folder in {path.parent for path in out.glob("*/*/last.ckpt")} - found.keys():
            holder = lock.read(folder)
            assert holder is not None, f"{folder}: the run was over before it could be suspended"
            if not holder["pid"]:  # half written; the signal would go to all of pytest's processes
                continue
            found[folder] = holder["pid"]
            os.kill(found[folder], signal.SIGSTOP)
        return len(found) == many

    wait_for(enough)
    return found


def signalled(process: int) -> bool:
    """Whether a signal waits for a suspended process, or something else has resumed or ended it."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return True
    waiting = re.findall(r"(?:Sig|Shd)Pnd:\s*(\w+)", status)
    return "State:\tT" not in status or any(int(mask, 16) for mask in waiting)


def resume(process: int) -> None:
    """Resume a suspended process as soon as a signal waits for it."""
    wait_for(lambda: signalled(process), 600)
    send(signal.SIGCONT, process)


# --------------------------------------------------------------------------------- SLURM


@contextmanager
def slurm(folder: Path, cpus: int = 4, nodes: int = 1) -> Iterator[Environment]:
    """SLURM's daemons on this machine, which may act as several nodes; jobs in partition `high` preempt those
    in `low`. Yields the clients' environment.

    It uses free ports and keeps all files in the folder, so it does not meet other daemons.
    """
    tools = Path(__file__).parent / "slurm"
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_CONF": str(folder / "slurm.conf")}
    started = subprocess.run(
        [tools / "start.sh", folder],
        env=env
        | {"SLURM_CPUS": str(cpus), "SLURM_NODES": str(nodes), "SLURM_PORT": str(_free_ports(nodes + 1))},
        capture_output=True,
        text=True,
    )
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield env
    finally:
        subprocess.run([tools / "stop.sh", folder], check=True)


def _free_ports(many: int) -> int:
    """The first of `many` consecutive free ports."""
    while True:
        with ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("", 0))
            port = first.getsockname()[1]
            try:
                for n in range(1, many):
                    stack.enter_context(socket.socket()).bind(("", port + n))
            except (OSError, OverflowError):
                continue
            return port
