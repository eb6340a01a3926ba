"""A teacher that has been asked once about every sample, and remembers."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from limbeck.errors import RequestError
from limbeck.teachers.teacher import Teacher
from limbeck.types import Batch, Signal


class RememberedTeacher:
    """A teacher's signal for every sample of a data set without augmentation, computed once and kept in memory.

    Args:
        teacher: Who is asked.
        batches: Every sample once, in any order, each with its index.
        samples: Number of samples.

    Raises:
        RequestError: Batches that are augmented views, or whose samples carry no index.
    """

    def __init__(self, teacher: Teacher, batches: Iterable[Batch], samples: int) -> None:
        self.fingerprint = f"remembered-{teacher.fingerprint}"
        self._tables: dict[str, Tensor] = {}
        self._logits: Tensor | None = None
        for batch in batches:
            _check(batch)
            logits, features = teacher(batch)
            for name, tensor in features.items():
                table = self._tables.setdefault(name, tensor.new_empty(samples, *tensor.shape[1:]))
                table[batch.index] = tensor
            if logits is not None:
                if self._logits is None:
                    self._logits = logits.new_empty(samples, *logits.shape[1:])
                self._logits[batch.index] = logits

    def __call__(self, batch: Batch) -> Signal:
        _check(batch)
        logits = None if self._logits is None else self._logits[batch.index]
        return Signal(logits, {name: table[batch.index] for name, table in self._tables.items()})


def memory_need(teacher: Teacher, example: Batch, samples: int) -> int:
    """The bytes that remembering the signal of so many samples takes."""
    logits, features = teacher(example)
    tensors = [*features.values(), *([] if logits is None else [logits])]
    sizes = [int(tensor[0].numel() * tensor.element_size()) for tensor in tensors]
    return sum(sizes) * samples


def _check(batch: Batch) -> None:
    # On the host by construction: no loader of limbeck's gives index -1, and looking at it would wait for the device.
    if batch.view != 0:
        raise RequestError(
            "a remembered signal belongs to the plain samples, and this batch is an augmented view of them"
        )
    if batch.index.device.type == "cpu" and bool((batch.index < 0).any()):
        raise RequestError("a remembered signal is found by each sample's index, and this loader gives none")
