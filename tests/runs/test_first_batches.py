"""Recipes whose student is lazy, ends in a softmax, or meets a batch of one sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from limbeck.errors import RequestError
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.run import run

NETWORKS = """
from torch import nn

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(10))

def soft():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1))
"""
RECIPE: dict[str, Any] = {
    "name": "first",
    "data": {"name": "digits", "batch_size": 359},  # 1437 = 4 · 359 + 1
    "teacher": {"model": "mlp", "hidden": [16], "epochs": 1},
    "student": {"model": "first_networks:lazy"},
    "distill": {"method": "kd"},
    "epochs": 2,
}


@pytest.fixture(autouse=True)
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first_networks.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)


def go(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return run(check(RECIPE | changes), root=tmp_path, out=tmp_path / "run", machine=Machine(progress=False))


def test_a_lazy_student_trains_and_its_last_batch_of_one_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = go(tmp_path)
    assert result["distilled"]["parameters"] == 64 * 8 + 8 + 2 * 8 + 8 * 10 + 10
    for name in ("baseline", "student"):
        assert load_file(tmp_path / "run" / f"{name}.safetensors")["2.num_batches_tracked"] == 2 * 4
    said = capsys.readouterr().err
    assert all(f"{phase}: 1 of 5 batches holds a single sample" in said for phase in ("baseline", "student"))
    assert "teacher: 1 of 5 batches" not in said  # which has no batch norm


def test_a_lazy_teacher_without_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the teacher is not trained: its lazy layer 1 has never run"):
        go(tmp_path, teacher={"model": "first_networks:lazy"})


@pytest.mark.parametrize(
    ("changes", "who"),
    [
        ({"student": {"model": "first_networks:soft"}}, "student"),
        ({"teacher": {"model": "first_networks:soft", "epochs": 1}}, "teacher"),
    ],
)
def test_a_softmax_is_found_before_anything_is_written(tmp_path: Path, changes: dict[str, Any], who: str) -> None:
    with pytest.raises(RequestError, match=f"the {who} ends in probabilities"):
        go(tmp_path, **changes)
    assert not (tmp_path / "run").exists()
