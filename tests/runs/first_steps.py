"""The first step of a method on the pairs of the authors' scripts, and what went into it as NumPy sees it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from limbeck import Batch, Distiller, TeacherOutput
from limbeck.models.build import build
from limbeck.recipes import schema
from limbeck.recipes.methods import OfNetwork, OfStage, OfStudent, Places
from limbeck.runs import learners
from limbeck.runs.written_out import setting_of
from limbeck.taps import Taps, evaluating

PAIRS = {
    "resnet32x4-resnet8x4": ("resnet32x4", "resnet8x4", (3, 32, 32)),
    "resnet34-resnet18": ("torchvision:resnet34", "torchvision:resnet18", (3, 64, 64)),
}
CLASSES, SAMPLES = 7, 3
LABELLED = (5, 6, 3)
"""One of the teachers is right on the first as a whole and not in all its parts, on the second in some parts alone."""


class Case:
    """A method's first training, ready for its first step, and what went into it as NumPy sees it."""

    def __init__(self, method: str, pair: str) -> None:
        student, teacher, places, batch = networks(pair)
        setting = setting_of(method)
        stage = setting.stages[-1] if setting.stages and method != "ft" else None
        found = (stage or setting).terms(places)
        shipped = setting.network(places).make() if setting.network else student
        terms = [term(one, student, teacher) for one in found]
        self.scheme = Distiller(shipped, terms, task_weight=0.0 if stage else setting.task_weight)
        taps = flat(found, "teacher")
        with torch.no_grad(), evaluating(teacher):
            _, self.teacher = Taps(teacher, taps).run(batch.inputs)
        teacher_output = TeacherOutput(self.teacher["logits"], {tap: self.teacher[tap] for tap in taps})
        self.scheme.prepare(batch, teacher_output)
        self.scheme.double().train()
        self.weights = [state(bound) for bound in self.scheme.terms.values()]
        self.read = [places.stages()[-1]["student"]] if setting.network else flat(found, "student")
        with torch.no_grad():
            _, self.student = Taps(student, self.read).run(batch.inputs)
        torch.manual_seed(3)
        self.loss = self.scheme(batch, teacher_output).loss.item()
        self.targets = batch.targets.numpy()
        self.found = found
        self.network = teacher
        self.shipped = shipped

    def tensors(self, side: str) -> list[np.ndarray]:
        """The tensors of hidden layers that the terms read, as maps; SimKD's is what its projector reads."""
        found, taps = (self.student, self.read) if side == "student" else (self.teacher, flat(self.found, side))
        arrays = [found[tap].numpy() for tap in taps]
        return [x if x.ndim == 4 else x[:, :, None, None] for x in arrays]

    def logits(self) -> tuple[np.ndarray, np.ndarray]:
        return self.student["logits"].numpy(), self.teacher["logits"].numpy()


class Answer(nn.Module):
    """A student whose answer to any batch is its parameter."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.values


@cache
def answers(pair: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What both networks answer; a method on logits alone needs no more of them."""
    student, teacher, _, batch = networks(pair)
    with torch.no_grad(), evaluating(teacher):
        return student.train()(batch.inputs), teacher(batch.inputs)


def between_logits(method: str, pair: str) -> float:
    """The first loss of a method that compares logits alone."""
    student, teacher, places, batch = networks(pair)
    setting = setting_of(method)
    s, t = answers(pair)
    terms = [term(one, student, teacher) for one in setting.terms(places)]
    scheme = Distiller(Answer(s.clone()), terms, task_weight=setting.task_weight)
    scheme.prepare(batch, TeacherOutput(t))
    return float(scheme.double().train()(batch, TeacherOutput(t)).loss.item())


def flat(found: list[dict[str, Any]], side: str) -> list[str]:
    """All taps of one side, but for logits."""
    taps = [one.get(side, "logits") for one in found]
    return [tap for some in taps for tap in ([some] if isinstance(some, str) else some) if tap != "logits"]


@cache
def networks(pair: str) -> tuple[nn.Module, nn.Module, Places, Batch]:
    teacher_name, student_name, shape = PAIRS[pair]
    torch.manual_seed(0)
    student, teacher = (
        build(name, input_shape=shape, classes=CLASSES).double() for name in (student_name, teacher_name)
    )
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it had been trained
            nn.init.normal_(module.bias, std=0.5)
            nn.init.normal_(module.weight, mean=1.0, std=0.2)
    batch = Batch(torch.randn(SAMPLES, *shape).double(), torch.tensor(LABELLED), torch.arange(SAMPLES))
    return student, teacher, Places(student, teacher, shape, SAMPLES, names=(student_name, teacher_name)), batch


def term(one: dict[str, Any], student: nn.Module, teacher: nn.Module) -> Any:
    options = {
        key: value.make(student if isinstance(value, OfStudent) else teacher) if isinstance(value, OfNetwork) else value
        for key, value in one.items()
    }
    options = {key: None if isinstance(value, OfStage) else value for key, value in options.items()}
    if one["loss"] == "FactorTransfer":
        options["reconstruction_weight"] = 0.0  # as if the paraphraser had been trained before
    made = schema.Term.model_validate(options)
    for value in made.options.values():
        if isinstance(value, nn.Module):
            value.double()
    return learners.term(made.model_copy(update={"ramp": 0}))


def state(bound: Any) -> dict[str, np.ndarray]:
    """The weights of a term's connector, or of its loss."""
    module = bound.adapters[0] if len(bound.adapters) else bound.loss
    state = module.state_dict() if isinstance(module, nn.Module) else {}
    return {name: value.numpy().copy() for name, value in state.items()}  # as they were before the first step
