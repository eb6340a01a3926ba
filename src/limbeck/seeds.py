"""Seeds: everything random is a function of the run's seed and of what it is drawn for."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def derive(seed: int, *what: int | str) -> int:
    """A 63-bit seed for one purpose, such as derive(0, "order", epoch); different purposes are independent."""
    digest = hashlib.blake2b(repr((seed, what)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def uniform(seed: int) -> float:
    """A number in [0, 1) that a seed of `derive` fixes.

    >>> 0 <= uniform(derive(0, "coin", 3)) < 1
    True
    """
    return (seed >> 10) / 2**53


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (CPU and accelerators)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global CPU generators inside, and put them back as they were afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def same_draws() -> Iterator[None]:
    """Afterwards the global generators draw what they would have drawn without what ran inside."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)


def random_state() -> list[torch.Tensor]:
    """The state of the global generators: torch's on the CPU, Python's, NumPy's, then torch's on each GPU."""
    python = random.getstate()
    numpy: Any = np.random.get_state(legacy=True)
    gauss = math.nan if python[2] is None else python[2]
    return [
        torch.get_rng_state(),
        torch.tensor([*python[1], gauss], dtype=torch.float64),  # which holds numbers of 32 bits as they are
        torch.tensor([*numpy[1].tolist(), *numpy[2:]], dtype=torch.float64),
        *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []),
    ]


def restore_random_state(states: list[torch.Tensor]) -> None:
    """Put the generators back to what `random_state` gave."""
    torch_, python, numpy, *gpus = states
    torch.set_rng_state(torch_)
    *words, gauss = python.tolist()
    random.setstate((3, tuple(map(int, words)), None if math.isnan(gauss) else gauss))
    *keys, position, has_gauss, cached = numpy.tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), int(position), int(has_gauss), cached))
    if torch.cuda.is_available() and gpus:
        torch.cuda.set_rng_state_all(gpus[: torch.cuda.device_count()])
