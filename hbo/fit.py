"""python -m hbo.fit: train one network on one data set and leave one row.

    python -m hbo.fit --k 2
    python -m hbo.fit --data imagenet --data_dir /data/imagenet --width 0.5 --devices 4

The folder OUT/STUDY/KEY/ gets config.yaml, metrics.csv, row.json, outcomes.npz and last.ckpt. A finished run is not
repeated, an unfinished one goes on from its last checkpoint: the same command does either.
"""

from pathlib import Path
from typing import Any

from hbo.runs import signals

if __name__ == "__main__":
    signals.listen()  # before the seconds of importing

from hbo import files, flags
from hbo.config import Run
from hbo.errors import one_line
from hbo.runs import cluster, rows, tracking
from hbo.runs.lock import Lock


def main(argv: list[str] | None = None) -> None:
    """The command line.

    Exit status: 0 done, or stopped in W&B; 1 failed (the row says why), 2 wrong flag or data, 75 trained by another process,
    128 + n at signal n.
    """
    run = flags.parse(argv)
    with one_line(), files.one_look():
        said = rows.summary(fit(run), rows.folder(run))
    print(said)


def fit(run: Run) -> dict[str, Any]:
    """Take over what is finished, here or in another study; else train, alone on this row.

    Images and backbone are looked at once: the key stays what it was when the run started.

    Raises:
        UserError: the run cannot be built, or its checkpoint is of another run.
        Busy: another process trains it.
        SystemExit: a signal, or a loss that is not finite.
    """
    with files.one_look():
        return _fit(run)


def _fit(run: Run) -> dict[str, Any]:
    folder = rows.folder(run)
    if not cluster.is_first(run):
        if not run.force and ((rows.read(folder) or {}).get("state") == "done" or rows.finished_in_other_study(run)):
            raise SystemExit(0)  # srun starts all; the first shows what is there
        return _train(run, folder, None)
    row = finished(run, folder)
    if row is None:
        lock = Lock(folder)
        existed = folder.exists()
        try:
            lock.acquire()
            row = finished(run, folder)  # it may have ended a moment ago
            return _train(run, folder, lock) if row is None else row
        finally:
            lock.release()
            if not existed and folder.exists() and not any(folder.iterdir()):
                folder.rmdir()  # refused before there was anything to keep
    return row


def _train(run: Run, folder: Path, lock: Lock | None) -> dict[str, Any]:
    from hbo.train import train  # Lightning, for seconds

    return train(run, folder, lock)


def finished(run: Run, folder: Path) -> dict[str, Any] | None:
    """The row, where this study or another has it done; W&B's agent, who asked for it, gets it too."""
    if run.force:
        return None
    row = rows.read(folder)
    if row and row["state"] == "done":
        rows.check_same_fields(row, rows.keyed(run), folder / "row.json", instead="--force runs it again")
    elif source := rows.finished_in_other_study(run):
        row = rows.reuse(run, source)
    else:
        return None
    if tracking.by_agent():
        tracking.mirror(run, folder, row)
    return row


if __name__ == "__main__":
    main()
