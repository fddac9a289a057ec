"""How long the runs of a plan will take, and where that is known from."""

import contextlib
import math
import os
import statistics
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from hbo import files
from hbo.config import Run
from hbo.kernels import allocator
from hbo.runs import identity, rows
from hbo.runs.identity import Identity
from hbo.sweep.plan import OVER, Entry, images
from hbo.tasks import build

START = 10.0  # seconds from a process's start to its first update: 8 to 10 on two cores of an AMD EPYC
EVALUATION = 1 / 3  # of the time that training on an image takes: no backward pass
SHARED = "measured with as many runs on a device"
ALONE = "no row was measured with {} runs on a device, so these are for one run after another"
CALIBRATION = 2.0  # seconds of updates of a network, the first included
NETWORKS, BUDGET = 12, 15.0  # networks to time, and seconds for all, at most; other networks are scaled
SCALED = ", scaled by the networks' activations"


def estimate(plan: list[Entry], together: int = 1) -> str:
    """Seconds of each run that is not done, and their source in words; each folder is looked at once.

    Rows of this machine count: of the same run with another seed, else of the same network and size of input,
    else of any network of that size. Without them, some updates of each network are timed, for at most BUDGET
    seconds. Other networks are scaled by their activations.

    Args:
        plan: all runs.
        together: runs on a device at once. Rows that were measured so say how long one of them takes; without
            such rows the times are those of one run after another.
    """
    todo = [entry for entry in plan if entry.run and entry.state not in OVER]
    if not todo:
        return "all measured"
    sources, hint = set(), ""
    known: dict[tuple[Any, ...], list[tuple[str, dict[str, Any]]]] = {}
    for one, row in _measured(plan):
        known.setdefault(_pace(row), []).append((identity.group(one), row))
    timed: dict[tuple[Any, ...], float] | None = None  # seconds an image, in training
    for entry in todo:
        run, written = entry.run, entry.written
        assert run is not None
        assert written is not None
        near = known.get(_pace(vars(run) | {"runs_per_device": together}), [])
        entry.together = together if near else 1
        near = near or known.get(_pace(vars(run)), [])
        if together > 1:
            sources.add(SHARED if entry.together > 1 else ALONE.format(together))
        asked = identity.group(entry.identity)
        same = [row["seconds"] for group, row in near if group == asked]
        if same:
            seconds = statistics.mean(same)
            sources.add("rows of this machine")
        else:
            near = [
                (group, row)
                for group, row in near
                if row.get("activation_bytes") and row.get("elementwise") is not None
            ]
            near = [pair for pair in near if pair[1].get("net") == run.net] or near
            if near:
                speed = statistics.median(1 / row["images_per_second"] / _written(row) for _, row in near)
                sources.add("rows of this machine" + SCALED)
            else:
                if timed is None:
                    timed = _timed(todo)
                    hint = _busy(run) + _other_threads(
                        known, _pace(vars(run) | {"runs_per_device": together})
                    )
                own = _built(entry)
                nearest = min(timed, key=lambda one: _distance(one, own))
                speed = timed[nearest] / nearest[1]
                sources.add("a calibration of a few seconds" + SCALED * (nearest != own))
            train, val, _ = images(run)
            seconds = run.all_epochs * (train + EVALUATION * val) * speed * written / run.world
        left = 1 - entry.step / entry.of if entry.of else 1.0
        entry.seconds = left * seconds + START
    kept = sorted(said for said in sources if said + SCALED not in sources)
    return "estimates, from " + "; ".join(kept) + hint


def _busy(run: Run) -> str:
    """What to add to a calibration on a CPU if other processes took part of it.

    CPU time instead would not do: threads that wait for each other use it too. On two busy cores, updates
    with two threads took 34 to 95 ms an image of the main thread's CPU time, and 38 to 106 ms by the clock.
    """
    load, cores = os.getloadavg()[0], os.cpu_count() or 1  # both of the whole machine, also in a job
    if _on_gpu(run) or load <= cores:
        return ""
    one = ", or with --threads 1" * (run.threads > 1)  # threads that share a core wait for each other
    return (
        f"; the load is {load:.1f} on {cores} core{'s' * (cores > 1)}, so less is likely when it is idle{one}"
    )


