"""Keeping teacher outputs: whether it pays, and where."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from rich import filesize

from limbeck.engine.each_minute import EachMinute
from limbeck.errors import counted
from limbeck.recipes import schema
from limbeck.runs.cache.in_use import use
from limbeck.runs.outputs.asking import Asking
from limbeck.runs.outputs.ledger import Outputs
from limbeck.runs.outputs.shared import computed_once, timed
from limbeck.teachers import CachedTeacher, StoredTeacher, Teacher, memory_need
from limbeck.teachers.coding import Coding
from limbeck.teachers.shards import Shards
from limbeck.teachers.stored import store
from limbeck.types import Batch, TeacherOutput

MEMORY_BYTES = 2 * 2**30
"""Teacher outputs are kept in memory up to this size."""
READ_BYTES_PER_SECOND = 200e6
"""What a disk is trusted to read; a teacher that answers faster is asked anew."""
UNFINISHED = ""
"""The reason of outputs that are being stored."""
PROBE = 4
"""Batches on which a teacher's speed is measured."""


@dataclass(frozen=True)
class Kept:
    """Who gives the teacher outputs.

    Attributes:
        teacher: The teacher itself, or one that has its outputs cached.
        where: "online", "memory", or the place on disk.
        seconds: What asking took in this run.
        outputs: What the run's result says of it.
    """

    teacher: Teacher
    where: str
    seconds: float
    outputs: Outputs

    @property
    def reason(self) -> str:
        """What was decided and why, in one line."""
        return self.outputs.reason


def keep(
    asking: Asking,
    teacher: Teacher,
    trainings: int = 1,
    before: Outputs | None = None,
    begin: Callable[[Outputs], None] = lambda outputs: None,
    shared: Path | None = None,
) -> Kept:
    """The teacher, its outputs precomputed for every sample in every view if that is possible and pays.

    Args:
        asking: The samples.
        teacher: Who is asked.
        trainings: How many students have this teacher.
        before: What was decided before, which is done again.
        begin: Told what is about to be stored, so that a run which is killed then does not take it for found.
        shared: Where processes that train side by side share outputs in memory (`limbeck.runs.outputs.shared`).
    """
    # What one process has measured holds for all: each by itself might decide otherwise, and wait for the rest.
    where, reason = asking.fabric.broadcast(_decided(asking, teacher, trainings) if before is None else ("", ""))
    if before is not None:
        where = before.where
        if before.reason != UNFINISHED:
            asking = replace(asking, spec=_as_before(asking.spec, before))
    if where == "disk":
        earlier = None if before is None else before.place
        place = earlier if earlier is not None and _is_stored(earlier, asking.views) else asking.place(teacher)
        found = before.found if before is not None else _is_stored(place, asking.views)
        if before is None and not found:
            begin(Outputs("disk", UNFINISHED, place))
        kept = store_outputs(asking, teacher, place=place, found=found)
    elif where == "online":
        reason = f"online teacher: {reason}"
        kept = Kept(teacher, "online", 0.0, Outputs("online", reason))
    else:
        kept = _cached(asking, teacher, shared)
    if before is None or before.reason == UNFINISHED:
        return kept
    return replace(kept, outputs=replace(before, place=kept.outputs.place))


def _as_before(spec: schema.Store, before: Outputs) -> schema.Store:
    """In a place of the user's own the form of what was found there before."""
    if spec.where in schema.PLACES:
        return spec
    return spec.model_copy(update={"dtype": before.dtype, "top_k": before.top_k, "draws": before.draws})


def _cached(asking: Asking, teacher: Teacher, shared: Path | None) -> Kept:
    samples, views = len(asking.data.train), asking.views

    def compute() -> CachedTeacher:
        passing = _passing(asking)
        return CachedTeacher(teacher, (passing.over(asking.batches(view)) for view in range(views)), samples, views)

    known, seconds = timed(compute) if shared is None else computed_once(shared, asking.bits(teacher), compute)
    reason = _reason("kept in memory", samples, views, _need(asking, teacher))
    return Kept(known, "memory", seconds, Outputs("memory", reason))


