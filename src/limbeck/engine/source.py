"""Whatever a user trains from, as a stream of batches on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler

from limbeck.data import Loader
from limbeck.engine.generators import left_alone, samplers
from limbeck.errors import RequestError
from limbeck.types import Batch, send

_REFUSED = "a loader must give limbeck batches, or pairs (inputs, targets) as a DataLoader does; this one gives {}"


class Source:
    """Batches on `device` from a limbeck loader, an ordinary DataLoader, or any iterable of (inputs, targets).

    A loader may write each batch into the memory of the one before; limbeck's own do not. So the targets of a batch,
    which are counted later, are copied, and all of a batch that has to wait for the others of its window.

    Args:
        loader: Where they come from.
        device: Where they go.
        change: What is done to each input there, such as `Layout.inputs`; None leaves them as they are.
        window: How many of them make one step.

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
    ) -> None:
        self.loader = loader
        self.device = device
        self.change = change
        self.window = window
        self.least = 1

    def __len__(self) -> int:
        try:
            batches = len(self.loader)  # type: ignore[arg-type]
        except TypeError:
            raise RequestError("the loader must have a length: len(loader) is its number of batches") from None
        return batches - (self.alone or 0) if self.least > 1 else batches

    @cached_property
    def alone(self) -> int | None:
        """How many of an epoch's batches hold a single sample; None where the loader does not tell."""
        if isinstance(self.loader, list | tuple):
            return sum(as_batch(item).size == 1 for item in self.loader)
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
            batches = self.loader.starting_at(step) if self.least == 1 else self._enough(self.loader.starting_at(step))
            return batches if self.loader.device == self.device else (batch.to(self.device) for batch in batches)
        given = map(as_batch, self.loader)
        enough = given if self.least == 1 else self._enough(given)
        for _ in range(step):
            next(enough)
        return (self._kept(batch) for batch in enough)

    def windows(self, batches: Iterator[Batch]) -> Iterator[list[Batch]]:
        """Groups of its batches, the last one possibly shorter."""
        while window := list(islice(batches, self.window)):
            yield window

    def _kept(self, batch: Batch) -> Batch:
        if self.window == 1:
            return batch.to(self.device)._replace(targets=self._copied(batch.targets))
        copied = batch.changed(self._copied)
        return copied._replace(targets=self._copied(batch.targets), index=batch.index.clone())

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
        if isinstance(self.loader, Iterator):
            raise RequestError("an iterator can be read only once: give what makes it, such as the DataLoader itself")
        with left_alone(self.loader):
            batches = self.starting_at()
            batch = next(batches, None)
            if batch is not None and batch.size == 1:
                batch = max(batch, next(batches, batch), key=lambda one: one.size)
        if batch is None:
            raise RequestError("the loader gives no batch at all")
        return batch


def as_batch(item: Any) -> Batch:
    """A Batch from what a loader gives; the index is -1, unknown, where an ordinary loader gives none.

    Raises:
        RequestError: It is neither a Batch nor a pair (inputs, targets).
    """
    if isinstance(item, Batch):
        return item
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise RequestError(_REFUSED.format(f"{type(item).__name__}{_length(item)}"))
    inputs, targets = item
    if not isinstance(inputs, torch.Tensor | Mapping) or not isinstance(targets, torch.Tensor):
        raise RequestError(_REFUSED.format(f"({type(inputs).__name__}, {type(targets).__name__})"))
    return Batch(inputs, targets, torch.full((len(targets),), -1, device="cpu"))


def _length(item: Any) -> str:
    return f" of {len(item)}" if isinstance(item, tuple | list) else ""
