"""Whatever a user trains from, as a stream of batches on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler

from limbeck.data import Loader
from limbeck.engine.batches.generators import left_alone, samplers
from limbeck.engine.batches.streams import Stream
from limbeck.errors import RequestError
from limbeck.tasks.items import as_batch
from limbeck.types import Batch, flat, map_targets, send


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
        usual: What the first batch holds, in words (`form`); "" where nobody has looked.
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
        self.usual = ""

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
            whole = self.loader.starting_at(step) if self.steps is None else self._passes(self.loader, self.steps, step)
            given = map(self.read, whole)
            batches = given if self.least == 1 else self._enough(given)
            return batches if self.loader.device == self.device else (batch.to(self.device) for batch in batches)
        given = map(self.read, self._items())
        enough = given if self.least == 1 else self._enough(given)
        for _ in range(step):
            next(enough, None)
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

    def short(self, steps: int) -> str:
        """What should be said of an epoch of so many batches, where more were announced; "" for nothing."""
        announced = len(self)
        if steps >= announced or (self.least > 1 and self.alone is None):  # of those left out another line speaks
            return ""
        if isinstance(self.loader, Stream) and self.loader.ended:
            return (
                f"the iterator ended after {self.loader.taken:,} batches in all, so that epoch {self.epoch + 1} has "
                f"{steps:,} in place of {announced:,}"
            )
        return f"the loader gives {steps:,} batches in epoch {self.epoch + 1}, and announces {announced:,}"

    def nothing(self) -> str:
        """Why an epoch has no batch at all."""
        if isinstance(self.loader, Stream) and self.loader.ended:
            return (
                f"no batch is left for epoch {self.epoch + 1}: the iterator ended after {self.loader.taken:,} batches, "
                f"and an iterator cannot be started again; give fewer epochs or steps_per_epoch (now {self.steps}), or "
                "what makes the iterator: its function, or a DataLoader"
            )
        return f"the loader gives no batch in epoch {self.epoch + 1}"

    def unlike(self, window: Iterable[Batch]) -> str:
        """What a batch holds that differs in shape or dtype from the first one, beside what that holds; "" for none."""
        other = next((one for one in map(form, window) if one != self.usual), None) if self.usual else None
        return "" if other is None else f"it holds {other}, and the first batch {self.usual}"

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


def form(batch: Batch) -> str:
    """The shapes, without the batch, and the dtypes of a batch's inputs and targets, in words.

    >>> form(as_batch((torch.zeros(2, 3), torch.tensor([0, 1]))))
    'inputs (B, 3) float32, targets (B,) int64'
    """
    inputs = {"": batch.inputs} if isinstance(batch.inputs, Tensor) else flat(batch.inputs)
    named = [f"{name} {_shape(x)}".strip() for name, x in inputs.items()]
    targets = _shape(batch.targets) if isinstance(batch.targets, Tensor) else type(batch.targets).__name__
    return f"inputs {', '.join(named)}, targets {targets}"


def _shape(x: Tensor) -> str:
    rest = "".join(f" {size}," for size in x.shape[1:]).rstrip(",")
    return f"(B,{rest}) {str(x.dtype).removeprefix('torch.')}"


def _again_and_again(loader: Iterable[Any]) -> Iterator[Any]:
    """What a loader gives, started again at its end; nothing more of one that gives nothing."""
    while True:
        began = False
        for item in loader:
            began = True
            yield item
        if not began:
            return