def _decided(asking: Asking, teacher: Teacher, trainings: int) -> tuple[str, str]:
    """Online, memory or disk, and why."""
    spec, views = asking.spec, asking.views
    if spec.where not in schema.PLACES or spec.where == "disk":
        return "disk", "as the recipe says"
    if spec.where == "never":
        return "online", "as the recipe says"
    stored = spec.where == "auto" and _is_stored(asking.place(teacher), views)
    if stored and asking.coding(teacher) == Coding("float32"):
        return "disk", "it is there"
    passes = asking.recipe.epochs * trainings
    if spec.where == "auto" and passes <= views:
        return "online", (
            f"storing its outputs saves nothing: {counted(passes, 'epoch')} in all, and {counted(views, 'view')} of "
            "each sample"
        )
    need = _need(asking, teacher)
    if spec.where == "memory" or need <= MEMORY_BYTES:
        return "memory", "it fits"
    if stored:
        return "disk", "it is there"
    free, cost = Shards(asking.place(teacher)).free_bytes(), seconds_per_sample(asking, teacher)
    reading = need / views / len(asking.data.train) / READ_BYTES_PER_SECOND
    # Of a store each process writes a part, and a sharded teacher answers only all of them together.
    together = asking.fabric.world_size > 1 and any(one.shard for one in asking.recipe.teachers)
    if free is not None and need <= free / 2 and cost > reading and not together:
        return "disk", "reading costs less than asking"
    return "online", f"its outputs would take {filesize.decimal(need)}, and asking {1e6 * cost:.0f} µs a sample"


def _need(asking: Asking, teacher: Teacher) -> int:
    example = next(iter(asking.batches(0))).first(2)
    return asking.views * memory_need(teacher, example, len(asking.data.train))


def store_outputs(
    asking: Asking,
    teacher: Teacher,
    after_shard: Callable[[int, int], None] = lambda done, of: None,
    place: str | None = None,
    found: bool | None = None,
) -> Kept:
    """Store the teacher outputs on disk, where they belong or in the place given, or find them there.

    `found` says whether an earlier run had stored them; None looks.
    """
    fabric, made_of, place = asking.fabric, asking.made_of(teacher), place or asking.place(teacher)
    samples, began = len(asking.data.train), time.perf_counter()
    claim = use(place)
    found = _is_stored(place, asking.views) if found is None else found
    passing = _passing(asking)
    store(
        teacher,
        lambda *which: passing.over(asking.batches(*which)),
        place,
        samples=samples,
        views=asking.views,
        batch_size=asking.batch_size,
        made_of=made_of,
        coding=asking.coding(teacher),
        words=asking.words,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        after_shard=after_shard,
    )
    fabric.barrier()
    known = StoredTeacher(place, made_of)
    weakref.finalize(known, claim.release)
    held = known.description
    size = held.samples * held.views * held.about["sample_bytes"]
    what = f"{'found' if found else 'stored'} in {place} as {known.coding.words}"
    reason = _reason(what, samples, asking.views, size)
    return Kept(known, place, time.perf_counter() - began, Outputs.stored(known, reason, found))


def _passing(asking: Asking) -> EachMinute:
    own = asking.views * len(asking.data.train)
    return EachMinute("teacher outputs", own, asking.shown)


def seconds_per_sample(asking: Asking, teacher: Teacher) -> float:
    """What asking the teacher about one sample takes, by a probe of some batches."""
    batches: Sequence[Batch] = list(islice(asking.batches(0), PROBE))
    teacher(batches[0])
    began = time.perf_counter()
    for batch in batches:
        _wait(teacher(batch))
    return (time.perf_counter() - began) / sum(batch.size for batch in batches)


def _wait(teacher_output: TeacherOutput) -> None:
    """Until the device has computed it."""
    for tensor in (teacher_output.output, *teacher_output.features.values()):
        if tensor is not None:
            tensor.flatten()[:1].tolist()


def _is_stored(place: str, views: int) -> bool:
    shards = Shards(place)
    found = shards.description()
    return found is not None and found.views >= views and all(shards.has(*shard) for shard in found.shards)


def _reason(what: str, samples: int, views: int, size: int) -> str:
    seen = "" if views == 1 else f" in {views} views"
    return f"teacher outputs precomputed for {samples:,} samples{seen}: {filesize.decimal(size)} {what}"
