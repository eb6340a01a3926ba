"""`fit`: what a training needs is checked, built and wrapped, then handed to the loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.logger import Logger
from torch import nn
from torch.optim import Optimizer

from limbeck.distillers import Scheme
from limbeck.engine.accumulation import check_coupling
from limbeck.engine.balance import Pull, balance, told
from limbeck.engine.checkpoint import Checkpoint, Progressed, save_student
from limbeck.engine.compiling import Choice, check_compile, check_whole, choose_compile, compiled
from limbeck.engine.devices import AUTO, choose_precision, enough_memory, from_first, make_fabric
from limbeck.engine.first_answers import check_answers, check_mixing, first_answers
from limbeck.engine.first_batch import check_step, reading, settle, sized
from limbeck.engine.first_held_out import settle_held_out
from limbeck.engine.groups import Grouped
from limbeck.engine.loop import Loop
from limbeck.engine.optim import MakeOptimizer, made_optimizer, trained_parameters
from limbeck.engine.progress import Progress, tell
from limbeck.engine.schedulers import AnySchedule, Scheduler, steps_in_all, taken_schedule
from limbeck.engine.settings import EarlyStopping, check, check_ends, stopped
from limbeck.engine.sharding import check_shared, is_sharding, load_optimizer, trained_copy, whole
from limbeck.engine.shares import training_part
from limbeck.engine.snapshots import Snapshots
from limbeck.engine.source import Source, as_loader, counted
from limbeck.errors import RequestError, unknown
from limbeck.models import Layout, device_of
from limbeck.models.foreign.hugging_face import save_hugging_face
from limbeck.models.layout import CONTIGUOUS
from limbeck.seeds import derive, seeded
from limbeck.teachers import FunctionTeacher, ModuleTeacher, Teacher
from limbeck.types import Batch, TeacherOutput


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
    teacher: Teacher | nn.Module | Callable[..., Any] | None = None,
    val: Iterable[Any] | None = None,
    val_teacher: Teacher | nn.Module | Callable[..., Any] | None = None,
    steps_per_epoch: int | None = None,
    schedule: AnySchedule | None = None,
    accumulate_steps: int = 1,
    max_grad_norm: float | None = None,
    restore_best: bool = False,
    keep: str | None = None,
    early_stopping: EarlyStopping | None = None,
    save_every: int | None = None,
    precision: str = AUTO,
    accelerator: str = "auto",
    devices: int | str | list[int] = 1,
    strategy: str = "auto",
    fabric: Fabric | None = None,
    compile: str | None = AUTO,
    layout: str = AUTO,
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint_steps: int | None = None,
    phase: str = "student",
    about: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool = True,
    measure_balance: bool = True,
    loggers: Sequence[Logger] = (),
) -> Run:
    """Train a student by any scheme.

    Args:
        distiller: The student with its losses, such as `Distiller(student, terms)`; a wrapped student is unwrapped.
        train: A limbeck loader, or an ordinary DataLoader of what the task can read, such as (inputs, targets) or
            dicts, of which each of several processes reads its part; or any iterable of such batches.
        epochs: How often to go through it.
        optimizer: A function of the parameters, such as `partial(torch.optim.Adam, lr=1e-3)`; or an optimizer that
            already holds every parameter of the distiller, adapters included.
        teacher: The trained model, any `Teacher`, or any function from inputs to logits (`FunctionTeacher`); None for
            schemes without one.
        val: Held-out batches, evaluated after each epoch; several processes share them.
        val_teacher: A teacher for the held-out batches, for metrics that compare with it; by default a teacher that is
            a module or a function, where the task has no labels.
        steps_per_epoch: Batches that make an epoch, for a loader without a length, or to have an epoch of another one;
            a loader that ends before is started again, and an iterator goes on from epoch to epoch.
        schedule: Factor of the learning rate by time in epochs (`limbeck.engine.optim`); or a torch scheduler, or a
            function of the optimizer that makes one (`limbeck.engine.schedulers`).
        accumulate_steps: Batches whose gradients are joined to one step, equal to one step on all their samples for
            losses that are means over samples (or what the task counts, such as tokens). Each batch has its own of
            batch norm, means over positions or over the samples with a label, and of what compares the samples of a
            batch (dist, mlkd, rkd, class-wise), which is said.
        max_grad_norm: Largest norm of the gradient.
        restore_best: Give the student of the epoch with the best validation score (the task's monitor), instead of the
            last epoch's.
        keep: "best" or "last", the same in a word.
        early_stopping: Ends the training where the validation stops improving, as EarlyStopping(patience=5) does.
        save_every: Write the student into `out` as PHASE-epochN after every so many epochs.
        precision: "32-true", "bf16-mixed", "16-mixed", or "auto" for bf16 where model and device gain from it
            (`limbeck.engine.devices.choose_precision`); losses compute in fp32 in any case, also those of your own but
            for what `limbeck.losses.own_precision` marks.
        accelerator, devices, strategy: As Lightning Fabric takes them.
        fabric: A launched Fabric to use instead of those four.
        compile: torch.compile's mode for the student's training passes, such as "default" or "reduce-overhead" (CUDA
            graphs); None runs them as they are; "auto" tries it on GPUs, where they take five minutes or more in all,
            and keeps it if it pays for itself (`limbeck.engine.compiling.choose_compile`).
        layout: Order of a network's maps in memory while it is trained: "channels_last", "contiguous", or "auto" for
            channels-last on CPUs and NVIDIA GPUs where gradients are right in it (`limbeck.models.layout.lay_out`).
        out: Run folder for checkpoints, metrics.jsonl and the student's files; None writes nothing.
        resume: Resume from the folder's last checkpoint, if it has one of this phase; also with what the loaders' own
            generators had drawn.
        checkpoint_steps: Write a checkpoint every so many batches, besides each epoch's.
        phase: Name of this training in metrics, and of the model's files in `out`.
        about: What to add to the student's JSON file.
        seed: What order and dropout are functions of; the global generators are seeded with it at each epoch.
        progress: Show a bar, or a line an epoch.
        measure_balance: Measure on the first batch how strongly each term pulls at the student
            (`limbeck.engine.balance`), and warn of terms that pull next to nothing, or nearly alone.
        loggers: Lightning loggers, such as TensorBoardLogger, that get each epoch's record.

    Returns:
        The plain student, in eval mode, with the run's metrics.

    Raises:
        RequestError: Something does not fit; found before the first step, or in it if the student cannot be compiled.
        RunError: The training failed: a loss that is not finite, a full disk.
    """
    if not isinstance(distiller, Scheme):
        raise RequestError(f"fit trains a scheme such as Distiller(student), not {type(distiller).__name__}")
    if keep is not None:
        restore_best = restores(keep)
    check(epochs, accumulate_steps, restore_best, max_grad_norm, checkpoint_steps, validates=val is not None)
    check_ends(early_stopping, save_every, validates=val is not None)
    check_compile(compile, distiller, accumulate_steps)
    train, read = as_loader(train, steps_per_epoch), distiller.task.batch
    example = Source(train, torch.device("cpu"), read=read).first()
    notes: list[str] = []
    if steps_per_epoch is None and (steps_per_epoch := counted(train)) is not None:
        notes.append(f"the loader has no length; read once, it gives {steps_per_epoch:,} batches (steps_per_epoch)")
    with reading("student", example):
        notes += settle(distiller, example, seed)
    if isinstance(val, Iterator):
        raise RequestError("val is an iterator, which can be read only once: give what makes it")
    if val is not None:
        settle_held_out(distiller, example, Source(val, torch.device("cpu"), read=read).first())
    if fabric is None:
        if precision == AUTO:
            precision = _precision(distiller, example, accelerator)
        fabric = make_fabric(precision, accelerator, devices, strategy)
    check_shared(distiller, fabric)
    if is_sharding(fabric):
        check_whole(compile)
    guide = _guide(teacher, distiller)
    judge = _judge(val_teacher, guide, distiller) if val is not None else None
    shown = progress and fabric.is_global_zero
    with seeded(derive(seed, "adapters")):
        laid, example, teacher_output = _prepare(distiller, guide, example, fabric, layout)
    if laid.reason and shown:
        tell(f"{phase}: {laid.reason}")
    change = laid.inputs if laid.unsafe else None
    part, steps = training_part(train, fabric, seed), steps_per_epoch
    source = Source(part, fabric.device, change, window=accumulate_steps, read=read, steps=steps)
    if guide and teacher_output:
        notes += check_answers(
            guide, example, teacher_output, distiller.task, labelled=bool(getattr(distiller, "task_weight", 1))
        )
        notes += check_mixing(guide, distiller.teacher_temperatures)
    trained_parameters(distiller)
    with laid.kept():
        notes += check_step(distiller, example, teacher_output, source, fabric)
        notes += check_coupling(distiller, example, teacher_output, fabric.autocast, accumulate_steps)
        pulls = balance(distiller, example, teacher_output, fabric.autocast, epochs) if measure_balance else ()
    notes += [pull.warning for pull in pulls if pull.warning]
    if pulls and shown:
        tell(f"{phase}: {told(pulls)}")
    for note in notes if fabric.is_global_zero else ():
        tell(f"{phase}: {note}")
    trained = trained_copy(distiller, fabric)
    model = fabric.setup_module(trained)
    optimizer = made_optimizer(optimizer, trained)
    taken = steps_in_all(epochs, len(source), accumulate_steps)
    rates = taken_schedule(schedule, optimizer, fabric, epochs=epochs, steps=taken, validates=val is not None)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    if optimizer.state:  # it comes from an earlier training, and its moments lie as the weights did then
        load_optimizer(optimizer, optimizer.state_dict())
    stepper = fabric.setup_optimizers(optimizer)
    folder = Path(out) if out else None
    settings = {"seed": seed, "steps": len(source), "accumulate_steps": accumulate_steps}
    checkpoint = Checkpoint(folder, phase, settings, fabric, trained, optimizer, rates)
    state = checkpoint.load() if resume else Progressed()
    checkpoint.restart_metrics(state)
    if isinstance(rates, Scheduler) and shown:
        tell(f"{phase}: {rates}")
    choice = Choice(state.compile if compile == AUTO else compile)
    if choice.mode == AUTO:
        left = (epochs - state.epoch) * len(source) - state.step
        look = partial(choose_compile, trained, example.to(fabric.device), fabric, left)
        choice = from_first(fabric, look)
        del look  # with its batch on the device, where the training needs the memory
        if choice.reason and shown:
            tell(f"{phase}: {choice.reason}")
    state.compile, state.seconds = choice.mode, state.seconds + choice.seconds
    display = Progress(phase, epochs, len(source), shown, distiller.task)
    size = example.size
    del example, teacher_output
    memory = enough_memory(phase, size, fabric.device)
    with memory, laid.kept(), compiled(trained.student, choice.mode, size), display:
        loop = Loop(
            fabric=fabric,
            scheme=trained,
            model=model,
            optimizer=optimizer,
            stepper=stepper,
            source=source,
            teacher=guide,
            checkpoint=checkpoint,
            display=display,
            schedule=rates,
            accumulate_steps=accumulate_steps,
            max_grad_norm=max_grad_norm,
            checkpoint_steps=checkpoint_steps,
            val=val,
            val_teacher=judge,
            restore_best=restore_best,
            early_stopping=early_stopping,
            after_epoch=Snapshots(folder, phase, save_every, trained.student, about or {}, checkpoint.writes).after,
            loggers=loggers,
            seed=seed,
        )
        loop.run(state, epochs)
    fabric.barrier()
    if trained is not distiller:
        distiller.load_state_dict(whole(trained.state_dict()))
    if restore_best:
        checkpoint.load_best(distiller)
    student = distiller.student.eval()
    if folder and checkpoint.writes:
        how = {**stopped(state.epoch, epochs), "compile": choice.mode, "layout": laid.name}
        training = {"training": {"epochs": state.epoch, "seconds": round(state.seconds, 3), **how}}
        save_hugging_face(folder / phase, student)
        save_student(folder, phase, student, dict(about or {}) | training)
    return Run(student, state.records, state.seconds, folder, choice.mode, laid.name, pulls)


def restores(keep: str) -> bool:
    """Whether the best student is kept, from the word for it.

    Raises:
        RequestError: It is neither "best" nor "last".
    """
    if keep not in ("best", "last"):
        raise unknown("value of keep", keep, ("best", "last"))
    return keep == "best"


def _precision(distiller: Scheme, example: Batch, accelerator: str) -> str:
    try:
        one = distiller.prepared(example.first(1).to(device_of(distiller.student)).inputs)
        return choose_precision(distiller.student, one, example.size, accelerator)
    except Exception:  # it cannot be counted
        return "32-true"


def _prepare(
    distiller: Scheme, guide: Teacher | None, example: Batch, fabric: Fabric, layout: str
) -> tuple[Layout, Batch, TeacherOutput | None]:
    """Bring the scheme to its device and its layout, and size what depends on the first batch and its answers.

    Gives these too, as the training reads them: the layout, the batch, the teacher's answers to it.
    """
    example = example.to(fabric.device)
    distiller.to(fabric.device)
    with reading("teacher", example):
        teacher_output = first_answers(guide, example) if guide else None

    if is_sharding(fabric) and layout == AUTO:
        layout = CONTIGUOUS  # as shards are in any case
    laid = sized(distiller, example, teacher_output, None if layout == AUTO else layout)
    return laid, example.changed(laid.inputs) if laid.unsafe else example, teacher_output


def _guide(teacher: Teacher | nn.Module | Callable[..., Any] | None, distiller: Scheme) -> Teacher | None:
    taps, logits = distiller.teacher_taps, distiller.teacher_logits
    if isinstance(teacher, nn.Module) and not logits and not taps:
        raise RequestError("a teacher was given, and no loss term uses it; add a Term")
    return None if teacher is None else _as_teacher(teacher, distiller.classes, taps, logits)


def _judge(
    given: Teacher | nn.Module | Callable[..., Any] | None, guide: Teacher | None, distiller: Scheme
) -> Teacher | None:
    """Who is asked about held-out samples: a stored or remembered teacher knows the training samples alone."""
    if given is not None:
        return _as_teacher(given, distiller.classes)
    if distiller.task.labelled:
        return None
    if not isinstance(guide, ModuleTeacher | FunctionTeacher):
        raise RequestError(
            f"{distiller.task!r} is measured beside its teacher, and the given one knows the training samples alone: "
            "give val_teacher, such as the teacher's module"
        )
    return guide


def _as_teacher(
    given: Teacher | nn.Module | Callable[..., Any],
    classes: int | None,
    taps: Sequence[str] = (),
    logits: bool = True,
) -> Teacher:
    """A teacher of what was given: a module, a teacher already, or a function."""
    if isinstance(given, nn.Module):
        return ModuleTeacher(given, taps, logits=logits, classes=classes)
    return given if _is_teacher(given) else FunctionTeacher(given, classes=classes)


def _is_teacher(given: Any) -> TypeGuard[Teacher]:
    # Looked up statically: to read a fingerprint is to read every weight.
    return inspect.getattr_static(given, "fingerprint", None) is not None
