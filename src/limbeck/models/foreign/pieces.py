"""Models that take batches of one size alone: run in pieces of that size, or sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.fx import Graph

from limbeck.errors import RequestError
from limbeck.types import Inputs, each

POWERS = tuple(2**n for n in range(1, 9))
"""Sizes that are tried with a traced model, which does not say its own."""


class Pieces:
    """Runs a model on batches of any size, also one that takes a single size.

    Once a model has failed on a batch, it is tried in pieces: of the size that its program names, of one that it has
    run before, of a single sample, and, where it was traced, of powers of two. A last piece that is too short is
    filled up with its last sample.

    Args:
        model: What runs, for the size that its program names; None knows no program.

    Attributes:
        length: The size of a piece; None as long as the model takes what comes.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self.length = None if model is None else fixed_batch(model)
        self._traced = isinstance(model, torch.jit.ScriptModule)
        self._worked: set[int] = set()

    def run(
        self, run: Callable[[Inputs], dict[str, Tensor]], inputs: Inputs, size: int, whole: str = ""
    ) -> dict[str, Tensor]:
        """What the model gives for inputs of `size` samples: tensors (size, ...) by name.

        Args:
            run: Runs the model.
            inputs: Its inputs, each of `size` samples.
            size: How many these are.
            whole: The name of a tensor that must have a value a sample; another number of rows is a failure too.

        Raises:
            Exception: What the model raises, where no size helps.
        """
        if self.length not in (None, size):
            return self._joined(run, inputs, size, self.length)
        try:
            found = run(inputs)
        except (torch.OutOfMemoryError, RequestError):
            raise
        except Exception:
            again = None if size in self._worked else self._retried(run, inputs, size)
            if again is None:
                raise
            return again
        if whole in found and found[whole].shape[:1] != (size,):
            return self._retried(run, inputs, size) or found
        self._worked.add(size)
        return found

    @property
    def note(self) -> str | None:
        """What should be said of it."""
        if self.length is None:
            return None
        how = "one sample at a time" if self.length == 1 else f"in pieces of {self.length} samples"
        return f"takes batches of {self.length} alone, and runs {how}; export it for any batch size to have it faster"

    def _retried(
        self, run: Callable[[Inputs], dict[str, Tensor]], inputs: Inputs, size: int
    ) -> dict[str, Tensor] | None:
        likely = [*sorted(self._worked, reverse=True), 1, *(POWERS if self._traced else ())]
        for length in dict.fromkeys(one for one in likely if one != size):
            try:
                found = self._joined(run, inputs, size, length)
            except Exception:  # the model fails for another reason
                continue
            self.length = length
            return found
        return None

    def _joined(
        self, run: Callable[[Inputs], dict[str, Tensor]], inputs: Inputs, size: int, length: int
    ) -> dict[str, Tensor]:
        parts = [run(piece) for piece in pieces(inputs, size, length)]
        for name, value in parts[0].items():
            if value.dim() == 0 or len(value) != length:
                raise RequestError(
                    f"{name} of shape {tuple(value.shape)} is not one value a sample, and the model takes batches of "
                    f"{length} alone; export it for any batch size"
                )
        return {name: torch.cat([part[name] for part in parts])[:size] for name in parts[0]}


def pieces(inputs: Inputs, size: int, length: int) -> Iterator[Inputs]:
    """The inputs cut into batches of exactly `length` samples; the last one is filled up with its last sample.

    >>> [piece.tolist() for piece in pieces(torch.arange(5), 5, 3)]
    [[0, 1, 2], [3, 4, 4]]
    """
    for start in range(0, size, length):
        stop = min(start + length, size)
        rows = torch.arange(start, start + length).clamp(max=stop - 1)
        yield each(inputs, partial(_at, rows))


def _at(rows: Tensor, x: Tensor) -> Tensor:
    return x[rows.to(x.device)]


def fixed_batch(model: nn.Module) -> int | None:
    """The batch size for which a program of torch.export was made; None for one for any size, and for other models."""
    graph = getattr(model, "graph", None)
    if not isinstance(graph, Graph):
        return None
    for node in graph.nodes:
        example = node.meta.get("val")
        if node.op == "placeholder" and isinstance(example, Tensor) and example.dim():
            size = example.shape[0]
            return size if type(size) is int else None
    return None
