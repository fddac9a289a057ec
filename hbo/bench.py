"""python -m hbo.bench: training throughput against the same network in plain NCHW, in one run.

    python -m hbo.bench --resolution 224 --batch 32

Both train in turns (forward, backward, SGD) on the same random images, so that a machine that slows down slows both; the
first turns warm up. A figure on its own says little: the ratio does.
"""

import json
import statistics
import sys
import time
from dataclasses import replace

from hbo import config, flags, rows
from hbo.errors import one_line

TURNS, STEPS = 7, 3  # turns measured, after one of warm-up; updates a turn


def main(argv: list[str] | None = None) -> None:
    """The command line: the flags of `hbo.fit`, and `--json`."""
    parser = flags.make_parser("hbo.bench", "Images/s of training in channels-last order against NCHW.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    with one_line():
        given = flags.given(parser, sys.argv[1:] if argv is None else argv)
        as_json = given.pop("json", False)
        run = config.resolve(**given)
        rates = train({"nchw": replace(run, channels_last=False), "channels_last": replace(run, channels_last=True)})
    median = {name: statistics.median(values) for name, values in rates.items()}
    ratios = [a / b for a, b in zip(rates["channels_last"], rates["nchw"], strict=True)]
    if as_json:
        print(json.dumps({"machine": rows.machine(), "threads": run.threads, "images_per_second": rates, "ratio": ratios}))
        return
    print(
        f"{config.describe_net(run)}\n{run.resolution} x {run.resolution}, batch {run.batch}, {run.threads} threads, {rows.machine()}, {TURNS} turns of {STEPS} updates"
    )
    for name, values in rates.items():
        print(f"  {name:<14} {median[name]:7.1f} images/s   {min(values):.1f} to {max(values):.1f}")
    print(f"  ratio          {statistics.median(ratios):7.2f}            {min(ratios):.2f} to {max(ratios):.2f}")


def train(runs: dict[str, config.Run]) -> dict[str, list[float]]:
    """Images/s of each run, a value a turn, in turns."""
    import torch
    from tqdm import tqdm

    from hbo.tasks.classify import Classify

    any_run = next(iter(runs.values()))
    torch.set_num_threads(any_run.threads)
    device = "cuda" if torch.cuda.is_available() and any_run.accelerator != "cpu" else "cpu"
    images = torch.randint(0, 256, (any_run.batch, 3, any_run.resolution, any_run.resolution), dtype=torch.uint8, device=device)
    labels = torch.randint(0, 1000, (any_run.batch,), device=device)
    updates = {}
    for name, run in runs.items():
        torch.manual_seed(run.seed)
        task = Classify(run, 1000).to(device).train()
        if run.compile:
            task.net.compile()
        optimizer = task.configure_optimizers()["optimizer"]

        def update(task=task, optimizer=optimizer) -> None:
            optimizer.zero_grad()
            task.loss(task(images), labels).backward()
            optimizer.step()

        updates[name] = update
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for turn in tqdm(range(TURNS + 1), desc="turns", leave=False):
        for name, update in updates.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                update()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:
                rates[name].append(STEPS * any_run.batch / (time.perf_counter() - start))
    return rates


if __name__ == "__main__":
    main()
