"""What comes before a training: the first batch is read, sized for, answered by the teacher, and tried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric

from limbeck.distillers import Scheme
from limbeck.engine.batches.shares import training_part
from limbeck.engine.batches.source import Source, form
from limbeck.engine.batches.streams import as_loader, as_stream, counted
from limbeck.engine.devices.fabric import AUTO
from limbeck.engine.devices.sharding import is_sharding
from limbeck.engine.first.answers import check_answers, check_mixing, first_answers
from limbeck.engine.first.balance import Pull, balance
from limbeck.engine.first.batch import check_step, reading, settle, sized
from limbeck.engine.first.coupling import check_coupling
from limbeck.engine.first.held_out import settle_held_out
from limbeck.engine.first.labels import check_labels
from limbeck.engine.optimizers.named import trained_parameters
from limbeck.errors import RequestError
from limbeck.models import Layout
from limbeck.models.layout import CONTIGUOUS
from limbeck.seeds import derive, seeded
from limbeck.teachers import Teacher
from limbeck.types import Batch, TeacherOutput


@dataclass
class Examined:
    """The training data, of which the student has read the first batch.

    Attributes:
        loader: The batches.
        steps: How many make an epoch; None for all that the loader has.
        example: The first batch, on the CPU.
        val: The held-out batches, or None.
        notes: What should be said, a line each.
    """

    loader: Iterable[Any]
    steps: int | None
    example: Batch
    val: Iterable[Any] | None
    notes: list[str]


@dataclass
class Prepared:
    """A scheme on its device, sized for the first batch and for what its teacher says about it.

    Attributes:
        layout: In which it is trained.
        source: The batches that this process trains on.
        example: The first batch, as the training reads it.
        teacher_output: What the teacher says about it.
        notes: What should be said, a line each.
    """

    layout: Layout
    source: Source
    example: Batch
    teacher_output: TeacherOutput | None
    notes: list[str] = field(default_factory=list)


def examined(scheme: Scheme, train: Iterable[Any], val: Iterable[Any] | None, steps: int | None, seed: int) -> Examined:
    """Let the student read the first batches: its lazy layers get their shapes, its task is checked.

    Raises:
        RequestError: The data cannot be read, or the student's output has not the form that the task has.
    """
    loader, read, cpu = as_stream(train, steps), scheme.task.batch, torch.device("cpu")
    val = None if val is None else as_loader(val, "val")
    example = Source(loader, cpu, read=read).first()
    notes: list[str] = []
    if steps is None and (steps := counted(loader)) is not None:
        notes.append(f"the loader has no length; read once, it gives {steps:,} batches (steps_per_epoch)")
    with reading("student", example):
        notes += settle(scheme, example, seed)
    if isinstance(val, Iterator):
        raise RequestError("val is an iterator, which can be read only once: give what makes it")
    if val is not None:
        settle_held_out(scheme, example, Source(val, cpu, read=read).first())
    return Examined(loader, steps, example, val, notes)


def prepared(
    scheme: Scheme, guide: Teacher | None, data: Examined, fabric: Fabric, layout: str, window: int, seed: int
) -> Prepared:
    """Bring the scheme to its device and its layout, and size what depends on the first batch and its answers.

    Raises:
        RequestError: Something does not fit, or the layout by name would give wrong gradients.
    """
    with seeded(derive(seed, "adapters")):
        laid, example, teacher_output = _sized(scheme, guide, data.example, fabric, layout)
    change = laid.inputs if laid.unsafe else None
    part = training_part(data.loader, fabric, seed)
    source = Source(part, fabric.device, change, window=window, read=scheme.task.batch, steps=data.steps)
    source.usual = form(data.example)
    return Prepared(laid, source, example, teacher_output, list(data.notes))


def checked(
    scheme: Scheme, guide: Teacher | None, first: Prepared, fabric: Fabric, window: int, epochs: int | None
) -> Sequence[Pull]:
    """Try a step, and add to `first.notes` what should be said of it; batches of one sample may be left out.

    Args:
        scheme: Prepared.
        guide: Its teacher.
        first: The first batch.
        fabric: Device and precision.
        window: Batches that make one step.
        epochs: Length of the training for which the losses' balance is measured; None measures none.

    Returns:
        The balance of the losses; empty where it is not measured.

    Raises:
        RequestError: Something does not fit.
    """
    example, teacher_output, notes = first.example, first.teacher_output, first.notes
    if guide and teacher_output:
        labelled = bool(getattr(scheme, "task_weight", 1))
        notes += check_answers(guide, example, teacher_output, scheme.task, labelled=labelled)
        notes += check_mixing(guide, scheme.teacher_temperatures)
    notes += check_labels(scheme, example)
    trained_parameters(scheme)
    with first.layout.kept():
        notes += check_step(scheme, example, teacher_output, first.source, fabric)
        notes += check_coupling(scheme, example, teacher_output, fabric.autocast, window)
        pulls = balance(scheme, example, teacher_output, fabric.autocast, epochs) if epochs is not None else ()
    notes += [pull.warning for pull in pulls if pull.warning]
    return pulls


def _sized(
    scheme: Scheme, guide: Teacher | None, example: Batch, fabric: Fabric, layout: str
) -> tuple[Layout, Batch, TeacherOutput | None]:
    """The layout, and the first batch and the teacher's answers to it as the training reads them."""
    example = example.to(fabric.device)
    scheme.to(fabric.device)
    with reading("teacher", example):
        teacher_output = first_answers(guide, example) if guide else None
    if is_sharding(fabric) and layout == AUTO:
        layout = CONTIGUOUS  # as shards are in any case
    laid = sized(scheme, example, teacher_output, None if layout == AUTO else layout)
    return laid, example.changed(laid.inputs) if laid.unsafe else example, teacher_output
