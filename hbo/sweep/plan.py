"""Every run of a study before anything starts: its key, what it costs, whether it is there, and how long it
will take.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hbo import files, tasks
from hbo.config import Run, key_of
from hbo.errors import UserError
from hbo.runs import lock, other_studies, rows, summary, swept
from hbo.runs.identity import Identity
from hbo.sweep.elsewhere import Elsewhere
from hbo.sweep.study import Sweep, resolved
from hbo.tasks import build
from hbo.text import aligned
from hbo.values import whole

UNFINISHED = ("missing", "unfinished", "interrupted", "failed")  # what `run` starts
OVER = ("done", "invalid", "stopped")  # what takes no more time


@dataclass
class Entry:
    """A run of a study, and what is known of it."""

    fields: dict[str, Any]
    """As the sweep file and the command line give them."""
    run: Run | None = None
    error: str = ""
    identity: Identity = field(default_factory=dict)
    key: str | None = None
    state: str = "invalid"
    """done, running, queued, interrupted, unfinished, failed, stopped (in W&B), missing, invalid, or unknown
    (to SLURM, which does not answer)."""
    where: Path | None = None
    """The run's folder; of a row that another study finished, that study's."""
    step: int = 0
    of: int = 0
    elapsed: float = 0.0
    """Updates done, of how many, in how many seconds, of a run that is running; the first two of one that was
    stopped."""
    macs: int | None = None
    params: int | None = None
    written: int | None = None
    """Activations that the network writes per image, by which its time is scaled."""
    seconds: float | None = None
    """That it will take, or took."""
    wall: float | None = None
    """Seconds from its process's start to its end, if this launcher saw both."""
    measured: bool = False
    """Whether `seconds` are what it took; else they are an estimate."""
    row: dict[str, Any] = field(default_factory=dict)
    stamp: Any = None
    """Of the file that `row` was read from."""
    again: str = ""
    """When the training began whose row no longer counts (`run_again`)."""
    together: int = 1
    """Runs on a device at once when `seconds` were measured."""

    @property
    def home(self) -> Path:
        """The run's own folder, under the key that it had when the plan was made."""
        assert self.run is not None
        return rows.folder(self.run, self.key)


def entries(study: Sweep) -> list[Entry]:
    """The study's runs in order, each key once, with their states; nothing is built or counted, each folder
    looked at once.
    """
    with files.one_look():
        return _entries(study)


def _entries(study: Sweep) -> list[Entry]:
    found = []
    keys: dict[str, Run] = {}
    for fields, run in zip(study.rows, resolved(study), strict=True):
        entry = Entry(fields)
        found.append(entry)
        if isinstance(run, UserError):
            entry.error = str(run)
            continue
        try:
            own, arm = run.identity(), run.backbone_arm()
            entry.identity = own | ({"backbone": arm} if arm else {})
            entry.run, entry.key = run, key_of(own)
        except UserError as error:  # a folder of images that is not there
            entry.error = str(error)
            continue
        if entry.key in keys:
            _check_one_run(study, keys[entry.key], entry.run)
            found.pop()
            continue
        keys[entry.key] = entry.run
        entry.where = entry.home
    for entry in found:
        refresh(entry)
    elsewhere = Elsewhere()
    elsewhere.look(found)
    for entry in found:
        if entry.state != "done" and elsewhere.others(entry):
            refresh(entry, elsewhere)
    return found


def repeats(study: Sweep, runs: list[Entry]) -> str:
    """A line on the rows that `entries` and `grid` leave out because they repeat another row's run; or
    nothing.
    """
    kept = {id(entry.fields) for entry in runs}
    gone = [row for row in study.rows if id(row) not in kept]
    listed, value = study.twice
    if not (many := listed + len(gone)):
        return ""
    names = varying([Entry(row) for row in study.rows])
    such = value or " ".join(f"{name}={gone[0].get(name)}" for name in names)
    return (
        f"note: {many} row{'s' * (many > 1)} repeat{'s' * (many == 1)} another row's run (such as {such}),"
        f" and {'are' if many > 1 else 'is'} left out"
    )


