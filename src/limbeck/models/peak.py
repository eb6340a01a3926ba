"""How many bytes of tensors live at once, at most: measured by what operations give, the same on every device."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations make, until they are gone."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes, self.peak = 0, 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {self._key(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        given = func(*args, **(kwargs or {}))
        for one in tree_leaves(given):
            if isinstance(one, Tensor) and (key := self._key(one)) not in self._known and key not in before:
                self._add(key, one)
        return given

    @staticmethod
    def _key(tensor: Tensor) -> int:
        return int(tensor.untyped_storage()._cdata)

    def _add(self, key: int, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self._known[key] = storage.nbytes()
        self.bytes += storage.nbytes()
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.bytes -= self._known.pop(key, 0)


def peak_bytes(run: Callable[[], object]) -> int:
    """The bytes of tensors made inside that live at once, at most; what kernels take for themselves is not seen.

    Args:
        run: What is measured, such as a training step: its saved tensors and gradients count, weights do not.
    """
    live = _Live()
    with live:
        run()
    return live.peak
