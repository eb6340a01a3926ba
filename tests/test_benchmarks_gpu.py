"""`python -m benchmarks gpu`: each part runs, on the CPU and small; one that fails takes no other along."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from limbeck import Distiller, Hardware, fit
from limbeck.data import InMemory, make_loader
from limbeck.engine.optimizers.named import optimizer

ROOT = Path(__file__).parent.parent
TELL = "import json, os, sys; tell = lambda **x: print(json.dumps(x), file=open(sys.argv[-1], 'a'), flush=True); "


pytestmark = pytest.mark.usefixtures("benchmarks")


def module(name: str) -> Any:
    return importlib.import_module(f"benchmarks.{name}")


def watched(code: str, seconds: float = 20.0) -> Any:
    return module("gpu.process").watched([sys.executable, "-S", "-c", TELL + code], seconds)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("machine", 1),
        ("pair-eager", 2),
        ("pair-compiled", 2),
        ("mnist-mlp", 2),
        ("cifar10-tutorial", 2),
        ("cifar100-compare", 1),
    ],
)
def test_every_part_runs_dry(name: str, rows: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts, file = module("gpu.parts"), tmp_path / "told.jsonl"
    torch.compiler.reset()
    parts.PARTS[name](parts.Told(file, dry=True))
    found = module("gpu.process")._read(file)
    assert len(found["rows"]) == rows
    if name == "machine":
        assert found["rows"][0]["gpu"]["name"] == "cpu"
        return
    assert "made" in found["data"]
    part = {"name": name, "failed": "", **found}
    table = module("record").gpu_table({"parts": [part]})
    assert len(table) == 2 + rows
    assert len({line.count("|") for line in table}) == 1
    for row in found["rows"]:
        assert row["ratio"] > 0 if "ratio" in row else row["verdict"]


def test_the_command_and_its_parts_are_the_same() -> None:
    assert list(module("gpu").BUDGETS) == list(module("gpu.parts").PARTS)
    assert module("gpu").TOTAL < 600


def test_the_tests_of_a_dry_run_tell_each_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, chosen = module("gpu.parts"), []

    def main(options: list[str], plugins: list[Any]) -> pytest.ExitCode:
        chosen.extend(options)
        (teller,) = plugins
        for name, outcome in (("a", "passed"), ("b", "failed")):
            teller.pytest_runtest_logstart(name)
            crash = type("Repr", (), {"reprcrash": type("Crash", (), {"message": "assert 1 == 2\nmore"})})
            report = {"nodeid": name, "when": "call", "outcome": outcome, "failed": outcome == "failed"}
            teller.pytest_runtest_logreport(type("Report", (), {**report, "longrepr": crash}))
        return pytest.ExitCode.TESTS_FAILED

    monkeypatch.setattr(pytest, "main", main)
    parts.tests(parts.Told(tmp_path / "told", dry=True))
    found = module("gpu.process")._read(tmp_path / "told")
    assert found["rows"] == [
        {"what": "a", "outcome": "passed"},
        {"what": "b", "outcome": "failed", "reason": "assert 1 == 2"},
    ]
    assert found["failed"] == "a test failed"
    assert all(Path(path).exists() for path in chosen if path.endswith(".py"))
    assert any(path.endswith("test_gpu.py") for path in chosen)


def test_what_a_part_had_measured_outlives_its_crash() -> None:
    done = watched("tell(row={'what': 'first'}); tell(now='second'); os.abort()")
    assert done.rows == [{"what": "first"}]
    assert done.failed == "killed by SIGABRT (in second)"


def test_a_part_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    child = tmp_path / "child"
    forks = f"p = os.fork(); p and open({str(child)!r}, 'w').write(str(p)); import time; time.sleep(60)"
    began = time.monotonic()
    done = watched(f"tell(row={{'what': 'first'}}); {forks}", seconds=3.0)
    assert time.monotonic() - began < 15
    assert done.failed == "took longer than 3 s"
    assert done.rows == [{"what": "first"}]
    status = Path(f"/proc/{child.read_text()}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_a_part_that_raises_says_why() -> None:
    done = watched("tell(failed='ValueError: no'); print('the trace'); sys.exit(1)")
    assert (done.failed, done.log) == ("ValueError: no", "the trace")


def test_a_failed_part_takes_no_other_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu, process = module("gpu"), module("gpu.process")
    environment = {"limbeck": "0", "torch": "2", "gpus": ["GPU"], "processor": "", "cores": 1}
    speed = {"what": "batch 64", "unit": "images/s", "beside": "hand-tuned loop", "limbeck": 980.0, "other": 1000.0}
    more = {"peak_bytes": {"limbeck": 2e6, "tuned": 3e6}, "waits": {"limbeck": 0.25, "tuned": None}}

    def carry_out(name: str, seconds: float, dry: bool, root: Path | None) -> Any:
        if name == "machine":
            return process.Outcome(rows=[{"gpu": {"name": "NVIDIA X 80GB"}, "environment": environment}])
        if name == "tests":
            return process.Outcome(failed="killed by SIGSEGV", log="a trace")
        return process.Outcome(rows=[{**speed, "ratio": 0.98, **more}], data="made")

    monkeypatch.setattr(gpu, "carry_out", carry_out)
    assert gpu.measure(dry=False, out=tmp_path, root=None) == 1
    content = json.loads((tmp_path / "gpu-nvidia-x-80gb.json").read_text())
    assert [part["failed"] for part in content["parts"]] == ["killed by SIGSEGV"] + [""] * 6
    said = capsys.readouterr()
    assert "| tests | **failed**: killed by SIGSEGV |" in said.out
    assert "| 980 images/s | hand-tuned loop 1,000 images/s | 0.98 | 2 / 3 | 25% | made |" in said.out
    assert "a trace" in said.err
    section = module("record")._gpu(content)
    assert section.startswith("## GPU: NVIDIA X 80GB\n")


def test_no_part_begins_when_no_time_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, process = module("gpu"), module("gpu.process")
    begun = []

    def carry_out(name: str, seconds: float, dry: bool, root: Path | None) -> Any:
        begun.append(name)
        return process.Outcome(rows=[{"gpu": {"name": "x"}, "environment": {}}] if name == "machine" else [])

    clock = iter([0.0, 0.0, 10.0, 10.0, *[gpu.TOTAL] * 50])
    monkeypatch.setattr(gpu, "carry_out", carry_out)
    monkeypatch.setattr(gpu.time, "monotonic", lambda: next(clock))
    gpu.measure(dry=False, out=tmp_path, root=None)
    assert begun == ["machine", "tests"]
    content = json.loads((tmp_path / "gpu-x.json").read_text())
    assert {part["failed"] for part in content["parts"][1:]} == {"no time was left"}


def test_what_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = module("needs")
    assert needs.missing("pytest>=8.3") == ""
    there = importlib.util.find_spec
    gone = {"yaml", "lightning_fabric", "typer"}
    monkeypatch.setattr(needs, "find_spec", lambda name: None if name in gone else there(name))
    said = "missing: lightning-fabric, pyyaml; pip install 'lightning-fabric>=2.5,<3' 'pyyaml>=6' brings them"
    assert needs.missing() == said  # the command line's typer is not needed
    monkeypatch.setattr(needs, "find_spec", lambda name: None)
    assert "PYTHONPATH=src" in needs.missing()


def test_spans_that_overlap_count_once() -> None:
    assert module("watch").covered([(0, 2), (5, 6), (1, 3), (5.5, 5.7)]) == 4.0
    assert module("watch").covered([]) == 0.0


def test_a_watch_measures_from_the_first_epochs_end_to_the_last(blobs: InMemory) -> None:
    watch = module("watch").Watch(torch.device("cpu"), 3)
    run = fit(
        Distiller(torch.nn.Linear(4, 3)), make_loader(blobs, 32), epochs=3, optimizer=optimizer("sgd", lr=0.1),
        hardware=Hardware("cpu"), callbacks=[watch], progress=False,
    )  # fmt: skip
    assert 0 < watch.seconds <= run.seconds
    assert (watch.peak, watch.busy) == (None, None)


class TestMade:
    def test_the_same_at_every_call(self) -> None:
        one, other = (module("gpu.made").learnable("x", (3, 8, 8), 10, 40, 20) for _ in range(2))
        assert one.train.fingerprint == other.train.fingerprint
        assert one.train.targets.bincount().tolist() == [4] * 10
        assert one.train.inputs.dtype == torch.uint8

    def test_each_image_has_its_own_shift(self) -> None:
        images, shifts = torch.rand(3, 2, 5, 4), torch.tensor([[0, 0], [2, -1], [-3, 3]])
        expected = torch.stack([x.roll(tuple(s), (1, 2)) for x, s in zip(images, shifts.tolist(), strict=True)])
        assert torch.equal(module("gpu.made")._rolled(images, shifts), expected)

    def test_it_can_be_learned(self) -> None:
        data = module("gpu.made").learnable("x", (1, 16, 16), 10, 400, 200, noise=0.5)
        mean = torch.stack([data.train.inputs[data.train.targets == c].float().mean(0) for c in range(10)])
        distance = torch.cdist(data.test.inputs.float().flatten(1), mean.flatten(1))
        assert (distance.argmin(1) == data.test.targets).float().mean() > 0.3  # by chance .1; a network sees shifts too


def test_nothing_real_is_fetched(tmp_path: Path) -> None:
    schema = importlib.import_module("limbeck.recipes.schema")
    assert module("gpu.made").real(schema.Data(name="mnist"), tmp_path, "MNIST") is None
    assert os.listdir(tmp_path) == []


def test_only_what_runs_on_the_gpu_makes_it_busy() -> None:
    def event(kind: str, **more: Any) -> Any:
        return SimpleNamespace(device_type=getattr(torch._C._autograd.DeviceType, kind), **more)

    on_gpu = module("watch")._on_gpu
    assert on_gpu(event("CUDA"))
    assert on_gpu(event("CUDA", is_user_annotation=False))
    assert not on_gpu(event("CUDA", is_user_annotation=True))  # such as a whole step of an optimizer
    assert not on_gpu(event("CPU"))
