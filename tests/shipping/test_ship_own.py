"""A network of the user's own is shipped with its loaders; what lacks is named, and nothing is written."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.shipping import OwnModel, latency, memory, ship
from limbeck.tasks import Classification

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def pairs(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 32, 6, generator=generator)
    return [(batch, batch[:, :3].argmax(1)) for batch in x]


class Several(nn.Linear):
    """Gives two tensors by name."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return {"wrong": -super().forward(x), "scores": super().forward(x)}


@pytest.mark.parametrize(("kind", "output"), [(nn.Linear, None), (Several, "scores")])
def test_a_network_with_loaders(
    kind: type[nn.Linear], output: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 8)
    network, task = kind(6, 3), Classification(output=output)
    with torch.no_grad():  # it says which of the first three numbers is the largest
        network.weight.copy_(10 * torch.eye(3, 6))
        network.bias.zero_()
    own = OwnModel(network, test=pairs(2), class_names=["a", "b", "c"], name="mine", task=task)
    found = ship(own, out=tmp_path / "out", int8=False, formats=["safetensors", "onnx"], batch=[1], memory=False)
    assert [row["score"] for row in found["rows"]] == [1.0, 1.0]
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"distilled.onnx", "limbeck.json", "ship.json"}


def test_the_teachers_outputs_are_kept_for_one_batch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 8)
    given: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    class Teacher(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output = super().forward(x)
            if len(x) == 32:  # a batch of the test set
                given.append(weakref.ref(output))
                alive.append(sum(one() is not None for one in given))
            return output

    own = OwnModel(nn.Linear(6, 3), test=pairs(2), teacher=Teacher(6, 3))
    found = ship(own, out=tmp_path / "out", int8=False, formats=["safetensors"], batch=[1], memory=False)
    assert all(row["agreement"] is not None for row in found["rows"])
    assert len(alive) == 2 * 4, "asked once for the agreement of all rows, and read once as a row of its own"
    assert max(alive) <= 3, "of four batches"


def test_where_there_is_no_peak_memory_the_row_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 8)
    own = OwnModel(nn.Linear(6, 3), test=pairs(2))
    found = ship(own, out=tmp_path / "out", int8=False, formats=["onnx"], batch=[1], progress=False)
    in_torch, in_onnx = found["rows"]
    assert (in_torch["peak_memory_bytes"], in_torch["peak_memory_missing"]) == (None, memory.NO_FILE)
    assert in_onnx["peak_memory_bytes"] > 10**7
    assert in_onnx["peak_memory_missing"] is None
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    peak = memory.peak(tmp_path / "broken.onnx", "onnx", {"input": torch.ones(1, 6)}, 1)
    assert peak.bytes is None
    assert "a process cannot load broken.onnx by itself: " in str(peak.missing)
    assert "\n" not in str(peak.missing)


@pytest.mark.parametrize("lacking", ["calibration", "validation"])
def test_int8_needs_data(tmp_path: Path, lacking: str) -> None:
    given: dict[str, Any] = {"calibration": pairs(0), "validation": pairs(1)}
    del given[lacking]
    with pytest.raises(RequestError, match=f"int8 needs {lacking} data"):
        ship(OwnModel(nn.Linear(6, 3), test=pairs(2), **given), out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_user_s_networks_stay_as_they_are_and_agree_on_normalised_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 8)
    torch.manual_seed(0)
    network, teacher = (nn.Sequential(nn.Flatten(), nn.Linear(8, 3)).train() for _ in range(2))
    x = torch.rand(64, 2, 2, 2)
    mean, std = [0.9, 0.1], [0.2, 0.5]
    ready = (x - torch.tensor(mean).view(2, 1, 1)) / torch.tensor(std).view(2, 1, 1)
    with torch.no_grad():
        choices, taught = network(ready).argmax(1), teacher(ready).argmax(1)
    own = OwnModel(network, test=[(x, choices)], teacher=teacher, mean=mean, std=std)
    found = ship(own, out=tmp_path / "out", int8=False, formats=["onnx"], batch=[1], memory=False, progress=False)
    (row,) = (one for one in found["rows"] if (one["model"], one["runtime"]) == ("distilled", "onnx"))
    assert row["score"] == 1.0
    assert row["agreement"] == pytest.approx((choices == taught).float().mean().item(), abs=1e-6)
    assert network.training
    assert teacher.training


def test_batches_that_the_network_cannot_read_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the network cannot read the test batches: mat1 and mat2") as error:
        ship(OwnModel(nn.Linear(5, 3), test=pairs(2)), out=tmp_path / "out", int8=False)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["test", "calibration", "validation"])
def test_an_iterator_that_is_read_once_is_refused(tmp_path: Path, what: str) -> None:
    given: dict[str, Any] = {"test": pairs(0), "calibration": pairs(1), "validation": pairs(2)}
    given[what] = iter(given[what])
    with pytest.raises(RequestError, match=f"{what} is read several times, and an iterator is over after one"):
        ship(OwnModel(nn.Linear(6, 3), **given), out=tmp_path / "out", progress=False)
    assert list(tmp_path.iterdir()) == []
    assert len(list(given[what])) == 4, "nothing of it is used up"


def test_a_teacher_that_cannot_read_the_batches_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    own = OwnModel(nn.Linear(6, 3), test=pairs(2), teacher=nn.Linear(5, 3))
    with pytest.raises(RequestError, match="the teacher cannot read the test batches: mat1 and mat2"):
        ship(own, out=tmp_path / "out", int8=False, formats=["safetensors"], progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_of_a_network_that_cannot_be_exported_one_line_is_said(
    form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Looks(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    with pytest.raises(RequestError, match="Could not guard on data-dependent") as error:
        ship(OwnModel(Looks(6, 3), test=pairs(2)), out=tmp_path / "out", int8=False, formats=[form], progress=False)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