def _check_one_run(study: Sweep, first: Run, second: Run) -> None:
    """Refuse to sweep over a field that is in no key: one of its rows would be trained, and the others left
    out.

    Raises:
        UserError: names the field, and how two of its values are compared.
    """
    for name in swept.ALIKE:
        a, b = getattr(first, name), getattr(second, name)
        if a != b:
            raise UserError(
                f"{study.path}: parameters.{swept.same_run(name, a, b)}:"
                f" --set {name}={b} --set out={first.out}_{name}_{b}"
            )


def refresh(entry: Entry, elsewhere: Elsewhere | None = None) -> None:
    """Look at the run's folder again, and at those of other studies; an unchanged row is not read again."""
    if entry.run is None or entry.where is None or entry.key is None:
        return
    where = entry.home
    entry.where = where
    try:
        if (stamp := files.stamp(where / "row.json")) != entry.stamp or stamp is None:
            entry.row = rows.read(where) or {}
            entry.stamp = stamp
    except UserError as error:  # the others continue
        rows.pass_over(error)
        entry.state, entry.error = "invalid", str(error)
        return
    entry.state = entry.row.get("state", "missing")
    if entry.again and entry.again == entry.row.get("started", "done"):
        entry.state = "missing"
    entry.error = entry.row.get("error", "") if entry.state == "failed" else ""
    if entry.state == "done":
        entry.seconds, entry.measured = entry.row["seconds"], True
        return
    if elsewhere and not entry.again and (there := elsewhere.done(entry)):
        entry.where, entry.stamp = there, None
        entry.row = rows.sound(there) or {}
        entry.state, entry.seconds, entry.measured = "done", entry.row.get("seconds"), True
        return
    if entry.state == "stopped":
        entry.step = whole(entry.row.get("stopped_at")) or 0
        entry.of = (whole(entry.row.get("steps_per_epoch")) or 0) * entry.run.all_epochs
    for folder in (where, *(elsewhere.others(entry) if elsewhere else ())):
        holder = lock.read(folder)
        if holder and holder["alive"]:
            entry.where, entry.state, entry.elapsed = folder, "running", holder.get("seconds", 0.0)
            entry.step, entry.of = holder.get("step", 0), holder.get("of", 0)
            return


def reuse(entry: Entry) -> None:
    """Take over into this study a row that another one finished."""
    if entry.state != "done" or entry.run is None or entry.where is None or entry.where == entry.home:
        return
    if entry.run.force:  # it is run again here
        return
    try:
        other_studies.reuse(entry.run, entry.where)
    except lock.Busy:  # another process is doing it
        pass
    except UserError as error:
        entry.state, entry.error = "invalid", str(error)


def run_again(entry: Entry) -> None:
    """Apply `force`: a finished row does not count, the next training does."""
    if entry.run is not None and entry.run.force and entry.state == "done" and not entry.again:
        entry.again, entry.state = str(entry.row.get("started", "done")), "missing"
        entry.where, entry.stamp, entry.measured = entry.home, None, False


def price(plan: list[Entry]) -> None:
    """Multiply-adds and parameters of each run, each distinct block counted once; a run without a valid
    network is invalid.
    """
    for entry in plan:
        run = entry.run
        if run is None:
            continue
        try:
            _, _, classes = images(run)
            cost = build.cost(run, classes)
        except UserError as error:
            entry.run, entry.state, entry.error = None, "invalid", str(error)
            continue
        entry.macs, entry.params, entry.written = (
            cost.macs,
            cost.params,
            cost.activation_bytes // 4 + cost.elementwise,
        )


