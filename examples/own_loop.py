"""A hand-written training loop around limbeck's Distiller and a teacher, without its engine.

    python examples/own_loop.py

Real handwritten digits; a term compares hidden tensors of unequal shape, and its adapter is trained with the student.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Batch, Distiller, ModuleTeacher, Term, losses


def perceptron(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


def main() -> float:
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    held_out = torch.arange(len(y)) % 5 == 0
    loader = DataLoader(TensorDataset(x[~held_out], y[~held_out]), batch_size=32, shuffle=True)

    big = perceptron(256)
    optimizer = torch.optim.Adam(big.parameters(), lr=3e-3)
    for _ in range(8):
        for inputs, targets in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(big(inputs), targets).backward()
            optimizer.step()

    small = perceptron(12)
    terms = [
        Term(losses.kd, weight=0.9, temperature=4.0),
        Term(losses.mse, weight=1.0, student="1", teacher="1", adapter="auto"),
    ]
    distiller = Distiller(small, terms, task_weight=0.1)
    teacher = ModuleTeacher(big, distiller.teacher_taps)

    inputs, targets = next(iter(loader))
    example = Batch(inputs, targets, torch.full((len(targets),), -1))
    distiller.prepare(example, teacher(example))  # sizes the adapter, so before the optimizer

    optimizer = torch.optim.Adam(distiller.parameters(), lr=3e-3)
    for epoch in range(8):
        distiller.train()
        for inputs, targets in loader:
            batch = Batch(inputs, targets, torch.full((len(targets),), -1))
            step = distiller(batch, teacher(batch))
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
        parts = ", ".join(f"{name} {value:.3f}" for name, value in step.parts.items())
        print(f"epoch {epoch + 1:2}: {parts}")

    print(f"teacher {accuracy(big, x[held_out], y[held_out]):.4f}")
    print(f"student {accuracy(small, x[held_out], y[held_out]):.4f}")
    return accuracy(small, x[held_out], y[held_out])


if __name__ == "__main__":
    main()
