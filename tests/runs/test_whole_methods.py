"""The first loss of whole methods, connectors and all, against NumPy, on the pairs of the authors' scripts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import published as ref
from limbeck import Batch, Distiller, TeacherOutput
from limbeck.models.build import build
from limbeck.recipes import schema
from limbeck.recipes.methods import OfStage, OfTeacher, Places
from limbeck.runs import learners
from limbeck.runs.written_out import setting_of
from limbeck.taps import Taps, evaluating

PAIRS = {
    "resnet32x4-resnet8x4": ("resnet32x4", "resnet8x4", (3, 32, 32)),
    "resnet34-resnet18": ("torchvision:resnet34", "torchvision:resnet18", (3, 64, 64)),
}
CLASSES, SAMPLES = 7, 3


class Case:
    """A method's first training, ready for its first step, and what went into it as NumPy sees it."""

    def __init__(self, method: str, pair: str) -> None:
        student, teacher, places, batch = networks(pair)
        setting = setting_of(method)
        self.stage = setting.stages[-1] if setting.stages and method != "ft" else None
        self.task_weight = 0.0 if self.stage else setting.task_weight
        found = (self.stage or setting).terms(places)
        self.scheme = Distiller(student, [term(one, teacher) for one in found], task_weight=self.task_weight)
        taps = flat(found, "teacher")
        with torch.no_grad(), evaluating(teacher):
            _, self.teacher = Taps(teacher, taps).run(batch.inputs)
        teacher_output = TeacherOutput(self.teacher["logits"], {tap: self.teacher[tap] for tap in taps})
        self.scheme.prepare(batch, teacher_output)
        self.scheme.double().train()
        self.weights = [state(bound) for bound in self.scheme.terms.values()]
        with torch.no_grad():
            _, self.student = Taps(student, flat(found, "student")).run(batch.inputs)
        torch.manual_seed(3)
        self.loss = self.scheme(batch, teacher_output).loss.item()
        self.batch = batch
        self.found = found
        self.network = teacher

    def tensors(self, side: str) -> list[np.ndarray]:
        """The tensors that the terms read, as maps."""
        arrays = [(self.student if side == "student" else self.teacher)[tap].numpy() for tap in flat(self.found, side)]
        return [x if x.ndim == 4 else x[:, :, None, None] for x in arrays]

    def labels(self) -> float:
        loss = ref.cross_entropy(self.student["logits"].numpy(), self.batch.targets.numpy())
        return self.task_weight * loss if self.task_weight else 0.0


def flat(found: list[dict[str, Any]], side: str) -> list[str]:
    """All taps of one side."""
    return [tap for one in found for tap in ([one[side]] if isinstance(one[side], str) else one[side])]


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
    batch = Batch(torch.randn(SAMPLES, *shape).double(), torch.arange(SAMPLES), torch.arange(SAMPLES))
    return student, teacher, Places(student, teacher, shape, SAMPLES, names=(student_name, teacher_name)), batch


def term(one: dict[str, Any], teacher: nn.Module) -> Any:
    options = {key: value.make(teacher) if isinstance(value, OfTeacher) else value for key, value in one.items()}
    options = {key: None if isinstance(value, OfStage) else value for key, value in options.items()}
    if one["loss"] == "FactorTransfer":
        options["reconstruction_weight"] = 0.0  # as if the paraphraser had been trained before
    made = schema.Term.model_validate(options)
    if isinstance(made.options.get("classifier"), nn.Module):
        made.options["classifier"].double()
    return learners.term(made.model_copy(update={"ramp": 0}))


def state(bound: Any) -> dict[str, np.ndarray]:
    """The weights of a term's connector, or of its loss."""
    module = bound.adapters[0] if len(bound.adapters) else bound.loss
    state = module.state_dict() if isinstance(module, nn.Module) else {}
    return {name: value.numpy().copy() for name, value in state.items()}  # as they were before the first step


def norms(case: Case, pair: str) -> list[tuple[np.ndarray, np.ndarray]]:
    paths = {
        "resnet32x4-resnet8x4": [f"stage{number}.4.branch.bn2" for number in (1, 2, 3)],
        "resnet34-resnet18": ["layer1.2.bn2", "layer2.3.bn2", "layer3.5.bn2", "layer4.2.bn2"],
    }
    modules = [case.network.get_submodule(path) for path in paths[pair]]
    return [(module.weight.detach().numpy(), module.bias.detach().numpy()) for module in modules]  # type: ignore[union-attr]


def shown(case: Case) -> np.ndarray:
    torch.manual_seed(3)
    channels = case.tensors("teacher")[0].shape[1]
    return (torch.rand(SAMPLES, channels, 1, 1, dtype=torch.float64) >= 0.15).numpy()


def classifier(case: Case, pair: str) -> dict[str, np.ndarray]:
    layer = case.network.get_submodule("classifier" if pair.startswith("resnet32x4") else "fc")
    return {name: value.numpy() for name, value in layer.state_dict().items()}


def drawn() -> np.ndarray:
    torch.manual_seed(3)
    return torch.randint(SAMPLES, (16384,)).numpy()


