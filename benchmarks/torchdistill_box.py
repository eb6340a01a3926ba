"""torchdistill's `DistillationBox` on the work of `mnist-mlp`, used as its own example scripts use it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, RandomSampler

from benchmarks.turns import untuned


def installed() -> bool:
    """Whether torchdistill is there to compare with."""
    return find_spec("torchdistill") is not None


@untuned()
def epoch(teacher: nn.Module, student: nn.Module, images: Dataset[Any], batch_size: int) -> None:
    """0.3 · cross-entropy + 0.7 · 49 · KL at temperature 7 (its loss has T² always), Adam, one epoch."""
    from torchdistill.core.distillation import DistillationBox

    box = DistillationBox(
        teacher,
        student,
        {"train": images},
        _config(batch_size),
        torch.device("cpu"),
        None,
        distributed=False,
        lr_factor=1,
    )
    box.pre_epoch_process(epoch=0)
    for inputs, targets, supplement in box.train_data_loader:
        loss = box.forward_process(inputs, targets, supplement)
        box.post_forward_process(loss=loss)
    box.post_epoch_process()
    box.clean_modules()


def _config(batch_size: int) -> dict[str, Any]:
    ends = {f"{side}_module_{part}": value for side in ("student", "teacher") for part, value in _LOGITS.items()}
    kd = {"key": "KDLoss", "kwargs": {**ends, "temperature": 7, "alpha": 0.3, "reduction": "batchmean"}}
    return {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler},
            "kwargs": {"batch_size": batch_size},
        },
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {"key": "Adam", "kwargs": {"lr": 1e-4}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": kd, "weight": 1.0}}}},
    }


_LOGITS = {"path": ".", "io": "output"}
