"""Which code a process runs: the commit, and a hash of the package's own files."""

import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
START = "start.py"  # beside such a copy: starts a module of it, whatever the working directory
NOTE = "snapshot.json"  # beside a study's copy of the package: the commit that was copied


def files_of(package: Path) -> list[Path]:
    """Every file of a package except caches and hidden ones, by name."""
    found = []
    for folder, inner, names in os.walk(package):
        inner[:] = [name for name in inner if name != "__pycache__" and not name.startswith(".")]
        found += [
            Path(folder, name) for name in names if not name.startswith(".") and not name.endswith(".pyc")
        ]
    return sorted(found)


@cache
def digest() -> str:
    """Ten digits of a hash of the package's files, names and bytes, taken at the first call."""
    known = hashlib.sha256()
    for path in files_of(PACKAGE):
        content = path.read_bytes()
        known.update(f"{path.relative_to(PACKAGE).as_posix()} {len(content)}\n".encode() + content)
    return known.hexdigest()[:10]


def command(module: str) -> list[str]:
    """How this code starts one of its modules: by the copy's own start.py if it is a study's copy."""
    start = PACKAGE.parent / START
    copied = start.exists() and (PACKAGE.parent / NOTE).exists()
    return [sys.executable, str(start), module] if copied else [sys.executable, "-m", module]


def fit(fields: dict[str, Any]) -> list[str]:
    """How a run of a study is started, here and on SLURM."""
    return [*command("hbo.fit"), "--config", json.dumps(fields)]


def git_commit() -> str | None:
    """The commit of this code, with a plus if it has been changed since; for a study's copy, that of the code
    that was copied.

    None outside a checkout, and if the repository around it does not have this file, such as another
    project's with hbo in its environment.
    """
    try:
        return json.loads((PACKAGE.parent / NOTE).read_text())["git"]
    except (OSError, ValueError, LookupError, TypeError):  # no copy
        pass
    # A git hook's variables name its own repository.
    outer = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    run = lambda *args: subprocess.run(
        ["git", "-C", str(PACKAGE), *args], capture_output=True, text=True, check=True, env=outer
    ).stdout.strip()
    try:
        run("ls-files", "--error-unmatch", "--", Path(__file__).relative_to(PACKAGE))
        return run("rev-parse", "--short=12", "HEAD") + "+" * bool(run("status", "--porcelain", "--", "."))
    except (OSError, subprocess.CalledProcessError):
        return None