def _other_threads(known: Collection[tuple[Any, ...]], wanted: tuple[Any, ...]) -> str:
    """What to add to a calibration if rows differ from a run in their threads alone."""
    there = sorted(pace[1] for pace in known if pace[0] in (1, wanted[0]) and pace[2:] == wanted[2:])
    if not there:
        return ""
    return f"; rows here have threads={there[0]}: add --set threads={there[0]} to use their times"


def _built(entry: Entry) -> tuple[Any, ...]:
    """What a network's time depends on: its name, its activations, and how it is trained."""
    assert entry.run is not None
    return (entry.run.net, entry.written or 0, _pace(vars(entry.run)))


def _timed(todo: list[Entry]) -> dict[tuple[Any, ...], float]:
    """Seconds of training an image, of networks between the least and the greatest; the middle one first."""
    found = list({_built(entry): entry for entry in todo if entry.written}.items())
    found.sort(key=lambda pair: pair[0][:2])
    many = min(len(found), NETWORKS)
    chosen = [found[round(i * (len(found) - 1) / max(many - 1, 1))] for i in range(many)]
    start, timed = time.perf_counter(), {}
    for built, entry in sorted(chosen, key=lambda pair: pair is not chosen[many // 2]):
        assert entry.run is not None
        if not timed or time.perf_counter() - start < BUDGET:
            timed[built] = calibrate(entry.run)
    return timed


def _distance(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[bool, bool, float]:
    """How well the time of one network predicts another's: trained alike, of the same name, of similar
    size.
    """
    return (one[2] != other[2], one[0] != other[0], abs(math.log((one[1] or 1) / (other[1] or 1))))


def _measured(plan: list[Entry]) -> list[tuple[Identity, dict[str, Any]]]:
    """Finished rows of this machine, wherever the plan's runs lie, and what each is but for its seed."""
    here = rows.machine()
    roots = {files.expanded(entry.run.out) for entry in plan if entry.run}
    found = [rows.sound(path.parent) or {} for root in roots for path in root.glob("*/*/row.json")]
    done = [
        row
        for row in found
        if row.get("state") == "done" and row.get("machine") == here and row.get("images_per_second")
    ]
    return [(identity.arm_of(row), row) for row in done]


def _pace(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What images/s depend on besides the network: rows that share it can be scaled to each other."""
    machine = ("threads", "accelerator", "devices", "num_nodes")  # they do not affect results
    fields = (*machine, "precision", "channels_last", "compile", "resolution", "batch")
    return (row.get("runs_per_device") or 1, *(row.get(name, getattr(Run, name)) for name in fields))


def _written(row: dict[str, Any]) -> int:
    return row["activation_bytes"] // 4 + row["elementwise"]


def _on_gpu(run: Run) -> bool:
    return torch.cuda.is_available() and run.accelerator in ("auto", "gpu")


def calibrate(run: Run) -> float:
    """Seconds that training takes for an image of this run, on a device of this machine: some updates on
    made-up images.
    """
    gpu = _on_gpu(run)
    device, batch = ("cuda", run.batch // run.world) if gpu else ("cpu", min(32, run.batch // run.world))
    before = torch.get_num_threads()
    torch.set_num_threads(run.threads)
    allocator.keep_freed_memory()  # as `hbo.fit` does
    memory = torch.channels_last if run.channels_last else torch.contiguous_format
    net = build.network(replace(run, seed=0), 10).to(device).to(memory_format=memory).train()  # pyright: ignore[reportCallIssue]
    made_up = torch.randn(batch, 3, *run.size, device=device).contiguous(memory_format=memory)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    mixed = torch.autocast(device, dtype=torch.bfloat16 if "bf16" in run.precision else torch.float16)
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds) < CALIBRATION / 2 and len(seconds) < 50):
        start = time.perf_counter()
        net.zero_grad()
        with contextlib.nullcontext() if run.precision == "32-true" else mixed:
            out = net(made_up)
            loss = (
                F.cross_entropy(out, labels)
                if run.task == "classify"
                else torch.stack([part.mean() for part in out]).sum()
            )
        loss.backward()
        with torch.no_grad():  # by hand: torch's optimizers first import its compiler, for seconds
            for weight in net.parameters():
                if weight.grad is not None:
                    weight.sub_(weight.grad, alpha=0.01)
        if gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > CALIBRATION and len(seconds) > 1:
            break
    torch.set_num_threads(before)
    return statistics.median(seconds[1:]) / batch
