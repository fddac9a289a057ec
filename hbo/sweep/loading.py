"""Whether loading limits a study: load some images and time one
network, each alone, before anything starts.
"""

import contextlib
import io
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from hbo import tasks
from hbo.config import Run
from hbo.data.sampling import loader
from hbo.errors import UserError
from hbo.runs import cluster
from hbo.runs.cluster import data_workers
from hbo.sweep import plan, timing

SAMPLE = 256  # files
SECONDS = 1.5  # of loading, after the workers have started


def bottleneck(runs: list[plan.Entry]) -> str:
    """A line if the run that depends most on its loader loads more slowly than it trains, else empty.

    It is the one with the fewest activations, of those that read photographs; sets in memory are not loaded.
    """
    reading = [
        entry
        for entry in runs
        if entry.run
        and entry.written
        and entry.state not in ("done", "invalid")
        and tasks.SETS[entry.run.data].photographs
    ]
    if not reading:
        return ""
    entry = min(reading, key=lambda entry: entry.written or 0)
    assert entry.run is not None
    try:
        loaded, workers = loading(entry.run)
    except UserError as error:
        return f"loading was not timed: {error}"
    return verdict(entry.run, loaded, 1 / timing.calibrate(entry.run), workers)


def verdict(run: Run, loaded: float, trained: float, workers: int) -> str:
    """What to say of images/s of one process's loader and of its network; nothing where
    the network is the slower one.
    """
    if loaded >= trained:
        return ""
    cores = cluster.cores_a_process(run.devices)
    more = math.ceil(max(workers, 1) * trained / loaded)
    ways = ["--set cache=disk"] * (run.cache == "none") + [f"--set workers={more}"] * (workers < more < cores)
    if run.augment == "loader" and run.crop == "random" and run.cache != "none":
        ways.append("--set augment=device (on a GPU)")
    return (
        f"data is the bottleneck: {workers} worker{'s' * (workers != 1)} load{'s' * (workers == 1)}"
        f" {loaded:.0f} images/s at {run.resolution} x {run.resolution}, {run.net} trains {trained:.0f} per"
        f" device (each timed alone); use {' or '.join(ways) or f'more than {cores} cores per device'}"
    )


def loading(run: Run) -> tuple[float, int]:
    """Images/s that one process of the run loads, and its workers; a cache is made of the sample alone.

    Raises:
        UserError: the folder is not there.
    """
    from hbo.tasks.classify.data import sample

    workers = data_workers(run, in_memory=False)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        images = sample(
            replace(run, cache="disk" if run.cache == "ram" else run.cache, cache_dir=folder), SAMPLE
        )
        size = min(run.batch // run.world, 32, len(images))

        def batches() -> Iterator[list[tuple[int, int]]]:
            for epoch in count():
                for start in range(0, len(images) - size + 1, size):
                    yield [(epoch, index) for index in range(start, start + size)]

        found = iter(loader(images, batches(), workers))  # pyright: ignore[reportArgumentType]
        for _ in range(2 * workers + 1):  # what is made ahead
            next(found)
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS or done < 2 * workers + 1:
            next(found)
            done += 1
        seconds = time.perf_counter() - start
        del found  # ends the workers
    return done * size / seconds, workers
