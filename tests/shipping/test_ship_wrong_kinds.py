"""What is given to `ship` in a place where something of another kind belongs: one line, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.shipping import OwnModel, latency, ship
from limbeck.tasks import Classification


def pairs(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.rand(4, 32, 6, generator=torch.Generator().manual_seed(seed))
    return [(batch, batch[:, :3].argmax(1)) for batch in x]


@pytest.mark.parametrize(
    ("what", "given"),
    [
        *[(what, 5) for what in ("network", "teacher", "baseline", "test", "validation", "mean", "task", "name")],
        ("network", None),
        ("test", None),
        ("test", torch.rand(8, 6)),
        ("mean", "a"),
        ("mean", [0.1]),
        ("class_names", "abc"),
        ("task", Classification),
    ],
)
def test_a_part_of_another_kind_is_refused_in_one_line(tmp_path: Path, what: str, given: Any) -> None:
    parts: dict[str, Any] = {"network": nn.Linear(6, 3), "test": pairs(2), what: given}
    with pytest.raises(RequestError, match="mean and std" if what == "mean" else what) as error:
        ship(OwnModel(**parts), out=tmp_path / "out", int8=False)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "given",
    [
        {"tolerance": "0.3"},
        {"tolerance": None},
        {"seconds": "5"},
        {"batch": 5},
        {"batch": []},
        {"batch": "1"},
        {"threads": True},
        {"calibration_samples": "x"},
        {"formats": "onnx"},
        {"formats": 5},
        {"preprocessing": 5},
        {"out": 5},
    ],
    ids=str,
)
def test_an_option_of_another_kind_is_refused_in_one_line(tmp_path: Path, given: dict[str, Any]) -> None:
    (what,) = given
    with pytest.raises(RequestError, match=what.removeprefix("calibration_")) as error:
        ship(OwnModel(nn.Linear(6, 3), test=pairs(2)), **{"out": tmp_path / "out", "int8": False, **given})
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("runs", [5, None, [5], nn.Linear(2, 2), {}], ids=repr)
def test_what_is_neither_a_folder_nor_a_network_is_refused(tmp_path: Path, runs: Any) -> None:
    with pytest.raises(RequestError, match="ship takes folders of finished runs, or OwnModel"):
        ship(runs, out=tmp_path / "out")


def test_a_function_makes_the_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 8)
    own = OwnModel(nn.Linear(6, 3), test=lambda: iter(pairs(2)))
    found = ship(own, out=tmp_path / "out", int8=False, formats=["safetensors"], batch=[1], memory=False)
    again = OwnModel(own.network, test=pairs(2))
    listed = ship(again, out=tmp_path / "listed", int8=False, formats=["safetensors"], batch=[1], memory=False)
    assert found["rows"][0]["score"] == listed["rows"][0]["score"]
