"""A loader, or a function, that gives the same memory each time is trained with and evaluated as any other."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from limbeck import Batch, Distiller, FunctionTeacher, Hardware, SelfDistiller, Term, diagnose, evaluate, fit, losses
from limbeck.data import InMemory
from limbeck.measure.early_exit import ask_exits
from limbeck.measure.evaluation import evaluate_teacher
from limbeck.models.networks.multi_exit import Exits

SGD = partial(torch.optim.SGD, lr=0.1)


class Fresh:
    """Batches of 8 samples in memory of their own."""

    def __init__(self, data: InMemory, pairs: bool = True) -> None:
        self.data, self.pairs = data, pairs

    def __len__(self) -> int:
        return len(self.data.targets) // 8

    def __iter__(self) -> Iterator[Batch | tuple[Tensor, Tensor]]:
        for at in range(0, len(self.data.targets), 8):
            yield self.made(self.data.inputs[at : at + 8].clone(), self.data.targets[at : at + 8].clone(), at)

    def made(self, inputs: Tensor, targets: Tensor, at: int) -> Batch | tuple[Tensor, Tensor]:
        return (inputs, targets) if self.pairs else Batch(inputs, targets, torch.arange(at, at + 8))


class Reusing(Fresh):
    """The same batches, each in the memory of the one before, which is written without torch's knowledge."""

    def __iter__(self) -> Iterator[Batch | tuple[Tensor, Tensor]]:
        inputs, targets, index = self.data.inputs[:8].clone(), self.data.targets[:8].clone(), torch.arange(8)
        for at in range(0, len(self.data.targets), 8):
            for buffer, source in ((inputs, self.data.inputs), (targets, self.data.targets)):
                buffer.numpy()[:] = source[at : at + 8].numpy()
            index.numpy()[:] = range(at, at + 8)
            yield (inputs, targets) if self.pairs else Batch(inputs, targets, index)


@pytest.mark.parametrize("accumulate_steps", [1, 3])
def test_training_and_its_metrics(accumulate_steps: int, blobs: InMemory) -> None:
    runs = []
    for kind in (Fresh, Reusing):
        torch.manual_seed(1)
        crd = Term(losses.CRD, student="0", teacher="0", samples=len(blobs.targets), negatives=8, weight=0.1)
        student, teacher = (nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)) for _ in range(2))
        options = {
            "epochs": 2,
            "optimizer": SGD,
            "progress": False,
            "hardware": Hardware("cpu"),
            "accumulate_steps": accumulate_steps,
        }
        run = fit(Distiller(student, [crd]), kind(blobs, pairs=False), teacher=teacher, **options)
        runs.append([{k: v for k, v in record.items() if k != "seconds"} for record in run.metrics])
    assert runs[0] == runs[1]
    assert runs[0][-1]["accuracy"] > 0.5


def test_evaluation(blobs: InMemory) -> None:
    model = nn.Linear(4, 3)
    held = torch.empty(8, 3)

    def same_memory(x: Tensor) -> Tensor:
        held.numpy()[:] = model(x).detach().numpy()
        return held

    for answer in (model, same_memory):
        assert evaluate(answer, Reusing(blobs)) == evaluate(model, Fresh(blobs))
        assert evaluate_teacher(FunctionTeacher(answer), Reusing(blobs)) == evaluate(model, Fresh(blobs))
        found, wanted = (
            diagnose(FunctionTeacher(by), of, of) for by, of in ((answer, Reusing(blobs)), (model, Fresh(blobs)))
        )
        assert found == wanted


class TwoExits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.early, self.late = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Exits:
        return Exits((self.late(x), self.early(x)), (x, x))


def test_exits(blobs: InMemory) -> None:
    scheme = SelfDistiller(TwoExits())
    found, wanted = (ask_exits(scheme, kind(blobs)) for kind in (Reusing, Fresh))
    assert torch.equal(found.hits, wanted.hits)
    assert torch.equal(found.confidence, wanted.confidence)


def test_samples_without_a_label_are_evaluated_as_if_they_were_not_there(blobs: InMemory) -> None:
    model, scheme = nn.Linear(4, 9), SelfDistiller(TwoExits())
    hidden = InMemory(blobs.inputs, torch.where(torch.arange(96) % 3 == 0, -100, blobs.targets))
    left = InMemory(blobs.inputs[hidden.targets >= 0], blobs.targets[hidden.targets >= 0])
    other = FunctionTeacher(nn.Linear(4, 9))
    found, wanted = (evaluate(model, Fresh(data), teacher=other).as_dict() for data in (hidden, left))
    agreement = evaluate(model, Fresh(blobs), teacher=other)["agreement"]
    assert wanted["samples"] == 64
    assert found == pytest.approx(wanted | {"agreement": agreement})
    one, two = (ask_exits(scheme, Fresh(data)) for data in (hidden, left))
    assert torch.equal(one.hits, two.hits)
    assert torch.equal(one.ensemble, two.ensemble)
    teacher = FunctionTeacher(model)
    diagnosed, wanted_too = (diagnose(teacher, Fresh(data), Fresh(data)) for data in (hidden, left))
    for name in ("train_accuracy", "held_out_accuracy", "calibration_error"):
        assert getattr(diagnosed, name) == pytest.approx(getattr(wanted_too, name))
    assert diagnosed.samples == 96
    none = InMemory(blobs.inputs, torch.full((96,), -100))
    for ask in (lambda: evaluate(model, Fresh(none)), lambda: ask_exits(scheme, Fresh(none))):
        with pytest.raises(ValueError, match="no sample has a label"):
            ask()
