"""What an image takes, measured: the networks of a study in turns on this machine, so that it slows all or none of them.

    python -m hbo.analysis.latency contraction mobilenetv2        # rows of ablations/ -> ablations/latency.csv

Eager PyTorch, one image, one thread, batch norm not folded: a ranking of the networks as they are trained, not of what is
deployed. Times of one run of this command can be compared with each other, and with no other's.
"""

import argparse
import statistics
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from hbo import rows
from hbo.analysis import results
from hbo.block import Block
from hbo.config import build_net, resolve
from hbo.errors import one_line

NET = [*(f.name for f in fields(Block)), "net", "first_stage", "width", "divisor", "resolution", "num_classes"]
FILE = "latency.csv"
TURNS, IMAGES = 30, 20  # turns measured, after one of warm-up; images a turn


def measure(networks: list[dict[str, Any]], turns: int = TURNS, images: int = IMAGES, bar: bool = True) -> list[list[float]]:
    """Milliseconds an image of each network, a value a turn; all networks take each turn, in a new order each time."""
    import random

    import torch
    from tqdm import tqdm

    torch.set_num_threads(1)
    order, draw = list(range(len(networks))), random.Random(0)
    nets = []
    for network in networks:
        given = {name: network[name] for name in NET if name != "num_classes" and not pd.isna(network[name])}
        given |= {name: int(given[name]) for name in ("k", "kernel", "resolution", "divisor") if name in given}
        net = build_net(resolve(data="imagenet", **given), int(network["num_classes"])).eval()
        size = int(network["resolution"])
        nets.append((net.to(memory_format=torch.channels_last), torch.rand(1, 3, size, size)))  # pyright: ignore[reportCallIssue]
    found: list[list[float]] = [[] for _ in nets]
    with torch.inference_mode():
        for turn in tqdm(range(turns + 1), unit="turn", disable=not bar):
            draw.shuffle(order)
            for i in order:
                net, image = nets[i]
                image = image.contiguous(memory_format=torch.channels_last)
                start = time.perf_counter()
                for _ in range(images):
                    net(image)
                if turn:
                    found[i].append(1000 * (time.perf_counter() - start) / images)
    return found


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m hbo.analysis.latency", description="Milliseconds an image of each arm.")
    parser.add_argument("study", nargs="+", help="Studies whose networks are measured beside each other.")
    parser.add_argument("--source", default="ablations", help="Folder of runs, CSV, folder of CSVs, or wandb:ENTITY/PROJECT.")
    parser.add_argument("--to", default="ablations", help="Folder in which latency.csv is written. [ablations]")
    args = parser.parse_args(argv)
    with one_line():
        table: Any = results.finished(results.load(args.source, *args.study))[NET].drop_duplicates()
        networks = table.to_dict("records")
        import torch

        where = {"machine": rows.machine(), "torch": torch.__version__, "git": rows.git_commit(), "threads": 1}
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        lines = [
            network
            | {"latency_ms": statistics.median(found), "least_ms": min(found), "greatest_ms": max(found), "turns": len(found)}
            | where
            | {"measured": when}
            for network, found in zip(networks, measure(networks), strict=True)
        ]
        path = Path(args.to) / FILE
        rows.write_atomically(path, results.to_csv(pd.DataFrame(lines)))
    print(f"{path}: {len(lines)} networks, {TURNS} turns of {IMAGES} images each\n")
    for line in lines:
        name = " ".join(f"{n}={line[n]}" for n in ("net", "k", "scheme", "width", "resolution", "num_classes"))
        print(f"{line['latency_ms']:7.2f} ms  ({line['least_ms']:.2f} to {line['greatest_ms']:.2f})  {name}")


def join(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Rows with `latency_ms`, where the folder has a latency.csv that knows their networks."""
    path = folder / FILE
    if not path.exists() or "num_classes" not in table:
        return table
    known = {_name(line): line["latency_ms"] for line in results.read_csv(path)}
    return table.assign(latency_ms=[known.get(_name(line), float("nan")) for line in table.to_dict("records")])


def _name(line: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(float(v) if isinstance(v, int) and not isinstance(v, bool) else v) for v in (line[n] for n in NET))


if __name__ == "__main__":
    main()
