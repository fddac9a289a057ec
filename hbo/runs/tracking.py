"""Weights & Biases, a mirror of the run's folder and never its only copy.

One W&B run a row: its config is the flat fields, its history the learning curve (metrics.csv), its summary the row.
"""

import contextlib
import csv
import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

from hbo.config import Run, resolve
from hbo.errors import UserError, first_line, flat
from hbo.runs import rows, signals

KILLED = 255  # exit code of a W&B run that was stopped: as the client gives it to a script that it interrupts
PATIENCE = 10  # seconds for the server to say whether a run was stopped


def mode(run: Run) -> str:
    """online, offline or disabled. auto is the client's own mode (WANDB_MODE, `wandb offline`); online only where it has a key."""
    if run.wandb != "auto":
        return run.wandb
    asked = os.environ.get("WANDB_MODE")
    wanted = asked or _settings().mode
    wanted = {"dryrun": "offline", "run": "online"}.get(wanted, wanted)
    return "offline" if wanted == "online" and not asked and not has_key() else wanted


def has_key() -> bool:
    """Whether W&B's client has a key for its server, wherever it looks: environment, settings (`wandb login --host`), netrc."""
    settings = _settings()
    from wandb.sdk.lib import wbauth  # `wandb.login(prompt=False)` would do, but for a client that is offline

    try:
        return bool(settings.api_key or settings.identity_token_file or wbauth.read_netrc_auth(host=settings.base_url))
    except Exception:  # a key of another form: the client says so when it is used
        return True


def _settings() -> Any:
    """What the client would use, from the environment and its files.

    Raises:
        UserError: it cannot read them.
    """
    try:
        return _client().setup().settings
    except Exception as error:
        said = flat(f"{type(error).__name__}: {error}")
        raise UserError(f"W&B's settings (WANDB_... or a settings file): {said}; mend them, or take --wandb disabled") from None


def _client() -> Any:
    """W&B's own code, imported for a second; its lines would break the bar."""
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb


