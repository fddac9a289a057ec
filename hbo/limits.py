"""Which values a run's fields may have, alone and together."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hbo import nets
from hbo.tasks import SETS, TASKS, idle, task_of
from hbo.tasks.spec import require
from hbo.text import counted

if TYPE_CHECKING:
    from hbo.config import Run


def check(run: "Run") -> None:
    """Check a run before anything is built.

    Raises:
        UserError: a value out of range, or one that contradicts another; says which, and why.
    """
    _check_ranges(run)
    _check_task(run)
    _check_schedule(run)
    world = run.world
    require(run, "batch", run.batch // world >= 2, "batch norm needs at least 2 images per device")
    even = max(run.batch // world, 1) * world
    require(run, "batch", run.batch % world == 0, f"must be divisible by {world} devices; try {even}")


def check_used(run: "Run", given: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    """Check that no given field is switched off by another: it would be a second key of the same training.

    Args:
        run: all fields.
        given: those that the user gave; what a recipe sets may be idle.
        recipe: of the data set.

    Raises:
        UserError: names the field, and what switches it off.
    """
    still = run.crop == "none" and run.flip == "none" and not run.jitter and run.auto_augment == "none"
    of_zoo = str(run.distill).partition(":")[0] in nets.ZOOS
    fetched = SETS[run.data].inner or run.weights != "random" or of_zoo
    labels_unused = run.distill is not None and run.distill_weight == 1
    off = {
        "upsample": run.k == 0 and "k=0",
        "contract": run.k == 0 and "k=0",
        "scheme": run.scheme == "paper" and run.k < 2 and f"k={run.k}",
        "crop_area": run.crop != "random" and f"crop={run.crop}",
        "augment": still and "crop=none with flip=none and jitter=0",
        "no_decay_on_norm": run.weight_decay == 0 and "weight_decay=0",
        "distill_temperature": run.distill_weight == 0 and "distill_weight=0",
        "label_smoothing": labels_unused and "distill_weight=1",
        "class_weights": labels_unused and "distill_weight=1",
        "download": not fetched and f"data={run.data} with weights={run.weights}",
    }
    for name, by in off.items():
        changed = name in given and getattr(run, name) != recipe.get(name, getattr(type(run), name))
        require(run, name, not (by and changed), f"is not used by {by}; remove it")


def _check_ranges(run: "Run") -> None:
    """Check the ranges of numbers."""
    counts = (
        "epochs",
        "batch",
        "devices",
        "num_nodes",
        "threads",
        "eval_every",
        "limit_batches",
        "eval_resize",
    )
    for name in counts:
        require(run, name, getattr(run, name) is None or getattr(run, name) >= 1, "must be at least 1")
        require(run, name, (getattr(run, name) or 0) < 2**31, "must be less than 2**31")
    never_negative = "grad_clip", "warmup", "workers", "weight_decay", "seed", "checkpoint_every", "log_every"
    for name in (*never_negative, "skip_bad"):
        require(run, name, (getattr(run, name) or 0) >= 0, "must not be negative")
    for name in ("label_smoothing", "momentum", "ema"):
        require(run, name, 0 <= getattr(run, name) < 1, "must be in [0, 1)")
    for name in ("holdout", "val_split"):
        share = getattr(run, name)
        meant = f"; did you mean {share / 100:g}?" if 1 <= share <= 50 else ""
        require(run, name, 0 <= share <= 0.5, f"must be in [0, 0.5]{meant}")
    require(run, "resolution", 32 <= run.resolution <= 2**16, "must be at least 32, and at most 65536")
    require(run, "workers", (run.workers or 0) < 2**31, "must be less than 2**31")
    require(run, "seed", run.seed < 2**32, "must be less than 2**32")
    require(
        run,
        "eval_resize",
        (run.eval_resize or run.resolution) >= run.resolution,
        f"must be at least the resolution, {run.resolution}; the crop would reach past the image",
    )
    require(run, "lr", run.lr > 0, "must be positive")
    folder = re.fullmatch(r"\w[\w.+-]*", run.study) is not None
    require(run, "study", folder, "letters, digits, . + - and _ alone, as it names a folder")


def _check_task(run: "Run") -> None:
    """Check that the data set belongs to the task, and that no field is set that the task ignores."""
    task = task_of(run.data)
    require(
        run,
        "task",
        run.task == task,
        f"data={run.data} is for task={task}; use --data {', '.join(TASKS[run.task].sets)}",
    )
    for name in idle(run.task):
        unused = getattr(run, name) != getattr(type(run), name)
        owners = [other for other, its in TASKS.items() if name in its.own]
        other = f", or add --task {owners[0]}" if len(owners) == 1 and run.data == type(run).data else ""
        require(run, name, not unused, f"is not used by task={run.task}; remove it{other}")
    TASKS[run.task].check(run)
    require(
        run,
        "cache",
        run.cache != "jpeg" or run.cached_side is not None,
        "keeps photographs that random-resized crops are cut from: it needs --crop random and a folder of"
        " images to classify; use --cache disk",
    )


def _check_schedule(run: "Run") -> None:
    """Check the learning rate's schedule."""
    require(
        run,
        "warmup",
        run.warmup < run.epochs,
        f"must be shorter than the {counted(run.epochs, 'epoch')}; use --warmup 0",
    )
    require(run, "nesterov", run.momentum > 0 or not run.nesterov, "needs a momentum")
    plain = run.optimizer == "sgd" or not run.nesterov
    require(run, "nesterov", plain, "is an option of SGD; use --optimizer sgd, or remove it")
    require(run, "warmup_from", 0 <= run.warmup_from < run.lr, f"must be in [0, lr), below {run.lr}")
    require(
        run,
        "warmup_from",
        run.warmup > 0 or not run.warmup_from,
        "needs --warmup of at least one epoch",
    )
    stepped = run.schedule == "step"
    require(
        run,
        "milestones",
        stepped == (run.milestones is not None),
        "is required by schedule=step, and used by it alone",
    )
    drops = run.drops
    require(run, "milestones", drops == sorted(set(drops)), "each must be later than the one before")
    require(
        run,
        "milestones",
        all(0 < d < run.epochs for d in drops),
        f"must be within the {counted(run.epochs, 'epoch')}",
    )
