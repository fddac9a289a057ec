"""Trained runs in every runtime that is installed here or in `.venv-RUNTIME`: time, size and accuracy of each
file, all networks in the same turns.

`hbo.bench infer --trained RUN ...` calls it. The medians on one thread also go beside each run's row
(`hbo.runs.deployed`), so that tables and figures of its study have them.
"""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from hbo import config, cost
from hbo.bench import runtime_table, turns
from hbo.bench.one_image import IMAGES, THREADS, TURNS
from hbo.bench.worker import Worker, converted, environments
from hbo.deploy.runtimes import for_onnx
from hbo.errors import UserError
from hbo.export import restored
from hbo.runs import checkpoint, deployed, rows


def measure(folders: list[Path]) -> list[dict[str, Any]]:
    """A line for each runtime, run, form (plain, deployed, int8) and number of threads.

    Args:
        folders: of finished runs to classify.

    Raises:
        UserError: no such run, one that does not classify, or no file could be made. A file that fails is a
            line without times that says why.
    """
    for_onnx.RUNTIME.require()
    nets = [_network(folder) for folder in folders]
    here = environments()
    here[sys.executable] = ["onnx", *here.get(sys.executable, [])]
    workers = [Worker(python, names) for python, names in here.items()]
    try:
        made = converted(workers, do="take", checkpoints=[str(net["path"]) for net in nets])
        lines = []
        for n in THREADS:
            names = {name: worker for worker in workers for name in worker.ask(do="open", threads=n)}
            rivals = {name: partial(worker.milliseconds, name, IMAGES) for name, worker in names.items()}
            lines += _lines(nets, turns.take_turns(rivals, TURNS), made, n)
    finally:
        for worker in workers:
            worker.stop()
    _beside_rows(nets, lines)
    return [{name: value for name, value in line.items() if name != "place"} for line in lines]


def _network(folder: Path) -> dict[str, Any]:
    """What a line says about a run: its key, study, network and costs."""
    trained = checkpoint.trained(folder, {"threads": 1})
    trained.warn()
    row = (rows.sound(trained.path.parent) or {}) if trained.ours else {}
    if trained.run.task != "classify":
        raise UserError(f"trained={folder}: trained to {trained.run.task}; only classifiers are timed")
    return {
        "path": trained.path,
        "key": row.get("key"),
        "study": row.get("study"),
        "network": config.describe_net(trained.run),
        "resolution": trained.run.resolution,
        "macs": cost.macs(restored(trained).net, trained.run.resolution),
    }


def _lines(
    nets: list[dict[str, Any]], ms: dict[str, list[float]], made: Any, threads: int
) -> list[dict[str, Any]]:
    where, out = turns.where(), []
    failed = {name: None for name, facts in made.items() if "failed" in facts}
    for name, values in (ms | failed).items():
        runtime, place, form = name.split(":")
        about = {key: value for key, value in nets[int(place)].items() if key != "path"}
        out.append(
            {"runtime": runtime, "place": int(place), **about, "form": form, "threads": threads}
            | runtime_table.times(values, ms.get(f"onnx:{place}:plain"))
            | runtime_table.of_file(made[name], made[runtime])
            | {name: where[name] for name in ("machine", "instructions", "git")}
        )
    return out


def _beside_rows(nets: list[dict[str, Any]], lines: list[dict[str, Any]]) -> None:
    """Medians on one thread and int8's accuracy, into each run's deployed.json."""
    measured = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}, {rows.machine()}"
    for place, net in enumerate(nets):
        found: dict[str, float | str] = {}
        for line in lines:
            unwanted = line["form"] == "plain" or line["failed"]
            if line["place"] != place or line["threads"] != 1 or unwanted:
                continue
            eight = line["form"] == "int8"
            found[f"{deployed.LATENCY}{line['runtime']}{deployed.INT8 * eight}"] = line["latency_ms"]
            if eight:
                found[f"{deployed.TOP1}{line['runtime']}"] = line["top1"]
        if found and net["key"] is not None:
            deployed.add(net["path"].parent, found | {deployed.MEASURED: measured})
