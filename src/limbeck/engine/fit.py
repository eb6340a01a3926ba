"""`fit`: what a training needs is checked, built and wrapped, then handed to the loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from limbeck.distillers import Scheme
from limbeck.engine.callbacks.hooks import Callback, check_callbacks
from limbeck.engine.devices.compile_cache import keep_compiled_apart
from limbeck.engine.devices.fabric import AUTO
from limbeck.engine.devices.hardware import Hardware, chosen
from limbeck.engine.first.balance import Pull
from limbeck.engine.first.prepared import examined
from limbeck.engine.guides import AnyTeacher, held_out_teacher, training_teacher
from limbeck.engine.optimizers.groups import Grouped
from limbeck.engine.optimizers.named import MakeOptimizer
from limbeck.engine.optimizers.schedulers import AnySchedule
from limbeck.engine.settings import Saving, Settings, as_folder, check_count
from limbeck.engine.work import Work
from limbeck.errors import RequestError


@dataclass(frozen=True)
class Run:
    """What a training leaves.

    Attributes:
        student: The plain trained model.
        metrics: A record an epoch: epoch (from 1), loss, the task's quick score such as accuracy (of the samples with a
            label; left out without any), each part, over the samples of those steps that had it, learning rate, seconds
            since the start of training, and the task's metrics on the validation data as val_NAME.
        seconds: Time spent training, over all resumed parts, trials of torch.compile among it.
        out: The run folder, or None.
        compile: torch.compile's mode in which the student was trained, or None.
        layout: "channels_last" or "contiguous", in which it was trained; None for a network without convolutions.
        balance: How strongly each part of the loss pulled at the student on the first batch; empty without terms.
    """

    student: nn.Module
    metrics: Sequence[Mapping[str, Any]]
    seconds: float
    out: Path | None
    compile: str | None = None
    layout: str | None = None
    balance: Sequence[Pull] = ()


def fit(
    distiller: Scheme,
    train: Iterable[Any],
    *,
    epochs: int,
    optimizer: MakeOptimizer | Grouped | Optimizer,
    teacher: AnyTeacher | None = None,
    val: Iterable[Any] | None = None,
    val_teacher: AnyTeacher | None = None,
    steps_per_epoch: int | None = None,
    schedule: AnySchedule | None = None,
    accumulate_steps: int = 1,
    max_grad_norm: float | None = None,
    keep: str = "last",
    validate_steps: int | None = None,
    precision: str = AUTO,
    hardware: Hardware | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    saving: Saving | None = None,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    measure_balance: bool = True,
) -> Run:
    """Train a student by any scheme.

    Args:
        distiller: The student with its losses, such as `Distiller(student, terms)`; a wrapped student is unwrapped.
        train: A limbeck loader, or an ordinary DataLoader of what the task can read, such as (inputs, targets) or
            dicts, of which each of several processes reads its part; or any iterable of such batches, or a function
            that makes one, such as a generator function, which is called for each epoch.
        epochs: How often to go through it.
        optimizer: A function of the parameters, such as `partial(torch.optim.Adam, lr=1e-3)`; one whose parameter is
            called `named_parameters` gets pairs of name and parameter. `limbeck.engine.optimizers.named.optimizer`
            makes one with groups. Or an optimizer that already holds every parameter of the distiller, adapters
            included.
        teacher: The trained model, any `Teacher`, or any function from inputs to logits (`FunctionTeacher`); None for
            schemes without one.
        val: Held-out batches, evaluated after each epoch; several processes share them.
        val_teacher: A teacher for the held-out batches, for metrics that compare with it; by default a teacher that is
            a module or a function, where the task has no labels.
        steps_per_epoch: Batches that make an epoch, for a loader without a length, or to have an epoch of another one;
            a loader that ends before is started again, and an iterator goes on from epoch to epoch.
        schedule: Factor of the learning rate by time in epochs (`limbeck.engine.optimizers.named`); or a torch
            scheduler, or a function of the optimizer that makes one (`limbeck.engine.optimizers.schedulers`).
        accumulate_steps: Batches whose gradients are joined to one step, equal to one step on all their samples for
            losses that are means over samples (or what the task counts, such as tokens). Each batch has its own of
            batch norm, means over positions or over the samples with a label, and of what compares the samples of a
            batch (dist, mlkd, rkd, class-wise), which is said.
        max_grad_norm: Largest norm of the gradient.
        keep: Which student is given: that of the "last" epoch, or that of the one with the "best" validation score (the
            task's monitor).
        validate_steps: Validate every so many batches too, besides each epoch's end: for `keep="best"` and for the hook
            `validation_end`; the epochs' records and early stopping go by the epochs' ends.
        precision: "32-true", "bf16-mixed", "16-mixed", or "auto" for bf16 where model and device gain from it
            (`limbeck.engine.devices.fabric.choose_precision`); losses compute in fp32 in any case, also those of
            your own but for what `limbeck.losses.own_precision` marks.
        hardware: Devices, processes, torch.compile and memory layout, such as Hardware("gpu", devices=2); by default
            one GPU where there is one.
        out: Run folder for checkpoints, metrics.jsonl and the student's files; None writes nothing.
        resume: Resume from the folder's last checkpoint, if it has one of this training; also with what the loaders'
            own generators had drawn.
        saving: What else is written into `out`, such as Saving(checkpoint_steps=1000).
        seed: What order and dropout are functions of; the global generators are seeded with it at each epoch.
        callbacks: What is called during the training: EarlyStopping(patience=5), LogTo(TensorBoardLogger("logs")), or
            code of your own (`limbeck.Callback`).
        progress: Show a bar, or a line an epoch.
        measure_balance: Measure on the first batch how strongly each term pulls at the student
            (`limbeck.engine.first.balance`), and warn of terms that pull next to nothing, or nearly alone.

    Returns:
        The plain student, in eval mode, with the run's metrics. LoRA's matrices (the option `lora` of Hugging Face
        models) are added to its weights.

    Raises:
        RequestError: Something does not fit; found before the first step, or in it if the student cannot be compiled.
        RunError: The training failed: a loss that is not finite, a full disk, a callback that raises.
    """
    if not isinstance(distiller, Scheme):
        raise RequestError(f"fit trains a scheme such as Distiller(student), not {type(distiller).__name__}")
    settings = Settings(epochs, accumulate_steps, max_grad_norm, keep, validate_steps, seed, saving or Saving())
    validates, folder = val is not None, as_folder(out)
    settings.check(validates=validates, writes=folder is not None)
    check_count("steps_per_epoch", steps_per_epoch, or_none=True)
    if resume and folder is None:
        raise RequestError("resume=True goes on in a run folder, and there is none: give out=FOLDER")
    on = chosen(hardware)
    on.check(distiller, accumulate_steps)
    check_callbacks(callbacks, validates=validates)
    keep_compiled_apart()  # also for a student that its user compiles
    data = examined(distiller, train, val, steps_per_epoch, seed)
    fabric = on.launched(distiller, data.example, precision)
    work = Work(distiller, fabric, settings, folder, progress and fabric.is_global_zero)
    work.check(on.compile)
    guide = training_teacher(teacher, distiller)
    judge = held_out_teacher(val_teacher, guide, distiller) if validates else None
    first, pulls = work.tried(guide, data, on.layout, measures=measure_balance)
    begun = work.begun(first, optimizer, schedule, resume, on.compile, validates=validates)
    laid, source, size, val = first.layout, first.source, first.example.size, data.val
    del data, first  # with what lies on the device, where the training needs the memory
    called = work.callbacks(begun, callbacks)
    work.train(begun, work.loop(begun, source, guide, called, val, judge), laid, size)
    state = begun.state
    return Run(distiller.student, state.records, state.seconds, folder, state.compile, laid.name, pulls)
