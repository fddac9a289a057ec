"""python -m hbo.bench operators: which of XNNPACK's operators an image's time goes to, beside MobileNetV2.

    .venv-executorch/bin/python -m hbo.bench operators --data imagenet --width 0.25 --divisor 8 --k 1

The network and MobileNetV2 at the same multiply-adds, both through `hbo.deploy` into ExecuTorch, on one
thread, an image each in turn. ExecuTorch's event tracer times every operator inside the delegate; an
operator's time is its least over the turns, as whatever else the machine does only adds to it.
"""

import json
import re
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from hbo import config, flags
from hbo.bench import train, turns
from hbo.deploy import deploy
from hbo.deploy.runtimes import for_executorch as executorch
from hbo.deploy.runtimes.base import quiet
from hbo.errors import UserError
from hbo.tasks import build
from hbo.text import aligned

IMAGES = 60


class Kind(NamedTuple):
    """All operators of one kind in a network."""

    operators: int
    least: float  # microseconds an image: the sum of each operator's least
    median: float


def main(argv: list[str]) -> None:
    """The command line: the flags of `hbo.fit`, and `--json`."""
    parser = flags.make_parser("hbo.bench operators", "Microseconds of XNNPACK's operators, in one run.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    given = flags.given(parser, argv)
    as_json = given.pop("json", False)
    found = measure(config.resolve(**given))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    print("\n".join(f"{name}: {net}" for name, net in found["nets"].items()))
    print(f"{found['machine']}, {found['versions']}; one thread, {IMAGES} images each in turn")
    print("microseconds an image (number of operators)\n")
    print(table({name: _kinds(kinds) for name, kinds in found["kinds"].items()}))


def measure(run: config.Run) -> dict[str, Any]:
    """Network -> kind of operator -> number, least and median microseconds; the machine and the versions.

    Raises:
        UserError: ExecuTorch is not installed, or has no event tracer; there is no MobileNetV2 of that size.
    """
    executorch.RUNTIME.require()
    beside, left_out = train.rivals(run)
    if "mobilenetv2" not in beside:
        raise UserError(
            f"net={run.net}: no mobilenetv2 at its multiply-adds; {left_out.get('mobilenetv2', '')}"
        )
    runs = {"own": run, "mobilenetv2": beside["mobilenetv2"].run}
    programs = {}
    for name, fields in tqdm(runs.items(), desc="convert", leave=False):
        torch.manual_seed(run.seed)
        net = deploy(build.network(fields, 1000).eval(), executorch.RUNTIME.target)
        programs[name] = executorch.RUNTIME.convert(net, run.resolution).files[".pte"]
    return turns.where() | {
        "versions": " ".join(f"{name}={n}" for name, n in executorch.RUNTIME.versions().items()),
        "nets": {name: config.describe_net(fields) for name, fields in runs.items()},
        "kinds": {
            name: {kind: found._asdict() for kind, found in kinds.items()}
            for name, kinds in timed(programs, run.resolution).items()
        },
    }


def timed(programs: dict[str, bytes], resolution: int) -> dict[str, dict[str, Kind]]:
    """Program -> kind of operator -> its time.

    Raises:
        UserError: ExecuTorch was built without its event tracer.
    """
    with quiet():
        from executorch.extension.pybindings.portable_lib import (  # pyright: ignore
            _unsafe_reset_threadpool,
        )
        from executorch.runtime import Runtime  # pyright: ignore

        _unsafe_reset_threadpool(1)
        opened = {
            name: Runtime.get().load_program(content, enable_etdump=True, debug_buffer_size=0)
            for name, content in programs.items()
        }
    methods = {name: program.load_method("forward") for name, program in opened.items()}
    image = [torch.randn(1, 3, resolution, resolution)]
    for _ in range(IMAGES + 1):
        for method in methods.values():
            method.execute(image)
    return {name: by_kind(_events(program)) for name, program in opened.items()}


def _events(program: Any) -> list[tuple[str, list[float]]]:
    """Each operator in the delegate and its microseconds, an image after another."""
    with quiet():
        from executorch.devtools import Inspector  # pyright: ignore
        from executorch.devtools.inspector import TimeScale  # pyright: ignore

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.etdp"
            program.write_etdump_result_to_file(str(path), str(Path(folder) / "outputs"))
            if not path.exists():
                raise UserError("operators: this ExecuTorch was built without its event tracer")
            inspected = Inspector(
                etdump_path=str(path), source_time_scale=TimeScale.NS, target_time_scale=TimeScale.US
            )
    events = [event for block in inspected.event_blocks if block.name == "Execute" for event in block.events]
    return [(event.name, event.perf_data.raw) for event in events if event.is_delegated_op]


def by_kind(events: Iterable[tuple[str, list[float]]]) -> dict[str, Kind]:
    """Kind -> its operators together; the first image warms up."""
    found: dict[str, Kind] = {}
    for name, (_, *times) in events:
        kind = re.sub(r" \([^)]*\)| #\d+$", "", name)  # Convolution (NHWC, F32) DWConv #12
        n, least, median = found.get(kind, Kind(0, 0.0, 0.0))
        found[kind] = Kind(n + 1, least + min(times), median + statistics.median(times))
    return found


def table(found: dict[str, dict[str, Kind]]) -> str:
    """A kind a line, the costliest of the first network first: least microseconds, and how many operators."""
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
