"""A teacher that has been asked once about every sample, and remembers."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from limbeck.errors import RequestError
from limbeck.teachers.stored import check_known
from limbeck.teachers.teacher import Teacher
from limbeck.types import Batch, Signal


class RememberedTeacher:
    """A teacher's signal for every sample of a data set, in one view or several, computed once and kept in memory.

    Args:
        teacher: Who is asked.
        passes: For each view, in order, batches that hold every sample once.
        samples: Number of samples.
        views: Number of views.
        features: False keeps its logits alone.

    Raises:
        RequestError: Samples that carry no index, or another number of views.
    """

    def __init__(
        self,
        teacher: Teacher,
        passes: Iterable[Iterable[Batch]],
        samples: int,
        views: int = 1,
        *,
        features: bool = True,
    ) -> None:
        self.fingerprint = f"remembered-{teacher.fingerprint}"
        self._views = views
        self._tables: dict[str, Tensor] = {}
        self._logits: Tensor | None = None
        for view, batches in enumerate(passes):
            for batch in batches:
                check_known(batch, views)
                index = batch.index.to(batch.targets.device)
                if batch.view != view:
                    raise RequestError(f"a teacher is asked about view {view}, and the batch is view {batch.view}")
                logits, tensors = teacher(batch)
                for name, tensor in tensors.items() if features else ():
                    table = self._tables.setdefault(name, tensor.new_empty(views, samples, *tensor.shape[1:]))
                    table[view, index] = tensor
                if logits is not None:
                    if self._logits is None:
                        self._logits = logits.new_empty(views, samples, *logits.shape[1:])
                    self._logits[view, index] = logits

    def __call__(self, batch: Batch) -> Signal:
        check_known(batch, self._views)
        view, index = batch.view, batch.index.to(batch.targets.device, non_blocking=True)
        logits = None if self._logits is None else self._logits[view].index_select(0, index)
        return Signal(logits, {name: table[view].index_select(0, index) for name, table in self._tables.items()})


def memory_need(teacher: Teacher, example: Batch, samples: int) -> int:
    """The bytes that remembering the signal of so many samples takes."""
    logits, features = teacher(example)
    tensors = [*features.values(), *([] if logits is None else [logits])]
    sizes = [int(tensor[0].numel() * tensor.element_size()) for tensor in tensors]
    return sum(sizes) * samples
