"""Display of a running sweep: a live table on a terminal, else one line per change."""

import sys
import time
from statistics import fmean
from types import TracebackType

from hbo.runs import summary
from hbo.sweep.plan import OVER, Entry, clock, describe, varying
from hbo.sweep.timing import START

SHOWN = 12  # waiting or finished runs shown, in addition to running and failed ones


class Board:
    """Shows a study's runs; `update` as often as you like.

    Args:
        name: of the study.
        runs: read again at each update.
        workers: runs at once, for the time left.
    """

    def __init__(self, name: str, runs: list[Entry], workers: int) -> None:
        self.name, self.runs, self.workers = name, runs, workers
        self.names = varying(runs)
        self.said: dict[str, str] = {}
        self.live = None

    def __enter__(self) -> "Board":
        if sys.stdout.isatty():
            from rich.live import Live

            self.live = Live(self._table(), refresh_per_second=4, transient=False)
            self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.update(self._table())
            self.live.__exit__(kind, error, trace)
        else:
            self.update()
            print(self.headline(), flush=True)

    def update(self) -> None:
        """Show what has changed."""
        if self.live is not None:
            self.live.update(self._table())
            return
        for entry in self.runs:
            place = entry.key or str(entry.fields)
            said = self.said.setdefault(place, "missing")
            if entry.state != said:
                self.said[place] = entry.state
                print(
                    f"{time.strftime('%H:%M:%S')} {entry.key} {self.fields(entry)}: {self.state(entry)}",
                    flush=True,
                )

    def headline(self) -> str:
        """How many of each state, and the time left."""
        counts = {
            state: sum(entry.state == state for entry in self.runs)
            for state in dict.fromkeys(e.state for e in self.runs)
        }
        left = self.left()
        time_left = f"; about {clock(left)} left" if left else ""
        return (
            f"{self.name}: "
            + ", ".join(f"{n} {state}" for state, n in counts.items())
            + f" of {len(self.runs)}{time_left}"
        )

    def left(self) -> float | None:
        """Seconds until all are done, by those that are done or run. Rows and locks say how long these
        trained; the time that a process takes to start and to end comes on top.
        """
        whole = [e.seconds for e in self.runs if e.state == "done" and e.seconds]
        whole += [e.elapsed * e.of / e.step for e in self.runs if e.state == "running" and e.step]
        if not whole:
            return None
        # A resumed run's row counts its former processes too.
        beside = [e.wall - e.seconds for e in self.runs if e.wall and e.seconds and e.wall > e.seconds]
        mean = fmean(whole) + (fmean(beside) if beside else START)
        shares = [1 - e.step / e.of if e.of else 1.0 for e in self.runs if e.state not in (*OVER, "failed")]
        return mean * max(sum(shares) / self.workers, max(shares, default=0.0))

    def fields(self, entry: Entry) -> str:
        """The fields that distinguish the run from the others."""
        return " ".join(f"{name}={entry.fields.get(name)}" for name in self.names)

    def state(self, entry: Entry) -> str:
        """The state, with the result if there is one."""
        if entry.state == "done":
            return f"{describe(entry)}, {summary.headline(entry.row)}, {clock(entry.seconds)}"
        return describe(entry)

    def _table(self):
        from rich.table import Table

        order = {"running": 0, "failed": 1, "invalid": 1, "queued": 2}
        runs = sorted(self.runs, key=lambda e: order.get(e.state, 3 if e.state not in OVER else 4))
        urgent = sum(e.state in order for e in runs)
        table = Table(title=self.headline(), title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("key", "run", "state"):
            table.add_column(column)
        for entry in runs[: urgent + SHOWN]:
            table.add_row(entry.key or "-", self.fields(entry), self.state(entry))
        if len(runs) > urgent + SHOWN:
            table.add_row("", f"and {len(runs) - urgent - SHOWN} more", "")
        return table
