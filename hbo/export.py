"""python -m hbo.export CHECKPOINT: a trained network as ONNX, made ready for deployment and checked against the module.

    python -m hbo.export runs/default/KEY                            # last.onnx beside last.ckpt
    python -m hbo.export runs/default/KEY --int8 --calibration 128   # last-int8.onnx, 8 bits a weight and an activation
    python -m hbo.export runs/default/KEY --plain                    # last-plain.onnx: the network as it was trained

The file's input is `image`, float32 (batch, 3, R, R), normalised as the task does: (pixel / 255 - mean) / std, an RGB pixel
from 0 to 255; mean and std, the classes and the run's fields stand in the file's metadata. Its output is `logits`. Beside it
FILE.json says how far it is from the module and, with --int8, what it costs in accuracy.
"""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hbo import config, files, flags
from hbo.config import Run
from hbo.data.sampling import EvalBatches, TrainBatches, loader
from hbo.errors import DataError, UserError, one_line
from hbo.runs import checkpoint

OPSET = 23
TOLERANCE = 1e-4  # of the largest logit
REAL = 32  # reported images on which the file is compared with the module
INPUT, OUTPUT = "image", "logits"


def main(argv: list[str] | None = None) -> None:
    """The command line: a checkpoint, the flags of `hbo.fit`, and how to export."""
    argv = sys.argv[1:] if argv is None else argv
    parser = flags.make_parser("hbo.export", "Export a checkpoint; the network comes from the file.")
    parser.add_argument("checkpoint", help="A run's folder, its last.ckpt, or a .pth of the authors' release.")
    parser.add_argument("--to", choices=["onnx"], default="onnx", help="Format.")
    parser.add_argument("--file", help="File to write. [beside the checkpoint]")
    parser.add_argument("--plain", action="store_true", help="The network as it was trained: the baseline.")
    parser.add_argument("--int8", action="store_true", help="Quantise weights and activations to 8 bits.")
    parser.add_argument("--calibration", type=int, default=128, help="Training images by which --int8 finds its ranges.")
    with one_line():
        given = flags.given(parser, argv)
        own = ("plain", "int8", "calibration", "file")
        options = {name: given.pop(name) for name in own if name in given}
        given.pop("to", None)
        path, about = export(Path(given.pop("checkpoint")), given, **options)
    print(f"{path}: {about['network']}, {path.stat().st_size / 1e6:.2f} MB, opset {OPSET}")
    for kind, error in about["difference"].items():
        print(f"  {kind:<26} {error:.1e} of the largest logit off the module")
    if isinstance(about["classes"], int):
        print(f"  {about['classes']} classes without names: the checkpoint has none")
    if about["real_images"] == 0:
        print(f"  no real images: {about['why_no_images']}")
    for name in about.get("float", {}):
        if name != "majority":
            scale, unit = (1, "") if name == "loss" else (100, " %")
            print(f"  {name:<26} int8 {scale * about['int8'][name]:.2f}{unit}, float {scale * about['float'][name]:.2f}{unit}")


