from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck import Batch, ModuleTeacher, evaluate
from limbeck.errors import RequestError
from limbeck.tasks import metrics


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Guo et al., arXiv:1706.04599, equation 3, over 15 bins."""
    error = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(error)


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
    ece = calibration_error(confidence, choice == targets)
    top5 = np.mean([t in row.argsort()[-5:] for t, row in zip(targets, p, strict=True)])
    assert figures.samples == 200
    assert figures["loss"] == pytest.approx(-np.log(p[np.arange(200), targets]).mean(), rel=1e-5)
    assert figures["accuracy"] == pytest.approx((choice == targets).mean())
    assert figures["top5"] == pytest.approx(top5)
    assert figures["calibration_error"] == pytest.approx(ece, abs=1e-5)
    assert figures["agreement"] == pytest.approx((choice == other.argmax(1)).mean())


def test_five_classes_or_fewer_have_no_top5() -> None:
    assert "top5" not in evaluate(lambda x: x, [(torch.eye(3), torch.arange(3))]).metrics


def test_nothing_to_evaluate_is_said() -> None:
    with pytest.raises(RequestError, match="no batch at all"):
        evaluate(lambda x: x, [])


def test_sums_over_many_counts_are_those_over_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = 3 * torch.randn(100, 6), torch.randint(0, 6, (100,))
    logits[:10] = 200 * F.one_hot(targets[:10], 6)  # confidences of exactly 1
    batches = list(zip(logits.split(7), targets.split(7), strict=True))
    whole = evaluate(lambda x: x, batches)
    monkeypatch.setattr(metrics, "HELD", 20)
    few = evaluate(lambda x: x, batches)
    confidence, choice = logits.double().softmax(-1).max(1)
    error = calibration_error(confidence.numpy(), (choice == targets).numpy())
    for found in (whole, few):
        assert found["loss"] == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-5)
        assert found["calibration_error"] == pytest.approx(error, abs=1e-6)
        assert (found.samples, found["accuracy"]) == (100, (logits.argmax(1) == targets).sum().item() / 100)


def test_a_loader_may_write_its_batches_into_the_same_tensors() -> None:
    inputs, targets = torch.empty(2, 3), torch.empty(2, dtype=torch.int64)

    def batches():
        for label in (0, 1, 2):
            targets.fill_(label)
            inputs.copy_(F.one_hot(targets, 3))
            yield inputs, targets

    assert evaluate(lambda x: x, batches())["accuracy"] == 1


def test_samples_without_a_label_do_not_count() -> None:
    logits, targets = torch.randn(8, 3), torch.tensor([0, 1, 2, -100, 0, -100, 1, 2])
    known = targets >= 0
    found, expected = (
        evaluate(lambda x: x, [(logits, targets)]),
        evaluate(lambda x: x, [(logits[known], targets[known])]),
    )
    assert found.as_dict() == pytest.approx(expected.as_dict())
    assert found.samples == 6
    with pytest.raises(RequestError, match="no sample has a label"):
        evaluate(lambda x: x, [(logits, torch.full((8,), -100))])
