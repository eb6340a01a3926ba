"""Loaders: from a split to batches whose order is a function of (seed, epoch)."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from limbeck.data.order import Order, Share
from limbeck.data.splits import FromDisk, InMemory, Split
from limbeck.data.views import Views
from limbeck.errors import RequestError
from limbeck.seeds import derive, seeded
from limbeck.types import Batch, Inputs, each, send, tensors_of

T = TypeVar("T")
_CHUNK_BYTES = 8 * 2**20


class Loader(ABC):
    """Batches of one split, epoch by epoch, in an order that is a function of (seed, epoch)."""

    def __init__(self, order: Order, device: torch.device, views: Views, pairs: bool = False) -> None:
        self.order = order
        self.device = device
        self.views = views
        self.pairs = pairs
        self.others = views.other() if pairs else views

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) that is handed out next."""
        self.order.epoch = epoch

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        return self.starting_at(0)

    @abstractmethod
    def starting_at(self, step: int) -> Iterator[Batch]:
        """The epoch's batches from number `step` on."""

    def share(self, rank: int, world_size: int) -> tuple[Loader, int]:
        """What one of several processes tests of all samples: a loader, and how many of its first samples count.

        Every sample counts in one share. All shares have as many batches, for which some repeat a sample at their end.
        """
        own, order = copy.copy(self), Share(self.order, rank, world_size)
        own.order = order
        return own, order.counted


def make_loader(
    split: Split,
    batch_size: int,
    *,
    shuffle: bool = False,
    drop_last: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    views: Views | None = None,
    pairs: bool = False,
    weights: Tensor | None = None,
) -> Loader:
    """A loader for a split; `batch_size` counts the samples of one step over all processes.

    Args:
        split: The samples.
        batch_size: Samples of one step.
        shuffle: A new order each epoch, a function of (seed, epoch).
        drop_last: Leave a last, smaller batch out.
        seed: What the order is a function of.
        device: Where batches are made.
        rank, world_size: Which of how many processes this is; each gets its part of every batch.
        workers: Processes that read a split that does not lie in memory.
        views: Augmentation; None hands the samples out as they are.
        pairs: Hand each sample out in a second view too (`Batch.other`), a function of (seed, view, index) as well.
        weights: (N,) how likely each sample is drawn; an epoch then holds as many draws, with replacement, as samples.

    Raises:
        RequestError: Weights below 0, or not one a sample; a batch that is empty, larger than the split with drop_last,
            or not divisible by the processes or by samples that stay together; mixup or cutmix of samples that do not
            lie in memory, or in pairs.
    """
    lengths = split.lengths if isinstance(split, InMemory) else None
    of_batches = (batch_size, shuffle, drop_last, seed, rank, world_size)
    order = Order(len(split), *of_batches, weights, lengths, split.together)
    views = Views() if views is None else views
    if isinstance(split, InMemory):
        return MemoryLoader(split, order, torch.device(device), views, pairs)
    return WorkerLoader(split, order, torch.device(device), workers, views, pairs)


