"""The next batch copied to a CUDA device while the current one is trained on."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning_fabric.utilities.apply_func import move_data_to_device
from lightning_utilities.core.apply_func import apply_to_collection
from torch.utils.data import DataLoader


def prefetched(loader: DataLoader, device: torch.device) -> "DataLoader | Prefetch":
    """The loader itself; on a CUDA device, one that copies its batches ahead."""
    return Prefetch(loader, device) if device.type == "cuda" else loader


class Prefetch:
    """A loader's batches on the device, each copied on a stream of its own while the one before is used."""

    def __init__(self, loader: DataLoader, device: torch.device) -> None:
        self.loader, self.device = loader, device
        self.stream = torch.cuda.Stream(device)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        ahead = None
        for batch in self.loader:
            with torch.cuda.stream(self.stream):
                # From pinned memory, so that it does not wait.
                copied = move_data_to_device(batch, self.device)
            if ahead is not None:
                yield self.ready(ahead)
            ahead = copied
        if ahead is not None:
            yield self.ready(ahead)

    def ready(self, batch: Any) -> Any:
        """The batch, for the stream that trains: which waits for the copy, and keeps the memory until it is
        done with it.
        """
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        apply_to_collection(batch, torch.Tensor, lambda tensor: tensor.record_stream(current))
        return batch
