"""Self-distillation on CIFAR-100 as packaged: the constants of the authors' journal code."""

from __future__ import annotations

import pytest
import torch

from limbeck.data import DataSet, InMemory
from limbeck.distillers import SelfDistiller
from limbeck.models.networks.multi_exit import MultiExit
from limbeck.recipes.read import read
from limbeck.runs import components, learners
from limbeck.runs.checks import dry_run


@pytest.fixture
def cifar() -> DataSet:
    """Random pixels, cut as CIFAR-100 is."""
    pixels = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8)
    split = InMemory(pixels, torch.arange(256) % 100)
    return DataSet("cifar100", split, split, 100, (3, 32, 32), split)


@pytest.mark.parametrize("name", ["byot-resnet18", "byot-resnet50"])
def test_constants_are_the_published_ones(name: str) -> None:
    recipe = read(name)
    assert (recipe.data.name, recipe.data.batch_size, recipe.epochs, recipe.keep) == (
        "cifar100",
        128,
        250,
        "best",
    )
    assert recipe.data.validation == 0.1
    assert recipe.distill.options == {"soft_weight": 0.3, "hint_weight": 0.03, "temperature": 3}
    assert recipe.optimizer.name == "sgd"
    assert recipe.optimizer.lr == 0.1
    assert recipe.optimizer.options == {"momentum": 0.9, "weight_decay": 5e-4}


def test_the_rate_falls_at_a_third_two_thirds_and_ten_epochs_before_the_end() -> None:
    schedule = components.schedule(read("byot-resnet18").schedule, 250)
    assert schedule
    rates = [round(schedule(epoch), 6) for epoch in range(250)]
    falls = [epoch for epoch in range(1, 250) if rates[epoch] != rates[epoch - 1]]
    assert falls == [250 // 3, 250 * 2 // 3, 250 - 10]
    assert sorted(set(rates), reverse=True) == [1.0, 0.1, 0.01, 0.001]


def test_resnet18_has_four_exits_of_a_hundred_classes(cifar: DataSet) -> None:
    recipe = read("byot-resnet18")
    student = components.model(recipe.student, cifar, 0)
    assert isinstance(student, MultiExit)
    dry_run(recipe, student, [], cifar)
    scheme = learners.scheme(student, recipe, cifar)
    assert isinstance(scheme, SelfDistiller)
    assert (scheme.soft_weight, scheme.hint_weight, scheme.temperature) == (0.3, 0.03, 3)
    with torch.no_grad():
        said = scheme.eval().predictions(torch.rand(2, 3, 32, 32))
    assert list(said) == ["exit 1/4", "exit 2/4", "exit 3/4", "exit 4/4", "ensemble"]
    assert {tuple(one.shape) for one in said.values()} == {(2, 100)}
