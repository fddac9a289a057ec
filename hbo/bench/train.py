"""python -m hbo.bench train: training throughput and memory against baselines, in turns in one run.

    python -m hbo.bench train --data imagenet --batch 32 --k 2
    HBO_REFERENCE=DIR python -m hbo.bench train --data imagenet --batch 32 --compile --json

Each candidate is a process of its own, with its own peak of memory; all train in turns (forward,
backward, SGD) on the same random images, so that a slowdown of the machine affects all of them; the
first turn is a warm-up. Compare ratios to the baseline rather than single figures. The gain of a
CPU's fast paths is measured by the CPU time of the processes, which other work on the machine
disturbs less: use --threads 1. The candidates:

    nchw            the same network without any tuning: NCHW order, uncompiled; the baseline without a
    reference channels_last   what `hbo.fit` trains, and how: it keeps the memory that it frees
                    (`hbo.kernels.allocator`)
    plain           the same, freed memory kept, with PyTorch's own modules: no quick path of
                    `hbo.kernels.norm` and `hbo.kernels.depthwise`
    no_batch_norm   channels_last with PyTorch's own batch norm; no_depthwise with its own 5x5 depthwise
                    convolution
    compiled        the same through torch.compile, with --compile; its start-up is reported separately
    mobilenetv2     at the same multiply-adds, as `hbo.fit` trains it
    reference       the authors' own definition, NCHW, where $HBO_REFERENCE names a checkout of their release;
                    the baseline
    reference_kept  the same in a process that keeps the memory that it frees
"""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from hbo import config, files, flags, nets
from hbo.bench import turns
from hbo.errors import UserError
from hbo.kernels import allocator
from hbo.kernels.depthwise import Depthwise
from hbo.kernels.norm import BatchNorm
from hbo.nets.size import total, width_for
from hbo.text import aligned

TURNS, STEPS = 7, 3  # measured turns by default, after one of warm-up; updates per turn


QUICK: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {  # a quick path: our module, PyTorch's own
    "batch_norm": (BatchNorm, nn.BatchNorm2d),
    "depthwise": (Depthwise, nn.Conv2d),
}


class Contender(NamedTuple):
    """How a process trains.

    `released`: its network is the authors' own definition; `kept`: it keeps freed memory; `off`: quick paths
    it leaves out.
    """

    run: config.Run
    released: bool = False
    kept: bool = True
    off: tuple[str, ...] = ()


def main(argv: list[str]) -> None:
    """The command line: the flags of `hbo.fit`, and `--json`."""
    parser = flags.make_parser("hbo.bench train", "Images/s of training against baselines, in one run.")
    parser.add_argument("--json", action="store_true", help="Print JSON, with every turn.")
    parser.add_argument(
        "--turns",
        type=int,
        default=TURNS,
        help=f"Measured turns of {STEPS} updates each (default {TURNS}).",
    )
    parser.add_argument(
        "--only", nargs="+", help="Measure only these, for instance if memory does not suffice for all."
    )
    given = flags.given(parser, argv)
    as_json, count, only = given.pop("json", False), given.pop("turns", TURNS), given.pop("only", None)
    if count < 1:
        raise UserError(f"turns={count}: must be at least 1")
    run = config.resolve(**given)
    found = train(run, count, only)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    base = found["baseline"]
    print(
        f"{config.describe_net(run)}\n{run.resolution} x {run.resolution}, batch {run.batch}, {run.threads}"
        " threads"
    )
    print(
        f"{found['machine']}, torch {found['torch']}; {count} turn{'s' * (count > 1)} of {STEPS} updates;"
        f" ratios to {base}, turn by turn\n"
    )
    if "mobilenetv2" in found["nets"]:
        print(f"mobilenetv2 at the same multiply-adds: {found['nets']['mobilenetv2']}\n")
    for name, why in found["left_out"].items():
        print(f"{name} left out: {why}\n")
    beside = {
        "start-up": {name: f"{seconds:.1f} s" for name, seconds in found["first_update"].items()},
        "memory": {name: f"{size / 1e9:.2f} GB" for name, size in found["peak_bytes"].items()},
    }
    print(turns.table("images/s", found["images_per_second"], base, beside=beside))
    if found["worth"]:
        print("\nquick path of channels_last: CPU time without it over CPU time with it, turn by turn\n")
        print(
            *aligned(
                [(name, *turns.spread(values, 2)) for name, values in found["worth"].items()], right=(1,)
            ),
            sep="\n",
        )
    print(f"\nstart-up: seconds of the first update; memory: the most that {found['peak_is']}")


