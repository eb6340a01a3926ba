"""The order of an epoch: a function of (seed, epoch), shared out over processes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.seeds import derive

BUCKETS = 50
"""Batches whose samples are sorted by length together."""


class Order:
    """Which samples make which batch: a function of (seed, epoch), shared out over processes.

    Shuffled samples with lengths share a batch with others of like length. Where the last batch does not divide by the
    number of processes, its last samples are left out. Of samples that stay together, each so many that follow one
    another are shuffled, and given to a process, as one.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        shuffle: bool,
        drop_last: bool,
        seed: int,
        rank: int,
        world_size: int,
        weights: Tensor | None = None,
        lengths: Tensor | None = None,
        together: int = 1,
    ) -> None:
        if weights is not None and (
            weights.shape != (samples,) or not bool((weights >= 0).all() and weights.sum() > 0)
        ):
            raise RequestError(f"sampling needs a weight of 0 or more for each of {samples} samples, and one above 0")
        if batch_size < 1:
            raise RequestError(f"batch_size must be 1 or more, not {batch_size}")
        if batch_size % world_size:
            raise RequestError(f"batch_size {batch_size} does not divide by {world_size} processes")
        if shuffle and together > 1:
            if batch_size % (together * world_size):
                raise RequestError(
                    f"batch_size {batch_size} is to be a multiple of {together * world_size}: {together} samples that "
                    f"follow one another stay together"
                )
            if weights is not None:
                raise RequestError(f"sampling draws single samples, and {together} stay together here; leave it out")
        used = samples // batch_size * batch_size if drop_last else samples
        self.whole = used
        self.together = together if shuffle else 1
        self.used = used - used % (self.together * world_size)
        if not self.used:
            raise RequestError(f"{samples} samples do not fill one batch of {batch_size}; choose a smaller batch_size")
        self.samples, self.batch_size, self.shuffle, self.seed = samples, batch_size, shuffle, seed
        self.rank, self.world_size, self.weights, self.lengths = rank, world_size, weights, lengths
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(self.used / self.batch_size)

    @property
    def local_batch_size(self) -> int:
        return self.batch_size // self.world_size

    def index(self) -> Tensor:
        """This process's samples in the order of this epoch; every `local_batch_size` of them are a batch."""
        # Batch b of process r is every world_size-th sample of the joined batch b.
        groups = self.of_all()[: self.used].view(-1, self.together)
        return groups[self.rank :: self.world_size].flatten()

    def of_all(self) -> Tensor:
        """All processes' samples in the order of this epoch, those that do not divide by their number among them."""
        if not self.shuffle:
            return torch.arange(self.whole)
        generator = torch.Generator().manual_seed(derive(self.seed, "order", self.epoch))
        each, lengths = self.together, self.lengths
        if self.weights is not None:
            order = torch.multinomial(self.weights.double(), self.samples, True, generator=generator)
        else:
            order = torch.randperm(self.samples // each, generator=generator)
        if lengths is not None:
            order = bucketed(order, lengths.view(-1, each).amax(1), self.batch_size // each, generator)
        if each > 1:
            order = (order[:, None] * each + torch.arange(each)).flatten()
        return order[: self.whole]


def bucketed(order: Tensor, lengths: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
    """An order with samples of like length in one batch, batches in random order, the last, smaller one at the end.

    Within each run of `BUCKETS` batches the samples are sorted by length; so an epoch stays nearly random.
    """
    whole = len(order) // batch_size * batch_size
    runs = [some[lengths[some].argsort(stable=True)] for some in torch.split(order[:whole], BUCKETS * batch_size)]
    if not runs or not whole:
        return order
    batches = torch.cat(runs).view(-1, batch_size)
    return torch.cat([batches[torch.randperm(len(batches), generator=generator)].flatten(), order[whole:]])


class Share(Order):
    """A process's share of an order, nothing left out, in batches as large as the order's own of one process."""

    def __init__(self, order: Order, rank: int, world_size: int) -> None:
        size = order.local_batch_size
        super().__init__(order.whole, size, order.shuffle, False, order.seed, 0, 1)
        self.order, self.share = order, (rank, world_size)
        self.used = math.ceil(order.whole / world_size)
        self.counted = len(range(rank, order.whole, world_size))

    def index(self) -> Tensor:
        index, (rank, world_size) = self.order.of_all(), self.share
        return index[torch.arange(rank, self.used * world_size, world_size) % len(index)]
