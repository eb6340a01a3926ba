"""Networks of the user's own with several inputs by name: what the table says is what their files give."""

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

from limbeck.errors import RequestError
from limbeck.shipping import OwnModel, formats, latency, ship

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Both(nn.Module):
    """A picture and a text of any length, to three classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.pixels, self.last = nn.Embedding(20, 8), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, image: Tensor, ids: Tensor) -> dict[str, Tensor]:
        return {"logits": self.last((self.pixels(image.flatten(1)) + self.tokens(ids).mean(1)).relu())}


def batch(seed: int, length: int, count: int = 24) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(20, (count, length), generator=generator)
    return {"image": torch.rand(count, 1, 4, 4, generator=generator), "ids": ids}


@torch.no_grad()
def labelled(network: nn.Module, *batches: dict[str, Tensor]) -> list[Any]:
    return [(one, network(**one)["logits"].argmax(1)) for one in batches]


def test_each_file_reads_the_inputs_by_name_and_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 8)
    network = Both().eval()
    test = labelled(network, batch(1, 5), batch(2, 7), batch(3, 3))
    given = {"calibration": [batch(4, 6)], "validation": labelled(network, batch(5, 4))}
    own = OwnModel(network, test=test, class_names=["a", "b", "c"], **given)
    chosen = ["onnx", "onnx-int8", "pt2"]
    found = ship(own, out=tmp_path, formats=chosen, batch=[1], tolerance=20, seconds=0.1, memory=False, progress=False)
    rows = {(row["model"], row["runtime"], row["precision"]): row for row in found["rows"]}
    for runtime in ("torch", "onnx", "torch.export"):
        assert rows["distilled", runtime, "fp32"]["score"] == 1.0
    assert ("distilled", "onnx", "int8") in rows
    for length in (2, 7):
        x = batch(9, length, 6)
        with torch.no_grad():
            expected = network(**x)["logits"].numpy()
        session = onnxruntime.InferenceSession(tmp_path / "distilled.onnx")
        np.testing.assert_allclose(session.run(None, {k: v.numpy() for k, v in x.items()})[0], expected, atol=1e-4)
        program = torch.export.load(tmp_path / "distilled.pt2").module()
        np.testing.assert_allclose(program(*x.values()).detach().numpy(), expected, atol=1e-4)
    about = json.loads((tmp_path / "limbeck.json").read_text())["input"]
    assert about["inputs"] == [
        {"name": "image", "shape": ["batch", 1, 4, 4], "dtype": "float32"},
        {"name": "ids", "shape": ["batch", "length"], "dtype": "int64"},
    ]
    np.savez(tmp_path / "samples.npz", **{name: value.numpy() for name, value in test[1][0].items()})
    command = [sys.executable, "run_onnx.py", "samples.npz", "distilled.onnx"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
    assert said == ["abc"[label] for label in test[1][1]]
    assert "run_onnx.py SAMPLES.npz" in (tmp_path / "README.md").read_text()


def test_the_example_of_the_document_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 8)
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "ship.md").read_text(encoding="utf-8")
    (code,) = (part.partition("```")[0] for part in text.split("```python\n")[1:])
    exec(compile(code, "docs/ship.md", "exec"), {})
    assert capsys.readouterr().out == "['torch', 'onnx']\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": [0.5], "test": [({"image": torch.ones(4, 16)}, torch.zeros(4))]}, "image is an image; leave mean"),
        ({"test": [({"image": batch(1, 3)}, torch.zeros(24))]}, "tensors by name, without groups"),
        ({"test": [(batch(1, 3), torch.zeros(24)), (batch(1, 3) | {"more": torch.ones(24)}, torch.zeros(24))]}, "more"),
        ({"test": [(batch(1, 3) | {"image": torch.ones(3, 1, 4, 4)}, torch.zeros(24))]}, "first axis of each input"),
        ({"test": [({"picture": torch.ones(4, 16)}, torch.zeros(4))]}, "the network cannot read the test batches"),
        ({"formats": ["openvino"]}, "openvino takes one input, and this network reads image, ids by name"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "check", lambda names: None)
    given = {"test": [(batch(1, 3), torch.zeros(24).long())], **options}
    chosen = given.pop("formats", ["onnx"])
    with pytest.raises(RequestError, match=message) as error:
        ship(OwnModel(Both(), **given), out=tmp_path / "out", formats=chosen, int8=False, progress=False)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
