"""What each of several processes reads of an ordinary DataLoader."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, TypeGuard

import torch
from lightning_fabric import Fabric
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, Sampler

from limbeck.engine.batches.generators import left_alone, samplers
from limbeck.errors import RequestError
from limbeck.seeds import derive, seeded


class Shared(Sampler[Any]):
    """Every `world_size`-th of what a sampler draws, samples or batches of them.

    All processes draw the same: a sampler that takes torch's, NumPy's or Python's own generator does so under a seed of
    (seed, epoch), and what this process draws for dropout does not change.

    Args:
        sampler: What is shared out.
        fabric: Its processes.
        loader: To which the sampler belongs.
        seed: What the order is a function of.
        repeats: Where the draws do not divide by the number of processes, repeat some; else the last ones are left out.

    Attributes:
        counted: How many of this process's draws are no repetition; known once an epoch has begun.
    """

    def __init__(
        self, sampler: Iterable[Any], fabric: Fabric, loader: DataLoader[Any], seed: int = 0, repeats: bool = False
    ) -> None:
        self.sampler, self.seed, self.repeats = sampler, seed, repeats
        self.rank, self.world_size = fabric.global_rank, fabric.world_size
        # A loader draws the seed of its workers before its order, unless these go on from the epoch before.
        self._drawn_before = loader.generator is None and not loader.persistent_workers
        self.epoch = self.counted = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) that is drawn next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        # The seed under which the first process draws, so that all draw what one process alone would.
        with seeded(derive(self.seed, "epoch", self.epoch, 0)):
            if self._drawn_before:
                torch.empty((), dtype=torch.int64).random_()
            drawn = list(self.sampler)
        self.counted = len(range(self.rank, len(drawn), self.world_size))
        if not self.repeats:
            return iter(drawn[self.rank : len(drawn) - len(drawn) % self.world_size : self.world_size])
        most = range(self.rank, len(drawn) + -len(drawn) % self.world_size, self.world_size)
        return iter([drawn[number % len(drawn)] for number in most])

    def __len__(self) -> int:
        draws = len(self.sampler)  # type: ignore[arg-type]  # a DataLoader that knows its length has such a sampler
        return -(-draws // self.world_size) if self.repeats else draws // self.world_size


def training_part(train: Iterable[Any], fabric: Fabric, seed: int) -> Iterable[Any]:
    """What this process trains on: its part of each joined batch, as large as the loader's batches are.

    The joined batches are those of one process with a batch size `world_size` times as large. limbeck's loaders, a
    DataLoader with a DistributedSampler, an iterable data set and anything else are made for their process already.

    Raises:
        RequestError: There are fewer samples, or batches of a batch sampler of the user's own, than processes.
    """
    if fabric.world_size == 1 or not is_map(train) or sharing_sampler(train) is not None:
        return train
    batches = train.batch_sampler
    if type(batches) is BatchSampler:
        own = Shared(batches.sampler, fabric, train, seed)
        part = with_batches(train, BatchSampler(own, batches.batch_size, batches.drop_last))
    else:
        part = with_batches(train, Shared(train.sampler if batches is None else batches, fabric, train, seed))
    if not len(part):
        raise RequestError(f"the loader does not give each of {fabric.world_size} processes one batch")
    if train.persistent_workers:  # they draw their seed when they start, which would come before any epoch's order
        with left_alone(train):
            iter(part)
    return part


def is_map(loader: Iterable[Any]) -> TypeGuard[DataLoader[Any]]:
    """Whether it is a DataLoader of a data set with indices."""
    return isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)


def with_batches(loader: DataLoader[Any], sampler: Iterable[Any]) -> DataLoader[Any]:
    """The same loader, of a subclass too, with another batch sampler; or sampler, where it makes no batches."""
    part = copy.copy(loader)
    name = "sampler" if loader.batch_sampler is None else "batch_sampler"
    part.__dict__ |= {name: sampler, "_iterator": None}  # torch forbids the assignment
    return part


def sharing_sampler(loader: DataLoader[Any]) -> int | None:
    """How many samples the loader's own sampler for several processes gives this one, repetitions left out; or None."""
    for sampler in samplers(loader):
        if isinstance(sampler, DistributedSampler) and not sampler.drop_last:
            return len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))  # type: ignore[arg-type]
        if hasattr(sampler, "num_replicas"):
            return len(sampler)
    return None