def rivals(run: config.Run) -> tuple[dict[str, Contender], dict[str, str]]:
    """Name -> rival, the baseline first; and name -> reason for those that cannot be built.

    Raises:
        UserError: the run is not a classifier's; $HBO_REFERENCE names no checkout of the release, or one that
            has no such network.
    """
    if run.task != "classify":
        raise UserError(
            f"task={run.task}: only classifiers are measured; use --data imagenet, or leave --task and"
            " --data out"
        )
    own = replace(run, compile=False, channels_last=True)
    plain = replace(own, channels_last=False)
    left_out: dict[str, str] = {}
    found = {"nchw": Contender(plain, kept=False), "channels_last": Contender(own)}
    if run.net in nets.TABLES and not _on_gpu(run):
        found["plain"] = Contender(own, off=tuple(QUICK))
        found |= {f"no_{name}": Contender(own, off=(name,)) for name in QUICK}
    if run.compile:
        found["compiled"] = Contender(replace(own, compile=True))
    if run.net != "mobilenetv2" and run.net in nets.TABLES:
        macs = total(run.net, config.block_of(run), run.width, run.divisor, run.first_stage, 224, 1000).macs
        for divisor in (2, 1):  # its widths are coarse: odd channels where even ones miss by more than 3 %
            try:
                width, _ = width_for(macs / 1e6, "mobilenetv2", nets.Block(), divisor, "release")
            except UserError as error:
                left_out["mobilenetv2"] = str(error)
                continue
            fields = config.resolve(**_outer(own), net="mobilenetv2", width=width, divisor=divisor)
            found["mobilenetv2"], left_out = Contender(fields), {}
            break
    if folder := os.environ.get("HBO_REFERENCE"):
        reference(run, Path(folder))  # refused here, not in its process
        found = {
            "reference": Contender(plain, True, kept=False),
            "reference_kept": Contender(plain, True),
        } | found
    return found, left_out


def _outer(run: config.Run) -> dict[str, Any]:
    """The fields of a run that are not its network's."""
    names = (
        "data",
        "data_dir",
        "resolution",
        "eval_resize",
        "batch",
        "lr",
        "momentum",
        "weight_decay",
        "seed",
        "precision",
    )
    return {name: getattr(run, name) for name in (*names, "threads", "accelerator", "channels_last")}


