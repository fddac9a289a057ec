"""python -m hbo.bench train: training throughput beside baselines, in turns in one run.

    python -m hbo.bench train --data imagenet --batch 32 --k 2
    HBO_REFERENCE=DIR python -m hbo.bench train --data imagenet --batch 32 --compile --json

All train in turns (forward, backward, SGD) on the same random images, so that a machine that slows down slows all of them;
the first turn warms up. A figure on its own says little: the ratio to the baseline does. The rivals:

    nchw           the same network as written for no machine: NCHW order, uncompiled; the baseline without a reference
    channels_last  what `hbo.fit` trains
    compiled       the same through torch.compile, with --compile; its start-up is told apart
    mobilenetv2    at the same multiply-adds, channels-last
    reference      the authors' own definition, NCHW, where $HBO_REFERENCE names a checkout of their release; the baseline
"""

import importlib.util
import json
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hbo import config, flags, nets
from hbo.bench import turns
from hbo.errors import UserError

TURNS, STEPS = 7, 3  # turns measured, after one of warm-up; updates a turn


def main(argv: list[str]) -> None:
    """The command line: the flags of `hbo.fit`, and `--json`."""
    parser = flags.make_parser("hbo.bench train", "Images/s of training beside baselines, in one run.")
    parser.add_argument("--json", action="store_true", help="Print JSON, every turn in it.")
    given = flags.given(parser, argv)
    as_json = given.pop("json", False)
    run = config.resolve(**given)
    found = train(run)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    base = found["baseline"]
    print(f"{config.describe_net(run)}\n{run.resolution} x {run.resolution}, batch {run.batch}, {run.threads} threads")
    print(f"{found['machine']}, torch {found['torch']}; {TURNS} turns of {STEPS} updates; ratios to {base}, turn by turn\n")
    if "mobilenetv2" in found["nets"]:
        print(f"mobilenetv2 at the same multiply-adds: {found['nets']['mobilenetv2']}\n")
    for name, why in found["left_out"].items():
        print(f"{name} left out: {why}\n")
    start_up = {name: f"{seconds:.1f} s" for name, seconds in found["first_update"].items()}
    print(turns.table("images/s", found["images_per_second"], base, beside=("start-up", start_up)))


def rivals(run: config.Run) -> tuple[dict[str, Any], dict[str, str]]:
    """Name -> (run, network), the baseline first; and name -> reason of those that there cannot be.

    Raises:
        UserError: $HBO_REFERENCE names no checkout of the release, or one that has no such network.
    """
    from hbo.size import total, width_for

    own = replace(run, compile=False, channels_last=True)
    plain = replace(own, channels_last=False)
    left_out: dict[str, str] = {}
    found: dict[str, Any] = {"nchw": (plain, None), "channels_last": (own, None)}
    if run.compile:
        found["compiled"] = (replace(own, compile=True), None)
    if run.net != "mobilenetv2" and run.net in nets.TABLES:
        macs = total(run.net, config.block_of(run), run.width, run.divisor, run.first_stage, 224, 1000).macs
        for divisor in (2, 1):  # its widths are coarse: odd channels where even ones miss by more than 3 %
            try:
                width, _ = width_for(macs / 1e6, "mobilenetv2", nets.Block(), divisor, "release")
            except UserError as error:
                left_out["mobilenetv2"] = str(error)
                continue
            fields = config.resolve(**_outer(own), net="mobilenetv2", width=width, divisor=divisor)
            found["mobilenetv2"], left_out = (fields, None), {}
            break
    if folder := os.environ.get("HBO_REFERENCE"):
        found = {"reference": (plain, reference(run, Path(folder)))} | found
    return found, left_out


def _outer(run: config.Run) -> dict[str, Any]:
    """The fields of a run that are not its network's."""
    names = ("data", "data_dir", "resolution", "eval_resize", "batch", "lr", "momentum", "weight_decay", "seed", "precision")
    return {name: getattr(run, name) for name in (*names, "threads", "accelerator", "channels_last")}


def reference(run: config.Run, folder: Path) -> Any:
    """The authors' definition of the run's network, from a checkout of their release.

    Raises:
        UserError: no such file, or a network that the release does not define.
    """
    path = folder.expanduser() / "models" / "imagenet" / "hbonet.py"
    spec = importlib.util.spec_from_file_location("hbonet_release", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError(f"HBO_REFERENCE={folder}: holds no models/imagenet/hbonet.py; name a checkout of the authors' release")
    block = replace(config.block_of(run), k=1)
    if run.net != "hbonet" or block != nets.Block() or run.first_stage != "release" or run.k == 0 or not run.width:
        raise UserError("HBO_REFERENCE: the release defines hbonet alone, k from 1 to 3, every other switch as by default")
    release = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(release)
    net = release.hbonet(width_mult=run.width)
    assert run.divisor is not None
    parts = nets.layout(nets.HBONET, run.width, run.divisor)
    # Its definition has one k and one divisor a width, and comments say which lines to exchange for the others.
    net.features[0] = release.conv_3x3_bn(3, parts[0].cin, 2)
    for i, part in enumerate(parts, start=1):
        if part.row.block == "conv":
            net.features[i] = release.conv_1x1_bn(part.cin, part.cout, activation=False)
        else:
            name = "InvertedResidual" if part.row.block == "ir" else f"HarmoniousBottleneck_{2 ** min(run.k, part.row.cap)}x"
            net.features[i] = getattr(release, name)(part.cin, part.cout, part.stride, part.row.expand)
    net.conv = release.conv_1x1_bn(parts[-1].cout, nets.head_channels(nets.HBONET, run.width, run.divisor))
    return net


def train(run: config.Run) -> dict[str, Any]:
    """Images/s of each rival, a value a turn, their ratios to the first, and the seconds of each one's first update."""
    import torch

    from hbo.tasks.classify import Classify

    torch.set_num_threads(run.threads)
    cuda = torch.cuda.is_available() and run.accelerator != "cpu"
    device = "cuda" if cuda else "cpu"
    images = torch.randint(0, 256, (run.batch, 3, run.resolution, run.resolution), dtype=torch.uint8, device=device)
    labels = torch.randint(0, 1000, (run.batch,), device=device)
    updates = {}
    beside, left_out = rivals(run)
    for name, (fields, net) in beside.items():
        torch.manual_seed(run.seed)
        task = Classify(fields, 1000)
        if net is not None:
            task.net = net
        task = task.to(device).train()
        if fields.compile:
            task.net.compile()
        optimizer = task.configure_optimizers()["optimizer"]
        kind = torch.bfloat16 if "bf16" in run.precision else torch.float16

        def update(task=task, optimizer=optimizer, kind=kind) -> None:
            optimizer.zero_grad()
            with torch.autocast(device, dtype=kind, enabled=run.precision != "32-true"):
                loss = task.loss(task(images), labels)
            loss.backward()
            optimizer.step()

        updates[name] = update
    first: dict[str, float] = {}

    def rate(name: str) -> float:
        start = time.perf_counter()
        for _ in range(STEPS if name in first else 1):
            updates[name]()
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        first.setdefault(name, seconds)
        return STEPS * run.batch / seconds

    rates = turns.take_turns({name: partial(rate, name) for name in updates}, TURNS)
    base = next(iter(rates))
    return turns.where() | {
        "nets": {name: config.describe_net(fields) for name, (fields, _) in beside.items()},
        "left_out": left_out,
        "resolution": run.resolution,
        "batch": run.batch,
        "threads": run.threads,
        "precision": run.precision,
        "baseline": base,
        "images_per_second": rates,
        "ratio": turns.ratios(rates, base),
        "first_update": first,
    }
