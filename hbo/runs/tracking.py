"""Weights & Biases, a mirror of the run's folder and never its only copy.

One W&B run a row: its config is the flat fields, its history the learning curve
(metrics.csv), its summary the row.
"""

import csv
import math
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

from hbo.config import Run
from hbo.errors import DataError, UserError, first_line, flat
from hbo.runs import cluster, labels, rows, signals
from hbo.runs.client import by_agent, client, mode, settings, usual_mode

KILLED = 255  # exit code of a W&B run that was stopped: as the client gives it to a script that it interrupts
KEPT = ("row.json", "metrics.csv")  # files of a run that W&B keeps
FINISH = 120.0  # seconds for the server to take what is left at a run's end
GRACE = 10.0  # of those, in which a signal does not end the wait: schedulers send two
NOT_ONLINE = (
    "wandb={}: an agent of a W&B sweep started this run, and waits for it there; use --wandb online, or"
    " hbo.sweep run, which needs no server"
)
PATIENCE = 10  # seconds for the server to say whether a run was stopped


_said: set[str] = set()  # addresses of runs that were printed


def refuse(error: UserError) -> None:
    """End an invalid row of a W&B sweep: W&B is told that it is finished and invalid, and why, and the agent
    takes the next row. Outside a sweep this does nothing.

    A missing folder or server is not the row's fault, and stays an error.

    Args:
        error: why the row is invalid.

    Raises:
        SystemExit: 0, once W&B knows.
        UserError: W&B cannot know: it is offline, or does not answer.
    """
    if not by_agent() or error.status != 2 or isinstance(error, DataError):
        return
    if cluster.rank() == 0:
        if (usual := usual_mode()) != "online":
            raise UserError(f"{error}; {NOT_ONLINE.format(usual)}") from None
        try:
            experiment = client().init(settings=_limited(), job_type="invalid", notes=str(error))
            experiment.summary.update({"state": "invalid", "error": str(error)})
            _end(experiment, 0)
        except Exception as lost:  # whatever the client raises
            said = flat(f"{type(lost).__name__}: {lost}")
            raise UserError(f"{error}; W&B does not know of it ({said}); start the agent again") from None
    print(f"invalid: {flat(str(error))}; W&B has the reason, and the sweep goes on", file=sys.stderr)
    raise SystemExit(0)


def _limited(**more: Any) -> Any:
    """The client's settings, with a limit on its wait for the server if the user has set none."""
    limit = settings().finish_timeout or FINISH
    return client().Settings(finish_timeout=limit, finish_timeout_raises=True, **more)


def _end(experiment: Any, exit_code: int) -> None:
    """Finish a W&B run; a signal during a long wait ends it.

    Raises:
        TimeoutError: not all was sent.
    """
    with signals.hurried(GRACE):
        experiment.finish(exit_code=exit_code)


