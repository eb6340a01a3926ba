"""A run whose data have several inputs by name: its files give what its networks give, normalisation and all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck.data import DataSet, InMemory, sets
from limbeck.errors import RequestError
from limbeck.export import export_run
from limbeck.models.load import load_network
from limbeck.recipes.read import check
from limbeck.runs.finished.predict import predictor
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.shipping import formats, latency, ship

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

MEAN, STD = 0.3, 0.4
STUDENT: dict[str, Any] = {
    "model": f"{__name__}:Both",
    "inputs": {"image": "picture", "ids": "text.ids"},
    "mean": [MEAN],
    "std": [STD],
}


class Both(nn.Module):
    """A picture and a text, to three classes."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.tokens, self.pixels = nn.Embedding(9, width), nn.Conv2d(1, width, 2)
        self.last = nn.Linear(width, 3)

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        answers: Tensor = self.last(self.pixels(image).relu().mean((2, 3)) + self.tokens(ids).mean(1))
        return answers


def part(seed: int, count: int) -> InMemory:
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randint(256, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    ids = torch.randint(9, (count, 5), generator=generator)
    return InMemory({"picture": pictures, "text": {"ids": ids}}, ids[:, 0] // 3)


def several(root: Path, size: int | None) -> DataSet:
    return DataSet("several", part(0, 192), part(1, 60), 3, (1, 4, 4), validation=part(2, 64))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("several") / "run"
    recipe = {
        "name": "several",
        "data": {"name": "several", "batch_size": 32},
        "teacher": {**STUDENT, "width": 16, "epochs": 2, "inputs": {"ids": "text.ids", "image": "picture"}},
        "student": STUDENT,
        "distill": {"terms": [{"loss": "kd"}]},
        "epochs": 3,
        "optimizer": {"lr": 0.01},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMBECK_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(sets.NAMES, "several", several)
        patch.setattr(latency, "ROUNDS", 8)
        machine = Machine(accelerator="cpu", progress=False)
        run(check(recipe), root=folder, out=folder, machine=machine)
        yield folder


def expected(folder: Path, inputs: Any) -> np.ndarray:
    """The student's logits by hand: pixels from 0 to 1, normalised."""
    image = (inputs["picture"].float() / 255 - MEAN) / STD
    with torch.no_grad():
        return load_network(folder / "student.json")(image=image, ids=inputs["text"]["ids"]).numpy()


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_each_file_gives_what_the_network_gives(trained: Path, tmp_path: Path, place: str) -> None:
    found = ship(
        trained,
        out=tmp_path / "out",
        formats=["safetensors", "onnx", "onnx-int8", "pt2"],
        preprocessing=place,
        batch=[1],
        tolerance=10,
        seconds=0.1,
        memory=False,
        progress=False,
    )
    inputs = part(1, 60).inputs
    logits = expected(trained, inputs)
    scores = {(row["model"], row["runtime"], row["precision"]): row["score"] for row in found["rows"]}
    right = (logits.argmax(1) == part(1, 60).targets.numpy()).mean()
    for runtime in ("torch", "onnx", "torch.export"):
        assert scores["distilled", runtime, "fp32"] == pytest.approx(right)
    assert ("distilled", "onnx", "int8") in scores
    assert {("teacher", "onnx", "fp32"), ("baseline", "onnx", "fp32")} <= set(scores)
    samples = {"image": inputs["picture"].float().numpy() / 255, "ids": inputs["text"]["ids"].numpy()}
    np.savez(tmp_path / "out" / "samples.npz", **samples)
    command = [sys.executable, "run_onnx.py", "samples.npz", "distilled.onnx"]
    said = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True, check=True).stdout.split()
    assert said == [str(label) for label in logits.argmax(1)]
    about = json.loads((tmp_path / "out" / "limbeck.json").read_text())["input"]
    values = {"mean": [MEAN], "std": [STD]}
    assert about["names"] == ["image", "ids"]
    assert about["normalisation"] == values
    assert about["normalise_before"] == (values if place == "beside" else None)
    if place == "inside":
        session = onnxruntime.InferenceSession(tmp_path / "out" / "distilled.onnx")
        np.testing.assert_allclose(session.run(None, samples)[0], logits, atol=1e-4)


def test_export_and_predict_name_what_reads_such_a_student(trained: Path) -> None:
    with pytest.raises(RequestError, match=r"reads several inputs by name: limbeck ship .* writes its files"):
        export_run(trained)
    with pytest.raises(RequestError, match="reads several inputs by name, which files cannot give"):
        predictor(trained)


def test_a_device_s_own_runtime_is_refused_in_one_line(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "check", lambda names: None)
    with pytest.raises(RequestError, match="reads image, ids by name") as error:
        ship(trained, out=tmp_path / "out", formats=["openvino"], progress=False)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