def by_agent() -> bool:
    """Whether an agent of a W&B sweep started this process, and so waits for a W&B run."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


class Mirror:
    """A W&B run that follows a row, from one process.

    Its id is the key, or what a sweep's agent says; its config the flat fields, once. A run that is trained anew under a key that
    W&B has already (`--force`, or a folder that was removed) is KEY-2, KEY-3: a curve belongs to one training. So is one that
    goes on after it was stopped in W&B, which would stop it again. W&B's own process may be gone (a signal to all processes of a
    job ends it): then another takes the same W&B run up. Whatever W&B does, the row is not touched by it.

    Raises:
        UserError: a server was asked for by name and does not answer; with `auto` the run goes on offline and says so.
    """

    def __init__(self, run: Run, folder: Path) -> None:
        self.run, self.folder, self.mode = run, folder, mode(run)
        self.experiment: Any = None
        self.stopped_id = ""  # of a W&B run that somebody stopped
        self.id, self.anew = self._known()
        if self.mode == "disabled":
            return
        try:
            self._init()
        except Exception as error:  # whatever the client raises: the network, the server, the key
            if run.wandb != "auto" or self.mode == "offline":
                raise UserError(
                    f"wandb={self.mode}: {type(error).__name__}: {error}; --wandb offline needs no server"
                ) from None
            self.mode = "offline"
            print(
                f"W&B: {type(error).__name__}, so this run is offline; `wandb sync` sends {folder / 'wandb'} later",
                file=sys.stderr,
            )
            self._init()

    def _init(self) -> None:
        """Open the W&B run; a new training passes by those that have another's curve."""
        self._open()
        while self.anew and not by_agent() and self.experiment.summary.get("step") is not None:
            self.experiment.finish()
            self.id = _following(self.id)
            self._open()
        self.anew = False

    def _known(self) -> tuple[str, bool]:
        """The id under which the folder's training is known, and whether it is a new one."""
        key = self.run.key()
        before = len(list((self.folder.parent / "replaced").glob(f"{key}-*")))
        usual = f"{key}-{before + 1}" if before else key
        if not (self.folder / "last.ckpt").exists():
            return usual, True
        row = rows.sound(self.folder) or {}
        known = row.get("wandb_run") or usual
        return (_following(known), True) if row.get("state") == "stopped" else (known, False)

    def _open(self) -> None:
        wandb = _client()
        run, agent = self.run, by_agent()  # in a sweep the agent's id and project count
        self.experiment = wandb.init(
            name=f"{run.study}-{name(run)}-{self.id}",
            dir=self.folder,
            id=None if agent else self.id,
            project=None if agent else run.project,
            resume="allow",
            group=run.study,
            mode=self.mode,  # pyright: ignore[reportArgumentType]
            config=asdict(run),
            settings=wandb.Settings(stop_fn=partial(setattr, self, "stopped_id", self.id)),  # in place of its Ctrl-C
        )
        self.experiment.define_metric("step")
        self.experiment.define_metric("*", step_metric="step")

    def log(self, curve: list[dict[str, Any]]) -> None:
        """Send the points of the learning curve that W&B does not have yet: all of them to a run that is new there."""
        self._tell(lambda: self._log(curve))

    def _log(self, curve: list[dict[str, Any]]) -> None:
        have = self.experiment.summary.get("step", -1)
        for point in curve:
            if point["step"] > have:
                self.experiment.log({name: value for name, value in point.items() if not _missing(value)})

    def finish(self, row: dict[str, Any], exit_code: int = 0) -> None:
        """The row, but for the fields that stand in the config; then W&B's run is over."""
        asked = {f.name for f in fields(Run)}
        summary = {name: value for name, value in row.items() if name not in asked}
        self._tell(lambda: (self.experiment.summary.update(summary), self.experiment.finish(exit_code=exit_code)))

    @property
    def asked_to_stop(self) -> bool:
        """Whether W&B's client has heard that the run is to stop; in seconds, or half a minute, after somebody said so."""
        return self.stopped_id == self.id

    def was_stopped(self, number: int) -> bool:
        """Whether a run that a signal ended was stopped in W&B: by Stop on its page, `run.stop()`, or hyperband.

        An agent sends SIGTERM to a run that was stopped, and hands on the SIGTERM of a scheduler: only the server knows which
        of the two it was. Where it does not say, the run was preempted, and goes on: nothing is lost by that.

        Args:
            number: of the signal.
        """
        if self.asked_to_stop or number != signal.SIGTERM or not by_agent() or self.mode != "online":
            return self.asked_to_stop
        try:
            from wandb.sdk.launch.api import LaunchApi  # the client's own question, in a release of the client that has it

            one = self.experiment
            return bool(LaunchApi(timeout=PATIENCE).check_stop_requested(one.project, one.entity, one.id))
        except Exception as error:
            print(f"W&B: {type(error).__name__}: {error}; taken for a preemption", file=sys.stderr)
            return False

    def stopped(self, stop: BaseException, curve: list[dict[str, Any]]) -> None:
        """Tell W&B what ended the run; one that a scheduler's signal ended is handed out again by its sweep."""
        number = getattr(stop, "number", 0)

        def tell() -> None:
            self._log(curve)
            if number in signals.PREEMPTION:
                self.experiment.mark_preempting()
            if not number:
                self.experiment.summary["error"] = str(stop)
            self.experiment.finish(exit_code=128 + number if number else 1)

        self._tell(tell)

    def _tell(self, tell: Callable[[], Any]) -> None:
        if self.experiment is None:
            return
        try:
            tell()
        except Exception:
            with contextlib.suppress(Exception, SystemExit):  # it may complain that the process is gone; and forgets it first
                _client().teardown()
            try:
                self._init()
                tell()
            except Exception as error:
                print(f"W&B: {type(error).__name__}: {error}; the row in {self.folder} is whole", file=sys.stderr)
                self.experiment = None


def mirror(run: Run, folder: Path, row: dict[str, Any]) -> None:
    """A finished row as a W&B run, for the agent that asked for it."""
    try:
        with open(folder / "metrics.csv", newline="") as file:
            points = [{name: float(text) for name, text in line.items() if text} for line in csv.DictReader(file)]
        points = [point | {name: int(point[name]) for name in ("epoch", "step")} for point in points]
    except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
        rows.pass_over(f"{folder / 'metrics.csv'}: no learning curve ({first_line(error)}); passed over")
        points = []
    it = Mirror(run, folder)
    it.log(points)
    it.finish(row)


def name(run: Run) -> str:
    """What tells the run from the default of its data set, for people to read: `k2-seed1`."""
    usual = asdict(resolve(data=run.data))
    parts = [f"{f}{v}" for f, v in asdict(run).items() if f not in run.NOT_IN_KEY and v != usual[f]]
    return "-".join(parts).replace("/", "_").replace(":", "_")[:80] or run.data


def _following(name: str) -> str:
    """The next training of a key as a W&B run: KEY, KEY-2, KEY-3."""
    key, _, number = name.partition("-")
    return f"{key}-{int(number or 1) + 1}"


def _missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
