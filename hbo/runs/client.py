"""W&B's client, as its user has set it up: online or not, its key, its settings; and whether an agent
started this process.
"""

import os
from typing import Any

from hbo.config import Run
from hbo.errors import UserError, flat


def mode(run: Run) -> str:
    """online, offline or disabled."""
    return usual_mode() if run.wandb == "auto" else run.wandb


def usual_mode() -> str:
    """What `auto` means: the client's own mode (WANDB_MODE, `wandb offline`); online only if it has a key."""
    asked = os.environ.get("WANDB_MODE")
    wanted = asked or settings().mode
    wanted = {"dryrun": "offline", "run": "online"}.get(wanted, wanted)
    return "offline" if wanted == "online" and not asked and not has_key() else wanted


def has_key() -> bool:
    """Whether W&B's client has a key for its server, wherever it looks: environment, settings (`wandb login
    --host`), netrc.
    """
    known = settings()
    from wandb.sdk.lib import wbauth  # `wandb.login(prompt=False)` would do, except for an offline client

    try:
        return bool(known.api_key or known.identity_token_file or wbauth.read_netrc_auth(host=known.base_url))
    except Exception:  # a key of another form: the client says so when it is used
        return True


def settings() -> Any:
    """What the client would use, from the environment and its files.

    Raises:
        UserError: it cannot read them.
    """
    try:
        return client().setup().settings
    except Exception as error:
        said = flat(f"{type(error).__name__}: {error}")
        raise UserError(
            f"W&B's settings (WANDB_... or a settings file): {said}; fix them, or use --wandb disabled"
        ) from None


def client() -> Any:
    """W&B's own code, imported for a second; its lines would break the bar."""
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb


def by_agent() -> bool:
    """Whether an agent of a W&B sweep started this process, and so waits for a W&B run."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))
