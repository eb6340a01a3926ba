"""What a user may give in place of a loader: an iterator, a function that makes one; and what is none of these."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

from limbeck.engine.batches.generators import left_alone
from limbeck.errors import RequestError

_TENSORS = "DataLoader(TensorDataset(x, y), batch_size=64), or limbeck.data.make_loader(InMemory(x, y), 64)"
_DATASET = "DataLoader(dataset, batch_size=64, shuffle=True), or limbeck.data.make_loader for limbeck's own"


class Stream:
    """An iterator as a loader: each epoch goes on where the one before stopped.

    Args:
        iterator: It can be read once, and is read by this alone.

    Attributes:
        taken: How many batches were taken so far.
        ended: Whether it has come to its end.
    """

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._peeked: list[Any] = []
        self.taken = 0
        self.ended = False

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
            try:
                item = self._peeked.pop() if self._peeked else next(self._iterator)
            except StopIteration:
                self.ended = True
                return
            self.taken += 1
            yield item


class Called:
    """A function that makes batches as a loader: it is called whenever an epoch begins.

    Args:
        function: Without arguments; such as a generator function.
    """

    def __init__(self, function: Callable[[], Iterable[Any]]) -> None:
        self.function = function

    def __iter__(self) -> Iterator[Any]:
        made = self.function()
        if not isinstance(made, Iterable):
            raise RequestError(
                f"the function {_name(self.function)} was given as a loader, and gives {type(made).__name__}, no "
                "batches"
            )
        return iter(made)


def as_loader(given: Any, name: str = "train") -> Iterable[Any]:
    """What was given as a loader; a function that makes batches as `Called`.

    Raises:
        RequestError: It holds samples and not batches, or it is nothing that can be read; the message names it `name`.
    """
    if found := _samples(given):
        what, remedy = found
        raise RequestError(f"{name} is {what}, and batches are wanted: give {remedy}")
    if isinstance(given, Iterable) or hasattr(given, "__getitem__"):
        loader: Iterable[Any] = given
        return loader
    if not callable(given) or isinstance(given, type | nn.Module):
        raise RequestError(f"{name} is {_described(given)}, and a loader of batches is wanted: give {_TENSORS}")
    try:
        inspect.signature(given).bind()
    except TypeError:
        raise RequestError(
            f"{name} is the function {_name(given)}, which takes arguments: give one without, that makes an epoch's "
            "batches, or what it returns"
        ) from None
    except ValueError:  # it does not say what it takes
        pass
    return Called(given)


def as_stream(given: Any, steps: int | None) -> Iterable[Any]:
    """What was given to train on, as a loader; an iterator as a `Stream`.

    Raises:
        RequestError: It is no loader, or an iterator, and nobody says how many batches make an epoch.
    """
    loader = as_loader(given)
    if not isinstance(loader, Iterator):
        return loader
    if steps is None:
        raise RequestError(
            "an iterator can be read only once: give what makes it, such as the DataLoader itself, or say how many of "
            "its batches make an epoch: steps_per_epoch=1000"
        )
    return Stream(loader)


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


def _samples(given: Any) -> tuple[str, str] | None:
    """What holds samples and not batches, in words, and what makes batches of it; None for what may be a loader."""
    if isinstance(given, Tensor | np.ndarray):
        return _described(given), _TENSORS
    if isinstance(given, tuple | list) and _are_columns(given):
        return f"a {type(given).__name__} of {' and '.join(map(_described, given))}", _TENSORS
    if isinstance(given, Mapping):
        return f"a dict of {', '.join(map(str, given))}", _TENSORS
    if isinstance(given, Dataset) and not isinstance(given, Iterable):
        return f"the data set {type(given).__name__}, which gives single samples", _DATASET
    if hasattr(given, "with_format") and hasattr(given, "__len__"):  # of Hugging Face's datasets
        return (
            f"the data set {type(given).__name__}, which gives single samples",
            "DataLoader(dataset.with_format('torch'), batch_size=64, shuffle=True, collate_fn=…)",
        )
    if not isinstance(given, Iterable) and hasattr(given, "subset"):  # a split of limbeck's
        return f"the data set {type(given).__name__}", "limbeck.data.make_loader(dataset, 64, shuffle=True)"
    return None


def _are_columns(given: tuple[Any, ...] | list[Any]) -> bool:
    """Whether these are the inputs and targets of all samples, and not batches of inputs alone."""
    arrays = [one for one in given if isinstance(one, Tensor | np.ndarray) and one.ndim]
    if len(given) not in (2, 3) or len(arrays) != len(given) or len({len(one) for one in arrays}) != 1:
        return False
    if any(isinstance(one, np.ndarray) for one in arrays):
        return True
    forms = {(one.ndim, one.dtype) for one in arrays}
    return len(forms) > 1 or (isinstance(given, tuple) and len({one.shape for one in arrays}) > 1)


def _described(given: Any) -> str:
    if isinstance(given, Tensor | np.ndarray):
        return f"{'a tensor' if isinstance(given, Tensor) else 'an array'} {tuple(given.shape)}"
    return f"the class {given.__name__}" if isinstance(given, type) else f"{type(given).__name__}"


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
