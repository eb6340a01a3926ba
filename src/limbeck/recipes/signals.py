"""Keeping what a teacher says: whether it pays, where, and the loaders that ask."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from lightning_fabric import Fabric

from limbeck.data import DataSet, InMemory, Loader, make_loader
from limbeck.folders import cache_root
from limbeck.imports import source_of
from limbeck.recipes import build, schema
from limbeck.teachers import RememberedTeacher, StoredTeacher, Teacher, memory_need
from limbeck.teachers.shards import Shards
from limbeck.teachers.stored import Coding, place_key, store
from limbeck.types import Batch, Signal

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
    spec: schema.Store

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
        own = [source_of(one.model) if ":" in one.model else "" for one in self.recipe.teachers]
        model = hashlib.sha256(repr([(one.model, one.options) for one in self.recipe.teachers] + own).encode())
        data = self.data.train.fingerprint
        return {"teacher": teacher.fingerprint, "model": model.hexdigest()[:16], "data": data, "views": views}

    def coding(self, teacher: Teacher) -> Coding:
        """How the signal is stored on disk: as the recipe says, else as it is stored in the recipe's place already."""
        dtype, top_k = self.spec.dtype, self.spec.top_k
        if dtype is None and self.spec.where not in schema.PLACES:
            found = Shards(self.place(teacher)).description()
            if found is not None:
                return Coding(found.about["dtype"], top_k or found.about["top_k"])
        return Coding(dtype or "float16", top_k)

    def place(self, teacher: Teacher) -> str:
        """Where the signal is stored, if it is stored on disk.

        A place of the user's own holds logits; each set of taps besides has a folder of its own in it, so that several
        methods can share the place.
        """
        if self.spec.where in schema.PLACES:
            return str(cache_root() / "signals" / place_key(self.made_of(teacher), self.coding(teacher)))
        logits, features = teacher(next(iter(self.batches(0))).first(2))
        if logits is not None and not features:
            return self.spec.where
        taps = json.dumps([logits is not None, *sorted(features)])
        return f"{self.spec.where.rstrip('/')}/taps-{hashlib.sha256(taps.encode()).hexdigest()[:8]}"

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
    # What one process has measured holds for all: each by itself might decide otherwise, and wait for the rest.
    where, reason = asking.fabric.broadcast(_decided(asking, teacher, trainings))
    if where == "live":
        return Kept(teacher, "live", 0.0, f"the teacher is asked at every step: {reason}")
    if where == "disk":
        return store_signals(asking, teacher)
    samples, views = len(asking.data.train), asking.views
    began = time.perf_counter()
    known = RememberedTeacher(teacher, (asking.batches(view) for view in range(views)), samples, views)
    seconds = time.perf_counter() - began
    return Kept(known, "memory", seconds, _told("kept in memory", samples, views, _need(asking, teacher)))


def _decided(asking: Asking, teacher: Teacher, trainings: int) -> tuple[str, str]:
    """Live, memory or disk, and why."""
    spec, views = asking.spec, asking.views
    if spec.where not in schema.PLACES or spec.where == "disk":
        return "disk", "as the recipe says"
    if spec.where == "never":
        return "live", "as the recipe says"
    if spec.where == "auto" and _is_stored(asking.place(teacher), views):
        return "disk", "it is there"
    passes = asking.recipe.epochs * trainings
    if spec.where == "auto" and passes <= views:
        return "live", f"{passes} passes for {views} views gain nothing"
    need = _need(asking, teacher)
    if spec.where == "memory" or need <= MEMORY_BYTES:
        return "memory", "it fits"
    free, cost = Shards(asking.place(teacher)).free_bytes(), seconds_per_sample(asking, teacher)
    reading = need / views / len(asking.data.train) / READ_BYTES_PER_SECOND
    # Of a store each process writes a part, and a teacher in shards answers only all of them together.
    together = asking.fabric.world_size > 1 and any(one.shard for one in asking.recipe.teachers)
    if free is not None and need <= free / 2 and cost > reading and not together:
        return "disk", "reading costs less than asking"
    return "live", f"its signal would take {need / 1e9:.1f} GB, and asking {1e6 * cost:.0f} µs a sample"


def _need(asking: Asking, teacher: Teacher) -> int:
    example = next(iter(asking.batches(0))).first(2)
    return asking.views * memory_need(teacher, example, len(asking.data.train))


def store_signals(
    asking: Asking, teacher: Teacher, after_shard: Callable[[int, int], None] = lambda done, of: None
) -> Kept:
    """Store the signal on disk, or find it there."""
    fabric, made_of, place = asking.fabric, asking.made_of(teacher), asking.place(teacher)
    samples, began = len(asking.data.train), time.perf_counter()
    found = _is_stored(place, asking.views)
    store(
        teacher,
        asking.batches,
        place,
        samples=samples,
        views=asking.views,
        batch_size=asking.batch_size,
        made_of=made_of,
        coding=asking.coding(teacher),
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        after_shard=after_shard,
    )
    fabric.barrier()
    known = StoredTeacher(place, made_of)
    held = known.description
    size = held.samples * held.views * held.about["sample_bytes"]
    what = f"{'found' if found else 'stored'} in {place} as {held.about['dtype']}"
    return Kept(known, place, time.perf_counter() - began, _told(what, samples, asking.views, size))


def seconds_per_sample(asking: Asking, teacher: Teacher) -> float:
    """What asking the teacher about one sample takes, by a probe of some batches."""
    batches: Sequence[Batch] = list(islice(asking.batches(0), PROBE))
    teacher(batches[0])
    began = time.perf_counter()
    for batch in batches:
        _wait(teacher(batch))
    return (time.perf_counter() - began) / sum(batch.size for batch in batches)


def _wait(signal: Signal) -> None:
    """Until the device has computed it."""
    for tensor in (signal.logits, *signal.features.values()):
        if tensor is not None:
            tensor.flatten()[:1].tolist()


def _is_stored(place: str, views: int) -> bool:
    shards = Shards(place)
    found = shards.description()
    return found is not None and found.views >= views and all(shards.has(*shard) for shard in found.shards)


def _told(what: str, samples: int, views: int, size: int) -> str:
    seen = "" if views == 1 else f" in {views} views"
    return f"the teacher is asked once about {samples:,} samples{seen}: {size / 1e6:,.1f} MB {what}"
