"""What the later epochs of a training take: seconds, memory of the GPU, and how long the GPU has nothing to do."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from limbeck import Callback
from limbeck.engine.callbacks.hooks import Training


class Watch(Callback):
    """Is told of each epoch's end, by a loop written by hand (`epoch`) or by `fit`, as a callback.

    It measures from the end of the first epoch to that of the last one, so that neither what is made before the first
    step nor compiling counts.

    Args:
        device: Where the training runs; it is waited for at both ends.
        epochs: How many there are, two or more.
        traced: Note when the GPU computes, which costs time: the seconds of such a training are not to be used.

    Attributes:
        seconds: Wall time.
        peak: Bytes that tensors took on the GPU at most; None on a CPU.
        busy: Seconds in which a kernel or a copy ran on the GPU; None where that was not traced.
    """

    def __init__(self, device: torch.device, epochs: int, *, traced: bool = False) -> None:
        self.device, self.epochs = device, epochs
        self.seconds, self.began = 0.0, 0.0
        self.peak: int | None = None
        self.busy: float | None = None
        self._profile = profile(activities=[ProfilerActivity.CUDA]) if traced and device.type == "cuda" else None

    def epoch_end(self, training: Training) -> None:
        self.epoch(training.epoch)

    def epoch(self, done: int) -> None:
        """So many epochs are done."""
        if done == 1:
            self._begin()
        if done == self.epochs:
            self._end()

    def _begin(self) -> None:
        wait(self.device)
        if self.device.type == "cuda":
            gc.collect()  # an earlier training's tensors are not this one's
            torch.cuda.reset_peak_memory_stats(self.device)
        if self._profile is not None:
            self._profile.start()
        self.began = time.perf_counter()

    def _end(self) -> None:
        wait(self.device)
        self.seconds = time.perf_counter() - self.began
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device)
        if self._profile is not None:
            self._profile.stop()
            events = self._profile.events()  # type: ignore[no-untyped-call]
            spans = [(event.time_range.start, event.time_range.end) for event in events if _on_gpu(event)]
            self.busy = covered(spans) / 1e6 if spans else None  # none: the system lets nobody trace


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of spans (begin, end): what runs side by side counts once.

    >>> covered([(0, 2), (5, 6), (1, 3)])
    4.0
    """
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def _on_gpu(event: Any) -> bool:
    # An annotation of the user's, such as an optimizer's step, spans the waits between its kernels.
    return event.device_type.name == "CUDA" and not getattr(event, "is_user_annotation", False)
