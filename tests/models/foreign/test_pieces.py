"""Models for batches of one size alone teach batches of any size, as the networks that they were made from."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Batch, Distiller, FunctionTeacher, Hardware, ModuleTeacher, Term, fit, losses
from limbeck.errors import RequestError
from limbeck.models.foreign.pieces import Pieces, fixed_batch, pieces


class Folds(nn.Module):
    """Reshapes to the number of samples that it got when it was traced."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(48, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        rows = len(x)
        return self.out(torch.relu(self.hidden(x.reshape(rows, -1))).view(rows, 12))


def batch(samples: int) -> Batch:
    generator = torch.Generator().manual_seed(samples)
    return Batch(torch.rand(samples, 3, 4, 4, generator=generator), torch.arange(samples) % 5, torch.arange(samples))


@pytest.fixture
def network() -> Folds:
    torch.manual_seed(0)
    return Folds().eval()


def traced(network: nn.Module, samples: int) -> nn.Module:
    with warnings.catch_warnings(action="ignore"):  # of what is not traced, and of TorchScript's future
        return torch.jit.trace(network, batch(samples).inputs)


def exported(network: nn.Module, samples: int) -> nn.Module:
    return torch.export.export(network, (batch(samples).inputs,)).module()


@pytest.mark.parametrize("write", [traced, exported])
@pytest.mark.parametrize("samples", [1, 4])
def test_every_size_gets_the_networks_answers(network: Folds, write: object, samples: int) -> None:
    teacher = ModuleTeacher(write(network, samples))  # type: ignore[operator]
    for size in (10, 4, 1, 7):
        torch.testing.assert_close(teacher(batch(size)).output, network(batch(size).inputs))
    one = "one sample at a time" if samples == 1 else "in pieces of 4 samples"
    (note,) = teacher.notes
    assert note.startswith(f"takes batches of {samples} alone, and runs {one}")


def test_the_size_of_a_program_is_read_from_it(network: Folds) -> None:
    assert fixed_batch(exported(network, 4)) == 4
    any_size = {0: torch.export.Dim("batch", min=2, max=64)}
    example = (batch(4).inputs,)
    free = torch.export.export(network.hidden, (torch.rand(4, 48),), dynamic_shapes=(any_size,))
    assert fixed_batch(free.module()) is None
    assert fixed_batch(torch.export.unflatten(torch.export.export(network, example))) == 4
    assert fixed_batch(network) is None


def test_a_short_last_batch_trains_and_is_said_before(network: Folds, capsys: pytest.CaptureFixture[str]) -> None:
    x, y, *_ = batch(40)
    fit(
        Distiller(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), [Term(losses.kd)], task_weight=0.5),
        DataLoader(TensorDataset(x, y), batch_size=16), teacher=exported(network, 16), epochs=2,
        optimizer=partial(torch.optim.SGD, lr=0.1), progress=False, hardware=Hardware("cpu"),
    )  # fmt: skip
    said = [line for line in capsys.readouterr().err.splitlines() if "takes batches of 16 alone" in line]
    assert len(said) == 1


def test_features_come_in_pieces_too() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.pairs = nn.Linear(48, 12), nn.Linear(24, 3)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.hidden(x.view(4, 48))
            return hidden + self.pairs(hidden.view(2, 24)).mean()

    model = Fixed()
    program = torch.export.unflatten(torch.export.export(model, (batch(4).inputs,)))
    found = ModuleTeacher(program, ["hidden"])(batch(6))
    torch.testing.assert_close(found.features["hidden"], model.hidden(batch(6).inputs.flatten(1)).detach())
    with pytest.raises(RequestError, match=r"pairs of shape \(2, 3\) is not one value a sample"):
        ModuleTeacher(program, ["pairs"])(batch(6))


def test_a_function_that_takes_one_sample_and_named_inputs() -> None:
    def alone(left: Tensor, right: Tensor) -> Tensor:
        assert len(left) == 1
        return left - 2 * right

    x = {"left": torch.rand(5, 3), "right": torch.rand(5, 3)}
    teacher = FunctionTeacher(alone)
    found = teacher(Batch(x, torch.zeros(5, dtype=torch.long), torch.arange(5))).output
    torch.testing.assert_close(found, x["left"] - 2 * x["right"])
    assert teacher.notes[0].startswith("takes batches of 1 alone, and runs one sample at a time")


def test_a_failure_that_no_size_mends_is_raised_as_it_was() -> None:
    calls: list[int] = []

    def broken(x: Tensor) -> Tensor:
        calls.append(len(x))
        raise ConnectionError("the service is away")

    with pytest.raises(ConnectionError, match="the service is away"):
        FunctionTeacher(broken)(batch(8))
    assert calls == [8, 1]


def test_a_size_that_worked_once_is_not_cut_when_it_fails_later() -> None:
    calls: list[int] = []

    def falters(x: Tensor) -> Tensor:
        calls.append(len(x))
        if len(calls) == 2:
            raise ConnectionError("for a moment")
        return x.flatten(1)

    teacher = FunctionTeacher(falters)
    teacher(batch(8))
    with pytest.raises(ConnectionError):
        teacher(batch(8))
    teacher(batch(8))
    assert calls == [8, 8, 8]


def test_pieces_are_whole_and_the_last_is_filled_up() -> None:
    parts = [part.tolist() for part in pieces(torch.arange(7), 7, 3)]
    assert parts == [[0, 1, 2], [3, 4, 5], [6, 6, 6]]
    assert Pieces().run(lambda x: {"logits": 2 * x}, torch.arange(3), 3)["logits"].tolist() == [0, 2, 4]
