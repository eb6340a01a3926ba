"""What `plan` says of a step's memory, beside measured steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning_fabric import Fabric

from limbeck.cli.planned import _step_memory
from limbeck.recipes.read import check
from limbeck.runs import components
from limbeck.runs.cost import step_memory
from limbeck.runs.cost.step_memory import solved

NET = {"model": "transformer", "dim": 8, "depth": 4, "heads": 2}
DATA = {"tokenizer": "bytes", "length": 32, "part": 0.003, "sources": False}


def measured(length: int = 32, **student: Any) -> dict[str, Any]:
    recipe = check(
        {
            "data": {"name": "python-docs", "batch_size": 4, "options": DATA | {"length": length}},
            "teacher": {**NET, "epochs": 1},
            "student": NET | student,
            "distill": {"terms": [{"loss": "kd"}]},
        }
    )
    data = components.data(recipe.data, Path())
    made = components.model(recipe.student, data, 0)
    return step_memory.step_memory(recipe, made, data, Fabric(accelerator="cpu"))


def test_a_parabola_is_solved_for_the_length() -> None:
    sizes = [100 + 7 * n + 2 * n * n for n in (8, 16, 32)]
    assert solved([8, 16, 32], sizes, 100 + 7 * 500 + 2 * 500 * 500) == 500
    assert solved([8, 16, 32], [100 + 7 * n for n in (8, 16, 32)], 100 + 7 * 900 + 6) == 900
    assert solved([8, 16, 32], sizes, 50) == 0


def test_a_step_at_the_length_that_is_said_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 6_000_000
    monkeypatch.setattr(step_memory, "_memory", lambda device: limit)
    found = measured()
    longest = found["longest"]
    assert longest > 64
    there, beyond = measured(longest), measured(round(1.1 * longest))
    assert there["step_bytes"] + there["weight_bytes"] <= 1.02 * limit
    assert beyond["step_bytes"] + beyond["weight_bytes"] > limit
    assert not found["recomputed"]
    less = measured(gradient_checkpointing=True)
    assert less["recomputed"]
    assert less["step_bytes"] < 0.9 * found["step_bytes"]
    assert less["longest"] > longest
    line = _step_memory(less, 4)
    assert "blocks computed anew" in line
    assert f"about {less['longest']:,} tokens fit 6.0 MB at batches of 4" in line
    learned = measured(positions="learned")
    assert learned["longest"] == 32, "there are no more positions"
