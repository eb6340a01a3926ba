"""Two processes on the CPU do what one does on the joined batch, whole students or sharded ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import together
import torch
from safetensors.torch import load_file

import forked
from limbeck.engine import make_fabric
from limbeck.engine.devices import sharding

pytestmark = [pytest.mark.slow, forked.needed]
shards = pytest.mark.skipif(not sharding.ON_CPU, reason="this torch shards on GPUs only")


def first(folder: Path) -> None:
    """The script as if Python had been started with it; Fabric starts the second process so."""
    sys.modules["__main__"] = ModuleType("__main__")
    sys.argv = [together.__file__, str(folder)]
    together.main(folder)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of all trainings by two processes."""
    folder = tmp_path_factory.mktemp("two")
    process = forked.begun(first, folder)
    process.join(500)
    assert process.exitcode == 0
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the plain training by one process."""
    folder = tmp_path_factory.mktemp("one")
    together.plain(make_fabric(accelerator="cpu"), folder)
    return folder


def assert_same_students(one: Path, two: Path) -> None:
    students = [load_file(folder / "student.safetensors") for folder in (one, two)]
    assert students[0].keys() == students[1].keys()
    for name, value in students[0].items():
        torch.testing.assert_close(students[1][name], value, rtol=1e-5, atol=1e-5)


def assert_same(one: Path, two: Path) -> None:
    """Students equal, and their losses and accuracies on the way."""
    assert_same_students(one, two)
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (one, two)]
    records = [[json.loads(line) for line in some] for some in lines]
    for key in ("loss", "accuracy", "val_accuracy"):
        assert [r[key] for r in records[0]] == pytest.approx([r[key] for r in records[1]], rel=1e-5)


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=shards)])
def test_two_processes_equal_one_on_the_joined_batch(strategy: str, one: Path, two: Path) -> None:
    assert_same(one, two / strategy)


@shards
def test_a_sharded_run_goes_on_sharded_or_not(one: Path, two: Path) -> None:
    together.plain(make_fabric(accelerator="cpu"), two / "interrupted")
    assert_same(one, two / "interrupted")


@shards
def test_shards_are_trained_by_sgd_too(two: Path, tmp_path: Path) -> None:
    together.by_sgd(make_fabric(accelerator="cpu"), tmp_path)
    assert_same(tmp_path, two / "sgd")


def test_layers_may_be_without_a_gradient(two: Path, tmp_path: Path) -> None:
    together.hint_alone(make_fabric(accelerator="cpu"), tmp_path)
    assert_same(tmp_path, two / "hint")


def test_a_step_is_a_mean_over_the_tokens_of_all_processes(two: Path, tmp_path: Path) -> None:
    together.tokens(make_fabric(accelerator="cpu"), tmp_path)
    assert_same_students(tmp_path, two / "tokens")


def test_two_processes_write_the_texts_that_one_would(two: Path, tmp_path: Path) -> None:
    together.writing(make_fabric(accelerator="cpu"), tmp_path)
    alone = json.loads((tmp_path / "written-0.json").read_text())
    both = [json.loads((two / "writing" / f"written-{rank}.json").read_text()) for rank in (0, 1)]
    assert sorted(both[0] + both[1]) == sorted(alone)
    assert both[0]
    assert both[1]
    assert 0 < len(alone) < 60, "of two epochs of 30 samples, some"
    assert_same_students(tmp_path, two / "writing")


def test_every_process_goes_on_with_its_own_dropout_in_the_middle_of_an_epoch(two: Path) -> None:
    assert_same(two / "straight", two / "stopped")


def test_a_memory_holds_what_every_process_has_seen(two: Path) -> None:
    assert (two / "memory" / "student.json").exists()  # compared there, in both
