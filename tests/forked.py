"""Run `python -m MODULE` from a process that has already imported the packages: each call saves seconds of
CPU time.

The standard library's forkserver imports what every command imports (but never `hbo`, so that a command still
runs from its first line). Each call is a fork with its own working directory, environment, output and exit
status.
"""

import multiprocessing
import os
import runpy
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory

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


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PACKAGES)
    return context


def _run(module: str, args: list[str], env: dict[str, str], cwd: str, out: str, err: str) -> None:
    """Run `python -m module args` in the fork."""
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(n, mode, 1, encoding="utf-8") for n, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = [module, *args]
    sys.path[0] = cwd
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def call(module: str, args: list[str], env: dict[str, str], cwd: str, timeout: float) -> tuple[int, str, str]:
    """Run the module; returns exit status, standard output and standard error. Raises TimeoutError."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _context().Process(target=_run, args=(module, args, env, cwd, str(out), str(err)))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"{module} {' '.join(args)}: more than {timeout} s")
        said = [path.read_text() if path.exists() else "" for path in (out, err)]
        return process.exitcode, said[0], said[1]
