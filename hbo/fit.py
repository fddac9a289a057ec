"""python -m hbo.fit: train one network on one data set and leave one row.

    python -m hbo.fit --k 2
    python -m hbo.fit --data imagenet --data_dir /data/imagenet --width 0.5 --devices 4

The folder OUT/STUDY/KEY/ gets config.yaml, metrics.csv, row.json, outcomes.npz and last.ckpt. The same
command prints a finished run and resumes an unfinished one from its last checkpoint.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from hbo.runs import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

from hbo import files, flags, tasks
from hbo.config import Run
from hbo.errors import UserError, one_line
from hbo.runs import cluster, labels, near, other_studies, rows, summary, swept, tracking
from hbo.runs.lock import Busy, Lock


def main(argv: list[str] | None = None) -> None:
    """The command line.

    Exit status: 0 done, stopped in W&B, or a row of a W&B sweep that cannot be a run; 1 failed (the row says
    why); 2 wrong flag or data; 75 another process is training it; 128 + n after signal n.
    """
    run = flags.parse(argv, refused=tracking.refuse)
    with one_line(), files.one_look():
        if sys.stderr.isatty():  # the next line may be half a minute away
            print(f"{run.net} k={run.k} on {run.data}: loading", file=sys.stderr)
        # The runs of a study differ in what it varies.
        alone = labels.VARIES not in os.environ and not tracking.by_agent()
        if alone and cluster.is_first(run) and (other := near.unfinished(run, rows.folder(run))):
            print(other, file=sys.stderr)
        if tracking.by_agent():
            _check_possible(run)
        said = summary.of(fit(run), rows.folder(run))
    print(said)


def _check_possible(run: Run) -> None:
    """Refuse a row of a W&B sweep whose network cannot be built for its data set, or that is one run with
    another of its rows, before anything is loaded.
    """
    from hbo.tasks import build

    classes = tasks.counts(run.data, run.data_dir)[2]
    try:
        swept.check(run)
        build.cost(run, classes)
    except UserError as error:
        tracking.refuse(error)
        raise


def fit(run: Run) -> dict[str, Any]:
    """Reuse the row if the run is finished, here or in another study; else lock its folder and train.

    Images and backbone are read once, so that the key does not change while the run trains.

    Raises:
        UserError: the run cannot be built, or its checkpoint belongs to another run.
        Busy: another process is training it.
        SystemExit: a signal, or a loss that is not finite.
    """
    with files.one_look():
        return _fit(run)


def _fit(run: Run) -> dict[str, Any]:
    folder = rows.folder(run)
    if not cluster.is_first(run):
        if not run.force and (
            (rows.read(folder) or {}).get("state") == "done" or other_studies.finished(run)
        ):
            raise SystemExit(0)  # srun starts all ranks; the first shows the row
        return _train(run, folder, None)
    row = finished(run, folder)
    if row is None:
        lock = Lock(folder)
        existed = folder.exists()
        try:
            _make(run, folder)
            lock.acquire()
            row = finished(run, folder)  # it may have ended a moment ago
            if row is None:
                _check_other_studies(run)
            return _train(run, folder, lock) if row is None else row
        finally:
            lock.release()
            if not existed and folder.exists() and not any(folder.iterdir()):
                folder.rmdir()  # refused before anything was written
    return row


def _make(run: Run, folder: Path) -> None:
    """Make the run's folder.

    Raises:
        UserError: it cannot be made there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"out={run.out}: the run's folder {folder} cannot be made ({error.strerror}); give a folder that"
            " you may write into, such as --out ~/runs"
        ) from None


def _check_other_studies(run: Run) -> None:
    """Leave a key to the study that trains it; its row is reused when it is done.

    Two that ask at the same moment see each other's locks: the later one by name lets go first.

    Raises:
        Busy: another study trains it.
    """
    other = None if run.force else other_studies.held(run)
    if other is not None and run.study < other.parent.name:
        time.sleep(1)
        other = other_studies.held(run)
    if other is not None:
        raise Busy(f"{other}: is training this run; when it is done, the same command reuses its result")


def _train(run: Run, folder: Path, lock: Lock | None) -> dict[str, Any]:
    from hbo.training import train  # Lightning, for seconds

    return train(run, folder, lock)


def finished(run: Run, folder: Path) -> dict[str, Any] | None:
    """The row if this study or another has finished the run, logged to W&B if an agent asked for it."""
    if run.force:
        return None
    row = rows.read(folder)
    if row and row["state"] == "done":
        rows.check_same_fields(row, rows.keyed(run), folder / "row.json", instead="--force repeats it")
    elif source := other_studies.finished(run):
        row = other_studies.reuse(run, source)
    else:
        return None
    if tracking.by_agent():
        tracking.mirror(run, folder, row)
    print("finished earlier, nothing is trained; --force trains it again", file=sys.stderr)
    return row


if __name__ == "__main__":
    main()
