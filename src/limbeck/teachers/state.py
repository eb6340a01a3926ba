"""A frozen model stays as it was: what it would change in itself as it answers is put back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from limbeck.dtensors import is_dtensor
from limbeck.errors import some

SHOWN = 2
"""So many names of buffers are told."""


class Frozen:
    """Keeps the buffers of models that change them in eval mode too, such as one that was traced in training mode.

    The first run that succeeds shows which these are; from then on only they are looked after. A buffer that a model
    replaces by another tensor, as it fills a cache, is left to it.

    Args:
        modules: The models.

    Attributes:
        moved: The names of those buffers.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules
        self._kept: list[dict[str, Tensor]] | None = None
        self.moved: list[str] = []

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Inside, the models run; afterwards their buffers are as they were."""
        if self._kept == [{} for _ in self._modules]:
            yield
            return
        before = self._kept
        held = [_buffers(module) for module in self._modules] if before is None else []
        values = [{name: buffer.clone() for name, buffer in one.items()} for one in held]
        try:
            yield
        except BaseException:
            self._put_back(values if before is None else before)
            raise
        if before is None:
            self._kept = before = [
                {name: value for name, value in old.items() if not _same(buffers[name], value)}
                for buffers, old in zip(held, values, strict=True)
            ]
            self.moved = sorted(name for one in before for name in one)
        self._put_back(before)

    @property
    def note(self) -> str | None:
        """What should be said of it."""
        if not self.moved:
            return None
        return (
            f"changes {some(self.moved, SHOWN)} of its own as it answers, as in training mode; they are put back after "
            "each batch"
        )

    def _put_back(self, kept: Sequence[dict[str, Tensor]]) -> None:
        with torch.no_grad():
            for module, values in zip(self._modules, kept, strict=True):
                buffers = _buffers(module) if values else {}
                for name, value in values.items():
                    if name in buffers and buffers[name].shape == value.shape:
                        buffers[name].copy_(value)


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    """A module's buffers; of parts on several devices none changes by itself."""
    return {name: buffer for name, buffer in module.named_buffers() if not is_dtensor(buffer)}


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())
