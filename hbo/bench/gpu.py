"""python -m hbo.bench gpu: training on a GPU, in one JSON file and within minutes.

    python -m hbo.bench gpu --to gpu.json
    python -m hbo.bench gpu --accelerator cpu --widths 0.1 --batch 4 --resolution 64 --seconds 0.1   # a trial

Random weights, random images. The parts:

    train    images/s and peak memory of HBONet (k = 1), torchvision's MobileNetV2 and, where
             $HBO_REFERENCE names a checkout of their release, the authors' definition: fp32, TF32 (what
             PyTorch takes for convolutions) and bf16, channels-last or not, compiled or not, the optimizer
             fused or not, images on the device or copied to it for each update
    places   images/s of 1, 2, 4 and 8 processes that share the device, each training the narrowest network
             at a batch and a resolution at which one process leaves most of a large GPU idle
    latency  milliseconds per batch of 1 and of 64 images, as trained and after `hbo.deploy`
    resume   `hbo.fit` on `digits`: two equal runs, and one killed and resumed; the largest difference
             between the weights (0: bit for bit)

The file is written after every measurement. It names what there was no time for.
"""

import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from hbo import config, files
from hbo.bench import resumed, train, turns
from hbo.bench.shared import Place, places
from hbo.deploy import deploy
from hbo.errors import UserError
from hbo.nets import WIDEST
from hbo.text import aligned
from hbo.words import Parser

REPEATS = 3  # of every measurement, after one that warms up
PARTS = ("train", "places", "latency", "resume")
LATENCY = (1, 64)  # images in a batch


class Setting(NamedTuple):
    """How a network is trained."""

    net: str
    width: float
    precision: str = "tf32"
    channels_last: bool = True
    compiled: bool = False
    fused: bool = True
    on_device: bool = True


class Plan(NamedTuple):
    """What the command line asks for.

    `batch` images of `resolution` pixels per update; `places`: numbers of processes that share the
    device; `only`: of `PARTS`; `seconds` of each of `REPEATS` measurements; `minutes` in all,
    after which nothing further begins.
    """

    device: str
    widths: list[float]
    batch: int
    resolution: int
    places: list[int]
    only: list[str]
    seconds: float
    minutes: float


def main(argv: list[str]) -> None:
    """The command line: where the file goes, and the sizes."""
    parser = Parser(prog="python -m hbo.bench gpu", description="Measure training on a GPU; write one JSON.")
    parser.add_argument("--to", default="gpu.json", help="File to write. [gpu.json]")
    parser.add_argument("--accelerator", choices=("gpu", "cpu"), default="gpu", help="Device. [gpu]")
    parser.add_argument("--widths", type=float, nargs="+", default=[0.25, 1.0], help="Widths. [0.25 1.0]")
    parser.add_argument("--batch", type=int, default=256, help="Images per update. [256]")
    parser.add_argument("--resolution", type=int, default=224, help="Side of an image in pixels. [224]")
    parser.add_argument("--seconds", type=float, default=1.5, help="Seconds per measurement. [1.5]")
    parser.add_argument(
        "--places",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8],
        help="Processes on the device. [1 2 4 8]",
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="Parts. [all]")
    parser.add_argument("--minutes", type=float, default=8, help="Begin no measurement after this many. [8]")
    asked = parser.parse_args(argv)
    if asked.accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError(
            "accelerator=gpu: there is no GPU here; for a trial, "
            "--accelerator cpu --widths 0.1 --batch 4 --resolution 64 --seconds 0.1"
        )
    for name, least in (("batch", 2), ("resolution", 32), ("seconds", 0), ("minutes", 0)):
        if not getattr(asked, name) >= least:
            raise UserError(f"{name}={getattr(asked, name)}: must be at least {least}")
    if odd := [width for width in asked.widths if not 0 < width <= WIDEST]:
        raise UserError(f"widths={odd[0]}: must be positive, and at most {WIDEST}")
    if odd := [count for count in asked.places if count < 1]:
        raise UserError(f"places={odd[0]}: must be at least 1")
    to = files.expanded(asked.to, "to")
    if not to.parent.is_dir():
        raise UserError(f"to={asked.to}: there is no folder {to.parent}")
    device = "cuda" if asked.accelerator == "gpu" else "cpu"
    sizes = {name: getattr(asked, name) for name in Plan._fields if name != "device"}
    print(table(measure(Plan(device, **sizes), to)))


