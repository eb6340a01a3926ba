"""A teacher whose outputs were precomputed for every sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.teachers.stored import check_known
from limbeck.teachers.teacher import Teacher
from limbeck.types import Batch, TeacherOutput, send


class CachedTeacher:
    """A teacher's output for every sample of a data set, in one view or several, computed once and kept in memory.

    Args:
        teacher: Who is asked.
        passes: For each view, in order, batches that hold every sample once.
        samples: Number of samples.
        views: Number of views.
        features: False keeps its logits alone.

    Raises:
        RequestError: Samples that carry no index or were left out, or another number of views.
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
        self.fingerprint = f"cached-{teacher.fingerprint}"
        self._views, self._samples = views, samples
        self._device = torch.device("cpu")
        self._tables: dict[str, list[Tensor]] = {}  # one a view, since to take it out of a joined one costs a lookup
        self._logits: list[Tensor] = []
        for view, batches in enumerate(passes):
            seen = torch.zeros(samples, dtype=torch.bool)
            for batch in batches:
                check_known(batch, views, samples)
                self._device = batch.device
                index = batch.index.to(batch.device)
                if batch.view != view:
                    raise RequestError(f"a teacher is asked about view {view}, and the batch is view {batch.view}")
                seen[batch.index] = True
                logits, tensors = teacher(batch)
                if logits is not None:
                    _table(self._logits, view, samples, logits)[index] = logits
                for name, tensor in tensors.items() if features else ():
                    _table(self._tables.setdefault(name, []), view, samples, tensor)[index] = tensor
            if not seen.all():
                lacking = int((~seen).nonzero()[0])
                raise RequestError(f"the teacher was not asked about sample {lacking} in view {view}")
        if len(self._logits or next(iter(self._tables.values()), [])) != views:
            raise RequestError(f"there must be a pass for each of {views} view(s)")
        for table in (*self._logits, *(table for some in self._tables.values() for table in some)):
            if table.device.type != "cpu":
                table.flatten()[:1].tolist()  # until the device has computed it

    @classmethod
    def of_tensors(cls, fingerprint: str, tensors: Mapping[str, Tensor]) -> CachedTeacher:
        """The teacher whose `fingerprint` and `tensors` these are."""
        made = cls.__new__(cls)
        made.fingerprint, made._logits, made._tables = fingerprint, [], {}
        for name, table in sorted(tensors.items(), key=lambda one: _place(one[0])):
            kind, _ = _place(name)
            (made._tables.setdefault(kind, []) if kind else made._logits).append(table)
        some = made._logits or next(iter(made._tables.values()))
        made._views, made._samples, made._device = len(some), len(some[0]), some[0].device
        return made

    def tensors(self) -> dict[str, Tensor]:
        """What it holds: (samples, ...) outputs by tap and view, "/0" for the logits of view 0."""
        every = {"": self._logits, **self._tables}
        return {f"{name}/{view}": table for name, some in every.items() for view, table in enumerate(some)}

    def __call__(self, batch: Batch) -> TeacherOutput:
        view, device = batch.view, batch.device
        index = send(batch.index, device)
        if view < 0 or index is not batch.index:  # a GPU would be lost by an index that is not there
            check_known(batch, self._views, self._samples)
        if device != self._device:
            self._move(device)
        try:
            logits = self._logits[view].index_select(0, index) if self._logits else None
            return TeacherOutput(
                logits, {name: table[view].index_select(0, index) for name, table in self._tables.items()}
            )
        except IndexError as error:
            check_known(batch, self._views, self._samples)
            raise RequestError(f"a sample's index is none of those that were asked about: {error}") from error

    def _move(self, device: torch.device) -> None:
        self._logits = [table.to(device) for table in self._logits]
        self._tables = {name: [table.to(device) for table in some] for name, some in self._tables.items()}
        self._device = device


def _place(name: str) -> tuple[str, int]:
    """The tap, "" for the logits, and the view that a name stands for."""
    tap, view = name.rsplit("/", 1)
    return tap, int(view)


def _table(tables: list[Tensor], view: int, samples: int, example: Tensor) -> Tensor:
    """The table of a view, made when its first samples come."""
    if len(tables) == view:
        tables.append(example.new_empty(samples, *example.shape[1:]))
    return tables[view]


def memory_need(teacher: Teacher, example: Batch, samples: int) -> int:
    """The bytes that the cached outputs for so many samples take."""
    logits, features = teacher(example)
    tensors = [*features.values(), *([] if logits is None else [logits])]
    sizes = [int(tensor[0].numel() * tensor.element_size()) for tensor in tensors]
    return sum(sizes) * samples