def export(
    checkpoint_path: Path,
    given: dict[str, Any],
    plain: bool = False,
    int8: bool = False,
    calibration: int = 128,
    file: str | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Write the ONNX file and its JSON; nothing of them where the file does not give the module's logits.

    Args:
        checkpoint_path: a run's folder, its last.ckpt, or a .pth of the release, as `hbo.evaluate` takes it.
        given: fields of `Run` that differ from the checkpoint's.
        plain: leave `hbo.deploy` out.
        int8: quantise.
        calibration: training images by which int8 finds its ranges.
        file: what to write; None: beside the checkpoint.

    Raises:
        UserError: what `hbo.evaluate` refuses; the file's logits are further than `TOLERANCE` from the module's.
    """
    from hbo.deploy import deploy  # torchvision, for seconds

    if calibration < 1:
        raise UserError(f"calibration={calibration}: int8 needs at least one image to find its ranges")
    require()
    trained = checkpoint.trained(checkpoint_path, given)
    run, out = trained.run, _target(trained, file, "-plain" * plain + "-int8" * int8)
    task = _task(trained)
    data, why = _data(trained, needed=int8, asked="data_dir" in given or "data" in given)
    model = to_onnx(task.net if plain else deploy(task.net), run.resolution)
    session = open_session(model.SerializeToString(), run.threads)
    about: dict[str, Any] = {
        "network": config.describe_net(run),
        "checkpoint": trained.path.name,
        "deployed": not plain,
        "difference": _compared(session, task, data),
        "real_images": min(REAL, len(data.val)) if data else 0,
        "classes": trained.classes or trained.num_classes,
    }
    if why:
        about["why_no_images"] = why
    if int8:
        model, facts = _int8(model, session, task, data, calibration)
        about |= facts
    _write(model, out, trained, about)
    return out, about


def _target(trained: checkpoint.Trained, file: str | None, suffix: str) -> Path:
    """The file to write.

    Raises:
        UserError: the checkpoint is no classifier's, or there is no such folder.
    """
    path = trained.path
    if trained.run.task != "classify":
        raise UserError(f"checkpoint {path}: trained to {trained.run.task}; only classifiers can be exported")
    out = files.expanded(file) if file else path.with_name(f"{path.stem}{suffix}.onnx")
    if not out.parent.is_dir():
        raise UserError(f"file={out}: no such folder as {out.parent}")
    return out


def _task(trained: checkpoint.Trained) -> Any:
    """The trained classifier, ready to be evaluated."""
    from hbo.runs.trainer import prepare_process  # Lightning, for seconds
    from hbo.tasks.classify.module import Classify

    prepare_process(trained.run)
    task = Classify(trained.run, trained.num_classes, classes=trained.classes)
    trained.load_into(task)
    return task.eval().requires_grad_(False)


def _compared(session: Any, task: Any, data: Any) -> dict[str, float]:
    """Which images -> how far the file's logits for them are from the module's, over the largest.

    Raises:
        UserError: further than `TOLERANCE`.
    """
    side = task.run.resolution
    images = {"random, batch of 3": torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8)}
    if data is not None:
        n = min(REAL, len(data.val))
        images[f"real, {n} images"] = torch.stack([data.val[0, i][0] for i in range(n)])
    off = {kind: difference(session, task, some) for kind, some in images.items()}
    for kind, error in off.items():
        if not error <= TOLERANCE:  # which not-a-number is not
            raise UserError(
                f"export: its logits for {kind}, are {error:.1e} of the largest off the module's; nothing was written"
            )
    return off


def _int8(model: Any, session: Any, task: Any, data: Any, calibration: int) -> tuple[Any, dict[str, Any]]:
    """The quantised model, and what it costs in accuracy beside the one in single precision, whose session is given."""
    run = task.run
    quantised = quantize(model, normalised(task, _seen_in_training(data.train, calibration, run)))
    about: dict[str, Any] = {"calibration_images": min(calibration, len(data.train))}
    about["float"] = evaluate(session, task, data.val)
    about["int8"] = evaluate(open_session(quantised.SerializeToString(), run.threads), task, data.val)
    about["images"] = about["float"].pop("images")
    del about["int8"]["images"]
    return quantised, about | {"reported": run.data}


def _write(model: Any, out: Path, trained: checkpoint.Trained, about: dict[str, Any]) -> None:
    """The file, and its JSON with what is known of it; `about` gets the rest."""
    from hbo.tasks.base import MEAN, STD

    facts = {"mean": MEAN, "std": STD, "run": asdict(trained.run), "classes": trained.classes or trained.num_classes}
    for name, value in facts.items():
        model.metadata_props.add(key=name, value=json.dumps(value))
    about |= {"bytes": len(model.SerializeToString()), "opset": OPSET, "versions": versions()}
    part = out.with_name(out.name + ".part")
    part.write_bytes(model.SerializeToString())
    os.replace(part, out)
    files.write_atomically(out.with_name(out.name + ".json"), json.dumps(about, indent=1) + "\n")


def require() -> None:
    """Refuse, in words, where the extra is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"export: {error.name} is not installed; pip install -e '.[export]'") from None


def versions() -> dict[str, str]:
    """Of what made the file."""
    return {name: version(name) for name in ("torch", "onnx", "onnxruntime", "onnxscript")}


