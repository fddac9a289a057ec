"""python -m hbo.bench infer: milliseconds an image beside baselines, in turns in one run.

    python -m hbo.bench infer --data imagenet --width 0.25 --divisor 8 --k 2
    HBO_REFERENCE=DIR python -m hbo.bench infer --data imagenet --json
    python -m hbo.bench infer --studies contraction mobilenetv2       # rows of ablations/ -> ablations/latency.csv

One image at a time, on one thread and on two, fresh weights. What stands beside what:

    plain        the network as it was trained, through torch.onnx in ONNX Runtime, which folds batch norm itself; the baseline
    deployed     the same weights through `hbo.deploy`; its logits are compared with plain's before anything is timed
    int8         that, quantised
    eager        PyTorch, channels-last
    mobilenetv2  at the same multiply-adds: _plain as torchvision has it, _deployed through `hbo.deploy` too
    reference    the authors' own definition, exported as it is, where $HBO_REFERENCE names a checkout of their release

How far from the machine's limit: multiply-adds over the rate of a large matrix product in ONNX Runtime, taken in the same turns.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hbo import config, files, flags
from hbo.analysis import latency, results
from hbo.bench import train, turns
from hbo.errors import UserError
from hbo.tasks import build

TURNS, IMAGES = 15, 20  # turns measured, after one of warm-up; images a turn
THREADS = (1, 2)
SIZE = 1024  # of the square matrices whose product is the machine's limit


def main(argv: list[str]) -> None:
    """The command line: the flags of `hbo.fit`, and `--json`; or `--studies`."""
    parser = flags.make_parser("hbo.bench infer", "Milliseconds an image beside baselines, in one run.")
    parser.add_argument("--json", action="store_true", help="Print JSON, every turn in it.")
    parser.add_argument("--studies", nargs="+", help="Measure the networks of these studies instead, into TO/latency.csv.")
    parser.add_argument("--source", help="With --studies: folder of runs, CSV, folder of CSVs, or wandb:... [ablations]")
    parser.add_argument("--to", help="With --studies: folder in which latency.csv is written. [ablations]")
    given = flags.given(parser, argv)
    own = {name: given.pop(name) for name in ("json", "studies", "source", "to") if name in given}
    if "studies" in own:
        if given:
            raise UserError(f"{', '.join(given)}: the networks of {' '.join(own['studies'])} are in its rows; leave it out")
        studies(own["studies"], own.get("source", "ablations"), Path(own.get("to", "ablations")))
        return
    if {"source", "to"} & own.keys():
        raise UserError("source, to: are for --studies STUDY")
    found = infer(config.resolve(**given))
    if own.get("json"):
        print(json.dumps(found, indent=1))
        return
    print(
        f"{found['net']}\n{found['resolution']} x {found['resolution']}, one image, {found['macs'] / 1e6:.1f} M multiply-adds"
    )
    print(f"{found['machine']}, torch {found['torch']}, onnxruntime {found['onnxruntime']}; {TURNS} turns of {IMAGES} images")
    if "mobilenetv2" in found["nets"]:
        print(f"mobilenetv2 at the same multiply-adds: {found['nets']['mobilenetv2']}")
    for name, why in found["left_out"].items():
        print(f"{name} left out: {why}")
    for threads, part in found["threads"].items():
        faster = {name: f"{statistics.median(v):.2f}" for name, v in part["speedup"].items()}
        print(f"\n{threads} thread{'s' * (int(threads) > 1)}; ratios to plain's time, turn by turn\n")
        print(turns.table("ms", part["ms"], "plain", 2, {"speedup": faster}))
        print(
            f"\nlimit {part['limit_ms']:.2f} ms, by {part['gemm_gmacs']:.0f} G multiply-adds/s of a {SIZE} x {SIZE} product;"
            f" deployed takes {part['times_limit']:.1f} times that"
        )


def networks(run: config.Run) -> tuple[dict[str, tuple[Any, str]], dict[str, str]]:
    """Name -> (network in evaluation mode, how it is described), and name -> reason of those that there cannot be."""
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
    """Milliseconds an image of each rival, a value a turn, on each number of threads, and how far from the limit."""
    import onnxruntime

    from hbo import cost, export
    from hbo.deploy import deploy

    export.require()
    torch.manual_seed(run.seed)
    found, left_out = networks(run)
    net = found["own"][0]
    image = torch.randn(1, 3, run.resolution, run.resolution)
    models = {"plain": export.to_onnx(net, run.resolution), "deployed": export.to_onnx(deploy(net), run.resolution)}
    models["int8"] = export.quantize(models["deployed"], torch.randn(8, *image.shape[1:]).numpy())
    if "mobilenetv2" in found:
        rival = found["mobilenetv2"][0]
        models |= {"mobilenetv2_plain": export.to_onnx(rival, run.resolution)}
        models |= {"mobilenetv2_deployed": export.to_onnx(deploy(rival), run.resolution)}
    if "reference" in found:
        models["reference"] = export.to_onnx(found["reference"][0], run.resolution)
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
    parts = {}
    for threads in THREADS:
        sessions = {name: export.open_session(file, threads) for name, file in files.items()}
        rivals: dict[str, Callable[[], float]] = {
            name: partial(milliseconds, session, image.numpy()) for name, session in sessions.items()
        }
        rivals["eager"] = _eager(net, image, threads)
        product = export.open_session(_product(), threads)
        rivals["gemm"] = partial(milliseconds, product, torch.randn(SIZE, SIZE).numpy(), 3)
        ms = turns.take_turns(rivals, TURNS)
        rate = SIZE**3 / statistics.median(ms.pop("gemm")) / 1e6  # G multiply-adds/s
        limit = macs / rate / 1e6
        parts[str(threads)] = {
            "ms": ms,
            "speedup": {name: [a / b for a, b in zip(ms["plain"], values, strict=True)] for name, values in ms.items()},
            "gemm_gmacs": rate,
            "limit_ms": limit,
            "times_limit": statistics.median(ms["deployed"]) / limit,
        }
    return about | {"threads": parts}


def check_same(plain: Any, deployed: Any, image: Any, name: str) -> None:
    """Refuse to time a deployed network whose logits of `image` are not those of its plain export.

    Args:
        plain: ONNX model in memory.
        deployed: another.
        image: (1, 3, R, R).
        name: how the error calls the deployed one.

    Raises:
        UserError: the logits differ by more than `hbo.export.TOLERANCE` of the largest.
    """
    from hbo import export

    sessions = [export.open_session(model.SerializeToString(), 1) for model in (plain, deployed)]
    expected, found = (session.run(None, {session.get_inputs()[0].name: image.numpy()})[0] for session in sessions)
    off = float(abs(found - expected).max() / abs(expected).max())
    if not off <= export.TOLERANCE:
        raise UserError(f"{name}: its logits are {off:.1e} of the largest off those of the plain export; nothing was timed")


def milliseconds(session: Any, image: Any, images: int = IMAGES) -> float:
    """An image of a session with one input, the mean of some in a row."""
    name = session.get_inputs()[0].name
    start = time.perf_counter()
    for _ in range(images):
        session.run(None, {name: image})
    return 1000 * (time.perf_counter() - start) / images


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

    from hbo.export import OPSET

    shape = [SIZE, SIZE]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("a", "c")]
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=shape).astype("float32"), "b")
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10).SerializeToString()


def studies(names: list[str], source: str, to: Path) -> None:
    """Each network of these studies, deployed, one image on one thread, all in turns: `latency.csv`."""
    import onnxruntime
    import pandas as pd

    from hbo import export
    from hbo.deploy import deploy

    export.require()
    done: Any = results.finished(results.load(source, *names))
    table = done[done["task"] == "classify"][latency.NET].drop_duplicates()
    if table.empty:
        raise UserError(f"studies={', '.join(names)}: their runs {done['task'].iloc[0]}; only classifiers are timed")
    rivals = {}
    for i, network in enumerate(tqdm(table.to_dict("records"), unit="network", desc="export", leave=False)):
        run = latency.run_of(network)
        net = build.network(run, int(network["num_classes"]))
        model, image = export.to_onnx(deploy(net), run.resolution), torch.randn(1, 3, run.resolution, run.resolution)
        check_same(export.to_onnx(net, run.resolution), model, image, config.describe_net(run))
        rivals[str(i)] = partial(milliseconds, export.open_session(model.SerializeToString(), 1), image.numpy())
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
        name = " ".join(f"{n}={line[n]}" for n in ("net", "k", "scheme", "width", "resolution", "num_classes"))
        print(f"{line['latency_ms']:7.2f} ms  ({line['least_ms']:.2f} to {line['greatest_ms']:.2f})  {name}")
