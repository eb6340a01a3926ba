"""Whatever a user trains from, as a stream of batches on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler

from limbeck.data import Loader
from limbeck.engine.generators import left_alone, samplers
from limbeck.errors import RequestError
from limbeck.tasks.items import as_batch
from limbeck.types import Batch, map_targets, send


class Source:
    """Batches on `device` from a limbeck loader, an ordinary DataLoader, or any iterable of what a task can read.

    A loader may write each batch into the memory of the one before; limbeck's own do not. So the targets of a batch,
    which are counted later, are copied, and all of a batch that has to wait for the others of its window.

    Args:
        loader: Where they come from.
        device: Where they go.
        change: What is done to each input there, such as `Layout.inputs`; None leaves them as they are.
        window: How many of them make one step.
        read: From what the loader gives to a batch, as a task has it.
        steps: Batches of an epoch; None takes all that the loader has. A loader that ends before is started again.

    Attributes:
        least: Samples that a batch must have, so as not to be left out; 1 leaves none out.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        device: torch.device,
        change: Callable[[Tensor], Tensor] | None = None,
        *,
        window: int = 1,
        read: Callable[[Any], Batch] = as_batch,
        steps: int | None = None,
    ) -> None:
        self.loader = loader
        self.device = device
        self.change = change
        self.window = window
        self.read = read
        self.steps = steps
        self.epoch = 0
        self.least = 1

    def __len__(self) -> int:
        if self.steps is not None:
            return self.steps
        try:
            batches = len(self.loader)  # type: ignore[arg-type]
        except TypeError:
            raise RequestError(
                "the loader has no length; say how many batches an epoch has: steps_per_epoch=1000"
            ) from None
        return batches - (self.alone or 0) if self.least > 1 else batches

    @cached_property
    def alone(self) -> int | None:
        """How many of an epoch's batches hold a single sample; None where the loader does not tell."""
        if isinstance(self.loader, list | tuple):
            return sum(self.read(item).size == 1 for item in self.loader)
        if isinstance(self.loader, Loader):
            order = self.loader.order
            samples, size, drop_last = order.used // order.world_size, order.local_batch_size, False
        else:
            batches: Any = getattr(self.loader, "batch_sampler", None)
            try:
                samples, size, drop_last = len(batches.sampler), batches.batch_size, batches.drop_last
            except (AttributeError, TypeError):  # a sampler of the user's own, or one without end
                return None
            if type(batches) is not BatchSampler:
                return None
        return samples if size == 1 else int(samples % size == 1 and not drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Tell the loader, its data set and its samplers which epoch (from 0) begins."""
        self.epoch = epoch
        for part in (self.loader, getattr(self.loader, "dataset", None), *samplers(self.loader)):
            tell = getattr(part, "set_epoch", None)
            if tell is not None:
                tell(epoch)

    def starting_at(self, step: int = 0) -> Iterator[Batch]:
        """The epoch's batches from number `step` on, of those that are not left out."""
        batches, change = self._starting_at(step), self.change
        return batches if change is None else (batch.changed(change) for batch in batches)

    def _starting_at(self, step: int) -> Iterator[Batch]:
        if isinstance(self.loader, Loader):
            given = self.loader.starting_at(step) if self.steps is None else self._passes(self.loader, self.steps, step)
            batches = given if self.least == 1 else self._enough(given)
            return batches if self.loader.device == self.device else (batch.to(self.device) for batch in batches)
        given = map(self.read, self._items())
        enough = given if self.least == 1 else self._enough(given)
        for _ in range(step):
            next(enough)
        return (self._kept(batch) for batch in enough)

    def _passes(self, loader: Loader, steps: int, step: int) -> Iterator[Batch]:
        """The rest of an epoch of so many batches of a limbeck loader, pass after pass through all of its samples.

        Where one epoch stops, the next goes on: each pass has an order, and a view, of its own.
        """
        whole = len(loader) - ((self.alone or 0) if self.least > 1 else 0)
        at, end = self.epoch * steps + step, (self.epoch + 1) * steps
        while at < end:
            number, first = divmod(at, whole)
            loader.set_epoch(number)
            taken = min(whole - first, end - at)
            yield from islice(loader.starting_at(first), taken)
            at += taken

    def _items(self) -> Iterator[Any]:
        """What the loader gives in an epoch."""
        return iter(self.loader) if self.steps is None else islice(_again_and_again(self.loader), self.steps)

    def windows(self, batches: Iterator[Batch]) -> Iterator[list[Batch]]:
        """Groups of its batches, the last one possibly shorter."""
        while window := list(islice(batches, self.window)):
            yield window

    def _kept(self, batch: Batch) -> Batch:
        if self.window == 1:
            return batch.to(self.device)._replace(targets=map_targets(batch.targets, self._copied))
        copied = batch.changed(self._copied)
        return copied._replace(targets=map_targets(batch.targets, self._copied), index=batch.index.clone())

    def _copied(self, tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.device == self.device else send(tensor, self.device)

    def _enough(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        return (batch for batch in batches if batch.size >= self.least)

    def first(self) -> Batch:
        """The first batch, as an example, or the second where that holds one sample alone.

        Generators of the user's own stay where they are.

        Raises:
            RequestError: There is none.
        """
        if isinstance(self.loader, Stream):
            return self.read(self.loader.peek())
        with left_alone(self.loader):
            batches = self.starting_at()
            batch = next(batches, None)
            if batch is not None and batch.size == 1:
                batch = max(batch, next(batches, batch), key=lambda one: one.size)
        if batch is None:
            raise RequestError("the loader gives no batch at all")
        return batch


class Stream:
    """An iterator as a loader: each epoch goes on where the one before stopped.

    Args:
        iterator: It can be read once, and is read by this alone.
    """

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._peeked: list[Any] = []

    def peek(self) -> Any:
        """What comes next, without taking it.

        Raises:
            RequestError: Nothing does.
        """
        if not self._peeked:
            try:
                self._peeked.append(next(self._iterator))
            except StopIteration:
                raise RequestError("the loader gives no batch at all") from None
        return self._peeked[0]

    def __iter__(self) -> Iterator[Any]:
        while True:
            if self._peeked:
                yield self._peeked.pop()
                continue
            try:
                yield next(self._iterator)
            except StopIteration:
                return


def as_loader(given: Iterable[Any], steps: int | None) -> Iterable[Any]:
    """The loader that was given; an iterator as a `Stream`.

    Raises:
        RequestError: It is an iterator, and nobody says how many batches make an epoch.
    """
    if steps is not None and steps < 1:
        raise RequestError(f"steps_per_epoch is 1 or more, not {steps}")
    if not isinstance(given, Iterator):
        return given
    if steps is None:
        raise RequestError(
            "an iterator can be read only once: give what makes it, such as the DataLoader itself, or say how many of "
            "its batches make an epoch: steps_per_epoch=1000"
        )
    return Stream(given)


def counted(loader: Iterable[Any], seconds: float = 120.0) -> int | None:
    """How many batches a loader without a length gives, by reading it once; None for one that has a length.

    Raises:
        RequestError: It has not ended after so many seconds.
    """
    try:
        len(loader)  # type: ignore[arg-type]
    except TypeError:
        began = time.monotonic()
        with left_alone(loader):
            for number, _ in enumerate(loader, start=1):
                if time.monotonic() - began > seconds:
                    raise RequestError(
                        f"the loader has no length, and has not ended after {number:,} batches; say how many make an "
                        "epoch: steps_per_epoch=1000"
                    ) from None
            return number
    return None


def _again_and_again(loader: Iterable[Any]) -> Iterator[Any]:
    """What a loader gives, started again at its end; nothing more of one that gives nothing."""
    while True:
        began = False
        for item in loader:
            began = True
            yield item
        if not began:
            return
