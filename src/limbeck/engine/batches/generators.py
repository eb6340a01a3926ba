"""Random number generators that a user's loader holds, whose states a resumed run brings back."""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any, TypedDict

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import Sampler

from limbeck.engine.devices.fabric import from_all

KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
DEPTH, MANY, MOST = 8, 64, 10_000
"""How deep a loader is searched, in how long lists, and through how many objects at most."""
_PLAIN = (bool, int, float, str, bytes, type(None), list, tuple, dict, set, Tensor, np.ndarray)


def samplers(loader: Any) -> list[Any]:
    """A loader's samplers, and those that they draw from, each once."""
    found: dict[int, Any] = {}
    todo = [loader]
    while todo:
        one = todo.pop()
        inner = [getattr(one, name, None) for name in ("sampler", "batch_sampler")]
        new = [sampler for sampler in inner if sampler is not None and id(sampler) not in found]
        found |= {id(sampler): sampler for sampler in new}
        todo += new
    return list(found.values())


def held(*roots: Any) -> list[Any]:
    """All that objects hold, and themselves, each once, in the same order at every call."""
    found: dict[int, Any] = {}

    def look(thing: Any, depth: int) -> None:
        if id(thing) in found or depth > DEPTH or len(found) > MOST:
            return
        found[id(thing)] = thing
        for part in _parts(thing):
            look(part, depth + 1)

    for root in roots:
        look(root, 0)
    return list(found.values())


def generators(*roots: Any) -> list[Any]:
    """Torch's, NumPy's and Python's generators that objects hold; not the system's, which has no state."""
    return [one for one in held(*roots) if isinstance(one, KINDS) and not isinstance(one, random.SystemRandom)]


def _parts(thing: Any) -> Iterable[Any]:
    if isinstance(thing, list | tuple | dict):
        parts = thing.values() if isinstance(thing, dict) else thing
        return parts if len(thing) <= MANY else ()
    if isinstance(thing, (*KINDS, Tensor, type, ModuleType, FunctionType)):
        return ()
    own = getattr(thing, "__dict__", None)
    # A DataLoader's running iterator is a part of no epoch but its own.
    return [value for name, value in own.items() if name != "_iterator"] if isinstance(own, dict) else ()


def state_of(generator: Any) -> Any:
    """A generator's state, of what torch.load(weights_only=True) reads."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    numpy = generator.get_state(legacy=False) if isinstance(generator, np.random.RandomState) else None
    return _plain(numpy or generator.bit_generator.state)


def restore(generator: Any, state: Any) -> None:
    """Put a generator back to what `state_of` gave.

    Raises:
        Exception: The state is one of another kind of generator.
    """
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


@contextmanager
def left_alone(loader: Any) -> Iterator[None]:
    """Put a loader's generators back afterwards: a look at its first batch changes no epoch's order."""
    before = [(generator, state_of(generator)) for generator in generators(loader)]
    try:
        yield
    finally:
        for generator, state in before:
            restore(generator, state)


class Drawing(TypedDict):
    """How far a user's loaders have drawn at the beginning of an epoch, as a checkpoint holds it."""

    states: list[list[Any]]
    """Of each process, the states of its generators."""
    changed: list[str]
    """What else has changed in a sampler from one epoch to the next, such as "MySampler.calls"."""


class Generators:
    """Keeps account of the loaders' generators from epoch to epoch.

    Args:
        loaders: Those of the user, the one for training first.
        fabric: Its processes draw one order together, so generators of samplers are put to the first one's states.
    """

    def __init__(self, loaders: Iterable[Any], fabric: Fabric) -> None:
        loaders = list(loaders)
        self.fabric, self.loaders = fabric, loaders
        self.all = generators(*loaders)
        order = generators(*[[getattr(one, "generator", None), *samplers(one)] for one in loaders])
        self._alike = {id(generator) for generator in order}
        inner = [one for one in held(*loaders) if isinstance(one, Sampler)]
        inner += [one for loader in loaders for one in samplers(loader)]
        self._samplers = list({id(one): one for one in inner}.values())
        self._marks = self._marked()
        self._changed: list[str] = []

    def drawing(self) -> Drawing:
        """How far the loaders have drawn; all processes must call it, between two epochs."""
        marks = self._marked()
        changed = [name for name, mark in marks.items() if mark is None or self._marks.get(name) != mark]
        self._changed = list(dict.fromkeys([*self._changed, *changed]))
        self._marks = marks
        return self._now()

    def resume(self, drawing: Drawing | None, epoch: int) -> tuple[Drawing, str]:
        """Bring back what a checkpoint holds.

        Args:
            drawing: How far the loaders had drawn when the epoch began; None where a training begins.
            epoch: The epoch (from 0) that begins or goes on.

        Returns:
            How far they have drawn now, and why what they draw may differ from a run without interruption; "" if not.
        """
        reason = ""
        if drawing is not None:
            self._changed = list(drawing["changed"])
            try:
                self._restore(drawing["states"])
            except Exception:  # of many kinds
                reason = "the loader's generators are others than the checkpoint's"
        if any(getattr(loader, "persistent_workers", False) for loader in self.loaders[:1]):
            reason = "persistent workers cannot be put back to what they had drawn"
        if self._changed:
            reason = f"{', '.join(self._changed)} cannot be restored; give the sampler set_epoch(epoch) or a generator"
        return self._now(), reason if epoch else ""

    def _now(self) -> Drawing:
        states = from_all(self.fabric, [state_of(generator) for generator in self.all])
        if len(states) > 1:
            self._restore(states)
        return Drawing(states=states, changed=self._changed)

    def _restore(self, states: Sequence[Sequence[Any]]) -> None:
        own = states[self.fabric.global_rank % len(states)]
        for generator, first, mine in zip(self.all, states[0], own, strict=True):
            restore(generator, first if id(generator) in self._alike else mine)

    def _marked(self) -> dict[str, str | None]:
        """What of each sampler of the user's own may carry an order on, known by its content; None for an iterator."""
        marks: dict[str, str | None] = {}
        for sampler in self._samplers:
            kind = type(sampler)
            if kind.__module__.startswith(("torch.", "limbeck.")) or hasattr(sampler, "set_epoch"):
                continue
            for name, value in getattr(sampler, "__dict__", {}).items():
                if isinstance(value, Iterator):
                    marks[f"{kind.__name__}.{name}"] = None
                elif isinstance(value, _PLAIN):
                    marks[f"{kind.__name__}.{name}"] = _digest(value)
        return marks


def _digest(value: Any) -> str:
    try:
        return hashlib.blake2b(pickle.dumps(value)).hexdigest()
    except Exception:  # a list of something that cannot be pickled
        return ""


def _plain(state: Any) -> Any:
    """NumPy's arrays and numbers as Python's, which its generators take back."""
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state
