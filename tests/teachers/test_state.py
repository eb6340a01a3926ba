"""A frozen teacher, its statistics and its images stay as they were, also where it was written in training mode."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Batch, Distiller, FunctionTeacher, Hardware, ModuleTeacher, Term, fit, losses
from limbeck.engine.first.answers import check_answers
from limbeck.errors import RequestError
from limbeck.tasks import Classification
from limbeck.teachers import EnsembleTeacher
from limbeck.types import TeacherOutput


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 6))


def some(samples: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.rand(samples, 6, generator=generator), torch.arange(samples) % 6, torch.arange(samples))


def traced(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings(action="ignore"):  # of TorchScript's future
        return torch.jit.trace(model, some(4).inputs, check_trace=False)


def exported(model: nn.Module) -> nn.Module:
    batch = torch.export.Dim("batch", min=2, max=64)
    return torch.export.export(model, (some(4).inputs,), dynamic_shapes=({0: batch},)).module()


def train(teacher: Any, student: nn.Module | None = None) -> None:
    loader = DataLoader(TensorDataset(*some(32)[:2]), batch_size=16)
    fit(
        Distiller(student or nn.Linear(6, 6), [Term(losses.kd)], task_weight=0.1), loader, teacher=teacher, epochs=2,
        optimizer=partial(torch.optim.SGD, lr=0.1), progress=False, hardware=Hardware("cpu"),
    )  # fmt: skip


@pytest.mark.parametrize("write", [traced, exported], ids=["TorchScript", "torch.export"])
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: lambda x: m(x)], ids=["module", "function"])
def test_what_was_written_in_training_mode_is_said_and_left_as_it_was(
    write: Callable[[nn.Module], nn.Module], wrap: Callable[[nn.Module], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    model = write(network().train())
    before = copy.deepcopy(dict(model.named_buffers()))
    train(wrap(model))
    said = capsys.readouterr().err
    assert "changes 1.num_batches_tracked, 1.running_mean and 1 more of its own as it answers" in said
    assert "gives other answers when asked again" in said
    assert {name: buffer.tolist() for name, buffer in model.named_buffers()} == {
        name: buffer.tolist() for name, buffer in before.items()
    }


@pytest.mark.parametrize("wrap", [ModuleTeacher, lambda m: FunctionTeacher(lambda x: m(x))], ids=["module", "function"])
def test_bytes_that_it_reads_at_the_second_attempt_leave_it_as_it_was(wrap: Callable[[nn.Module], Any]) -> None:
    model = traced(network().train())
    before = {name: buffer.tolist() for name, buffer in model.named_buffers()}
    teacher = wrap(model)
    for _ in range(3):
        teacher(some()._replace(inputs=(255 * some().inputs).to(torch.uint8)))
        assert {name: buffer.tolist() for name, buffer in model.named_buffers()} == before
    moved = "changes 1.num_batches_tracked, 1.running_mean and 1 more of its own as it answers"
    assert any(moved in note for note in teacher.notes)


def test_a_run_that_fails_does_not_show_what_changes() -> None:
    model = traced(network().train())
    before = model.get_buffer("1.num_batches_tracked").item()
    teacher = ModuleTeacher(model)
    with pytest.raises(RuntimeError):
        teacher(some()._replace(inputs=torch.ones(16, 5)))
    teacher(some())
    assert model.get_buffer("1.num_batches_tracked") == before
    assert len(teacher.notes) == 1


@pytest.mark.parametrize("write", [traced, exported], ids=["TorchScript", "torch.export"])
def test_what_was_written_in_eval_mode_teaches_as_its_network(
    write: Callable[[nn.Module], nn.Module], capsys: pytest.CaptureFixture[str]
) -> None:
    model = network()
    model(some(32).inputs)  # statistics that are not 0 and 1
    teacher = ModuleTeacher(write(model.eval()))
    torch.testing.assert_close(teacher(some()).output, model(some().inputs))
    assert check_answers(teacher, some(), teacher(some()), Classification(), labelled=False) == []


def test_a_counter_and_a_cache_of_a_network_in_eval_mode() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("cache", torch.empty(0))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.cache = torch.ones(len(x), 6)
            return x + self.calls - self.calls + self.cache

    model = Counts()
    teacher = ModuleTeacher(model)
    for _ in range(3):
        assert teacher(some()).output is not None
        assert model.calls == 0
    assert model.cache.shape == (16, 6)  # its own affair
    assert teacher.notes == [
        "changes calls of its own as it answers, as in training mode; they are put back after each batch"
    ]


def test_even_a_little_noise_is_said() -> None:
    for p, steady in ((0.0, True), (0.002, False)):
        torch.manual_seed(0)
        batch = Batch(torch.randn(64, 500), torch.zeros(64, dtype=torch.long), torch.arange(64))
        teacher = FunctionTeacher(lambda x, p=p: F.dropout(x, p))
        notes = check_answers(teacher, batch, teacher(batch), Classification(), labelled=False)
        assert (notes == []) == steady


def test_a_model_that_is_quantised_by_the_batch_is_steady() -> None:
    def quantised(x: Tensor) -> Tensor:
        scale = x.abs().max() / 127
        return (x / scale).round() * scale

    teacher = FunctionTeacher(quantised)
    batch = some()._replace(inputs=torch.randn(16, 6, generator=torch.Generator().manual_seed(4)))
    half = quantised(batch.inputs)[:8] - quantised(batch.inputs[:8])
    assert half.abs().max() > 1e-4  # half of the batch does get other answers
    assert check_answers(teacher, batch, teacher(batch), Classification(), labelled=False) == []


class Writes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sub_(0.5).mul_(4)


def subtracts(x: Tensor) -> Tensor:
    x -= 0.5
    return 4 * x


def on_arrays(x: Any) -> Any:
    x -= 0.5
    return 4 * x


def shares_memory(x: Tensor) -> Any:
    return on_arrays(x.numpy())


@pytest.mark.parametrize(
    "make",
    [
        Writes,
        lambda: subtracts,
        lambda: FunctionTeacher(on_arrays, numpy=True),
        lambda: shares_memory,
        lambda: EnsembleTeacher([ModuleTeacher(Writes()), ModuleTeacher(nn.Identity())]),
        lambda: ModuleTeacher(nn.Identity(), inputs=Writes()),
    ],
    ids=["module", "function", "arrays", "tensor's own array", "ensemble", "preparation"],
)
def test_a_teacher_may_write_into_what_it_gets(make: Callable[[], Any]) -> None:
    seen: list[Tensor] = []

    class Student(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach().clone())
            return super().forward(x)

    train(make(), Student(6, 6))
    assert torch.equal(seen[-1], some(32).inputs[16:])
    assert torch.equal(seen[-2], some(32).inputs[:16])


def test_the_answer_is_that_to_the_images_as_they_are() -> None:
    for teacher in (ModuleTeacher(Writes()), FunctionTeacher(subtracts), FunctionTeacher(on_arrays, numpy=True)):
        torch.testing.assert_close(teacher(some()).output, 4 * (some().inputs - 0.5))
        torch.testing.assert_close(teacher(some()).output, 4 * (some().inputs - 0.5))


def test_a_teacher_of_ones_own_that_writes_is_refused() -> None:
    class Own:
        fingerprint = "own"

        def __call__(self, batch: Batch) -> TeacherOutput:
            return TeacherOutput(subtracts(batch.inputs))

    with pytest.raises(RequestError, match=r"writes into its inputs, which the student reads too: .* x\.clone\(\)"):
        train(Own())


def test_an_ensemble_says_how_its_members_are_run() -> None:
    member = ModuleTeacher(traced(network().train()))
    ensemble = EnsembleTeacher({"a": ModuleTeacher(network()), "b": member})
    ensemble(some())
    assert ensemble.notes == [f"b {note}" for note in member.notes]
    assert len(member.notes) == 1