def reference(run: config.Run, folder: Path) -> Any:
    """The authors' definition of the run's network, from a checkout of their release.

    Raises:
        UserError: no such file, or a network that the release does not define.
    """
    path = files.expanded(folder) / "models" / "imagenet" / "hbonet.py"
    spec = importlib.util.spec_from_file_location("hbonet_release", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError(
            f"HBO_REFERENCE={folder}: holds no models/imagenet/hbonet.py; name a checkout of the authors'"
            " release"
        )
    block = replace(config.block_of(run), k=1)
    if (
        run.net != "hbonet"
        or block != nets.Block()
        or run.first_stage != "release"
        or run.k == 0
        or not run.width
    ):
        raise UserError(
            "HBO_REFERENCE: the release defines hbonet alone, k from 1 to 3, every other switch as by default"
        )
    release = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(release)
    net = release.hbonet(width_mult=run.width)
    assert run.divisor is not None
    parts = nets.layout(nets.HBONET, run.width, run.divisor)
    # Its definition has one k and one divisor a width, and comments say which lines to exchange for the
    # others.
    net.features[0] = release.conv_3x3_bn(3, parts[0].cin, 2)
    for i, part in enumerate(parts, start=1):
        if part.row.block == "conv":
            net.features[i] = release.conv_1x1_bn(part.cin, part.cout, activation=False)
        else:
            name = (
                "InvertedResidual"
                if part.row.block == "ir"
                else f"HarmoniousBottleneck_{2 ** min(run.k, part.row.cap)}x"
            )
            net.features[i] = getattr(release, name)(part.cin, part.cout, part.stride, part.row.expand)
    net.conv = release.conv_1x1_bn(parts[-1].cout, nets.head_channels(nets.HBONET, run.width, run.divisor))
    return net


def use_pytorchs_own(net: nn.Module, paths: Sequence[str]) -> None:
    """Replace modules with a quick path, those of `paths` in `QUICK`, by PyTorch's, in place."""
    for module in net.modules():
        for ours, theirs in (QUICK[name] for name in paths):
            if type(module) is ours:
                module.__class__ = theirs


def train(run: config.Run, count: int = TURNS, only: list[str] | None = None) -> dict[str, Any]:
    """Images/s of each rival, one per turn, their ratios to the first, seconds of each one's first update,
    its peak memory.

    Also CPU seconds per update, one per turn, and from them `worth`: of each quick path and of `all` of them.
    """
    beside, left_out = rivals(run)
    if unknown := set(only or ()) - beside.keys():
        raise UserError(f"only={' '.join(sorted(unknown))}: choose from {', '.join(beside)}")
    beside = {name: rival for name, rival in beside.items() if only is None or name in only}
    context = turns.processes(_on_gpu(run))
    pipes, started = {}, []
    first: dict[str, float] = {}
    peak: dict[str, int] = {}
    cpu: dict[str, list[float]] = {name: [] for name in beside}

    def rate(name: str) -> float:
        steps = STEPS if name in first else 1
        pipes[name].send(steps)
        seconds, of_cpu = pipes[name].recv()
        if name in first:
            cpu[name].append(of_cpu / steps)
        first.setdefault(name, seconds)
        return steps * run.batch / seconds

    try:
        for name, rival in beside.items():
            pipes[name], theirs = context.Pipe()
            started.append(context.Process(target=_serve, args=(theirs, rival), daemon=True))
            started[-1].start()
            theirs.close()
        rates = turns.take_turns({name: partial(rate, name) for name in beside}, count)
        for name, pipe in pipes.items():
            pipe.send(None)
            peak[name] = pipe.recv()
    except EOFError:
        raise UserError(
            "a process ended: see its output above; all need memory at once; use a smaller --batch or --only"
            " some"
        ) from None
    finally:
        for process in started:
            process.terminate()
    base = next(iter(rates))
    return turns.where() | {
        "nets": {name: config.describe_net(rival.run) for name, rival in beside.items()},
        "left_out": left_out,
        "resolution": run.resolution,
        "batch": run.batch,
        "threads": run.threads,
        "precision": run.precision,
        "baseline": base,
        "images_per_second": rates,
        "ratio": turns.ratios(rates, base),
        "cpu_seconds_an_update": cpu,
        "worth": _worth(cpu),
        "first_update": first,
        "peak_bytes": peak,
        "peak_is": "it held on the GPU" if _on_gpu(run) else "its process held",
    }


def _worth(cpu: dict[str, list[float]]) -> dict[str, list[float]]:
    """CPU time without a quick path over that of `channels_last`, turn by turn."""
    without = {"all": "plain"} | {name: f"no_{name}" for name in QUICK}
    ratios = turns.ratios(cpu, "channels_last") if "channels_last" in cpu else {}
    return {name: ratios[rival] for name, rival in without.items() if rival in ratios}


def _on_gpu(run: config.Run) -> bool:
    return torch.cuda.is_available() and run.accelerator != "cpu"


def _serve(pipe: Any, rival: Contender) -> None:
    """A rival's process: trains as many updates as asked and answers with their seconds and CPU seconds; at
    the end, with its peak memory.
    """
    import resource

    from hbo.runs.trainer import quieten
    from hbo.tasks.classify.module import Classify

    run = rival.run
    quieten()
    torch.set_num_threads(run.threads)
    if rival.kept:
        allocator.keep_freed_memory()
    cuda = _on_gpu(run)
    device = "cuda" if cuda else "cpu"
    torch.manual_seed(run.seed)
    images = torch.randint(
        0, 256, (run.batch, 3, run.resolution, run.resolution), dtype=torch.uint8, device=device
    )
    labels = torch.randint(0, 1000, (run.batch,), device=device)
    task = Classify(run, 1000)
    if rival.released:
        task.net = reference(run, Path(os.environ["HBO_REFERENCE"]))
    use_pytorchs_own(task.net, rival.off)
    task = task.to(device).train()
    if run.compile:
        task.net.compile()
    optimizer = task.configure_optimizers()["optimizer"]
    kind = torch.bfloat16 if "bf16" in run.precision else torch.float16
    while steps := pipe.recv():
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device, dtype=kind, enabled=run.precision != "32-true"):
                loss = task.loss(task(images), labels)
            loss.backward()
            optimizer.step()
        if cuda:
            torch.cuda.synchronize()
        pipe.send((time.perf_counter() - start, time.process_time() - cpu))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    pipe.send(torch.cuda.max_memory_allocated() if cuda else held)
