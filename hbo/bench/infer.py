"""python -m hbo.bench infer: milliseconds per image against baselines, in turns in one run.

    python -m hbo.bench infer --data imagenet --width 0.25 --divisor 8 --k 2
    HBO_REFERENCE=DIR python -m hbo.bench infer --data imagenet --json
    python -m hbo.bench infer --data imagenet --divisor 8 --csv FILE  # every runtime, every turn
    python -m hbo.bench infer --trained runs/STUDY/KEY ... --csv FILE  # the same of trained runs, with top-1
    python -m hbo.bench infer --from LOG                         # what a phone's benchmark printed, as rows
    python -m hbo.bench infer --studies contraction mobilenetv2  # rows of ablations/ -> ablations/latency.csv

One image at a time, on one thread and on two, with fresh weights. The rivals:

    plain        the network as it was trained, through torch.onnx in ONNX Runtime, which folds batch norm
                 itself; the baseline
    deployed     the same weights through `hbo.deploy`; its logits are compared with plain's before anything
                 is timed
    eager        PyTorch, channels-last
    mobilenetv2  at the same multiply-adds: _plain as torchvision has it, _deployed through `hbo.deploy` too
    reference    the authors' own definition, exported as it is, where $HBO_REFERENCE names a checkout of
                 their release
    RUNTIME:...  plain, deployed and, if there is one, int8, of both networks, in each other runtime that is
    installed here or in `.venv-RUNTIME`
                 (`make runtimes`), in a process of its own that takes its turns with the others

The machine's limit: multiply-adds over the rate of a large matrix product in ONNX Runtime, measured in the
same turns.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hbo import config, files, flags
from hbo.analysis import results
from hbo.bench import phone, runtime_table, studies, train, trained, turns
from hbo.bench.one_image import IMAGES, THREADS, TURNS, check_same, milliseconds
from hbo.bench.worker import Worker, converted, environments
from hbo.deploy.runtimes import for_onnx as onnx
from hbo.errors import UserError
from hbo.tasks import build

SIZE = 1024  # of the square matrices whose product is the machine's limit


def main(argv: list[str]) -> None:
    """The command line: the flags of `hbo.fit`, and `--json`; or `--studies`."""
    parser = flags.make_parser("hbo.bench infer", "Milliseconds per image against baselines, in one run.")
    parser.add_argument("--json", action="store_true", help="Print JSON, with every turn.")
    parser.add_argument(
        "--csv",
        help="Write a line for each runtime, network, precision and number of threads, turns included;"
        " also write them as a Markdown table, with the suffix .md.",
    )
    parser.add_argument(
        "--from",
        help="Read the output of a phone's benchmark programs (hbo.export --to android-bench) into rows.",
    )
    parser.add_argument(
        "--studies", nargs="+", help="Measure the networks of these studies instead, into TO/latency.csv."
    )
    parser.add_argument(
        "--source", help="With --studies: folder of runs, CSV, folder of CSVs, or wandb:... [ablations]"
    )
    parser.add_argument(
        "--trained", nargs="+", help="Measure these runs in every runtime instead, with their top-1."
    )
    parser.add_argument("--to", help="With --studies: folder in which latency.csv is written. [ablations]")
    given = flags.given(parser, argv)
    own = {
        name: given.pop(name)
        for name in ("json", "studies", "source", "to", "csv", "from", "trained")
        if name in given
    }
    ways = [name for name in ("from", "studies", "trained") if name in own]
    if len(ways) > 1:
        raise UserError(f"{', '.join(ways)}: each is a measurement of its own; give one of them")
    if odd := sorted({"csv", "json"} & own.keys()) if {"from", "studies"} & own.keys() else []:
        raise UserError(
            f"{odd[0]}: is for the networks that are timed here; leave it out with --from and --studies"
        )
    if "csv" in own and files.expanded(own["csv"]).suffix != ".csv":
        raise UserError(f"csv={own['csv']}: must end in .csv; the table goes to the same name with .md")
    if "csv" in own and not files.expanded(own["csv"]).parent.is_dir():
        raise UserError(f"csv={own['csv']}: there is no folder {files.expanded(own['csv']).parent}")
    if "studies" not in own and {"source", "to"} & own.keys():
        raise UserError("source, to: are for --studies STUDY")
    if "from" in own:
        if given:
            raise UserError(f"{', '.join(given)}: the networks are those of --from's log; leave it out")
        print(phone.table(phone.read(files.expanded(own["from"]))))
        return
    if "studies" in own:
        if given:
            raise UserError(
                f"{', '.join(given)}: the networks of {' '.join(own['studies'])} are in its rows; leave it"
                " out"
            )
        to = files.expanded(own.get("to", "ablations"))
        if not to.is_dir():
            raise UserError(f"to={to}: no such folder")
        studies.measure(own["studies"], own.get("source", "ablations"), to)
        return
    if "trained" in own:
        of_trained(own, given)
        return
    found = infer(config.resolve(**given))
    if "csv" in own:
        _write(own["csv"], runtime_table.lines(found))
    if own.get("json"):
        print(json.dumps(found, indent=1))
        return
    print(
        f"{found['net']}\n{found['resolution']} x {found['resolution']}, one image,"
        f" {found['macs'] / 1e6:.1f} M multiply-adds"
    )
    print(
        f"{found['machine']}, torch {found['torch']}, onnxruntime {found['onnxruntime']}; {TURNS} turns of"
        f" {IMAGES} images"
    )
    if "mobilenetv2" in found["nets"]:
        print(f"mobilenetv2 at the same multiply-adds: {found['nets']['mobilenetv2']}")
    for name, why in found["left_out"].items():
        print(f"{name} left out: {why}")
    for threads, part in found["threads"].items():
        faster = {name: f"{statistics.median(v):.2f}" for name, v in part["speedup"].items()}
        print(f"\n{threads} thread{'s' * (int(threads) > 1)}; ratios to plain's time, turn by turn\n")
        print(turns.table("ms", part["ms"], "plain", 2, {"speedup": faster}))
        print(
            f"\nlimit {part['limit_ms']:.2f} ms, by {part['gemm_gmacs']:.0f} G multiply-adds/s in a {SIZE} x"
            f" {SIZE} product;"
            f" deployed takes {part['times_limit']:.1f} times that"
        )


def of_trained(own: dict[str, Any], given: dict[str, Any]) -> None:
    """`--trained`: the table of these runs, as text or JSON, and as CSV."""
    if given:
        raise UserError(f"{', '.join(given)}: the networks are those of --trained; leave it out")
    lines = trained.measure([files.expanded(name) for name in own["trained"]])
    if "csv" in own:
        _write(own["csv"], lines)
    print(json.dumps(lines, indent=1) if own.get("json") else runtime_table.text(lines))


def _write(csv: str, lines: list[dict[str, Any]]) -> None:
    path = files.expanded(csv)
    files.write_atomically(path, results.to_csv(pd.DataFrame(lines)))
    files.write_atomically(path.with_suffix(".md"), runtime_table.markdown(lines))


def networks(run: config.Run) -> tuple[dict[str, tuple[Any, str]], dict[str, str]]:
    """Name -> (network in evaluation mode, its description), and name -> reason for those that cannot be
    built.
    """
    beside, left_out = train.rivals(run)
    found = {"own": (build.network(run, 1000).eval(), config.describe_net(run))}
    if "mobilenetv2" in beside:
        fields = beside["mobilenetv2"].run
        found["mobilenetv2"] = (build.network(fields, 1000).eval(), config.describe_net(fields))
    if "reference" in beside:
        released = train.reference(beside["reference"].run, Path(os.environ["HBO_REFERENCE"]))
        found["reference"] = (released.eval(), "the authors' definition of it")
    return found, left_out


def infer(run: config.Run) -> dict[str, Any]:
    """Milliseconds per image of each rival, one per turn, on each number of threads, and how far from the
    limit.
    """
    import onnxruntime

    from hbo import cost
    from hbo.deploy import deploy

    onnx.RUNTIME.require()
    torch.manual_seed(run.seed)
    found, left_out = networks(run)
    net = found["own"][0]
    image = torch.randn(1, 3, run.resolution, run.resolution)
    models = {
        "plain": onnx.to_onnx(net, run.resolution),
        "deployed": onnx.to_onnx(deploy(net), run.resolution),
    }
    if "mobilenetv2" in found:
        rival = found["mobilenetv2"][0]
        models |= {"mobilenetv2_plain": onnx.to_onnx(rival, run.resolution)}
        models |= {"mobilenetv2_deployed": onnx.to_onnx(deploy(rival), run.resolution)}
    if "reference" in found:
        models["reference"] = onnx.to_onnx(found["reference"][0], run.resolution)
    for name in models.keys() & {"deployed", "mobilenetv2_deployed"}:
        check_same(models[name.replace("deployed", "plain")], models[name], image, name)
    macs = cost.macs(net, run.resolution)
    files = {name: model.SerializeToString() for name, model in models.items()}
    about = turns.where() | {
        "onnxruntime": onnxruntime.__version__,
        "net": found["own"][1],
        "nets": {name: text for name, (_, text) in found.items()},
        "left_out": left_out,
        "resolution": run.resolution,
        "macs": macs,
        "bytes": {name: len(file) for name, file in files.items()},
        "baseline": "plain",
    }
    workers = [Worker(python, names) for python, names in environments().items()]
    try:
        about["runtimes"] = _made(workers, run)
        return about | {"threads": _in_turns(workers, files, net, image, macs)}
    finally:
        for worker in workers:
            worker.stop()


def _in_turns(
    workers: list[Worker], files: dict[str, bytes], net: Any, image: Any, macs: int
) -> dict[str, Any]:
    """Threads -> milliseconds of all rivals, one per turn, and how far from the limit."""
    parts = {}
    for threads in THREADS:
        sessions = {name: onnx.open_session(file, threads) for name, file in files.items()}
        rivals: dict[str, Callable[[], float]] = {
            name: partial(milliseconds, session, image.numpy()) for name, session in sessions.items()
        }
        rivals["eager"] = _eager(net, image, threads)
        for worker in workers:
            rivals |= {
                name: partial(worker.milliseconds, name, IMAGES)
                for name in worker.ask(do="open", threads=threads)
            }
        product = onnx.open_session(_product(), threads)
        rivals["gemm"] = partial(milliseconds, product, torch.randn(SIZE, SIZE).numpy(), 3)
        ms = turns.take_turns(rivals, TURNS)
        rate = SIZE**3 / statistics.median(ms.pop("gemm")) / 1e6  # G multiply-adds/s
        limit = macs / rate / 1e6
        parts[str(threads)] = {
            "ms": ms,
            "speedup": {
                name: [a / b for a, b in zip(ms["plain"], values, strict=True)] for name, values in ms.items()
            },
            "gemm_gmacs": rate,
            "limit_ms": limit,
            "times_limit": statistics.median(ms["deployed"]) / limit,
        }
    return parts


def _made(workers: list[Worker], run: config.Run) -> dict[str, Any]:
    """Have every runtime convert the network and MobileNetV2."""
    beside, _ = train.rivals(run)
    rival = asdict(beside["mobilenetv2"].run) if "mobilenetv2" in beside else None
    return converted(workers, do="make", run=asdict(run), rival=rival, seed=run.seed)


def _eager(net: Any, image: Any, threads: int) -> Callable[[], float]:
    net = net.to(memory_format=torch.channels_last)
    image = image.contiguous(memory_format=torch.channels_last)

    def run() -> float:
        torch.set_num_threads(threads)
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(IMAGES):
                net(image)
        return 1000 * (time.perf_counter() - start) / IMAGES

    return run


def _product() -> bytes:
    """A product of two square matrices as an ONNX model."""
    from onnx import TensorProto, helper, numpy_helper

    from hbo.deploy.runtimes.for_onnx import OPSET

    shape = [SIZE, SIZE]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("a", "c")]
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=shape).astype("float32"), "b")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])], "product", ends[:1], ends[1:], [weight]
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10
    ).SerializeToString()
