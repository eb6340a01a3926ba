"""Keeping what a teacher says: whether it pays, where, and the loaders that ask."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from lightning_fabric import Fabric
from torch import Tensor

from limbeck.data import DataSet, InMemory, Loader, make_loader
from limbeck.folders import cache_root
from limbeck.recipes import build, schema
from limbeck.teachers import RememberedTeacher, StoredTeacher, Teacher, memory_need
from limbeck.teachers.shards import Shards
from limbeck.teachers.stored import Coding, place_key, store
from limbeck.types import Batch

MEMORY_BYTES = 2 * 2**30
"""A signal is kept in memory up to this size."""
READ_BYTES_PER_SECOND = 200e6
"""What a disk is trusted to read; a teacher that answers faster is asked anew."""
PROBE = 4
"""Batches on which a teacher's speed is measured."""


@dataclass(frozen=True)
class Kept:
    """Who gives the signal.

    Attributes:
        teacher: The teacher itself, or one that remembers what it said.
        where: "live", "memory", or the place on disk.
        seconds: What asking took in this run.
        reason: What was decided and why, in one line.
    """

    teacher: Teacher
    where: str
    seconds: float
    reason: str


@dataclass(frozen=True)
class Asking:
    """A recipe's training samples, as a teacher is asked about them."""

    recipe: schema.Recipe
    data: DataSet
    fabric: Fabric

    @property
    def spec(self) -> schema.Store:
        return self.recipe.teachers[0].store if self.recipe.teachers else schema.Store()

    @property
    def views(self) -> int:
        """How many versions of each sample the students' epochs see."""
        split = self.data.train
        changing = bool(self.recipe.data.augment) or (not isinstance(split, InMemory) and split.random)
        return min(self.recipe.data.views or self.recipe.epochs, self.recipe.epochs) if changing else 1

    @property
    def batch_size(self) -> int:
        """Samples asked at once: as many as a student's batch, so that the values are those of a live teacher."""
        return min(self.spec.batch_size or self.recipe.data.batch_size, len(self.data.train))

    def batches(self, view: int, start: int = 0, stop: int | None = None) -> Iterable[Batch]:
        """The samples from `start`, a multiple of the batch size, to `stop`, in order, in one view."""
        loader = self._loader()
        loader.set_epoch(view)
        stop = len(self.data.train) if stop is None else stop
        return islice(loader.starting_at(start // self.batch_size), math.ceil((stop - start) / self.batch_size))

    def made_of(self, teacher: Teacher) -> dict[str, str]:
        """What the signal is a function of."""
        spec = self.recipe.data
        views = hashlib.sha256(repr((spec.augment, spec.view_seed)).encode()).hexdigest()[:16]
        return {"teacher": teacher.fingerprint, "data": self.data.train.fingerprint, "views": views}

    def place(self, teacher: Teacher, coding: Coding) -> str:
        """Where the signal is stored, if it is stored on disk."""
        if self.spec.where not in schema.PLACES:
            return self.spec.where
        return str(cache_root() / "signals" / place_key(self.made_of(teacher), coding, self.views))

    def _loader(self) -> Loader:
        views = build.views(self.recipe.data, self.data)
        device, workers = self.fabric.device, self.recipe.data.workers
        return make_loader(self.data.train, self.batch_size, device=device, workers=workers, views=views)


def keep(asking: Asking, teacher: Teacher, trainings: int = 1) -> Kept:
    """The teacher, asked once about every sample in every view if that is possible and pays.

    Args:
        asking: The samples.
        teacher: Who is asked.
        trainings: How many students will listen.
    """
    spec, samples, views = asking.spec, len(asking.data.train), asking.views
    coding = Coding(spec.dtype, spec.top_k)
    place = asking.place(teacher, coding)
    if spec.where not in schema.PLACES or spec.where == "disk" or (spec.where == "auto" and _is_stored(place)):
        return store_signals(asking, teacher, coding)
    passes = asking.recipe.epochs * trainings
    if spec.where == "never" or (spec.where == "auto" and passes <= views):
        why = "as the recipe says" if spec.where == "never" else f"{passes} passes for {views} views gain nothing"
        return Kept(teacher, "live", 0.0, f"the teacher is asked at every step: {why}")
    need = views * memory_need(teacher, next(iter(asking.batches(0))).first(2), samples)
    if spec.where == "memory" or need <= MEMORY_BYTES:
        began = time.perf_counter()
        known = RememberedTeacher(teacher, (asking.batches(view) for view in range(views)), samples, views)
        return Kept(known, "memory", time.perf_counter() - began, _told("kept in memory", samples, views, need))
    free, cost = Shards(place).free_bytes(), seconds_per_sample(asking, teacher)
    if free is not None and need <= free / 2 and cost > need / views / samples / READ_BYTES_PER_SECOND:
        return store_signals(asking, teacher, coding)
    why = f"its signal would take {need / 1e9:.1f} GB, and asking {1e6 * cost:.0f} µs a sample"
    return Kept(teacher, "live", 0.0, f"the teacher is asked at every step: {why}")


def store_signals(
    asking: Asking,
    teacher: Teacher,
    coding: Coding,
    after_shard: Callable[[int, int], None] = lambda done, of: None,
) -> Kept:
    """Store the signal on disk, or find it there."""
    fabric, made_of = asking.fabric, asking.made_of(teacher)
    place, samples = asking.place(teacher, coding), len(asking.data.train)
    began = time.perf_counter()
    found = _is_stored(place)
    store(
        teacher,
        asking.batches,
        place,
        samples=samples,
        views=asking.views,
        batch_size=asking.batch_size,
        made_of=made_of,
        coding=coding,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        after_shard=after_shard,
    )
    fabric.barrier()
    known = StoredTeacher(place, made_of)
    held = known.description
    size = held.samples * held.views * held.about["sample_bytes"]
    what = f"{'found' if found else 'stored'} in {place}"
    return Kept(known, place, time.perf_counter() - began, _told(what, samples, asking.views, size))


def seconds_per_sample(asking: Asking, teacher: Teacher) -> float:
    """What asking the teacher about one sample takes, by a probe of some batches."""
    batches: Sequence[Batch] = list(islice(asking.batches(0), PROBE))
    teacher(batches[0])
    began = time.perf_counter()
    for batch in batches:
        _wait(teacher(batch).logits)
    return (time.perf_counter() - began) / sum(batch.size for batch in batches)


def _wait(tensor: Tensor | None) -> None:
    if tensor is not None:
        tensor.flatten()[:1].tolist()


def _is_stored(place: str) -> bool:
    shards = Shards(place)
    found = shards.description()
    return found is not None and all(shards.has(*shard) for shard in found.shards)


def _told(what: str, samples: int, views: int, size: int) -> str:
    seen = "" if views == 1 else f" in {views} views"
    return f"the teacher is asked once about {samples:,} samples{seen}: {size / 1e6:,.1f} MB {what}"
