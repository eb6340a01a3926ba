"""How a recipe's teachers are to compute."""

from __future__ import annotations

from typing import Any

import pytest

from limbeck.engine.devices import fabric
from limbeck.recipes.read import check
from limbeck.runs import components, teachers
from limbeck.runs.machine import Machine

RECIPE: dict[str, Any] = {
    "name": "dtypes",
    "data": {"name": "digits", "batch_size": 32},
    "teacher": {"model": "mlp", "hidden": [16], "epochs": 1},
    "student": {"model": "mlp", "hidden": [8]},
    "distill": {"method": "kd"},
    "epochs": 1,
}


@pytest.mark.parametrize(
    ("more", "dtype"),
    [
        ({}, "float32"),  # too few samples use each weight
        ({"store": {"batch_size": 1000}}, "bfloat16"),
        ({"store": {"batch_size": 1000}, "dtype": "float32"}, "float32"),
        ({"store": {"where": "never", "batch_size": 1000}}, "float32"),  # it is asked about a student's batch
    ],
)
def test_bf16_depends_on_the_samples_asked_at_once(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], dtype: str
) -> None:
    monkeypatch.setattr(fabric, "_multiplies_bf16", lambda kind: True)
    recipe = check(RECIPE | {"teacher": RECIPE["teacher"] | more})
    (one,) = teachers.candidates(recipe, components.data(recipe.data, None), Machine(accelerator="cpu"))
    assert one.spec.dtype == dtype