def images(run: Run) -> tuple[int, int, int]:
    """Images that the run trains on in an epoch, that it reports, and classes.

    Raises:
        UserError: a folder of images that is not there.
    """
    train, val, classes = tasks.counts(run.data, run.data_dir)
    if run.val_split:  # of what is not split
        val = round(train * run.val_split)
        train -= val
    if run.per_class:
        train = min(train, run.per_class * classes)
    if run.holdout:
        val = round(train * run.holdout)
        train -= val
    if run.limit_batches:
        train, val = (min(n, run.limit_batches * run.batch) for n in (train, val))
    return train, val, classes


# ------------------------------------------------------------ to read


def varying(plan: list[Entry]) -> list[str]:
    """The fields in which the runs differ, `variant` in place of those that it names."""
    names = {name for entry in plan for name in entry.fields}
    return sorted(
        name for name in names if len({json.dumps(e.fields.get(name), default=str) for e in plan}) > 1
    )


def clock(seconds: float | None) -> str:
    """Seconds as people read them."""
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def table(plan: list[Entry]) -> str:
    """The plan as text, a run a line."""
    names = varying(plan)
    head = ["key", *names, "M multiply-adds", "M params", "state", "time"]
    lines = []
    for entry in plan:
        macs = f"{entry.macs / 1e6:.1f}" if entry.macs is not None else "-"
        params = f"{entry.params / 1e6:.3f}" if entry.params is not None else "-"
        values = ["" if entry.fields.get(name) is None else str(entry.fields[name]) for name in names]
        time = ("" if entry.measured or entry.seconds is None else "~") + clock(entry.seconds)
        lines.append([entry.key or "-", *values, macs, params, describe(entry), time])
    return "\n".join(aligned([head, *lines]))


def describe(entry: Entry) -> str:
    """The state with what belongs to it: how far, why, where."""
    if entry.state in ("invalid", "failed") and entry.error:
        return f"{entry.state}: {entry.error}"
    if entry.state == "running" and entry.of:
        left = f", {clock(entry.elapsed * (entry.of - entry.step) / entry.step)} left" if entry.step else ""
        return f"running {100 * entry.step / entry.of:.0f} %{left}{_in_study(entry)}"
    if entry.state == "stopped":
        return f"stopped in W&B at update {entry.step} of {entry.of}"
    return entry.state + _in_study(entry) * (entry.state in ("done", "running"))


def _in_study(entry: Entry) -> str:
    """Of a run that another study has."""
    other = entry.run and entry.where and entry.where.parent.name != entry.run.study
    return f" in {entry.where.parent.name}" if other and entry.where else ""


def say_stopped(plan: list[Entry]) -> None:
    """Name the runs that were stopped in W&B, which `run` leaves alone, and how to resume each."""
    for entry in plan:
        if entry.state == "stopped":
            print(summary.stopped(entry.row, entry.home))


def totals(plan: list[Entry], workers: int, source: str) -> str:
    """How many of each state, and the hours that are left, on one device and on `workers`."""
    counts = {
        state: sum(entry.state == state for entry in plan)
        for state in dict.fromkeys(entry.state for entry in plan)
    }
    left = [entry for entry in plan if entry.state not in OVER]
    seconds = [(entry.seconds or 0.0) * entry.run.world / entry.together for entry in left if entry.run]
    said = f"{len(plan)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items())
    if not left:
        return said + "; nothing is left to run"
    several = f", {clock(max(sum(seconds) / workers, max(seconds)))} on {workers}" if workers > 1 else ""
    return f"{said}; {clock(sum(seconds))} left on one device{several} ({source})"


def as_json(plan: list[Entry], beside: Mapping[str, Any] | None = None) -> str:
    """The plan as JSON: a list with an object for each run; with `beside`, an object that has this list under
    `runs`.
    """
    names = {f for entry in plan for f in entry.fields}
    objects = []
    for entry in plan:
        asked = asdict(entry.run) if entry.run else {name: entry.fields.get(name) for name in sorted(names)}
        known = {
            name: getattr(entry, name)
            for name in ("key", "macs", "params", "state", "seconds", "measured", "error")
        }
        objects.append(asked | known | {"step": entry.step, "of": entry.of})
    return json.dumps({"runs": objects, **beside} if beside else objects, indent=1)
