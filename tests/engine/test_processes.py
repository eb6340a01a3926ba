"""Two processes on the CPU do what one does on the joined batch, whole students or sharded ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import sys
from functools import partial
import torch
from torch import nn
from torch.distributed.tensor import DTensor
from limbeck import Distiller, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.engine import make_fabric, sharding

def main(devices, strategy, epochs, out, mode):
    fabric = make_fabric(accelerator="cpu", devices=devices, strategy=strategy)
    sharding.BLOCK = 24  # so that the first layer is a shard of its own
    torch.manual_seed(0)
    data = InMemory(torch.randn(70, 4), torch.arange(70) % 3)
    student = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    teacher = nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 3))
    terms = [Term(losses.kd), Term(losses.mse, student="0", teacher="0", adapter="auto")]
    loader = make_loader(data, 16, shuffle=True, rank=fabric.global_rank, world_size=fabric.world_size)
    if mode == "hint":  # the last layer gets no gradient
        distiller = Distiller(student, terms[1:], task_weight=0.0)
    else:
        distiller = Distiller(student, terms)
    run = fit(distiller, loader, teacher=teacher, epochs=epochs, fabric=fabric, out=out, progress=False,
              val=make_loader(data, 35), keep="best", clip=1.0, accumulate=2, resume=mode == "resume",
              optimizer=partial(torch.optim.AdamW, lr=0.05))
    assert run.student is student
    assert not any(isinstance(value, DTensor) for value in student.parameters())

if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
"""


def train(folder: Path, devices: int, strategy: str, epochs: int, mode: str = "begin") -> None:
    script = folder.parent / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(devices), strategy, str(epochs), str(folder), mode]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def assert_same(one: Path, two: Path) -> None:
    """Students equal, and their losses and validation accuracies on the way."""
    students = [load_file(folder / "student.safetensors") for folder in (one, two)]
    assert students[0].keys() == students[1].keys()
    for name, value in students[0].items():
        torch.testing.assert_close(students[1][name], value, rtol=1e-5, atol=1e-5)
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (one, two)]
    records = [[json.loads(line) for line in some] for some in lines]
    for key in ("loss", "accuracy", "mse", "val_accuracy"):
        assert [r[key] for r in records[0]] == pytest.approx([r[key] for r in records[1]], rel=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in one process."""
    folder = tmp_path_factory.mktemp("alone") / "one"
    train(folder, 1, "auto", 3)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_equal_one_on_the_joined_batch(strategy: str, alone: Path, tmp_path: Path) -> None:
    train(tmp_path / "two", 2, strategy, 3)
    assert_same(alone, tmp_path / "two")


@pytest.mark.slow
def test_two_processes_bear_layers_without_a_gradient(tmp_path: Path) -> None:
    train(tmp_path / "one", 1, "auto", 1, "hint")
    train(tmp_path / "two", 2, "auto", 1, "hint")
    assert_same(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_a_sharded_run_goes_on_sharded_or_not(alone: Path, tmp_path: Path) -> None:
    train(tmp_path / "two", 2, "fsdp", 1)
    train(tmp_path / "two", 2, "fsdp", 2, "resume")
    train(tmp_path / "two", 1, "auto", 3, "resume")
    assert_same(alone, tmp_path / "two")
