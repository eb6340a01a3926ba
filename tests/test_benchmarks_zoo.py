"""`python -m benchmarks zoo`: what it tries with a network, and how a campaign goes on."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


pytestmark = pytest.mark.usefixtures("benchmarks")


def module(name: str) -> Any:
    return importlib.import_module(f"benchmarks.{name}")


@pytest.mark.filterwarnings("ignore")  # of the networks' own
@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "timm:test_vit"])
def test_two_networks_are_right_at_every_step(name: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    trial, row = module("zoo.trial"), {}
    begun: list[str] = []
    steps = [step for step in trial.STEPS if step != "onnx"]  # which takes many seconds, and has tests of its own
    trial.try_network(name, row.update, begun.append, steps)
    assert begun == [*steps, ""]
    assert {step: row[step] for step in steps if str(row[step]).startswith("FAILED")} == {}
    assert row["teaches"].startswith("kd and ")
    assert row["weights"] == "equal"


def test_a_step_that_fails_leaves_the_others() -> None:
    trial, row = module("zoo.trial"), {}
    trial.try_network("torchvision:none", row.update)
    assert list(row) == ["build"]
    assert row["build"].startswith("FAILED: RequestError: unknown torchvision model 'none'")


def test_a_campaign_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo, process = module("zoo"), module("gpu.process")
    tried: list[str] = []
    fails: Mapping[str, str] = {"b": "killed by SIGABRT (in learns)"}

    def watched(command: Sequence[str], seconds: float) -> Any:
        tried.append(command[-1])
        rows = [
            {"parameters": 3, "size": 64},
            {"taps": "5"},
            {"onnx": "FAILED: RunError: no"} if tried[-1] == "c" else {},
        ]
        return process.Outcome(rows=rows, seconds=1.5, failed=fails.get(tried[-1], ""))

    monkeypatch.setattr(zoo, "watched", watched)
    monkeypatch.setattr(zoo, "networks", lambda: ["a", "b", "c", "d"])
    assert zoo.measure(limit=1, out=tmp_path) == 0
    assert zoo.measure(limit=2, out=tmp_path) == 1
    assert tried == ["a", "b", "c"]
    rows = json.loads((tmp_path / "zoo.json").read_text())["figures"]["rows"]
    assert [row["failed"] for row in rows] == ["", "killed by SIGABRT (in learns)", "onnx: FAILED: RunError: no"]
    fails = {}
    assert zoo.measure(["b"], out=tmp_path) == 1  # anew, and c is still wrong
    zoo.measure(out=tmp_path)
    assert tried == ["a", "b", "c", "b", "d"]
    assert len(zoo.table(rows)) == 2 + len(rows)


def test_a_step_of_torch_that_takes_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = module("zoo.trial")
    monkeypatch.setattr(trial, "ONNX_SECONDS", 1)
    monkeypatch.setattr(trial, "write_onnx", lambda *_: time.sleep(60))
    row: dict[str, Any] = {}
    trial.try_network("torchvision:squeezenet1_1", row.update, steps=["build", "onnx"])
    assert row["onnx"] == "torch's exporter takes longer than 1 s"


def test_the_document_says_what_was_tried() -> None:
    rows = json.loads((ROOT / "benchmarks/results/zoo.json").read_text(encoding="utf-8"))["figures"]["rows"]
    told = " ".join((ROOT / "docs/foreign.md").read_text(encoding="utf-8").split())
    assert module("zoo").summary(rows) in told
    assert {row["network"] for row in rows} <= set(module("zoo.families").networks())


def test_the_list_names_each_family_once() -> None:
    names = module("zoo.families").networks()
    assert len(names) == len(set(names)) > 100
    assert {name.partition(":")[0] for name in names} == {"torchvision", "timm"}
    from torchvision import models

    families = [models.get_model_builder(name.partition(":")[2]).__module__ for name in names if name[0:2] == "to"]
    assert len(families) == len(set(families))
    assert set(families) == {models.get_model_builder(one).__module__ for one in models.list_models(module=models)}
