"""Each exit of a self-distilled network is shipped, and early exit costs between its first exit and its last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import limbeck
from limbeck.data.sets import load
from limbeck.models.networks.multi_exit import early_exit
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.shipping import latency, ship

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def shipped(few_digits: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    recipe = {
        "name": "exits",
        "data": {"batch_size": 64, "drop_last": True, "validation": 0.2},
        "student": {"model": "byot_small", "widths": [4, 6]},
        "distill": {"scheme": "self"},
        "epochs": 2,
        "optimizer": {"lr": 0.01},
    }
    folder = tmp_path_factory.mktemp("exits") / "byot"
    run(check(recipe), root=folder, out=folder, machine=Machine(accelerator="cpu", progress=False), baseline=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "ROUNDS", 8)
        return ship(folder, formats=["onnx"], batch=[1], memory=False, progress=False)


def test_each_exit_is_a_file(shipped: dict[str, Any]) -> None:
    test = load("digits", Path()).test
    x, labels = test.inputs.numpy().astype(np.float32) / 255, test.targets.numpy()  # type: ignore[union-attr]
    for number in (1, 2):
        (row,) = (r for r in shipped["rows"] if r["model"] == f"exit {number}/2" and r["runtime"] == "onnx")
        assert row["file"] == f"exit-{number}.onnx"
        session = onnxruntime.InferenceSession(Path(shipped["out"]) / row["file"], providers=["CPUExecutionProvider"])
        assert row["score"] == (session.run(None, {"input": x})[0].argmax(1) == labels).mean()
    about = json.loads((Path(shipped["out"]) / "limbeck.json").read_text())
    assert set(about["files"]) == {"exit-1.onnx", "exit-2.onnx"}


def test_early_exit_is_a_row(shipped: dict[str, Any]) -> None:
    rows = {row["model"]: row for row in shipped["rows"]}
    early = rows["early exit"]
    whole = limbeck.load_model(Path(shipped["out"]).parent / "student.json")
    test = load("digits", Path()).test
    said = early_exit(whole.network, test.inputs.float() / 255, early["threshold"])  # type: ignore[union-attr, arg-type]
    assert early["score"] == pytest.approx((said.logits.argmax(1) == test.targets).double().mean().item())
    assert rows["exit 1/2"]["multiply_adds"] <= early["multiply_adds"]
    assert sum(early["leave_at"]) == pytest.approx(1)
    assert torch.tensor(early["latency"]["1"]["mean_ms"]) > 0
