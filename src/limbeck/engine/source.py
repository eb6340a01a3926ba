"""Whatever a user trains from, as a stream of batches on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from limbeck.data import Loader
from limbeck.engine.generators import left_alone, samplers
from limbeck.errors import RequestError
from limbeck.types import Batch, each, send

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

    def __len__(self) -> int:
        try:
            return len(self.loader)  # type: ignore[arg-type]
        except TypeError:
            raise RequestError("the loader must have a length: len(loader) is its number of batches") from None

    def set_epoch(self, epoch: int) -> None:
        """Tell the loader, its data set and its samplers which epoch (from 0) begins."""
        for part in (self.loader, getattr(self.loader, "dataset", None), *samplers(self.loader)):
            tell = getattr(part, "set_epoch", None)
            if tell is not None:
                tell(epoch)

    def starting_at(self, step: int = 0) -> Iterator[Batch]:
        """The epoch's batches from number `step` on."""
        batches, change = self._starting_at(step), self.change
        return batches if change is None else (batch.changed(change) for batch in batches)

    def _starting_at(self, step: int) -> Iterator[Batch]:
        if isinstance(self.loader, Loader):
            batches = self.loader.starting_at(step)
            return batches if self.loader.device == self.device else (batch.to(self.device) for batch in batches)
        items = iter(self.loader)
        for _ in range(step):
            next(items)
        return (self._kept(as_batch(item)) for item in items)

    def windows(self, batches: Iterator[Batch]) -> Iterator[list[Batch]]:
        """Groups of its batches, the last one possibly shorter."""
        while window := list(islice(batches, self.window)):
            yield window

    def _kept(self, batch: Batch) -> Batch:
        if self.window == 1:
            return batch.to(self.device)._replace(targets=self._copied(batch.targets))
        inputs, index = each(batch.inputs, self._copied), batch.index.clone()
        return Batch(inputs, self._copied(batch.targets), index, batch.view)

    def _copied(self, tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.device == self.device else send(tensor, self.device)

    def first(self) -> Batch:
        """The first batch, as an example; generators of the user's own stay where they are.

        Raises:
            RequestError: There is none.
        """
        with left_alone(self.loader):
            batch = next(self.starting_at(), None)
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
