"""From photographs to the features by which they are compared."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from hbo import files
from hbo.config import Run
from hbo.data.preprocess import Preprocess
from hbo.errors import UserError
from hbo.tasks.reid.data import transform
from hbo.tasks.reid.module import Reid


def preprocess(run: Run) -> Preprocess:
    """The whole photograph resized to H x W, whatever its shape, as in evaluation."""
    return Preprocess(transform(run, train=False)[0])


class Predictions:
    """The feature of each photograph, as `distance` compares it; not normalised.

    Args:
        task: a trained re-identifier.
    """

    suffix = ".npz"

    def __init__(self, task: Reid) -> None:
        self.task = task
        self.paths: list[str] = []
        self.features: list[np.ndarray] = []

    def add(
        self, paths: Sequence[str], sizes: Sequence[tuple[int, int]], pixels: UInt8[Tensor, "b 3 h w"]
    ) -> list[str]:
        """Add a batch; features are only written to a file, so no lines are returned."""
        found = self.task.retrieved_by(pixels)
        if not found.isfinite().all():
            raise UserError(f"{paths[0]}: the network's outputs are not finite; use another checkpoint")
        self.paths += paths
        self.features.append(found.cpu().numpy())
        return []

    def save(self, path: Path) -> None:
        """`paths` (N,) text and `features` (N, D) float32."""
        file = io.BytesIO()
        np.savez_compressed(
            file, paths=np.array(self.paths), features=np.concatenate(self.features).astype(np.float32)
        )
        files.write_atomically(path, file.getvalue())

    def summary(self) -> str:
        """Number of photographs and length of a feature."""
        length = self.features[0].shape[1]
        return (
            f"{len(self.paths)} photographs, features of {length} numbers, distance {self.task.run.distance}"
        )
