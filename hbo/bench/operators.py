"""python -m hbo.bench operators: which operators of a runtime an image's time goes to, next to MobileNetV2's.

    python -m hbo.bench operators --to onnx --data imagenet --width 0.25 --divisor 8 --k 1

The network and MobileNetV2 at the same multiply-adds, both through `hbo.deploy` into the runtime, on one
thread, one image each in turn. The runtime's own tracer times every operator (ExecuTorch's: those inside the
delegate); an operator's time is its least over the turns, as other work on the machine only adds to it.
With `--int8` both also in 8 bits, in the same turns.
"""

import json
import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from hbo import config, flags
from hbo.bench import train, turns
from hbo.deploy import deploy
from hbo.deploy.runtimes import RUNTIMES, Event, Files, Runtime, named
from hbo.errors import UserError
from hbo.tasks import build
from hbo.text import aligned

IMAGES = 60
CALIBRATION = 8
TRACED = tuple(name for name in RUNTIMES if type(named(name)).traced is not Runtime.traced)
DEFAULT = "executorch"


class Kind(NamedTuple):
    """All operators of one kind in a network."""

    operators: int
    least: float  # microseconds per image: the sum of each operator's least
    median: float


def main(argv: list[str]) -> None:
    """The command line: the flags of `hbo.fit`, `--to` and `--json`."""
    parser = flags.make_parser("hbo.bench operators", "Microseconds of a runtime's operators, in one run.")
    parser.add_argument("--to", choices=TRACED, default=DEFAULT, help="The runtime: %(choices)s.")
    parser.add_argument("--int8", action="store_true", help="Also both networks in 8 bits.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    given = flags.given(parser, argv)
    as_json, to = given.pop("json", False), given.pop("to", DEFAULT)
    int8 = given.pop("int8", False)
    found = measure(config.resolve(**given), to, int8)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    print("\n".join(f"{name}: {net}" for name, net in found["nets"].items()))
    print(f"{found['machine']}, {found['versions']}; one thread, {IMAGES} images each in turn")
    print(f"microseconds per image in {named(to).title} (number of operators)\n")
    print(table({name: _kinds(kinds) for name, kinds in found["kinds"].items()}))


def measure(run: config.Run, to: str = DEFAULT, int8: bool = False) -> dict[str, Any]:
    """Network -> kind of operator -> number, least and median microseconds; the machine and the versions.

    Args:
        run: the network.
        to: the runtime.
        int8: also "own int8" and "mobilenetv2 int8", calibrated with random images: for times alone.

    Raises:
        UserError: the runtime is not installed, not traced or has no int8; there is no MobileNetV2 of that
            size.
    """
    runtime = named(to)
    runtime.require(int8=int8)
    beside, left_out = train.rivals(run)
    if "mobilenetv2" not in beside:
        raise UserError(
            f"net={run.net}: no mobilenetv2 at its multiply-adds; {left_out.get('mobilenetv2', '')}"
        )
    runs = {"own": run, "mobilenetv2": beside["mobilenetv2"].run}
    files = {}
    for name, fields in tqdm(runs.items(), desc="convert", leave=False):
        torch.manual_seed(run.seed)
        net = deploy(build.network(fields, 1000).eval(), runtime.target)
        files[name] = runtime.convert(net, run.resolution).files
        if int8:
            images = torch.randn(CALIBRATION, 3, run.resolution, run.resolution).numpy()
            files[f"{name} int8"] = runtime.quantize(net, run.resolution, images).files
    return turns.where() | {
        "versions": " ".join(f"{name}={n}" for name, n in runtime.versions().items()),
        "nets": {name: config.describe_net(fields) for name, fields in runs.items()},
        "kinds": {
            name: {kind: found._asdict() for kind, found in kinds.items()}
            for name, kinds in timed(runtime, files, run.resolution).items()
        },
    }


def timed(runtime: Runtime, files: dict[str, Files], resolution: int) -> dict[str, dict[str, Kind]]:
    """Network -> kind of operator -> its time; one image each in turn."""
    opened = {name: runtime.traced(of) for name, of in files.items()}
    image = torch.randn(1, 3, resolution, resolution).numpy()
    for _ in range(IMAGES + 1):
        for one in opened.values():
            one.run(image)
    return {name: by_kind(one.events()) for name, one in opened.items()}


def by_kind(events: Iterable[Event]) -> dict[str, Kind]:
    """Kind -> its operators together; the first image warms up, and what ran only then is left out."""
    found: dict[str, Kind] = {}
    for kind, (_, *times) in events:
        if not times:
            continue
        n, least, median = found.get(kind, Kind(0, 0.0, 0.0))
        found[kind] = Kind(n + 1, least + min(times), median + statistics.median(times))
    return found


def table(found: dict[str, dict[str, Kind]]) -> str:
    """One kind per line, the first network's costliest first: least microseconds, and how many operators."""
    columns = [kinds | {"all": _together(kinds)} for kinds in found.values()]
    kinds = list(dict.fromkeys(kind for column in columns for kind in column))
    kinds.sort(key=lambda kind: (kind == "all", -columns[0].get(kind, Kind(0, 0.0, 0.0)).least))
    lines = [("", *found)]
    for kind in kinds:
        of = [column.get(kind) for column in columns]
        lines.append((kind, *(f"{one.least:.0f} ({one.operators})" if one else "" for one in of)))
    return "\n".join(aligned(lines, right=range(1, 1 + len(found))))


def _together(kinds: dict[str, Kind]) -> Kind:
    operators, least, median = zip(*kinds.values(), strict=True)
    return Kind(sum(operators), sum(least), sum(median))


def _kinds(kinds: dict[str, Any]) -> dict[str, Kind]:
    return {kind: Kind(**found) for kind, found in kinds.items()}
