"""Two processes on the CPU do what one does on the joined batch."""

from __future__ import annotations

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
from limbeck import Distiller, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.engine import make_fabric

def main(devices, out):
    fabric = make_fabric(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto")
    torch.manual_seed(0)
    data = InMemory(torch.randn(70, 4), torch.arange(70) % 3)
    student = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    teacher = nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 3))
    terms = [Term(losses.kd), Term(losses.mse, student="0", teacher="0", adapter="auto")]
    loader = make_loader(data, 16, shuffle=True, rank=fabric.global_rank, world_size=fabric.world_size)
    run = fit(Distiller(student, terms), loader, teacher=teacher, epochs=3, fabric=fabric, out=out, progress=False,
              optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9))
    if fabric.is_global_zero:
        print(repr([record["loss"] for record in run.metrics]))

if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.slow
def test_two_processes_equal_one_on_the_joined_batch(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    printed = []
    for devices in (1, 2):
        command = [sys.executable, str(script), str(devices), str(tmp_path / str(devices))]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        printed.append(torch.tensor(ast_list(done.stdout)))
    torch.testing.assert_close(printed[0], printed[1], rtol=1e-5, atol=1e-6)
    one, two = (load_file(tmp_path / str(n) / "student.safetensors") for n in (1, 2))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-5)


def ast_list(text: str) -> list[float]:
    return [float(x) for x in text.strip().splitlines()[-1].strip("[]").split(",")]
