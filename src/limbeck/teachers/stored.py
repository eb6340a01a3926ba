"""A teacher whose outputs were stored before: for each sample and view, computed once for all runs to come."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from rich import filesize
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses import Sampled
from limbeck.teachers.coding import Coding, classes_of
from limbeck.teachers.description import Description
from limbeck.teachers.shards import Shards
from limbeck.teachers.teacher import Teacher
from limbeck.types import Batch, TeacherOutput, send

SHARD_BYTES = 64 * 2**20
TOLERANCE = 0.02
"""What batches of other sizes, and bf16 at most, change of a value, as a share of the largest."""


class StoredTeacher:
    """Reads the output for each sample, in the view that the student sees, from where `store` wrote it.

    Args:
        place: A folder or an fsspec address.
        made_of: What the outputs must have been made of; None takes them as they are.
        sparse: Give the likeliest classes as a `TopK`, in place of all logits with the rest spread evenly. What was
            drawn is a `Sampled` in any case.

    Raises:
        RequestError: Nothing is stored there, or it is not complete, or it was made of something else.
    """

    def __init__(self, place: str | Path, made_of: Mapping[str, str] | None = None, *, sparse: bool = False) -> None:
        self.place, self.sparse = place, sparse
        self._shards = Shards(place)
        found = self._shards.description()
        if found is None:
            raise RequestError(f"no teacher outputs are stored in {place}; limbeck cache RECIPE stores them")
        if made_of is not None:
            refuse_stale(place, found, made_of)
        missing = sum(not self._shards.has(*shard) for shard in found.shards)
        if missing:
            raise RequestError(
                f"the teacher outputs in {place} are not complete: {missing} of {len(found.shards)} shards are "
                "missing; limbeck cache resumes it"
            )
        self.description = found
        self.coding = Coding.of(found.about)
        text = json.dumps([found.made_of, found.about], sort_keys=True)
        self.fingerprint = f"stored-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def __call__(self, batch: Batch) -> TeacherOutput:
        held = self.description
        check_known(batch, held.views, held.samples)
        index = batch.index
        number = index // held.rows
        numbers = sorted(set(number.tolist()))
        tensors: dict[str, Tensor] = {}
        for one in numbers:
            table = self._shards.read(held, batch.view, one)
            at = (number == one).nonzero().squeeze(1)
            for name, values in table.items():
                rows = values[index[at] - one * held.rows]
                if len(numbers) > 1:
                    whole = tensors.setdefault(name, rows.new_empty(len(index), *rows.shape[1:]))
                    whole[at] = rows
                else:
                    tensors[name] = rows
        device = batch.device
        placed = {name: send(tensor, device) for name, tensor in tensors.items()}
        return self.coding.decode(placed, held.about["classes"], self.sparse)

    def sparsely(self) -> StoredTeacher:
        """The same outputs, of which the likeliest classes are given as a `TopK`."""
        return self if self.sparse else StoredTeacher(self.place, sparse=True)


def store(
    teacher: Teacher,
    batches: Callable[[int, int, int], Iterable[Batch]],
    place: str | Path,
    *,
    samples: int,
    views: int,
    batch_size: int,
    made_of: Mapping[str, str],
    coding: Coding,
    words: Mapping[str, str] = MappingProxyType({}),
    rank: int = 0,
    world_size: int = 1,
    after_shard: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Ask a teacher about every sample in every view, and write down what it says.

    Several processes share the shards; what is there already stays, so that an interrupted writing goes on.

    Args:
        teacher: Who is asked.
        batches: From (view, first sample, end) to batches of just these samples in order, `batch_size` each.
        place: A folder or an fsspec address.
        samples: Number of samples.
        views: Number of views.
        batch_size: Samples asked at once.
        made_of: What the teacher outputs are a function of, by name.
        coding: How it is stored.
        words: What the outputs are made of in words, for who lists stores.
        rank: Which process this is.
        world_size: Of how many.
        after_shard: Told the number of shards that are done, and that of all.

    Raises:
        RequestError: The place holds teacher outputs made of something else, or has not enough space.
        RunError: A shard cannot be written.
    """
    shards = Shards(place)
    shards.sweep()
    teacher_output = teacher(next(iter(batches(0, 0, min(samples, 2)))))
    described = describe(teacher_output, samples, views, batch_size, made_of, coding, words)
    found = shards.description()
    if found is not None:
        refuse_stale(place, found, made_of)
        _refuse_form(place, found, described)
        described = replace(found, views=max(found.views, views))
    # Shards without a description are another store's, whatever that was.
    missing = [shard for shard in described.shards if found is None or not shards.has(*shard)]
    _check_space(shards, described, len(missing))
    if found != described and rank == 0:
        shards.describe(described)
    # Shares of all shards, not of those that are missing now: another process may have written some of them already.
    mine = [shard for shard in described.shards[rank::world_size] if shard in set(missing)]
    for done, (view, number) in enumerate(mine, start=1):
        span = described.span(number)
        coded = _coded(teacher, batches, view, span, batch_size, coding)
        shards.write(described, view, number, coded)
        after_shard(done, len(mine))


def _coded(
    teacher: Teacher,
    batches: Callable[[int, int, int], Iterable[Batch]],
    view: int,
    span: range,
    batch_size: int,
    coding: Coding,
) -> dict[str, Tensor]:
    """What is stored of some samples; batches begin at multiples of their size, the span may begin between."""
    start = span.start // batch_size * batch_size
    parts = [coding.encode(teacher(batch), batch.index, view) for batch in batches(view, start, span.stop)]
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return {name: values[span.start - start : span.stop - start] for name, values in whole.items()}


