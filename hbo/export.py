"""python -m hbo.export CHECKPOINT: a trained network as a runtime's file, made ready for deployment and
checked in that runtime.

    python -m hbo.export runs/default/KEY                       # last.onnx beside last.ckpt
    python -m hbo.export runs/default/KEY --to litert           # or openvino, ncnn, executorch: an extra each
    python -m hbo.export runs/default/KEY --to openvino --int8  # last-int8.xml: 8-bit weights and activations
    python -m hbo.export runs/default/KEY --plain               # last-plain.onnx: as it was trained
    python -m hbo.export runs/default/KEY --to safetensors      # the weights, and a model card
    python -m hbo.export runs/default/KEY --to android-bench    # what a phone needs to time it

The file's input is `image`, float32 (batch, 3, R, R), normalised as the task does: (pixel / 255 - mean) /
std, an RGB pixel from 0 to 255. Its output is `logits`. Where a format has other names, a batch of one or
another type, FILE.json says so. It holds what a user needs (classes, resize, crop, mean, standard deviation,
key, metrics, licence), the difference from the module and, with --int8, the loss of accuracy. The file itself
holds the same facts if its format can.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hbo import files, flags
from hbo.config import Run
from hbo.data.sampling import TrainBatches
from hbo.deploy.runtimes import RUNTIMES, Files, Runtime, installed, named
from hbo.errors import DataError, UserError, one_line
from hbo.exporting import about as describe
from hbo.exporting import android, card, check
from hbo.runs import checkpoint, deployed, identity, rows

OTHERS = ("safetensors", "android-bench")
# Fields in the help: the images on which a file is compared and calibrated, and how they are read.
USED = (
    "data", "data_dir", "download", "cache", "cache_dir", "skip_bad", "holdout", "val_split", "resolution",
    "eval_resize", "batch", "limit_batches", "threads",
)  # fmt: skip
CALIBRATION = 128  # training images from which int8 takes its ranges


def main(argv: list[str] | None = None) -> None:
    """The command line: a checkpoint, the flags of `hbo.fit`, and how to export."""
    argv = sys.argv[1:] if argv is None else argv
    parser = flags.make_parser("hbo.export", "Export a checkpoint; the network comes from the file.", USED)
    parser.add_argument(
        "checkpoint", help="A run's folder, its last.ckpt, its key, or a .pth of the authors' release."
    )
    parser.add_argument("--to", choices=[*RUNTIMES, *OTHERS], default="onnx", help="Runtime, or format.")
    parser.add_argument("--file", help="File to write. [beside the checkpoint]")
    parser.add_argument("--plain", action="store_true", help="The network as it was trained: the baseline.")
    parser.add_argument("--int8", action="store_true", help="Quantise weights and activations to 8 bits.")
    parser.add_argument(
        "--calibration",
        type=int,
        help=f"Training images from which --int8 takes its ranges. [{CALIBRATION}]",
    )
    with one_line():
        given = flags.given(parser, argv)
        own = ("plain", "int8", "calibration", "file", "to")
        options = {name: given.pop(name) for name in own if name in given}
        if (out := given.pop("out", Run.out)) != Run.out:
            raise UserError(f"out={out}: is for runs; --file FILE names what hbo.export writes")
        if sys.stderr.isatty():  # the next line may be half a minute away
            print(f"{given['checkpoint']}: converting and checking", file=sys.stderr)
        path, about = export(Path(given.pop("checkpoint")), given, **options)
    print(f"{path}: {about['network']}, {about['bytes'] / 1e6:.2f} MB, {about['format']}")
    for line in said(about):
        print(f"  {line}")
    if path.suffix == ".safetensors":
        print(f"  {'model card':<26} {path.with_suffix('.md')}")
    if not path.is_dir():
        print(f"  {'classes, sizes, metrics':<26} {path}.json; docs/deploy.md says how to use the file")


def said(about: Mapping[str, Any]) -> list[str]:
    """Facts about a written file, as text."""
    lines = [
        f"{of + kind:<26} differs from PyTorch's logits by at most {error:.1e} of the largest"
        for of, found in (("", about["difference"]), ("float, ", about.get("float_difference", {})))
        for kind, error in found.items()
    ]
    if (pieces := about.get("pieces")) is not None:
        left = ", ".join(f"{name} x{n}" for name, n in pieces["left"].items())
        lines.append(f"{'pieces in the delegate':<26} {pieces['pieces']}" + f"; outside: {left}" * bool(left))
    if isinstance(about["classes"], int):
        lines.append(f"{about['classes']} classes without names: the checkpoint has none")
    if about["real_images"] == 0:
        lines.append(f"no real images: {about['why_no_images']}")
    for name in about.get("float", {}):
        if name != "majority":
            scale, unit = (1, "") if name == "loss" else (100, " %")
            eight, single = (f"{scale * about[kind][name]:.2f}{unit}" for kind in ("int8", "float"))
            lines.append(f"{name:<26} int8 {eight}, float {single}")
    return lines


def export(
    checkpoint_path: Path,
    given: dict[str, Any],
    plain: bool = False,
    int8: bool = False,
    calibration: int | None = None,
    file: str | None = None,
    to: str = "onnx",
) -> tuple[Path, dict[str, Any]]:
    """Write a runtime's file and its JSON; neither is kept if the file does not give the module's logits in
    that runtime.

    Args:
        checkpoint_path: a run's folder, its last.ckpt, or a .pth of the release, as `hbo.evaluate` takes it.
        given: fields of `Run` that differ from the checkpoint's.
        plain: skip `hbo.deploy`.
        int8: quantise.
        calibration: training images from which int8 takes its ranges; None: `CALIBRATION`.
        file: what to write; None: beside the checkpoint.
        to: a runtime of `hbo.deploy.runtimes`, or one of `OTHERS`.

    Raises:
        UserError: what `hbo.evaluate` refuses; a runtime that is not installed; a file whose logits are not
            the module's.
    """
    from hbo.deploy import deploy  # torchvision, for seconds

    if calibration is not None and not int8 and to != "android-bench":
        raise UserError(f"calibration={calibration}: only int8 is calibrated; add --int8, or leave it out")
    calibration = CALIBRATION if calibration is None else calibration
    if calibration < 1:
        raise UserError(f"calibration={calibration}: int8 needs at least one image to find its ranges")
    if to in OTHERS:
        return _other(to, checkpoint_path, given, file, calibration, {"plain": plain, "int8": int8})
    runtime = named(to)
    runtime.require(int8)
    trained = checkpoint.trained(checkpoint_path, given)
    trained.warn()
    out = target(trained, file, "-plain" * plain + "-int8" * int8, runtime.suffix, runtime.beside)
    task = restored(trained)
    data, why = images(trained, needed=int8, asked="data_dir" in given or "data" in given)
    net = task.net if plain else deploy(task.net, runtime.target)
    about = describe.facts(trained) | {"input": runtime.takes(trained.run.resolution, int8)}
    model = runtime.convert(net, trained.run.resolution, describe.as_text(about))
    session = runtime.open(model.files, trained.run.threads)
    about |= {
        "format": runtime.title,
        "checkpoint": trained.path.name,
        "deployed": not plain,
        "difference": check.compared(session, task, data, deployed=not plain),
        "real_images": min(check.REAL, len(data.val)) if data else 0,
    }
    if int8:
        about["float_difference"] = about.pop("difference")
        model, facts = _int8(runtime, net, session, task, data, calibration, describe.as_text(about))
        about |= facts
    about |= {"pieces": model.pieces and model.pieces._asdict(), "bytes": sum(map(len, model.files.values()))}
    about |= {"versions": runtime.versions()}
    write(out, model.files, about)
    if int8 and not plain and _as_reported(trained):
        try:
            deployed.add(trained.path.parent, {f"{deployed.TOP1}{runtime.name}": about["int8"]["top1"]})
        except OSError as error:  # somebody else's run
            print(f"warning: int8's top-1 is only in the JSON, not next to the row: {error}", file=sys.stderr)
    return out, about | ({"why_no_images": why} if why else {})


def target(
    trained: checkpoint.Trained, file: str | None, suffix: str, ending: str, beside: tuple[str, ...] = ()
) -> Path:
    """The file to write, and `beside` it others of its stem.

    Raises:
        UserError: the checkpoint is not a classifier's, the file ends in another suffix or is a folder, the
            folder does not exist or is not writable, or one of the others exists without the file, so it
            belongs to another file.
    """
    path = trained.path
    if trained.run.task != "classify":
        raise UserError(f"checkpoint {path}: trained to {trained.run.task}; only classifiers can be exported")
    out = files.expanded(file) if file else path.with_name(f"{path.stem}{suffix}{ending}")
    if not out.name.endswith(ending):
        raise UserError(f"file={out}: must end in {ending}")
    if not out.parent.is_dir():
        raise UserError(f"file={out}: there is no folder {out.parent}")
    if out.is_dir():
        raise UserError(f"file={out}: is a folder; name the file in it")
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"file={out}: {out.parent} is not writable; name another place with --file")
    for other in (out.with_suffix(suffix) for suffix in beside):
        if other.exists() and not out.exists():
            raise UserError(
                f"file={out}: {other.name} would be overwritten, and is another file's; use another name"
            )
    return out


def restored(trained: checkpoint.Trained) -> Any:
    """The trained classifier, ready to be evaluated."""
    from hbo.runs.trainer import prepare_process  # Lightning, for seconds
    from hbo.tasks import build

    prepare_process(trained.run)
    return build.restored(trained).requires_grad_(False)


def _int8(
    runtime: Runtime, net: Any, session: Any, task: Any, data: Any, calibration: int, facts: dict[str, str]
) -> tuple[Any, dict[str, Any]]:
    """The quantised model, and what it costs in accuracy against single precision, whose session is given."""
    run = task.run
    seen = check.normalised(task, seen_in_training(data.train, calibration, run))
    model = runtime.quantize(net, run.resolution, seen, facts)
    about: dict[str, Any] = {"calibration_images": len(seen), "quantised": runtime.int8}
    about["float"] = check.evaluate(session, task, data.val)
    eight = runtime.open(model.files, run.threads)
    about["difference"] = check.distances(eight, task, data)
    about["int8"] = check.evaluate(eight, task, data.val)
    about["images"] = about["float"].pop("images")
    del about["int8"]["images"]
    return model, about | {"reported": run.data}


def write(out: Path, content: Files, about: Mapping[str, Any]) -> None:
    """The files, the one that people name last, and the JSON with what is known of them."""
    for i, suffix in reversed(list(enumerate(content))):
        files.write_atomically(out if i == 0 else out.with_suffix(suffix), content[suffix])
    files.write_atomically(out.with_name(out.name + ".json"), json.dumps(about, indent=1) + "\n")


def _as_reported(trained: checkpoint.Trained) -> bool:
    """Whether the run's own network was evaluated on the images that its row reports, as the row did it."""
    row = rows.sound(trained.path.parent) if trained.ours else None
    if row is None or row["state"] != "done":
        return False
    differ = identity.varying([trained.run.identity(), identity.of_row(row)])
    return not set(differ) - {"world"}  # a checkpoint's run is evaluated by one process


