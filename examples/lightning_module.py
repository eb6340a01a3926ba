"""A Lightning module that trains with a limbeck Distiller: Lightning has the loop, limbeck the losses and adapters.

    python examples/lightning_module.py

Needs pip install lightning. Real handwritten digits; a hidden term trains its adapter with the student.
"""

from __future__ import annotations

import tempfile
from typing import Any

import lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Distiller, ModuleTeacher, Term, losses


class Distillation(lightning.LightningModule):
    """The student learns from labels and from a trained teacher; `example` is a batch by which adapters are sized."""

    def __init__(self, student: nn.Module, teacher: nn.Module, terms: list[Term], example: Any) -> None:
        super().__init__()
        self.distiller = Distiller(student, terms, task_weight=0.1)
        self.teacher = ModuleTeacher(teacher, self.distiller.teacher_taps)  # moves to each batch's device by itself
        batch = self.distiller.task.batch(example)
        self.distiller.prepare(batch, self.teacher(batch))

    def training_step(self, item: Any, _: int) -> Tensor:
        batch = self.distiller.task.batch(item)
        step = self.distiller(batch, self.teacher(batch))
        self.log_dict({f"train/{name}": value for name, value in step.parts.items()})
        return step.loss

    def validation_step(self, item: Any, _: int) -> None:
        batch = self.distiller.task.batch(item)
        hits = self.distiller.student(batch.inputs).argmax(1) == batch.targets
        self.log("val_accuracy", hits.float().mean(), batch_size=batch.size)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.distiller.parameters(), lr=3e-3)


def perceptron(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def train(module: lightning.LightningModule, train: DataLoader[Any], val: DataLoader[Any], epochs: int) -> float:
    """Lightning's own loop; the accuracy at its end."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="auto", devices=1, default_root_dir=folder, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, train, val)
    return float(trainer.callback_metrics["val_accuracy"])


def main() -> float:
    lightning.seed_everything(0, verbose=False)
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    held_out = torch.arange(len(y)) % 5 == 0
    loader = DataLoader(TensorDataset(x[~held_out], y[~held_out]), batch_size=32, shuffle=True)
    val = DataLoader(TensorDataset(x[held_out], y[held_out]), batch_size=512)

    big = perceptron(256)
    optimizer = torch.optim.Adam(big.parameters(), lr=3e-3)
    for _ in range(8):
        for inputs, targets in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(big(inputs), targets).backward()
            optimizer.step()

    terms = [
        Term(losses.kd, weight=0.9, temperature=4.0),
        Term(losses.mse, weight=1.0, student="1", teacher="1", adapter="auto"),
    ]
    module = Distillation(perceptron(12), big, terms, next(iter(loader)))
    accuracy = train(module, loader, val, epochs=8)
    print(f"student {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()