class MemoryLoader(Loader):
    """Batches of a split that lies in memory, on the training device; uint8 pixels become fp32 in 0–1.

    The samples move to the device as a whole, but for those that would fill a GPU: of them each batch moves by itself.

    Several batches are gathered, augmented and converted at once and handed out as slices, so that the cost of
    starting an operation is shared.
    """

    def __init__(self, split: InMemory, order: Order, device: torch.device, views: Views, pairs: bool = False) -> None:
        super().__init__(order, device, views, pairs)
        self.inputs = each(split.inputs, lambda x: x.to(device)) if fits(split.inputs, device) else split.inputs
        self.handed_out = split.handed_out
        self.targets = split.targets.to(device)

    def starting_at(self, step: int) -> Iterator[Batch]:
        size = self.order.local_batch_size
        sample_bytes = 4 * max(1, sum(math.prod(x.shape[1:]) for x in tensors_of(self.inputs)))
        chunk = size * max(1, min(64, _CHUNK_BYTES // (sample_bytes * size)))
        index = self.order.index()[step * size :]
        view = self.views.of_epoch(self.order.epoch) if self.views.changing else 0
        for start in range(0, len(index), chunk):
            some = index[start : start + chunk]
            inputs, targets = self._read(some, view)
            parts = zip(*(pieces(x, size) for x in (inputs, targets, some)), strict=True)
            batches = (Batch(*self.handed_out(x, y, i), i, view) for x, y, i in parts)
            if not self.pairs:
                yield from batches
                continue
            seconds = pieces(self._view(some, view, self.others)[0], size) if self.views.changing else None
            for number, batch in enumerate(batches):
                yield batch._replace(other=batch.inputs if seconds is None else seconds[number])

    def _read(self, some: Tensor, view: int) -> tuple[Inputs, Tensor]:
        inputs, targets = self._view(some, view, self.views)
        if not self.views.mixing:
            return inputs, targets
        partners = self.views.partners(some, view, len(self.targets))
        others, labels = self._view(partners, view, self.views)
        if not isinstance(inputs, Tensor) or not isinstance(others, Tensor):
            raise RequestError("mixup and cutmix take one image a sample, and these samples have several named inputs")
        return self.views.mix(inputs, others, (targets, labels), some, view)

    def _view(self, some: Tensor, view: int, views: Views) -> tuple[Inputs, Tensor]:
        chosen = each(self.inputs, lambda x: send(x.index_select(0, send(some, x.device)), self.device))
        samples = views.images(chosen, some, view) if views.changing else chosen
        return each(samples, pixels), self.targets[send(some, self.device)]


def pieces(inputs: Inputs, size: int) -> Sequence[Inputs]:
    """Samples in parts of `size`, the last one smaller."""
    if isinstance(inputs, Tensor):
        return torch.split(inputs, size)
    parts = {name: pieces(value, size) for name, value in inputs.items()}
    return [dict(zip(parts, some, strict=True)) for some in zip(*parts.values(), strict=True)]


def fits(inputs: Inputs, device: torch.device) -> bool:
    """Whether samples may move to a device: on a GPU they take no more than half of the memory that is free."""
    tensors = tensors_of(inputs)
    if device.type != "cuda" or all(one.device.type == "cuda" for one in tensors):
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return sum(one.numel() * one.element_size() for one in tensors) <= free / 2


class WorkerLoader(Loader):
    """Batches of a split that worker processes read; augmented on the training device.

    Each sample is read under a seed of its (seed, view, index), so that the pixels that a random transform inside the
    dataset gives, such as torchvision's v2, do not depend on the number of workers.
    """

    def __init__(
        self, split: FromDisk, order: Order, device: torch.device, workers: int, views: Views, pairs: bool = False
    ) -> None:
        super().__init__(order, device, views, pairs)
        if views.mixing:
            raise RequestError("mixup and cutmix need both samples at hand: they take data that lies in memory")
        self.workers = workers
        self.dataset = _Indexed(split, views, order)

    def starting_at(self, step: int) -> Iterator[Batch]:
        size = self.order.local_batch_size
        loader = DataLoader(
            self.dataset,
            batch_size=size,
            sampler=_InPieces(self.order.index()[step * size :]),
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            # Its own generator: the workers' base seed would otherwise be drawn from the one that dropout uses.
            generator=torch.Generator().manual_seed(0),
        )
        changing = self.views.changing or self.dataset.split.random
        view = self.views.of_epoch(self.order.epoch) if changing else 0
        for x, y, i in _in_words(loader):
            plain = Batch(x, y, i, view).to(self.device)
            batch = plain._replace(other=plain.inputs) if self.pairs else plain
            if self.views.steps:
                batch = batch._replace(inputs=self.views.images(plain.inputs, i, view))
                if self.pairs:
                    batch = batch._replace(other=self.others.images(plain.inputs, i, view))
            yield batch.changed(pixels)


def _in_words(loader: Iterable[T]) -> Iterator[T]:
    """A loader's batches; of an error of ours in a worker, torch makes a traceback, and this the line that it was."""
    try:
        yield from loader
    except RequestError as error:
        line = str(error).strip().splitlines()[-1]
        raise RequestError(line.removeprefix(f"{RequestError.__module__}.{RequestError.__name__}: ")) from error


class _InPieces(Sampler[int]):
    """Positions as Python's numbers, of which only a piece exists at a time: there may be 100 million."""

    def __init__(self, index: Tensor) -> None:
        self.index = index

    def __iter__(self) -> Iterator[int]:
        for piece in torch.split(self.index, 2**16):
            yield from piece.tolist()

    def __len__(self) -> int:
        return len(self.index)


class _Indexed(Dataset[tuple[Any, Any, int]]):
    """(input, label) → (input, label, index), with the global generators seeded for this very sample."""

    def __init__(self, split: FromDisk, views: Views, order: Order) -> None:
        self.split = split
        self.views = views
        self.order = order

    def __getitem__(self, i: int) -> tuple[Any, Any, int]:
        view = self.views.of_epoch(self.order.epoch) if self.split.random else 0
        with seeded(derive(self.views.seed, "view", view, i)):
            return (*self.split.dataset[i], i)

    def __len__(self) -> int:
        return len(self.split)


def pixels(inputs: Tensor) -> Tensor:
    """uint8 pixels 0–255 → fp32 in 0–1; anything else as it is."""
    return inputs.float().div_(255) if inputs.dtype == torch.uint8 else inputs
