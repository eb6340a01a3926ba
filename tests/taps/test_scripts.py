"""Hidden tensors of TorchScript: those that forward hooks show in the network that it was made from."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Distiller, Hardware, ModuleTeacher, Term, fit, losses
from limbeck.errors import RequestError
from limbeck.taps import Taps, trace
from limbeck.types import Batch

NAMES = ["stem", "blocks.0.norm", "blocks.0.act", "blocks.1.norm", "blocks.1:in", "blocks", "head:in"]
IMAGES = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


class Block(nn.Module):
    """Its activation works in place, on what its norm has given; two of them share a type in a scripted network."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.act = nn.Linear(5, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.linear(x))) + x


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = nn.Linear(4, 5), nn.Sequential(Block(), Block()), nn.Linear(5, 3)

    def forward(self, x: Tensor, factor: float = 2.0) -> Tensor:
        return self.head(self.blocks(self.stem(x))) * factor


class Loops(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.step, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        while bool(x.sum() > 1000):
            x = self.step(x)
        return self.head(x)


@pytest.fixture
def network() -> Network:
    made = Network()
    made(torch.randn(32, 4))  # statistics that are not 0 and 1
    return made.eval()


@pytest.fixture(params=["script", "trace"])
def write(request: pytest.FixtureRequest) -> Callable[[nn.Module], nn.Module]:
    def written(model: nn.Module) -> nn.Module:
        with warnings.catch_warnings(action="ignore"):  # of TorchScript's future
            made: nn.Module = torch.jit.script(model) if request.param == "script" else torch.jit.trace(model, IMAGES)
        return made

    return written


def test_taps_are_what_hooks_show(network: Network, write: Callable[[nn.Module], nn.Module]) -> None:
    script = write(network)
    for _ in range(3):  # TorchScript optimizes what has run twice
        script(IMAGES)
    expected_output, expected = Taps(network, NAMES).run(IMAGES)
    taps = Taps(script, NAMES)
    for _ in range(3):
        output, found = taps.run(IMAGES)
        torch.testing.assert_close(output, expected_output)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, msg=name)
    assert not (expected["blocks.0.norm"] >= 0).all()  # nothing has worked on it in place
    assert "forward" not in vars(script)


def test_they_are_listed_as_those_of_the_network(network: Network, write: Callable[[nn.Module], nn.Module]) -> None:
    assert trace(write(network), IMAGES) == trace(network, IMAGES)


def test_a_script_within_a_model(network: Network, write: Callable[[nn.Module], nn.Module]) -> None:
    outer = nn.Sequential(write(network), nn.ReLU())
    names = ["0", "0.blocks.1", "0:in", "1"]
    for name, tensor in Taps(nn.Sequential(network, nn.ReLU()), names).run(IMAGES)[1].items():
        torch.testing.assert_close(Taps(outer, names).run(IMAGES)[1][name], tensor, msg=name)
    assert trace(outer, IMAGES) == trace(nn.Sequential(network, nn.ReLU()), IMAGES)


def test_keywords_and_defaults(network: Network) -> None:
    with warnings.catch_warnings(action="ignore"):  # of TorchScript's future
        script = torch.jit.script(network)
    with Taps(script, ["stem"]).capture():
        torch.testing.assert_close(script(x=IMAGES, factor=3.0), network(IMAGES, 3.0))
        torch.testing.assert_close(script(IMAGES), network(IMAGES))
        with pytest.raises(TypeError, match="'x'"):
            script(factor=3.0)


def test_weights_dtype_and_mode_are_the_scripts_own(network: Network, write: Callable[[nn.Module], nn.Module]) -> None:
    script = write(network)
    taps = Taps(script, ["blocks"])
    twin = copy.deepcopy(network).double()
    script.double()
    with torch.no_grad():
        for model in (script, twin):
            model.stem.weight.mul_(2)  # type: ignore[union-attr, operator]  # torch: Tensor | Module
    torch.testing.assert_close(taps.run(IMAGES.double())[1]["blocks"], twin.blocks(twin.stem(IMAGES.double())))


def test_a_scripted_student_learns_from_a_hint_as_its_network_does(network: Network) -> None:
    with warnings.catch_warnings(action="ignore"):  # of TorchScript's future
        script = torch.jit.script(copy.deepcopy(network))
    teacher = copy.deepcopy(network)
    data = DataLoader(TensorDataset(IMAGES, torch.arange(6) % 3), batch_size=3)
    results = []
    for student in (network, script):
        hint = Term(losses.mse, student="blocks.0", teacher="blocks.1")
        done = fit(
            Distiller(student, [hint], task_weight=0.5), data, teacher=teacher, epochs=2, progress=False,
            optimizer=partial(torch.optim.SGD, lr=0.1), hardware=Hardware("cpu"), precision="32-true",
        )  # fmt: skip
        results.append({name: value.detach().clone() for name, value in done.student.state_dict().items()})
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, msg=name)
    assert results[0]["blocks.0.norm.num_batches_tracked"] == 5  # one before, and two in each epoch


def test_what_a_script_does_not_show_is_refused() -> None:
    with warnings.catch_warnings(action="ignore"):  # of TorchScript's future
        script = torch.jit.script(Loops().eval())
    with pytest.raises(RequestError, match=r"tap 'step' of .* within a loop or a branch, or not at all; it shows head"):
        Taps(script, ["step"])
    with pytest.raises(RequestError, match=r"unknown tap of .* 'steps'; did you mean step"):
        Taps(script, ["steps"])


def test_a_frozen_script_teaches_and_shows_nothing(network: Network, write: Callable[[nn.Module], nn.Module]) -> None:
    with warnings.catch_warnings(action="ignore"):  # of TorchScript's future
        frozen: Any = torch.jit.freeze(write(network))  # type: ignore[no-untyped-call]
    found = ModuleTeacher(frozen)(Batch(IMAGES, torch.zeros(6, dtype=torch.long), torch.arange(6)))
    torch.testing.assert_close(found.output, network(IMAGES))
    assert trace(frozen, IMAGES) == []
    with pytest.raises(RequestError, match="unknown tap"):
        Taps(frozen, ["blocks"]).run(IMAGES)
