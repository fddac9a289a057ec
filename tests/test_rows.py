"""hbo.runs.rows: a row's commit is from the code's own repository, or none; its packages' versions; fields of
another run are an error.
"""

import os
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from conftest import ROOT, call

from hbo.errors import UserError
from hbo.runs import rows
from hbo.runs.rows import check_same_fields

NAMED = "from hbo.runs import rows; print(rows.__file__, rows.git_commit())"


def git(folder: Path, *args: str) -> str:
    own = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
    outer = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *own, "-C", str(folder), *args], capture_output=True, text=True, check=True, env=outer
    )
    return done.stdout.strip()


def repository(folder: Path) -> str:
    """Someone else's repository with one file; returns its commit."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "paper.tex").write_text("text")
    git(folder, "init", "-q")
    git(folder, "add", "paper.tex")
    git(folder, "commit", "-qm", "one")
    return git(folder, "rev-parse", "--short=12", "HEAD")


def commit_of(installed: Path, cwd: Path, **env: str) -> str:
    """The commit found by a process that imports hbo from this folder."""
    out, _ = call("-c", f"import sys; sys.path.insert(0, {str(installed)!r}); {NAMED}", env=env, cwd=cwd)
    where, commit = out.split()
    assert Path(where).is_relative_to(installed)
    return commit


@pytest.mark.parametrize("ignored", [True, False])
def test_the_repository_around_an_environment_is_not_the_codes(tmp_path, ignored):
    """Installed into another project's PROJECT/.venv, where it does not belong to the project's files."""
    repository(tmp_path)
    if ignored:
        (tmp_path / ".gitignore").write_text(".venv\n")
    shutil.copytree(ROOT / "hbo", tmp_path / ".venv" / "hbo", ignore=shutil.ignore_patterns("__pycache__"))
    assert commit_of(tmp_path / ".venv", tmp_path) == "None"


def test_a_checkout_has_its_own_commit_whatever_gits_variables_are(tmp_path):
    """A git hook runs with GIT_DIR of the repository that receives the commit."""
    shutil.copytree(ROOT / "hbo", tmp_path / "code" / "hbo", ignore=shutil.ignore_patterns("__pycache__"))
    git(tmp_path / "code", "init", "-q")
    git(tmp_path / "code", "add", "hbo")
    git(tmp_path / "code", "commit", "-qm", "code")
    own = git(tmp_path / "code", "rev-parse", "--short=12", "HEAD")
    other = repository(tmp_path / "other")
    assert own != other
    hook = {"GIT_DIR": str(tmp_path / "other" / ".git"), "PYTHONDONTWRITEBYTECODE": "1"}
    assert commit_of(tmp_path / "code", tmp_path / "other", **hook) == own
    (tmp_path / "code" / "hbo" / "block.py").write_text((ROOT / "hbo" / "block.py").read_text() + "\n")
    assert commit_of(tmp_path / "code", tmp_path, PYTHONDONTWRITEBYTECODE="1") == own + "+"


def test_a_checkpoint_of_another_run_is_an_error_naming_the_fields():
    with pytest.raises(UserError, match=r"k \(1 saved, 2 asked\).*lr \(0.05 saved, 0.1 asked\)"):
        check_same_fields({"k": 1, "seed": 0}, {"k": 2, "seed": 0, "lr": 0.1}, "last.ckpt", "")
    check_same_fields({"k": 1, "seed": 0}, {"k": 1}, "last.ckpt", "")


def test_a_row_is_written_where_wandb_alone_is_not_installed(monkeypatch):
    """LiteRT's environment has no W&B: their pins exclude each other."""

    def found(name: str) -> str:
        if name in missing:
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(rows, "version", found)
    missing = {"wandb"}
    assert rows.versions().keys() == {"python", *rows.PACKAGES} - {"wandb"}
    missing = {"torchmetrics"}
    with pytest.raises(PackageNotFoundError):
        rows.versions()
