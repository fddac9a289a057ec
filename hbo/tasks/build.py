"""The one dispatch by task: a run's network, module, data and costs.

Each task's folder has `module` (network, make, cost) and `data` (opened); they are imported where they are used.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from hbo.config import Run
from hbo.data import Data
from hbo.errors import DataError, UnreadableError, plain
from hbo.nets.counting import Cost
from hbo.runs import cluster
from hbo.tasks import SETS

if TYPE_CHECKING:
    from hbo.tasks.base import TaskModule


def _of(task: str, part: str) -> Any:
    return importlib.import_module(f"hbo.tasks.{task}.{part}")


def network(run: Run, num_classes: int) -> nn.Module:
    """The run's network, with fresh weights; to detect, SSD on top of it; to re-identify, without its classifier."""
    return _of(run.task, "network").build(run, num_classes)


def make(run: Run, data: Data, steps_per_epoch: int = 1, num_classes: int | None = None) -> "TaskModule":
    """The task of a run, with a fresh network.

    Args:
        run: all fields.
        data: its set.
        steps_per_epoch: updates an epoch, for the schedule.
        num_classes: of a trained network whose classes are not those of the data that it is tried on.
    """
    return _of(run.task, "module").make(run, data, steps_per_epoch, num_classes)


def open_data(run: Run, reported: bool = False, known: list[str] | None = None) -> Data:
    """The data set of a run, checked as far as can be known before training; what is odd with it is said on standard error.

    Args:
        run: all fields.
        reported: open what is evaluated alone; nothing else has to be there.
        known: names of a checkpoint's classes, in the order of its outputs: labels are theirs.

    Raises:
        DataError: a missing folder, an empty class, a class in val that train lacks, a file that is no image, too few
            images for a batch; names the path and says what to do.
        UserError: the set has other classes than the known ones.
    """
    with advised(run):
        data = _of(run.task, "data").opened(run, reported, known)
    if cluster.is_first(run):
        for line in data.warnings:
            print(f"warning: {line}", file=sys.stderr)
    if not reported and len(data.train) < run.batch:
        raise DataError(
            f"batch={run.batch}: more than the {len(data.train)} training images of {run.data}; take --batch {len(data.train) // 2}"
        )
    return data


@contextmanager
def advised(run: Run) -> Iterator[None]:
    """Say of an image that cannot be read, beside its name, how all such images are found and passed over."""
    try:
        yield
    except UnreadableError as error:
        if SETS[run.data].load is not None:  # of a package
            raise
        raise UnreadableError(
            f"{plain(error)}; python -m hbo.data.check {run.data_dir} lists every such image, --skip_bad N passes over at most N"
        ) from None


def cost(run: Run, classes: int) -> Cost:
    """Costs of one image through what the run trains: its network, the whole detector, or what makes a feature.

    Raises:
        UserError: the network cannot be built, or refuses the resolution.
    """
    return _of(run.task, "network").cost(run, classes)