class Mirror:
    """A W&B run that follows a row, from one process.

    Its id is the key, or the one that a sweep's agent chose; its config the flat fields, once. A run that is
    trained again under a key that W&B already has (`--force`, or a removed folder) is KEY-2, KEY-3: a curve
    belongs to one training. So is a run that resumes after it was stopped in W&B, which would stop it again.
    Under an agent the id stays, and the new training is the run's second attempt: its points have `attempt`,
    over W&B's own step, which continues where `epoch` and `step` start again. If W&B's own process is gone (a
    signal to all processes of a job ends it), another one continues the same W&B run. Nothing that W&B does
    changes the row.

    Raises:
        UserError: a server was asked for by name and does not answer; with `auto` the run goes on offline and
            says so.
    """

    def __init__(self, run: Run, folder: Path, curve: list[dict[str, Any]] | None = None) -> None:
        self.run, self.folder, self.mode = run, folder, mode(run)
        self.experiment: Any = None
        self.stopped_id = ""  # of a W&B run that somebody stopped
        self.attempt = 1  # of the trainings whose curves the W&B run has, this one's number
        self.over = curve  # of a training that is over
        self.best = f"val/{rows.main_metric(vars(run))}"  # W&B has its best beside its last
        self.id, self.anew = self._known()
        if by_agent() and self.mode != "online":
            raise UserError(NOT_ONLINE.format(self.mode))
        if self.mode == "disabled":
            return
        try:
            self._init()
        except Exception as error:  # whatever the client raises: the network, the server, the key
            if run.wandb != "auto" or self.mode == "offline" or by_agent():
                instead = (
                    "start the agent again when it answers"
                    if by_agent()
                    else "--wandb offline needs no server"
                )
                said = str(error).strip().rstrip(".")
                raise UserError(f"wandb={self.mode}: {type(error).__name__}: {said}; {instead}") from None
            self.mode = "offline"
            print(
                f"W&B: {type(error).__name__}, so this run is offline; `wandb sync` sends {folder / 'wandb'}"
                " later",
                file=sys.stderr,
            )
            self._init()

    def _init(self) -> None:
        """Open the W&B run; a new training skips those that have another's curve or, if an agent chose the
        run, is its next attempt.
        """
        self._open()
        while self.anew and not by_agent() and self.experiment.summary.get("step") is not None:
            self.experiment.finish()
            self.id = _following(self.id)
            self._open()
        summary = self.experiment.summary
        there = summary.get("attempt", 1)
        self.attempt = max(self.attempt, there + 1 if self._is_anothers(summary) else there)
        if self.attempt > there:
            summary["attempt"] = self.attempt
            if summary.get("epoch") is not None:  # the last one of the other's curve
                del summary["epoch"]
        self.anew, self.over = False, None
        axis = {"step_metric": "step"} if self.attempt == 1 else {}
        self.experiment.define_metric("step")
        self.experiment.define_metric("*", **axis)
        self.experiment.define_metric(self.best, summary="last,max", **axis)

    def _is_anothers(self, summary: Any) -> bool:
        """Whether the curve that the W&B run has is another training's."""
        if summary.get("step") is None:
            return False
        if self.anew or summary.get("state") is not None:  # a row's `seconds` are no point's
            return self.anew
        same_epoch = [point for point in self.over or () if point["epoch"] == summary.get("epoch")]
        return any(point.get("seconds") != summary.get("seconds") for point in same_epoch)

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
        wandb = client()
        run, agent = self.run, by_agent()  # in a sweep the agent's id and project count
        self.experiment = wandb.init(
            name=f"{run.study}-{labels.label(run, labels.varying())}-{self.id}",
            dir=self.folder,
            id=None if agent else self.id,
            project=None if agent else run.project,
            resume="allow",
            group=run.study,
            job_type="train",
            tags=labels.tags(run),
            notes=labels.notes(run),
            mode=self.mode,  # pyright: ignore[reportArgumentType]
            config=asdict(run),
            # In place of its Ctrl-C.
            settings=_limited(stop_fn=partial(setattr, self, "stopped_id", self.id)),
        )
        if (url := self.experiment.url) and url not in _said:
            _said.add(url)
            print(f"W&B: {url}", file=sys.stderr)

    def log(self, curve: list[dict[str, Any]]) -> None:
        """Send the points of the learning curve that W&B does not have yet: all of them
        to a run that is new there.
        """
        self._tell(lambda: self._log(curve))

    def _log(self, curve: list[dict[str, Any]]) -> None:
        have = self.experiment.summary.get("epoch", -1)
        new = [point for point in curve if point["epoch"] > have]
        for point in new:
            self._send({name: value for name, value in point.items() if not _missing(value)})
        known = [point[self.best] for point in curve if not _missing(point.get(self.best, math.nan))]
        if new and known:  # the client's own maximum starts again in a resumed run
            self.experiment.summary[self.best] = {"last": known[-1], "max": max(known)}

    def _send(self, numbers: dict[str, Any]) -> None:
        self.experiment.log(numbers | ({"attempt": self.attempt} if self.attempt > 1 else {}))

    def point(self, step: int, **numbers: float | None) -> None:
        """Send numbers of an update, under `update/`; they are not part of the learning curve."""
        found = {f"update/{name}": value for name, value in numbers.items() if value is not None}
        self._tell(lambda: self._send({"step": step, **found}))

    def picture(self, name: str, path: Path, step: int) -> None:
        """Send a picture, under `pictures/`."""
        shown = lambda: {"step": step, f"pictures/{name}": client().Image(str(path))}
        self._tell(lambda: self._send(shown()))

    def _files(self) -> None:
        """Upload the row and the curve as files, for the run's page and `results wandb:`."""
        for name in KEPT:
            if (self.folder / name).exists():
                self.experiment.save(str(self.folder / name), base_path=str(self.folder), policy="end")

    def finish(self, row: dict[str, Any], exit_code: int = 0) -> None:
        """Send the row, except for the fields in the config, and finish the W&B run."""
        asked = {f.name for f in fields(Run)}
        summary = {name: value for name, value in row.items() if name not in asked}
        self._tell(
            lambda: (
                self.experiment.summary.update(summary),
                self._files(),
                _end(self.experiment, exit_code),
            )
        )

    @property
    def asked_to_stop(self) -> bool:
        """Whether W&B's client has heard that the run should stop; seconds to half a minute after the
        request.
        """
        return self.stopped_id == self.id

    def was_stopped(self, number: int) -> bool:
        """Whether a run that a signal ended was stopped in W&B: by Stop on its page,
        `run.stop()`, or hyperband.

        An agent sends SIGTERM to a run that was stopped, and passes on a scheduler's SIGTERM: only the server
        knows which of the two it was. If it does not say, the run counts as preempted, and resumes: nothing
        is lost.

        Args:
            number: of the signal.
        """
        if self.asked_to_stop or number != signal.SIGTERM or not by_agent() or self.mode != "online":
            return self.asked_to_stop
        try:
            # The client's own question, in a release of the client that has it.
            from wandb.sdk.launch.api import (
                LaunchApi,
            )

            one = self.experiment
            return bool(LaunchApi(timeout=PATIENCE).check_stop_requested(one.project, one.entity, one.id))
        except Exception as error:
            print(f"W&B: {type(error).__name__}: {error}; treated as a preemption", file=sys.stderr)
            return False

    def stopped(self, stop: BaseException, curve: list[dict[str, Any]]) -> None:
        """Tell W&B what ended the run; one that a scheduler's signal ended is
        handed out again by its sweep.
        """
        number = getattr(stop, "number", 0)

        def tell() -> None:
            self._log(curve)
            if number in signals.PREEMPTION:
                self.experiment.mark_preempting()
            if not number:
                self.experiment.summary["error"] = str(stop)
                self.experiment.alert(f"{self.run.study}: {self.run.key()} is lost", str(stop), "ERROR")
            _end(self.experiment, 128 + number if number else 1)

        self._tell(tell)

    def _tell(self, tell: Callable[[], Any]) -> None:
        if self.experiment is None:
            return
        try:
            tell()
        except TimeoutError as error:
            print(
                f"W&B: {error}; the row in {self.folder} stays as it is, and"
                f" `wandb sync {self.folder / 'wandb'}/*run-*` sends the rest",
                file=sys.stderr,
            )
            self.experiment = None
        except Exception as lost:
            _pass_on_stop(lost)
            # It may complain that the process is gone; and forgets it first.
            try:
                client().teardown()
            except SystemExit:
                pass
            except Exception as error:
                _pass_on_stop(error)
            try:
                self._init()
                tell()
            except Exception as error:
                _pass_on_stop(error)
                print(
                    f"W&B: {type(error).__name__}: {error}; the row in {self.folder} is complete",
                    file=sys.stderr,
                )
                self.experiment = None


def _pass_on_stop(error: Exception) -> None:
    """Raise what `wandb.agent(function=...)` raises in the thread of a run that it stops, wherever that is: a
    bare Exception. `hbo.training` ends the run.
    """
    if type(error) is Exception and by_agent():
        raise error


def mirror(run: Run, folder: Path, row: dict[str, Any]) -> None:
    """A finished row as a W&B run, for the agent that asked for it."""
    try:
        with open(folder / "metrics.csv", newline="") as file:
            points = [
                {name: float(text) for name, text in line.items() if text} for line in csv.DictReader(file)
            ]
        points = [point | {name: int(point[name]) for name in ("epoch", "step")} for point in points]
    except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
        rows.pass_over(f"{folder / 'metrics.csv'}: no learning curve ({first_line(error)}); skipped")
        points = []
    it = Mirror(run, folder, points)
    it.log(points)
    it.finish(row)


def _following(name: str) -> str:
    """The next training of a key as a W&B run: KEY, KEY-2, KEY-3."""
    key, _, number = name.partition("-")
    return f"{key}-{int(number or 1) + 1}"


def _missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
