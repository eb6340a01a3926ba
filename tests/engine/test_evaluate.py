from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from limbeck import Batch, ModuleTeacher, evaluate
from limbeck.errors import RequestError


def test_figures_agree_with_numpy() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 7)) * 3
    targets = rng.integers(0, 7, 200)
    other = rng.normal(size=(200, 7))
    index = torch.arange(200)
    inputs = torch.tensor(np.concatenate([logits, other], 1), dtype=torch.float32)
    batches = [
        Batch(inputs[i : i + 64], torch.tensor(targets[i : i + 64]), index[i : i + 64]) for i in (0, 64, 128, 192)
    ]

    class Right(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, 7:]

    figures = evaluate(lambda x: x[:, :7], batches, teacher=ModuleTeacher(Right()))

    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    choice = p.argmax(1)
    confidence = p.max(1)
    ece = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            ece += inside.mean() * abs((choice == targets)[inside].mean() - confidence[inside].mean())
    top5 = np.mean([t in row.argsort()[-5:] for t, row in zip(targets, p, strict=True)])
    assert figures.samples == 200
    assert figures.loss == pytest.approx(-np.log(p[np.arange(200), targets]).mean(), rel=1e-5)
    assert figures.top1 == pytest.approx((choice == targets).mean())
    assert figures.top5 == pytest.approx(top5)
    assert figures.calibration_error == pytest.approx(ece, abs=1e-5)
    assert figures.agreement == pytest.approx((choice == other.argmax(1)).mean())


def test_five_classes_or_fewer_have_no_top5() -> None:
    assert evaluate(lambda x: x, [(torch.eye(3), torch.arange(3))]).top5 is None


def test_nothing_to_evaluate_is_said() -> None:
    with pytest.raises(RequestError, match="no batch at all"):
        evaluate(lambda x: x, [])