def _data(trained: Any, needed: bool, asked: bool) -> tuple[Any, str]:
    """The run's data set, or None and why not: its images may lie elsewhere by now, and nobody has ImageNet at hand.

    Args:
        trained: the checkpoint.
        needed: int8 calibrates on training images.
        asked: the user named the set, so that one that cannot be opened is refused.
    """
    from hbo.tasks.build import open_data

    run = trained.run
    try:
        data = open_data(run, reported=not needed, known=trained.classes)
    except DataError as error:
        if needed:
            raise DataError(
                f"{error}; int8 finds its ranges on training images, and --data_dir says where they lie now"
            ) from None
        if asked and run.data_dir is not None:
            raise
        return None, str(error)
    if len(data.classes) != trained.num_classes:
        raise UserError(f"checkpoint {trained.path}: has {trained.num_classes} classes, {run.data} has {len(data.classes)}")
    if not len(data.val):
        raise DataError(f"data={run.data}: has no images to compare on")
    return data, ""


def _seen_in_training(images: Any, n: int, run: Run) -> Any:
    """The first n images of the run's first epoch, as training sees them, uint8 (n, 3, R, R)."""
    n = min(n, len(images))
    return torch.stack([images[item][0] for item in next(iter(TrainBatches(len(images), n, run.seed)))])


def normalised(task: Any, images: Any) -> Any:
    """What the network takes, float32 (N, 3, R, R), of uint8 images."""
    return ((images.to(task.mean.dtype) - task.mean) / task.std).numpy()


def to_onnx(net: Any, resolution: int) -> Any:
    """A network of (B, 3, R, R) as an ONNX model in memory, any B, checked by onnx."""
    import onnx

    image = torch.zeros(2, 3, resolution, resolution)
    program = torch.onnx.export(
        net.eval(),
        (image,),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[INPUT],
        output_names=[OUTPUT],
    )
    assert program is not None
    model = program.model_proto
    onnx.checker.check_model(model, full_check=True)
    return model


def open_session(model: bytes, threads: int) -> Any:
    """ONNX Runtime on the CPU; its threads rest between two images, so that they slow nobody else."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def difference(session: Any, task: Any, images: Any) -> float:
    """The largest difference between the file's logits and the task's, over the task's largest.

    Raises:
        UserError: the task's own are no numbers.
    """
    with torch.inference_mode():
        expected = task(images).numpy()
    if not np.isfinite(expected).all():
        raise UserError("export: the checkpoint's own logits are not finite, so it is of no use; nothing was written")
    (found,) = session.run([OUTPUT], {INPUT: normalised(task, images)})
    return float(abs(found - expected).max() / (abs(expected).max() or 1.0))


def evaluate(session: Any, task: Any, images: Any) -> dict[str, float]:
    """Metrics of an ONNX session on the run's reported images, as `hbo.evaluate` computes them.

    Raises:
        UserError: its logits are no numbers.
    """
    from hbo.metrics import Outcomes, classification
    from hbo.tasks.base import lost

    run, outcomes = task.run, Outcomes(task.num_classes)
    batches = EvalBatches(len(images), run.batch, limit=run.limit_batches)
    for batch, labels, index in tqdm(loader(images, batches, 0), unit="batch", leave=False):
        (logits,) = session.run([OUTPUT], {INPUT: normalised(task, batch)})
        outcomes.update(torch.from_numpy(logits), labels, index)
    found = outcomes.compute()
    metrics = classification(found, task.num_classes)
    if why := lost(metrics, task.finite):
        raise UserError(f"export: {why} on the reported images, the file's logits are no numbers; nothing was written")
    return {"images": len(found["index"]), **metrics}


def quantize(model: Any, images: Any) -> Any:
    """Static quantisation: 8 bits a weight (each output channel its scale) and an activation, by the ranges seen on `images`."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images: Iterator[Any] = iter(images)

        def get_next(self) -> Any:
            image = next(self.images, None)
            return None if image is None else {INPUT: image[None]}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model.SerializeToString())  # of a model in memory it would move the weights elsewhere
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,  # with signed activations its kernels take twice as long
            weight_type=QuantType.QInt8,
        )
        return onnx.load(target)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice to simplify the graph first: it has nothing left to simplify."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


if __name__ == "__main__":
    main()
