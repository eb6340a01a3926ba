"""transformers' own Trainer with limbeck's loss: it learns, and gives the student that `fit` gives."""

from __future__ import annotations

import copy
import runpy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from limbeck import Distiller, Hardware, ModuleTeacher, Term, fit, losses

transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")
pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate")
EXAMPLE = Path(__file__).parent.parent / "examples" / "hf_trainer.py"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


def test_the_example_learns(example: dict[str, Any]) -> None:
    assert example["main"]() > 0.9


def test_the_trainer_and_fit_give_the_same_student(example: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher, student = example["classifier"](16, 2), example["classifier"](8, 1)
    data = example["texts"](64)
    same: nn.Module = copy.deepcopy(student)
    # The adapter between hidden tensors is trained by both, and begins alike.
    adapter = nn.Linear(8, 16)
    hint = {"student": "bert.encoder.layer.0", "teacher": "bert.encoder.layer.1"}
    terms = [Term(losses.kd, weight=0.5, temperature=2.0), Term(losses.mse, weight=0.1, adapter=adapter, **hint)]

    trained = Distiller(student, terms, task_weight=0.5)
    guide = ModuleTeacher(teacher, trained.teacher_taps)
    loader = DataLoader(data, batch_size=8)
    first = trained.task.batch(next(iter(loader)))
    trained.prepare(first, guide(first))
    args = transformers.TrainingArguments(
        str(tmp_path), num_train_epochs=2, learning_rate=1e-2, per_device_train_batch_size=8, report_to="none",
        save_strategy="no", disable_tqdm=True, logging_strategy="no", use_cpu=True, optim="adamw_torch",
        lr_scheduler_type="constant", max_grad_norm=1.0, train_sampling_strategy="sequential",
    )  # fmt: skip
    before = copy.deepcopy(student.state_dict())
    example["DistillationTrainer"](trained, guide, args, train_dataset=data).train()

    done = fit(
        Distiller(same, terms, task_weight=0.5),
        loader,
        teacher=teacher,
        epochs=2,
        optimizer=partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.0),
        max_grad_norm=1.0,
        hardware=Hardware(layout="contiguous"),
        measure_balance=False,
        progress=False,
    )
    theirs = student.state_dict()
    assert any((theirs[name] - one).abs().max() > 0.01 for name, one in before.items())
    for name, value in done.student.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-6, msg=lambda said: f"{name}: {said}")  # noqa: B023
