"""The linter's rules, tested on files that break them."""

import subprocess
import sys

import pytest
from conftest import ROOT

HEADER = "from jaxtyping import Float\nfrom torch import Tensor\n\n\n"
UNDEFINED = {
    "a body": "def f() -> object:\n    return missing\n",
    "a signature": "def f(x: Missing) -> None: ...\n",
    "a signature in quotes": 'def f(x: "Missing") -> None: ...\n',
    "a local annotation, which never runs": "def f() -> None:\n    x: Missing = 1\n    print(x)\n",
}


def _lint(code: str, path: str) -> str:
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--no-cache",
        "--output-format=concise",
        "--stdin-filename",
        path,
        "-",
    ]
    return subprocess.run(command, input=code, cwd=ROOT, capture_output=True, text=True).stdout


@pytest.mark.parametrize("path", ["hbo/broken.py", "hbo/tasks/broken.py", "tests/broken.py"])
@pytest.mark.parametrize("where", UNDEFINED)
def test_an_undefined_name_is_found(where, path):
    found = _lint(UNDEFINED[where], path)
    assert "F821" in found
    assert "issing" in found


def test_jaxtypings_axes_are_not_reported():
    code = (
        HEADER + 'def f(x: Float[Tensor, "b c"], y: Float[Tensor, " b"], z: Float[Tensor, ""]) -> None: ...\n'
    )
    assert "All checks passed" in _lint(code, "hbo/fine.py")