def _other(
    to: str, path: Path, given: dict[str, Any], file: str | None, calibration: int, refused: dict[str, bool]
) -> tuple[Path, dict[str, Any]]:
    """A format that is not a runtime's.

    Raises:
        UserError: a flag that it would ignore.
    """
    if odd := [name for name, value in refused.items() if value]:
        raise UserError(f"{odd[0]}: is for runtimes, not for --to {to}; leave it out")
    return _weights(path, given, file) if to == "safetensors" else _phone(path, given, file, calibration)


def _weights(path: Path, given: dict[str, Any], file: str | None) -> tuple[Path, dict[str, Any]]:
    """The weights and their card; no image is looked at."""
    trained = checkpoint.trained(path, {"data_dir": None} | given)
    trained.warn()
    out = target(trained, file, "", ".safetensors", (".md",))
    about = describe.facts(trained)
    content = card.weights(restored(trained), card.as_header(about))
    row = (rows.sound(trained.path.parent) or {}) if trained.ours else {}
    files.write_atomically(out.with_suffix(".md"), card.card(about, trained, row, out.name))
    about |= {"format": "safetensors", "bytes": len(content), "difference": {}, "real_images": None}
    write(out, {".safetensors": content}, about)
    return out, about


def _phone(
    path: Path, given: dict[str, Any], file: str | None, calibration: int
) -> tuple[Path, dict[str, Any]]:
    """A folder for a phone: a float and an int8 file of each runtime that is installed and
    that phones have programs for.

    Raises:
        UserError: none of them is installed.
    """
    there = android.made_here(installed())
    if not there:
        raise UserError(
            "to=android-bench: needs LiteRT or ExecuTorch; pip install -e '.[executorch]', or"
            " make .venv-litert/installed, then .venv-litert/bin/python in place of python"
        )
    folder = files.expanded(file) if file else files.located(path).with_name("android-bench")
    within = folder if folder.is_dir() else folder.parent
    # Refused before anything is written.
    target(checkpoint.trained(path, given), str(within / f"net{there[0].suffix}"), "", there[0].suffix)
    folder.mkdir(exist_ok=True)
    made: dict[str, str] = {}
    about: dict[str, Any] = {}
    for runtime in there:
        for int8 in (False, True):
            name = f"net{'-int8' * int8}{runtime.suffix}"
            _, about = export(
                path,
                dict(given),
                int8=int8,
                calibration=calibration if int8 else None,
                file=str(folder / name),
                to=runtime.name,
            )
            made[name] = runtime.name
    made |= {other.name: runtime.name for runtime in _phones() for other in folder.glob(f"*{runtime.suffix}")}
    android.write(folder, made)
    return folder / "run.sh", about | {
        "format": f"{len(made)} files for a phone; not run on one",
        "difference": {},
    }


def _phones() -> list[Runtime]:
    return android.made_here([named(name) for name in RUNTIMES])


def images(trained: Any, needed: bool, asked: bool) -> tuple[Any, str]:
    """The run's data set, or None and why not: its images may lie elsewhere by now, and
    nobody has ImageNet at hand.

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
                f"{error}; int8 takes its ranges from training images; say with --data_dir where they are now"
            ) from None
        if asked and run.data_dir is not None:
            raise
        return None, str(error)
    if len(data.classes) != trained.num_classes:
        raise UserError(
            f"checkpoint {trained.path}: has {trained.num_classes} classes, {run.data} has"
            f" {len(data.classes)}"
        )
    if not len(data.val):
        raise DataError(f"data={run.data}: has no images to compare on")
    return data, ""


def seen_in_training(source: Any, n: int, run: Run) -> Any:
    """The first n images of the run's first epoch, as training sees them, uint8 (n, 3, R, R)."""
    n = min(n, len(source))
    return torch.stack([source[item][0] for item in next(iter(TrainBatches(len(source), n, run.seed)))])


if __name__ == "__main__":
    main()
