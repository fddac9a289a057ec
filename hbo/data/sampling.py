"""Order and randomness as functions of (seed, epoch, image) alone.

So two networks with one seed see the same images, whatever the number of workers or processes,
and a run resumed in the middle of an epoch continues with the very next batch: nothing has to be
saved but the number of updates done.
"""

import hashlib
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from hbo.runs import signals


def hashed(*parts: object) -> int:
    """A 63-bit number from the parts, the same on every machine and in every version."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Torch's CPU randomness as a function of the parts, inside; as it was, afterwards."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(hashed(*parts))
    try:
        yield
    finally:
        torch.set_rng_state(state)


def split(strata: Sequence[object], share: float, salt: str = "") -> tuple[list[int], list[int]]:
    """Indices in two parts, the second with `share` of each stratum; fixed for ever, independent of any
    library's shuffle.
    """
    rest: list[int] = []
    held: list[int] = []
    groups: dict[object, list[int]] = defaultdict(list)
    for i, stratum in enumerate(strata):
        groups[stratum].append(i)
    for stratum in sorted(groups, key=repr):
        members = sorted(groups[stratum], key=lambda i: hashed(salt, i))
        # Rounding errors do not add up.
        cut = round(share * (len(rest) + len(held) + len(members))) - len(held)
        held += members[:cut]
        rest += members[cut:]
    return sorted(rest), sorted(held)


def at_most_per_class(labels: Sequence[object], n: int, salt: str = "") -> list[int]:
    """Indices of at most n of each label, in order; fixed for ever, and those of a smaller n are among those
    of a larger.
    """
    groups: dict[object, list[int]] = defaultdict(list)
    for i in sorted(range(len(labels)), key=lambda i: hashed(salt, i)):
        groups[labels[i]].append(i)
    return sorted(i for group in groups.values() for i in group[:n])


class TrainBatches:
    """Batches of (epoch, index) for one of `world` processes; a batch sampler.

    The images of epoch e are a permutation by (seed, e); global batch b is its b-th slice, of which
    this rank takes its even share, so that the ranks together see what one process would. An
    incomplete last batch is left out.

    Args:
        images: how many there are.
        batch: images of a global batch.
        seed: of the run.
        rank, world: this process, of how many.
        limit: at most this many batches per epoch.
        progress: updates done so far in the run; a new epoch, or a resumed one, starts from there.
    """

    def __init__(
        self,
        images: int,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        limit: int | None = None,
        progress: Callable[[], int] = lambda: 0,
    ) -> None:
        self.images, self.batch, self.seed = images, batch, seed
        self.rank, self.world, self.progress = rank, world, progress
        self.batches = min(images // batch, limit or images)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, done = divmod(self.progress(), self.batches)
        order = self.order(epoch)
        share = self.batch // self.world
        for b in range(done, self.batches):
            start = b * self.batch + self.rank * share
            yield [(epoch, index) for index in order[start : start + share]]

    def order(self, epoch: int) -> list[int]:
        """The images of an epoch, batch after batch."""
        return torch.randperm(
            self.images, generator=torch.Generator().manual_seed(hashed(self.seed, epoch))
        ).tolist()


class IdentityBatches(TrainBatches):
    """The same, with P x K sampling: K images of each of P = batch / K identities in a batch, as many batches
    per epoch.

    Identities come in random order, each once before any comes again (those left over that fill no batch wait
    for the next order), and so do an identity's images; one with fewer than K has some of them twice.

    Args:
        labels: each image's identity.
        instances: K.
    """

    def __init__(self, labels: Sequence[int], batch: int, seed: int, instances: int, **kwargs: Any) -> None:
        super().__init__(len(labels), batch, seed, **kwargs)
        self.instances, self.members = instances, defaultdict[int, list[int]](list)
        for i, label in enumerate(labels):
            self.members[label].append(i)

    def order(self, epoch: int) -> list[int]:
        draw = torch.Generator().manual_seed(hashed(self.seed, epoch))
        shuffled = lambda items: [items[i] for i in torch.randperm(len(items), generator=draw).tolist()]
        people, wanted = self.batch // self.instances, self.batches * self.batch
        left: dict[int, list[int]] = {identity: [] for identity in self.members}
        order: list[int] = []
        while len(order) < wanted:
            identities = shuffled(list(self.members))
            for identity in identities[: len(identities) // people * people]:
                images = left[identity]
                while len(images) < self.instances:
                    # Those that wait already come last, so that a group has an image twice only where there
                    # are too few.
                    images += sorted(shuffled(self.members[identity]), key=images.__contains__)
                order += images[: self.instances]
                del images[: self.instances]
        return order[:wanted]


class EvalBatches:
    """Batches of (0, index) in order, each image once over all ranks, without padding; a batch sampler."""

    def __init__(
        self, images: int, batch: int, rank: int = 0, world: int = 1, limit: int | None = None
    ) -> None:
        images = min(images, limit * batch) if limit else images
        mine = range(rank, images, world)
        share = batch // world
        self.batches = [[(0, index) for index in mine[i : i + share]] for i in range(0, len(mine), share)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)


def _leave_signals(worker: int) -> None:
    """A signal to the whole process group (Ctrl-C, a scheduler's) is the training
    process's to obey; it ends its workers.
    """
    for number in signals.ALL:
        signal.signal(number, signal.SIG_IGN)


def _as_is(batch: Any) -> Any:
    return batch


def loader(dataset: Dataset, batches: TrainBatches | EvalBatches, workers: int) -> DataLoader:
    """A loader over batches of (epoch, index); workers stay alive between epochs. A set with `__getitems__`
    makes whole batches.
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,  # pyright: ignore  # lists of pairs, for the data set
        num_workers=workers,
        collate_fn=_as_is if hasattr(dataset, "__getitems__") else None,
        worker_init_fn=_leave_signals,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
