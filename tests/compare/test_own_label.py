"""The recipe's own way to distil is called by what it does."""

from __future__ import annotations

from typing import Any

import pytest

from limbeck.compare.labels import own_label
from limbeck.recipes.read import check, read

PLAIN: dict[str, Any] = {"student": {"model": "mlp"}, "teacher": {"model": "mlp", "epochs": 1}}


@pytest.mark.parametrize(
    ("recipe", "label"),
    [
        ("mnist-mlp", "kd T=7"),
        ("mnist-mlp:best", "dist:imagenet"),
        ("fashion-cnn", "kd"),
        ("fashion-cnn:two-teachers", "dist-cnn + dist-mlp"),
        ("digits-born-again", "born-again: kd T=4"),
        ("digits-byot", "self"),
        ("cifar10-tutorial:cosine", "cosine of flatten"),
    ],
)
def test_packaged_recipes(recipe: str, label: str) -> None:
    assert own_label(read(recipe)) == label


@pytest.mark.parametrize(
    ("temperature", "label"),
    [
        ({"name": "linear", "from": 8, "to": 0.5, "epochs": 2}, "kd T=8 → 0.5"),
        ({"name": "step", "from": 4, "milestones": [1]}, "kd T=4 by step"),
    ],
)
def test_a_temperature_by_epoch_says_where_it_goes(temperature: dict[str, Any], label: str) -> None:
    assert own_label(check(PLAIN | {"distill": {"terms": [{"loss": "kd", "temperature": temperature}]}})) == label


def test_beside_a_method_of_the_same_name_it_says_recipe() -> None:
    recipe = check(PLAIN | {"distill": {"method": "kd"}})
    assert own_label(recipe, ["baseline", "kd"]) == "kd (recipe)"
    assert own_label(recipe, ["baseline", "dkd"]) == "kd"
    several = {"loss": "mse", "student": ["a", "b"], "teacher": ["a", "b"], "temperature": 2.5}
    assert own_label(check(PLAIN | {"distill": {"terms": [several]}})) == "mse of maps T=2.5"