def _refuse_form(place: str | Path, found: Description, wanted: Description) -> None:
    """Raise RequestError for teacher outputs that are there, but not as they are wanted now."""
    forms = [Coding.of(one.about).about for one in (found, wanted)]
    pairs = {name: (was, forms[1][name]) for name, was in forms[0].items()}
    pairs |= {"taps": (sorted(found.tensors), sorted(wanted.tensors)), "samples": (found.samples, wanted.samples)}
    for name, (was, now) in pairs.items():
        if was != now:
            raise RequestError(
                f"the teacher outputs in {place} are stored in another form: {name} {was} instead of {now}; choose "
                f"another place, or that {name}"
            )


def describe(
    teacher_output: TeacherOutput,
    samples: int,
    views: int,
    batch_size: int,
    made_of: Mapping[str, str],
    coding: Coding,
    words: Mapping[str, str] = MappingProxyType({}),
) -> Description:
    """What storing teacher outputs such as this one for all samples and views will hold."""
    coded = coding.encode(teacher_output)
    tensors = {name: (str(t.dtype).removeprefix("torch."), list(t.shape[1:])) for name, t in coded.items()}
    sample_bytes = sum(t[0].numel() * t.element_size() for t in coded.values())
    rows = max(1, SHARD_BYTES // sample_bytes // batch_size) * batch_size
    classes = None if teacher_output.output is None else classes_of(teacher_output.output)
    about = {"classes": classes, **coding.about, "sample_bytes": sample_bytes}
    return Description(dict(made_of), samples, views, min(rows, math.ceil(samples / batch_size) * batch_size),
                       tensors, about, dict(words))  # fmt: skip


def refuse_stale(place: str | Path, found: Description, made_of: Mapping[str, str]) -> None:
    """Raise RequestError, with the reason, for teacher outputs that were made of something else."""
    changed = [name for name in made_of if found.made_of.get(name) != made_of[name]]
    if changed:
        was = ", ".join(f"{name} {found.made_of.get(name)} instead of {made_of[name]}" for name in changed)
        raise RequestError(f"the teacher outputs in {place} are stale, made with another {was}; choose another place")


def check_known(batch: Batch, views: int, samples: int) -> None:
    """Raise RequestError for a batch about which nothing can have been kept: an unknown view, no index, or beyond."""
    if not 0 <= batch.view < views:
        raise RequestError(
            f"this teacher is known in {views} view(s) of each sample, and the batch is view {batch.view} (from 0); "
            f"give the loader as many: views.count, or data.views: {views} in a recipe"
        )
    if not batch.size:
        return
    lowest, highest = (int(x) for x in batch.index.aminmax())
    if lowest < 0:  # a loader that says no index gives -1 for all
        raise RequestError("a cached teacher output is found by each sample's index, and this loader gives none")
    if highest >= samples:
        raise RequestError(
            f"a sample's index is {highest}, none of those that were asked about: the teacher was asked about {samples}"
        )


def _check_space(shards: Shards, described: Description, missing: int) -> None:
    need = missing * described.rows * described.about["sample_bytes"]
    free = shards.free_bytes()
    if free is not None and need > free:
        raise RequestError(
            f"storing them takes {filesize.decimal(need)} in {shards.place}, and {filesize.decimal(free)} are free; "
            "store fewer views, fewer taps, top_k classes, or elsewhere"
        )


def place_key(made_of: Mapping[str, str], coding: Coding, asked: str = "") -> str:
    """A name for the place of such teacher outputs, and of teacher outputs that were `asked` in one way alone."""
    compact = [coding.about] if coding.codec != "dense" else []
    text = json.dumps([dict(made_of), coding.dtype, coding.top_k, asked, *compact], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def verify(place: str | Path, ask: Callable[[int, Tensor], TeacherOutput], samples: int = 256) -> dict[str, Any]:
    """Check every shard's bytes, and ask the teacher again about some samples.

    Args:
        place: Where the teacher outputs are.
        ask: From a view and sample indices (B,) to what the teacher says about them now.
        samples: How many are asked again in each view.

    Returns:
        "shards" read, "samples" asked again, and "error", the largest difference between a stored value and a new one,
        as a share of the largest value.

    Raises:
        RequestError: A shard is missing or damaged, or the teacher says something else now.
    """
    teacher = StoredTeacher(place)
    held, shards = teacher.description, Shards(place)
    for shard in held.shards:
        shards.verify(held, *shard)
    coding = teacher.coding
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for view in range(held.views):
        index = torch.randperm(held.samples, generator=generator)[:samples].sort().values
        stored = teacher(Batch(index, index, index, view))
        now = coding.decode(coding.encode(ask(view, index), index, view), held.about["classes"])
        for kept, new in _pairs(stored, now):
            worst = max(worst, float((kept - new).abs().max() / new.abs().max().clamp(min=1e-6)))
    if worst > TOLERANCE:
        raise RequestError(f"the teacher now says something else than what {place} holds: {worst:.1%} of its range")
    return {"shards": len(held.shards), "samples": held.views * min(samples, held.samples), "error": worst}


def _pairs(stored: TeacherOutput, now: TeacherOutput) -> list[tuple[Tensor, Tensor]]:
    pairs = [(tensor, now.features[name]) for name, tensor in stored.features.items()]
    if isinstance(stored.output, Sampled) and isinstance(now.output, Sampled):
        # A draw that lay at the border of two classes falls on the other one: few do, of a teacher that says the same.
        pairs.append((torch.ones(()), (stored.output.indices == now.output.indices).float().mean()))
    elif stored.output is not None and now.output is not None:
        pairs.append((stored.output, now.output))
    return pairs
