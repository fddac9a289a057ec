"""python -m hbo.evaluate CHECKPOINT: evaluate a trained network on a data set.

    python -m hbo.evaluate runs/default/KEY                                     # a run, on its own data set
    python -m hbo.evaluate last.ckpt --resolution 192
    python -m hbo.evaluate hbonet_0_5.pth --data imagenet --data_dir DIR      # the authors' release
    python -m hbo.evaluate runs/default/KEY --image cells.jpg --out found.png # one photograph

Network settings are read from the checkpoint; conflicting flags are an error.
"""

import json
import sys
from pathlib import Path
from typing import Any

from hbo import flags
from hbo.config import Run
from hbo.data.audit import names_of
from hbo.data.sampling import EvalBatches, loader
from hbo.errors import UserError, one_line
from hbo.runs import checkpoint, cluster, naming, rows, summary
from hbo.runs.seen import outside_val
from hbo.tasks import TASKS

# Fields in the help. The others are the network's and the training's: an error if they contradict the file.
USED = (
    "data", "data_dir", "download", "cache", "cache_dir", "skip_bad", "holdout", "val_split", "resolution",
    "eval_resize", "batch", "limit_batches", "precision", "channels_last", "compile", "devices", "num_nodes",
    "aspect", "distance", "rerank", "flip_features", "accelerator", "strategy", "workers", "threads",
)  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """The command line: a checkpoint, the flags of `hbo.fit`, and `--json`."""
    parser = flags.make_parser(
        "hbo.evaluate",
        "Evaluate a checkpoint: a run's, or a released .pth. Network settings are read from the file.",
        USED,
    )
    parser.add_argument(
        "checkpoint", help="A run's folder, its last.ckpt, its key, or a .pth of the authors' release."
    )
    parser.add_argument(
        "--json", action="store_true", help="Print the metrics, fractions in [0, 1], as JSON."
    )
    parser.add_argument(
        "--image", help="Run a detector on this photograph instead of a data set; --out names the picture."
    )
    parser.add_argument("--score", type=float, help="Minimum score of a detection on --image. [0.5]")
    with one_line():
        given = flags.given(parser, sys.argv[1:] if argv is None else argv)
        as_json = given.pop("json", False)
        image, score = given.pop("image", None), given.pop("score", None)
        if image is None and score is not None:
            raise UserError(f"score={score}: needs --image, a photograph for a detector")
        if score is not None and not 0 <= score <= 1:
            raise UserError(f"score={score}: must be in [0, 1]")
        if image is not None:
            idle = given.keys() - {"checkpoint", "out", "resolution", "threads", "accelerator"}
            if as_json or idle:
                raise UserError(f"{', '.join(sorted(idle)) or 'json'}: not used with --image; remove it")
            print(
                *_on_image(
                    Path(given.pop("checkpoint")), Path(image), given, 0.5 if score is None else score
                ),
                sep="\n",
            )
            return
        if (out := given.pop("out", Run.out)) != Run.out:
            raise UserError(
                f"out={out}: names the picture of --image; without one nothing is written; remove it"
            )
        metrics, run, about = evaluate(Path(given.pop("checkpoint")), given)
    if as_json:
        # JSON has no NaN.
        print(json.dumps({name: None if value != value else value for name, value in metrics.items()}))
        return
    where = (naming.folder_name(run.data_dir) if run.data == "imagefolder" else None) or run.data
    network = summary.network(run.net, run.k, about["depths"], run.width)
    print(f"{network} on {where} at {run.resolution}, {metrics['images']} images")
    lines = TASKS[run.task].report(metrics | about)
    more = {"coco_map50": lambda x: f"{100 * x:.2f} %", "loss": lambda x: f"{x:.4f}"}
    lines += [(name, said(metrics[name])) for name, said in more.items() if name in metrics]
    for name, value in lines:
        print(f"  {name:<18} {value}")


def _on_image(path: Path, image: Path, given: dict[str, Any], score: float) -> list[str]:
    """Draw a detector's boxes on a photograph."""
    from hbo.tasks.detect.photograph import on_image

    out = Path(given.pop("out", "detections.png"))
    trained = checkpoint.trained(path, given)
    trained.warn()
    return on_image(trained, image, out, score)


def evaluate(path: Path, given: dict[str, Any]) -> tuple[dict[str, float], Run, dict[str, Any]]:
    """Metrics of a checkpoint, the run that was evaluated, and its row's classes, num_classes and depths.

    Args:
        path: a run's folder, a Lightning checkpoint of ours, or a released state dict.
        given: fields of `Run` that override the checkpoint's, such as `data_dir` and `resolution`.

    Raises:
        UserError: the file is neither; a field contradicts it; the data set has other classes; the network's
        outputs are not finite.
    """
    from hbo.runs.trainer import make_trainer, prepare_process
    from hbo.tasks import build
    from hbo.tasks.base import lost

    path, run, num_classes, *_ = trained = checkpoint.trained(path, given)
    trained.warn()
    prepare_process(run)
    data = build.open_data(run, reported=True, known=trained.classes)
    # Retrieval tests on identities outside the training set.
    if trained.classes is None and not TASKS[run.task].new_classes:
        if len(data.classes) != num_classes:
            raise UserError(
                f"checkpoint {path}: has {num_classes} classes, {run.data} has {len(data.classes)}"
            )
        print(
            f"warning: checkpoint {path}: has no class names; only the number of classes could be compared",
            file=sys.stderr,
        )
    task = build.make(run, data, num_classes=num_classes)
    trained.load_into(task)
    trainer = make_trainer(run, Path(run.out), [])
    batches = EvalBatches(len(data.val), run.batch, trainer.global_rank, run.world, run.limit_batches)
    with build.advised(run):
        trainer.validate(
            task, loader(data.val, batches, cluster.data_workers(run, data.val.in_memory)), verbose=False
        )
    assert task.last_outcomes is not None
    if not trainer.is_global_zero:
        raise SystemExit(0)
    metrics = task.metrics()
    if why := lost(metrics, task.finite):
        raise UserError(f"checkpoint {path}: {why} on {run.data}; train again with a smaller --lr")
    counted = {"images": len(task.last_outcomes["index"])}
    names = names_of(data.val, run.data_dir)
    seen = names and [names[place] for place in task.last_outcomes["index"].tolist()]
    if trained.ours and (new := outside_val(run, seen, path)) is not None:
        counted["images_not_in_val"] = new
        _warn(path, new, counted["images"])
    about = {
        "classes": list(data.classes),
        "num_classes": num_classes,
        "depths": rows.built(task.net)["depths"],
    }
    return {**counted, **metrics}, run, about


def _warn(path: Path, new: int, images: int) -> None:
    """Warn of evaluated images that the run may have been trained on, or the weights that it learnt from."""
    name, row = path.parent.name, rows.sound(path.parent) or {}
    if new:
        were = "was" if new == 1 else "were"
        print(
            f"warning: {new} of the {images} images evaluated {were} not among {name}'s validation images, so"
            " that run may have been trained on them; evaluate on a folder of new photographs alone",
            file=sys.stderr,
        )
    for column, weights in rows.VAL_NOT_IN.values():
        if also := row.get(column):
            print(
                f"warning: {name} has {column}={also}: {weights} may have been trained on {also} of its own"
                " validation images",
                file=sys.stderr,
            )


if __name__ == "__main__":
    main()
