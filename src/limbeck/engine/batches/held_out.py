"""Held-out batches, shared out over the processes that test them together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric

from limbeck.data import Loader
from limbeck.engine.batches.shares import Shared, is_map, sharing_sampler, with_batches
from limbeck.engine.batches.source import Source
from limbeck.engine.devices.fabric import from_all
from limbeck.engine.devices.sharding import is_sharding
from limbeck.errors import RequestError
from limbeck.tasks.items import as_batch
from limbeck.types import Batch

T = TypeVar("T")


class HeldOut:
    """Pairs of a batch and the number of its first samples that count; of several processes each has its share.

    Every sample counts once in all. What does not count is run all the same, for sharded networks want all processes
    to run as many batches. limbeck's loaders and DataLoaders of a data set with indices are shared out here, every
    process reading its own part; a DataLoader that has a DistributedSampler already is read as it is, without the
    samples that this repeats; any other iterable is taken to give each process its own part, or all of them everything.

    Args:
        loader: The batches, or what a task reads as such.
        device: Where they go.
        fabric: Whose processes share the samples; None reads all of them here.
        read: From what the loader gives to a batch.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        device: torch.device,
        fabric: Fabric | None = None,
        read: Callable[[Any], Batch] = as_batch,
    ) -> None:
        self.loader, self.device, self.read = loader, device, read
        self.fabric = fabric if fabric is not None and fabric.world_size > 1 else None
        self._shared: Shared | None = None
        if self.fabric is not None and is_map(loader) and sharing_sampler(loader) is None:
            self._shared = Shared(loader.batch_sampler or loader.sampler, self.fabric, loader, repeats=True)
            self.loader = with_batches(loader, self._shared)

    def __iter__(self) -> Iterator[tuple[Batch, int]]:
        fabric = self.fabric
        if fabric is not None and isinstance(self.loader, Loader):
            loader, counted = self.loader.share(fabric.global_rank, fabric.world_size)
            return _first(Source(loader, self.device, read=self.read).starting_at(), counted)
        batches = Source(self.loader, self.device, read=self.read).starting_at()
        if self._shared is not None:
            return _own(batches, self._shared)
        if fabric is not None and is_map(self.loader):
            return _first(batches, sharing_sampler(self.loader) or 0)
        if fabric is not None and is_sharding(fabric):
            return _in_step(batches, fabric)
        return ((batch, batch.size) for batch in batches)

    def gathered(self, own: T) -> list[T]:
        """What every process has: the same list for all."""
        return from_all(self.fabric, own) if self.fabric is not None else [own]


def _first(batches: Iterator[Batch], counted: int) -> Iterator[tuple[Batch, int]]:
    """Of all samples the first `counted` ones count."""
    for batch in batches:
        yield batch, min(counted, batch.size)
        counted -= min(counted, batch.size)


def _own(batches: Iterator[Batch], shared: Shared) -> Iterator[tuple[Batch, int]]:
    """Of all batches those count that are not repeated."""
    for number, batch in enumerate(batches):
        yield batch, batch.size if number < shared.counted else 0


def _in_step(batches: Iterator[Batch], fabric: Fabric) -> Iterator[tuple[Batch, int]]:
    """As many batches as the process that has most: one that has come to its end runs a sample that does not count."""
    last: Batch | None = None
    while any(there := from_all(fabric, (batch := next(batches, None)) is not None)):
        if last is None and not all(there):
            raise RequestError(
                f"process {there.index(False)} has no held-out batch at all; give every process one, for networks in "
                "shards are run by all together"
            )
        last = batch or last
        if last is not None:
            yield (last, last.size) if batch is not None else (last.first(1), 0)
