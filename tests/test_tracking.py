"""`--wandb auto` uses what W&B's client would use: its mode, and its key wherever it is stored."""

import os

import pytest
from conftest import ROOT, call
from services import wandb_command, wandb_server, with_wandb

pytestmark = pytest.mark.slow
MODE = "from hbo.config import resolve; from hbo.runs import tracking; print(tracking.mode(resolve(data='digits')))"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder and a client without a login."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mode() -> str:
    return call("-c", MODE, env=with_wandb(dict(os.environ)))[0].strip()


def test_a_login_at_a_server_of_ones_own_counts(here, monkeypatch):
    """The client's settings file then has the server's address, and netrc the key under its name and port."""
    assert mode() == "offline"
    with wandb_server(here) as env:
        url = env["WANDB_BASE_URL"]
        wandb_command("login", "--host", url, 40 * "a", env=dict(os.environ))
        assert url.split("//")[1] in (here / "netrc").read_text()
        assert mode() == "online"
        # Another server, without a key.
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
        assert mode() == "offline"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"WANDB_API_KEY": 40 * "a"}, "online"),
        ({"WANDB_API_KEY": "short"}, "online"),  # the client then rejects it by name
        ({"WANDB_IDENTITY_TOKEN_FILE": "token"}, "online"),
        ({"WANDB_API_KEY": 40 * "a", "WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_MODE": "run"}, "online"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_the_environment_counts(here, monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert mode() == expected


def test_wandb_settings_of_the_folder_count(here, monkeypatch):
    """`wandb offline` and `wandb disabled` write to the folder's settings."""
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
    for word in ("offline", "disabled"):
        wandb_command(word, env=dict(os.environ))
        assert mode() == word


def test_settings_that_the_client_cannot_read_are_an_error_in_one_line(here):
    env = {"WANDB_BASE_URL": "garbage", "WANDB_MODE": None}
    flags = [
        "--data",
        "digits",
        "--width",
        0.1,
        "--epochs",
        1,
        "--limit_batches",
        1,
        "--threads",
        1,
        "--out",
        here,
    ]
    _, err = call("hbo.fit", *flags, env=env, expect=2)
    assert err.splitlines()[-1].startswith(
        "error: W&B's settings (WANDB_... or a settings file): ValidationError: "
    )
    assert err.endswith("fix them, or use --wandb disabled\n")
    assert "Traceback" not in err
