"""Predictions of a trained network on unlabelled photographs; the same interface
for every task (`hbo.predict`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxtyping import UInt8
from torch import Tensor


class Predictions(Protocol):
    """Collects a task's predictions and writes them. Each task has one in its `predict.py`."""

    suffix: str
    """Suffix of the output file."""

    def add(
        self, paths: Sequence[str], sizes: Sequence[tuple[int, int]], pixels: UInt8[Tensor, "b 3 h w"]
    ) -> list[str]:
        """Add a batch: files, width and height of each photograph, and its preprocessed pixels. Returns one
        line per photograph or box.

        Raises:
            UserError: the network's outputs are not finite.
        """
        ...

    def save(self, path: Path) -> Any:
        """Write all predictions to a file."""
        ...

    def summary(self) -> str:
        """A summary in one line."""
        ...