def measure(plan: Plan, to: Path) -> dict[str, Any]:
    """All parts, the most important first; the file is written after each measurement."""
    end = time.monotonic() + 60 * plan.minutes
    found: dict[str, Any] = turns.where() | plan._asdict() | {"device": device_facts(plan.device)}
    found |= {"train": [], "places": [], "latency": [], "resume": {}, "left_out": {}}
    if plan.device == "cpu":
        found["left_out"]["train: compiled"] = "compiling for a CPU takes longer than all the rest"
    for part, name, call in tqdm(list(measurements(plan)), desc="measurements", leave=False):
        if time.monotonic() > end:
            found["left_out"][f"{part}: {name}"] = f"{plan.minutes:g} minutes were over"
            continue
        try:
            got = call()
        except (torch.cuda.OutOfMemoryError, UserError) as error:
            found["left_out"][f"{part}: {name}"] = str(error).splitlines()[0]
            continue
        if isinstance(found[part], list):
            found[part].append({"name": name} | got)
        else:
            found[part] |= got
        files.write_atomically(to, json.dumps(found, indent=1))
    files.write_atomically(to, json.dumps(found, indent=1))
    return found


def measurements(plan: Plan) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Part, name and call of each measurement that was asked for."""
    todo: dict[str, list[tuple[str, Callable[[], Any]]]] = {part: [] for part in PARTS}
    for setting in settings(plan):
        todo["train"].append((name_of(setting), partial(trained, setting, plan)))
    place = Place(plan.device, min(plan.widths), min(plan.batch, 64), min(plan.resolution, 64), plan.seconds)
    for count in plan.places:
        todo["places"].append((f"{count} process{'es' * (count > 1)}", partial(places, place, count)))
    for width, net, batch in itertools.product(plan.widths, ("hbonet", "mobilenetv2"), LATENCY):
        name = f"{net} {width:g} batch {batch}"
        todo["latency"].append((name, partial(latency, net, width, batch, plan)))
    todo["resume"].append(("digits", partial(resumed.resumed, "gpu" if plan.device == "cuda" else "cpu")))
    for part in PARTS:
        for name, call in todo[part] if part in plan.only else ():
            yield part, name, call


def device_facts(device: str) -> dict[str, Any]:
    """Name, memory in bytes and versions of the device."""
    if device == "cpu":
        return {"name": "cpu", "threads": torch.get_num_threads()}
    about = torch.cuda.get_device_properties(0)
    cudnn = torch.backends.cudnn.version()
    return {"name": about.name, "memory": about.total_memory, "cuda": torch.version.cuda, "cudnn": cudnn}


def settings(plan: Plan) -> list[Setting]:
    """What is trained: ours in every variant, the others as a user would; compiled ones last and only on a
    GPU, as they take longest to start.
    """
    found = []
    for width in plan.widths:
        ours = Setting("hbonet", width)
        found += [ours._replace(precision=p, channels_last=c) for p in PRECISIONS for c in (True, False)]
        found += [
            ours._replace(precision="bf16", fused=False),
            ours._replace(precision="bf16", on_device=False),
        ]
        for net in ("torchvision:mobilenet_v2", *(["reference"] if os.environ.get("HBO_REFERENCE") else [])):
            found += [Setting(net, width, "tf32", False), Setting(net, width, "bf16")]
    compiled = [Setting("hbonet", width, "bf16", compiled=True) for width in plan.widths]
    return found + (compiled if plan.device == "cuda" else [])


def name_of(setting: Setting) -> str:
    """A line of the table: the network and how it differs from TF32, channels-last."""
    parts = [setting.net, f"{setting.width:g}", setting.precision]
    parts += [] if setting.channels_last else ["nchw"]
    parts += ["compiled"] if setting.compiled else []
    parts += [] if setting.fused else ["optimizer not fused"]
    parts += [] if setting.on_device else ["images copied"]
    return " ".join(parts)


PRECISIONS = ("fp32", "tf32", "bf16")


@contextmanager
def arithmetic(precision: str, device: str) -> Iterator[None]:
    """fp32: without TF32; tf32: where the device has it; bf16: autocast."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    try:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def network(net: str, width: float, classes: int = 1000) -> nn.Module:
    """A fresh network by its name; `reference` is the authors' own, torchvision's of any width.

    Raises:
        UserError: the release has no such network.
    """
    if net == "torchvision:mobilenet_v2":
        import torchvision

        return torchvision.models.mobilenet_v2(width_mult=width, num_classes=classes)
    run = config.resolve(data="imagenet", net="hbonet" if net == "reference" else net, width=width)
    if net == "reference":
        return train.reference(run, Path(os.environ["HBO_REFERENCE"]))
    from hbo.tasks.classify.module import Classify

    return Classify(run, classes).net


