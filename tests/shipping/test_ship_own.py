"""A network of the user's own is shipped with its loaders; what lacks is named, and nothing is written."""

from __future__ import annotations

import errno
import json
import os
import re
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limbeck.engine.saving import files
from limbeck.errors import RequestError, RunError
from limbeck.shipping import OwnModel, latency, memory, ship
from limbeck.tasks import Classification, Embedding

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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": nn.Linear(6, 5)}, "the teacher gives 5 outputs of a sample and the network 3, so"),
        ({"baseline": nn.Linear(6, 2)}, "the baseline gives 2 outputs of a sample and the network 3, so"),
        ({"class_names": ["a", "b"]}, "class_names are 2, and the network's outputs are of 3 classes"),
        ({"name": "../mine"}, "name is what a folder and a card are called, not '../mine'"),
        ({"test": [(torch.ones(4, 6, dtype=torch.uint8), torch.zeros(4).long())]}, "pixels in uint8; give them in"),
    ],
)
def test_what_does_not_fit_the_network_is_refused_in_one_line(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    own = OwnModel(nn.Linear(6, 3), **{"test": pairs(2), **options})
    with pytest.raises(RequestError, match=message) as error:
        ship(own, out=tmp_path / "out", int8=False, formats=["safetensors"], progress=False)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_embedding_and_its_teacher_may_differ_in_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 8)
    own = OwnModel(nn.Linear(6, 3), test=pairs(2), teacher=nn.Linear(6, 5), task=Embedding())
    found = ship(own, out=tmp_path / "out", int8=False, formats=["safetensors"], memory=False, progress=False)
    assert {row["model"]: row["score"] for row in found["rows"]}["teacher"] == pytest.approx(1.0)


def test_a_binary_classifier_s_single_output_has_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 8)
    test = [(x, y.clamp(max=1)) for x, y in pairs(2)]
    own = OwnModel(nn.Linear(6, 1), test=test, class_names=["no", "yes"])
    ship(own, out=tmp_path / "out", int8=False, formats=["safetensors"], memory=False, progress=False)
    assert json.loads((tmp_path / "out" / "limbeck.json").read_text())["classes"] == ["no", "yes"]


def test_a_full_disk_is_no_property_of_the_teacher_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = files.put

    def full(path: Path, content: bytes) -> None:
        if path.name == "teacher.onnx":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(path, content)

    monkeypatch.setattr(files, "put", full)
    own = OwnModel(nn.Linear(6, 3), test=pairs(2), teacher=nn.Linear(6, 3))
    place = re.escape(str(tmp_path / "out" / "reference" / "teacher.onnx"))
    with pytest.raises(RunError, match=f"cannot write {place}: No space left on device"):
        ship(own, out=tmp_path / "out", int8=False, formats=["onnx"], progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_a_folder_stays_and_what_it_names_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 8)
    link, real = tmp_path / "link", tmp_path / "real"
    link.symlink_to(real)
    for _ in range(2):  # made, and made anew
        own = OwnModel(nn.Linear(6, 3), test=pairs(2))
        ship(own, out=link, int8=False, formats=["safetensors"], memory=False, progress=False)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]
        assert link.is_symlink()
        assert (real / "distilled.safetensors").is_file()


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
