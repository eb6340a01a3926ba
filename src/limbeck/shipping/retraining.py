"""Training for int8: a tenth of the run's epochs with fake quantisation, against the teacher's outputs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from limbeck.data import InMemory, make_loader
from limbeck.data.splits import Split
from limbeck.engine import Hardware, Saving, fit
from limbeck.engine.optimizers.named import cosine
from limbeck.models.logits import to_logits
from limbeck.quantization.fake import faked
from limbeck.quantization.session import INPUT, Given
from limbeck.quantization.training import SHARE, SLOWER, TEMPERATURE, as_file, largest, learner, metadata
from limbeck.recipes import schema
from limbeck.runs import components
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.asking import Asking
from limbeck.runs.outputs.keeping import keep
from limbeck.shipping.formats import Packing
from limbeck.shipping.reading import normalisation
from limbeck.shipping.subjects import Case, Subject
from limbeck.teachers import ModuleTeacher, Teacher


@dataclass(frozen=True)
class Retrained:
    """A file that was trained for int8.

    Attributes:
        content: The file.
        about: What the training took: epochs (a part of one where the run's tenth is less), samples, seconds, teacher.
    """

    content: bytes
    about: dict[str, Any]


def retrain(case: Case, subject: Subject, packing: Packing, calibration: Sequence[Given], seven: bool) -> Retrained:
    """Train a student for int8 and write it as ONNX with whole weights.

    Args:
        case: A run.
        subject: Its student, or an exit.
        packing: What stands inside the file besides.
        calibration: What calibrates the ranges before the training, as the file reads it.
        seven: Weights of 7 bits, for processors on which 8 bits overflow.

    Raises:
        RequestError: The case is no run, or the network cannot be taken apart by torch.export.
        RunError: The training failed.
    """
    assert case.finished is not None
    began, recipe, data = time.perf_counter(), case.finished.recipe, case.finished.data
    most = largest(7 if seven else 8)
    ready = normalisation(subject.about["input"]) or nn.Identity()
    inside = packing.normalised_inside
    given = [torch.from_numpy(batch[INPUT]) for batch in calibration]
    samples = [ready(x) if inside else x for x in given]
    network = faked(to_logits(subject.network, subject.output), subject.shape, samples, most)
    split, epochs = _share(recipe, data.train)
    short = recipe.model_copy(update={"epochs": epochs})
    fabric = Machine(accelerator="cpu", progress=False).fabric("32-true")
    asking = Asking(short, replace(data, train=split), fabric, _store(recipe))
    kept = keep(asking, _teacher(case, subject, recipe))
    fit(
        learner(network, case.task, components.inputs(recipe.student), taught=True, temperature=_temperature(recipe)),
        _loader(short, split, case),
        teacher=kept.teacher,
        epochs=epochs,
        optimizer=components.optimizer(_slower(recipe.optimizer)),
        schedule=cosine(epochs),
        hardware=Hardware(fabric=fabric, compile=None, layout="contiguous"),
        saving=Saving(phase="int8"),
        seed=recipe.seed,
        progress=False,
        measure_balance=False,
    )
    content = as_file(
        network.cpu(),
        subject.shape,
        ready=ready if inside else None,
        softmax=packing.softmax_inside,
        output=packing.output,
        metadata=metadata(subject.about, inside),
        most=most,
    )
    about = {
        "epochs": epochs * len(split) / len(data.train),
        "run_epochs": recipe.epochs,
        "samples": len(split),
        "seconds": round(time.perf_counter() - began, 2),
        "teacher": "the run's" if case.teacher is not None else "the student itself in fp32",
        "teacher_outputs": kept.reason,
    }
    return Retrained(content, about)


def _share(recipe: schema.Recipe, train: Split) -> tuple[Split, int]:
    """A tenth of the run's epochs, or of an epoch a part of the samples."""
    epochs = math.floor(SHARE * recipe.epochs + 1e-9)
    if epochs >= 1:
        return train, epochs
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(recipe.seed))
    count = max(math.floor(SHARE * recipe.epochs * len(train)), min(recipe.data.batch_size, len(train)))
    return train.subset(order[:count].sort().values), 1


def _store(recipe: schema.Recipe) -> schema.Store:
    return recipe.teachers[0].store if recipe.teachers else schema.Store()


def _teacher(case: Case, subject: Subject, recipe: schema.Recipe) -> Teacher:
    """The run's teacher; of a run without one, the student in fp32."""
    if case.teacher is not None:
        return case.teacher
    spec = recipe.student
    return ModuleTeacher(subject.network, inputs=components.inputs(spec), output=spec.output)


def _temperature(recipe: schema.Recipe) -> float:
    """That of the recipe's terms."""
    found = [term.options.get("temperature") for term in recipe.distill.terms if term.loss == "kd"]
    return float(found[0] if found and found[0] else TEMPERATURE)


def _loader(recipe: schema.Recipe, split: Split, case: Case) -> Any:
    assert case.finished is not None
    return make_loader(
        split,
        min(recipe.data.batch_size, len(split)),
        shuffle=True,
        seed=recipe.seed,
        workers=0 if isinstance(split, InMemory) else recipe.data.workers,
        views=components.views(recipe.data, case.finished.data),
    )


def _slower(spec: schema.Optimizer) -> schema.Optimizer:
    return spec.model_copy(update={"lr": SLOWER * spec.lr})
