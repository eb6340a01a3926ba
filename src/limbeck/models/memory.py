"""What a network's weights take, refused where the machine cannot hold it: before the memory is asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from limbeck.errors import RequestError

TENSORS = 10_000
"""Tensors that a network makes of its weights at most: a ResNet of 1,000 layers has about 6,000."""
TRAINING = 4
"""What a network in training takes, in sizes of its weights: they, their gradients and an optimizer's two moments."""

_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}


class WithinMemory(TorchFunctionMode):
    """While a network is built: raise RequestError for weights that the machine's memory cannot hold.

    Where nothing stops it, the system ends a process that asks for more than there is, without a word.

    Args:
        what: Whose weights, for the error.
        copies: How often the memory must hold them.
    """

    def __init__(self, what: str, copies: int = 1) -> None:
        super().__init__()
        self.what, self.copies = what, copies
        self.bytes, self.tensors, self.memory = 0, 0, memory_bytes()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in _FACTORIES and str(given.get("device")) != "meta":
            self._count(math.prod(_shape(args, given)) * (given.get("dtype") or torch.get_default_dtype()).itemsize)
        return func(*args, **given)

    def _count(self, size: int) -> None:
        self.bytes, self.tensors = self.bytes + size, self.tensors + 1
        refuse_beyond(self.what, self.copies * self.bytes, self.memory)
        if self.tensors > TENSORS:
            raise RequestError(f"{self.what} has more than {TENSORS:,} tensors of weights; take a smaller one")


def weigh(what: str, make: Callable[[], nn.Module], copies: int = 1) -> None:
    """Raise RequestError for a network that the memory cannot hold so many copies of, built without its weights.

    Args:
        what: Whose weights, for the error.
        make: Builds it, by nothing but torch's layers.
        copies: `TRAINING` for one that is to be trained.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"), WithinMemory(what, copies):
        make()


def check_trainable_size(what: str, network: nn.Module, copies: int = 1) -> None:
    """Raise RequestError for a network, or so many copies of it, that the machine cannot train.

    Args:
        what: Whose weights, for the error.
        network: One of the copies.
        copies: How many are held at once.
    """
    size = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    refuse_beyond(f"training {what}", TRAINING * copies * size, memory_bytes())


def refuse_beyond(what: str, need: int, memory: int | None) -> None:
    """Raise RequestError where more bytes are needed than the machine has."""
    if memory is not None and need > memory:
        raise RequestError(
            f"{what} needs {need / 1e9:,.1f} GB for weights, and this machine has {memory / 1e9:,.1f} GB of memory; "
            "take a smaller one"
        )


def memory_bytes() -> int | None:
    """The machine's memory, or what its container may use of it; None where that is not known."""
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    try:
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        return whole


def _shape(args: Sequence[Any], given: dict[str, Any]) -> Sequence[int]:
    wanted = given.get("size", args[:1] if args and not isinstance(args[0], int) else args)
    wanted = wanted[0] if len(wanted) == 1 and not isinstance(wanted[0], int) else wanted
    return [size for size in wanted if isinstance(size, int)]
