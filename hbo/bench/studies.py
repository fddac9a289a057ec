"""`hbo.bench infer --studies`: the time per image in each network of some studies, as latency.csv."""

import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from hbo import config, files
from hbo.analysis import latency, results
from hbo.bench import turns
from hbo.bench.one_image import IMAGES, TURNS, check_same, milliseconds
from hbo.deploy.runtimes import for_onnx as onnx
from hbo.errors import UserError
from hbo.tasks import build


def measure(names: list[str], source: str, to: Path) -> None:
    """Each network of these studies, deployed, one image on one thread, all in turns: `latency.csv`."""
    import onnxruntime

    from hbo.deploy import deploy

    onnx.RUNTIME.require()
    done: Any = results.finished(results.load(source, *names))
    table = done[done["task"] == "classify"][latency.NET].drop_duplicates()
    if table.empty:
        raise UserError(
            f"studies={', '.join(names)}: their runs {done['task'].iloc[0]}; only classifiers are timed"
        )
    _check_kept(to / latency.FILE, table.to_dict("records"))
    rivals = {}
    for i, network in enumerate(tqdm(table.to_dict("records"), unit="network", desc="export", leave=False)):
        run = latency.run_of(network)
        net = build.network(run, int(network["num_classes"]))
        model, image = (
            onnx.to_onnx(deploy(net), run.resolution),
            torch.randn(1, 3, run.resolution, run.resolution),
        )
        check_same(onnx.to_onnx(net, run.resolution), model, image, config.describe_net(run))
        rivals[str(i)] = partial(milliseconds, onnx.open_session(model.SerializeToString(), 1), image.numpy())
    found = turns.take_turns(rivals, TURNS)
    runtime = {"runtime": f"onnxruntime {onnxruntime.__version__}, deployed", "threads": 1}
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    lines = [
        network
        | {"latency_ms": statistics.median(ms), "least_ms": min(ms), "greatest_ms": max(ms), "turns": len(ms)}
        | turns.where()
        | runtime
        | {"measured": when}
        for network, ms in zip(table.to_dict("records"), found.values(), strict=True)
    ]
    files.write_atomically(to / latency.FILE, results.to_csv(pd.DataFrame(lines)))
    print(f"{to / latency.FILE}: {len(lines)} networks, {TURNS} turns of {IMAGES} images each\n")
    for line in lines:
        name = " ".join(
            f"{n}={line[n]}" for n in ("net", "k", "scheme", "width", "resolution", "num_classes")
        )
        print(f"{line['latency_ms']:7.2f} ms  ({line['least_ms']:.2f} to {line['greatest_ms']:.2f})  {name}")


def _check_kept(path: Path, networks: list[dict[str, Any]]) -> None:
    """Refuse to drop networks of an earlier call: its times cannot be compared with the new ones.

    Raises:
        UserError: the file has networks that are not among these.
    """
    before = latency.measured(path).keys() if path.exists() else set()
    if dropped := before - {latency.name_of(network) for network in networks}:
        raise UserError(
            f"{path}: has {len(dropped)} networks of other studies, and times of two calls cannot be"
            " compared; name those studies too, or move the file away"
        )
