"""A loop under Hugging Face Accelerate around limbeck's Distiller: also by several processes.

    python examples/accelerate_loop.py
    accelerate launch examples/accelerate_loop.py

Needs pip install accelerate. Real handwritten digits.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Distiller, ModuleTeacher, Term, losses


def perceptron(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def main() -> float:
    set_seed(0)
    accelerator = Accelerator()
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    held_out = torch.arange(len(y)) % 5 == 0
    plain = DataLoader(TensorDataset(x[~held_out], y[~held_out]), batch_size=32, shuffle=True)
    val = DataLoader(TensorDataset(x[held_out], y[held_out]), batch_size=64)

    big = perceptron(256)
    optimizer = torch.optim.Adam(big.parameters(), lr=3e-3)
    for _ in range(8):
        for inputs, targets in plain:
            optimizer.zero_grad()
            nn.functional.cross_entropy(big(inputs), targets).backward()
            optimizer.step()

    student = perceptron(12)
    distiller = Distiller(student, [Term(losses.kd, weight=0.9, temperature=4.0)], task_weight=0.1)
    teacher = ModuleTeacher(big, distiller.teacher_taps)  # is not trained: moves to each batch's device by itself
    task = distiller.task
    example = task.batch(next(iter(plain)))
    distiller.prepare(example, teacher(example))  # sizes what depends on shapes, so before the optimizer

    optimizer = torch.optim.Adam(distiller.parameters(), lr=3e-3)
    wrapped, optimizer, loader, val = accelerator.prepare(distiller, optimizer, plain, val)
    for epoch in range(8):
        wrapped.train()
        for item in loader:
            batch = task.batch(item)
            step = wrapped(batch, teacher(batch))
            optimizer.zero_grad()
            accelerator.backward(step.loss)
            optimizer.step()
        accelerator.print(f"epoch {epoch + 1}: loss {step.loss.item():.3f}")

    student.eval()  # trained in place: Accelerate wraps, and does not copy
    hits = []
    with torch.no_grad():
        for inputs, targets in val:
            hits.append(accelerator.gather_for_metrics(student(inputs).argmax(1) == targets))
    accuracy = torch.cat(hits).float().mean().item()
    accelerator.print(f"student {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()
