"""What a network is trained to do, a LightningModule each."""

from typing import TYPE_CHECKING

from hbo.config import Run

if TYPE_CHECKING:
    from hbo.data import Data
    from hbo.tasks.base import Task


def make(run: Run, data: "Data", steps_per_epoch: int = 1, num_classes: int | None = None) -> "Task":
    """The task of a run, with a fresh network; the one place where `--task` is looked at to choose it.

    `num_classes`: of a trained re-identifier, whose training identities are not those of the data that it is tried on.
    """
    if run.task == "detect":
        from hbo.tasks.detect import Detect

        return Detect(run, data.classes, steps_per_epoch)
    if run.task == "reid":
        from hbo.tasks.reid import Reid

        return Reid(run, num_classes or len(data.classes), steps_per_epoch)
    from hbo.tasks.classify import Classify

    weights = data.class_weights() if run.class_weights == "balanced" else None
    return Classify(run, len(data.classes), steps_per_epoch, weights)