def on_device(net: Any, device: str, order: torch.memory_format) -> Any:
    """The network on the device, its weights in the given memory order."""
    return net.to(device, memory_format=order)


def trained(setting: Setting, plan: Plan) -> dict[str, Any]:
    """Images/s of updates, one per repeat; the peak memory in bytes; seconds of the first update."""
    cuda = plan.device == "cuda"
    torch.manual_seed(0)
    order = torch.channels_last if setting.channels_last else torch.contiguous_format
    net = on_device(network(setting.net, setting.width), plan.device, order).train()
    optimizer = torch.optim.SGD(net.parameters(), 0.05, 0.9, weight_decay=4e-5, fused=setting.fused)
    step = torch.compile(net) if setting.compiled else net
    size = (plan.batch, 3, plan.resolution, plan.resolution)
    images = torch.randint(0, 256, size, dtype=torch.uint8)
    images = images.pin_memory() if cuda else images
    there = images.to(plan.device)
    labels = torch.randint(0, 1000, (plan.batch,), device=plan.device)
    if cuda:
        torch.cuda.reset_peak_memory_stats()

    def update() -> None:
        batch = there if setting.on_device else images.to(plan.device, non_blocking=True)
        batch = batch.to(memory_format=order).float().div_(255)
        optimizer.zero_grad()
        with arithmetic(setting.precision, plan.device):
            loss = functional.cross_entropy(step(batch), labels)
            loss.backward()
        optimizer.step()

    first, rates = timed(update, plan.seconds, cuda)
    return setting._asdict() | {
        "images_per_second": [plan.batch / seconds for seconds in rates],
        "first_update": first,
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
    }


def timed(call: Callable[[], None], seconds: float, cuda: bool) -> tuple[float, list[float]]:
    """Seconds of the first call, and of a call in each of `REPEATS` measurements of about `seconds`."""

    def of(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            call()
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    first = of(1)
    count = max(1, round(seconds / of(3)))
    return first, [of(count) for _ in range(REPEATS)]


def latency(net: str, width: float, batch: int, plan: Plan) -> dict[str, Any]:
    """Milliseconds per batch in evaluation, as trained and deployed, in TF32 and bf16, channels-last."""
    torch.manual_seed(0)
    plain = network(net, width).eval()
    image = torch.rand(batch, 3, plan.resolution, plan.resolution, device=plan.device)
    image = image.to(memory_format=torch.channels_last)
    found: dict[str, Any] = {"net": net, "width": width, "batch": batch}
    for name, module in (("plain", plain), ("deployed", deploy(plain))):
        placed = on_device(module, plan.device, torch.channels_last)
        for precision in ("tf32", "bf16"):

            def answer(placed: Any = placed, precision: str = precision) -> None:
                with torch.inference_mode(), arithmetic(precision, plan.device):
                    placed(image)

            _, times = timed(answer, plan.seconds / 2, plan.device == "cuda")
            found[f"{name}_{precision}_ms"] = [1000 * seconds for seconds in times]
    return found


def table(found: dict[str, Any]) -> str:
    """The file as text: medians, with the ratio to the first line of each part."""
    parts = [f"{found['machine']}; {found['device']['name']}, torch {found['torch']}"]
    lines = [("train", "images/s", "ratio", "memory")]
    for row in found["train"]:
        rate, base = (statistics.median(r["images_per_second"]) for r in (row, found["train"][0]))
        memory = f"{row['peak_bytes'] / 1e9:.1f} GB" if row["peak_bytes"] else ""
        lines.append((row["name"], f"{rate:.0f}", f"{rate / base:.2f}", memory))
    lines += [("", "", "", ""), ("places", "images/s", "ratio", "")]
    for row in found["places"]:
        rate, base = (statistics.median(r["images_per_second"]) for r in (row, found["places"][0]))
        lines.append((row["name"], f"{rate:.0f}", f"{rate / base:.2f}", ""))
    lines += [("", "", "", ""), ("latency", "ms", "deployed", "bf16, deployed")]
    for row in found["latency"]:
        names = ("plain_tf32_ms", "deployed_tf32_ms", "deployed_bf16_ms")
        plain, deployed, half = (f"{statistics.median(row[name]):.2f}" for name in names)
        lines.append((row["name"], plain, deployed, half))
    parts.append("\n".join(aligned(lines, right=(1, 2, 3))))
    parts += [f"{name}: {value}" for name, value in found["resume"].items()]
    parts += [f"left out: {name}: {why}" for name, why in found["left_out"].items()]
    return "\n\n".join(parts[:2]) + "\n\n" + "\n".join(parts[2:])
