"""Dispatch by task: a run's network, module, data and costs.

Each task's folder has `module` (network, make, cost) and `data` (opened), imported on use.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from hbo.config import Run
from hbo.data import Data
from hbo.errors import DataError, UnreadableError, UserError, plain
from hbo.nets.counting import Cost
from hbo.runs import cluster
from hbo.runs.checkpoint import Trained
from hbo.tasks import SETS
from hbo.text import counted

if TYPE_CHECKING:  # analysis counts costs, and does without torchvision, which takes as long as torch
    from hbo.data.preprocess import Preprocess
    from hbo.tasks.base import TaskModule
    from hbo.tasks.predictions import Predictions


def _of(task: str, part: str) -> Any:
    return importlib.import_module(f"hbo.tasks.{task}.{part}")


def network(run: Run, num_classes: int) -> nn.Module:
    """The run's network with fresh weights: for detect SSD on top of it, for reid without its classifier."""
    return _of(run.task, "network").build(run, num_classes)


def make(run: Run, data: Data, steps_per_epoch: int = 1, num_classes: int | None = None) -> "TaskModule":
    """A run's task module, with a fresh network.

    Args:
        run: all fields.
        data: its data set.
        steps_per_epoch: updates per epoch, for the schedule.
        num_classes: of a trained network whose classes differ from the data set's.
    """
    return _of(run.task, "module").make(run, data, steps_per_epoch, num_classes)


def restored(trained: Trained) -> "TaskModule":
    """A trained network's task module with its weights, ready to evaluate.

    Raises:
        UserError: a detector's checkpoint from before class names were stored.
    """
    run = trained.run
    if run.task == "detect" and trained.classes is None:
        raise UserError(f"checkpoint {trained.path}: has no class names; train it again")
    task = make(run, Data(None, None, trained.classes or []), num_classes=trained.num_classes)
    trained.load_into(task)
    return task.eval()


def preprocess(run: Run) -> "Preprocess":
    """A photograph preprocessed as in the run's evaluation."""
    return _of(run.task, "predict").preprocess(run)


def predictions(task: "TaskModule", **options: Any) -> "Predictions":
    """An empty collection of the network's predictions on photographs.

    Args:
        task: from `restored`.
        options: `top` for a classifier, `score` for a detector.
    """
    return _of(task.run.task, "predict").Predictions(task, **options)


def open_data(run: Run, reported: bool = False, known: list[str] | None = None) -> Data:
    """Open a run's data set and check it as far as possible before training; warnings go to standard error.

    Args:
        run: all fields.
        reported: open only the images that are evaluated; the others need not exist.
        known: names of a checkpoint's classes, in the order of its outputs, which defines the labels.

    Raises:
        DataError: a missing folder, an empty class, a class in val that train lacks, a file that is not an
        image, too few images for a batch; names the path and says what to do.
        UserError: the data set's classes differ from the known ones.
    """
    with advised(run):
        data = _of(run.task, "data").opened(run, reported, known)
    if cluster.is_first(run):
        for line in data.warnings:
            print(f"warning: {line}", file=sys.stderr)
    if not reported and len(data.train) < run.batch:
        raise DataError(_too_few(run, len(data.train)))
    return data


def _too_few(run: Run, images: int) -> str:
    """The error of a set with fewer training images than a batch; names a batch that it allows, if any."""
    unit = run.world * (run.instances or 1)  # a device needs two images or, with --instances, two identities
    if images < 2 * unit:
        return f"{run.data}: {counted(images, 'training image')}; at least {2 * unit} are needed"
    return (
        f"batch={run.batch}: more than the {images} training images of {run.data}; use --batch"
        f" {max(images // 2 // unit, 2) * unit}"
    )


@contextmanager
def advised(run: Run) -> Iterator[None]:
    """If an image cannot be read, say in the error how to find and skip all such images."""
    try:
        yield
    except UnreadableError as error:
        if SETS[run.data].load is not None:  # images from a package
            raise
        raise UnreadableError(
            f"{plain(error)}; python -m hbo.data.check {run.data_dir} lists every such image, --skip_bad N"
            f" skips at most N"
        ) from None


def cost(run: Run, classes: int) -> Cost:
    """Costs of one image through the trained model: the classifier, the whole
    detector, or the feature extractor.

    Raises:
        UserError: the network cannot be built, or does not support the resolution.
    """
    return _of(run.task, "network").cost(run, classes)