WHOLE: dict[str, Callable[[Case, list[np.ndarray], list[np.ndarray], str], float]] = {
    "fitnet": lambda case, s, t, pair: ref.fitnet(s[0], t[0], case.weights[0]),
    "ab": lambda case, s, t, pair: ref.boundaries(s, t, case.weights),
    "ofd": lambda case, s, t, pair: ref.overhaul(s, t, case.weights, norms(case, pair), 1e-3),
    "ofd:imagenet": lambda case, s, t, pair: ref.overhaul(s, t, case.weights, norms(case, pair), 1e-4),
    "ickd": lambda case, s, t, pair: ref.correlations(s[0], t[0], case.weights[0]),
    "mgd": lambda case, s, t, pair: ref.masked(s[0], t[0], case.weights[0], shown(case), 1.2e-3),
    "mgd:imagenet": lambda case, s, t, pair: ref.masked(s[0], t[0], case.weights[0], shown(case), 7e-5),
    "vid": lambda case, s, t, pair: ref.variational(s, t, case.weights),
    "review": lambda case, s, t, pair: ref.review(s, t, case.weights[0], 5.0 if pair.startswith("resnet32x4") else 1.0),
    "review:imagenet": lambda case, s, t, pair: ref.review(s, t, case.weights[0], 1.0),
    "srrl": lambda case, s, t, pair: ref.regression(s[0], t[0], case.weights[0], classifier(case, pair)),
    "at": lambda case, s, t, pair: ref.attention(s, t),
    "nst": lambda case, s, t, pair: ref.selectivity(s, t),
    "ft": lambda case, s, t, pair: ref.factors(s[0], t[0], case.weights[0]),
}
PLAIN: dict[str, Callable[[Case, list[np.ndarray], list[np.ndarray], str], float]] = {
    "cosine": lambda case, s, t, pair: ref.angle_between(s[0], t[0]),
    "sp": lambda case, s, t, pair: ref.similarities(s[0], t[0]),
    "rkd": lambda case, s, t, pair: ref.relations(s[0], t[0]),
    "pkt": lambda case, s, t, pair: ref.neighbours(s[0], t[0]),
    "cc": lambda case, s, t, pair: ref.congruence(s[0], t[0]),
    "crd": lambda case, s, t, pair: ref.contrasts(s[0], t[0], case.weights[0], case.batch.targets.numpy(), drawn()),
    "fsp": lambda case, s, t, pair: ref.flows(s, t),
    "cwd": lambda case, s, t, pair: ref.channels_apart(s[0], t[0]),
    "pearson": lambda case, s, t, pair: ref.uncorrelated(s[0], t[0]),
}
"""Without a connector between maps of as many channels, so that one pair of networks is enough."""
CASES = [(method, pair) for method in WHOLE for pair in PAIRS] + [(method, next(iter(PAIRS))) for method in PLAIN]


@pytest.mark.parametrize(("method", "pair"), CASES)
def test_the_first_loss_is_the_papers(method: str, pair: str) -> None:
    case = Case(method, pair)
    distilled = {**WHOLE, **PLAIN}[method](case, case.tensors("student"), case.tensors("teacher"), pair)
    assert case.loss == pytest.approx(case.labels() + distilled, rel=1e-5)
    assert distilled > 1e-3 * case.labels()  # else the labels' loss would hide it


def test_margins_come_from_the_batch_norms() -> None:
    """A channel that is nearly never negative gets −3σ, any other its mean negative response."""
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, 4.0]))
    _, _, places, _ = networks("resnet32x4-resnet8x4")
    margin = setting_of("ofd").terms(places)[0]["margin"]
    holder = nn.Module()
    path = places.norms()[0]
    assert path is not None
    inner = holder
    *parents, last = path.split(".")
    for name in parents:
        inner.add_module(name, nn.Module())
        inner = inner.get_submodule(name)
    inner.add_module(last, norm)
    expected = [-np.sqrt(2 / np.pi), ref.response(2.0, 1.0), -1.5]
    assert margin.make(holder).tolist() == pytest.approx(expected, rel=1e-5)
    inner.add_module(last, nn.BatchNorm2d(3, affine=False))  # mean 0, deviation 1
    assert margin.make(holder).tolist() == pytest.approx(3 * [-np.sqrt(2 / np.pi)], rel=1e-5)


def test_a_look_at_the_first_batch_leaves_no_trace_in_what_was_just_made() -> None:
    """CRD's memory and its Z, and the statistics of a connector's batch norm, begin with the first step."""
    student, teacher, places, batch = networks("resnet32x4-resnet8x4")
    for method in ("crd", "ickd"):
        (one,) = setting_of(method).terms(places)
        scheme = Distiller(student, [term(one, teacher)])
        with torch.no_grad(), evaluating(teacher):
            logits, tensors = Taps(teacher, [one["teacher"]]).run(batch.inputs)
        scheme.prepare(batch, TeacherOutput(logits, {one["teacher"]: tensors[one["teacher"]]}))
        (bound,) = scheme.terms.values()
        found = {name.rpartition(".")[2]: value for name, value in bound.state_dict().items()}
        if method == "crd":
            assert found["log_z"].isinf().all()
            assert (found["labels"] == -1).all()
        else:
            assert not found["running_mean"].any()
        assert bound.training
