"""The figures against NumPy, and the rule for a memorised teacher on measured teachers."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

from limbeck import Batch, Diagnosis, TeacherOutput, diagnose
from limbeck.errors import RequestError
from limbeck.losses import Sampled


class Reader:
    """A teacher whose logits are its inputs; it counts the samples that it was asked about."""

    fingerprint = "reader"

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, batch: Batch) -> TeacherOutput:
        assert isinstance(batch.inputs, torch.Tensor)
        self.asked += batch.size
        return TeacherOutput(batch.inputs)


def batches(logits: np.ndarray, targets: np.ndarray, size: int = 40) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x, y = torch.tensor(logits, dtype=torch.float32), torch.tensor(targets)
    return list(zip(x.split(size), y.split(size), strict=True))


def entropy(logits: np.ndarray, temperature: float) -> float:
    p = np.exp(logits / temperature)
    p /= p.sum(1, keepdims=True)
    return float(-(p * np.log(p)).sum(1).mean())


def test_figures_agree_with_numpy() -> None:
    rng = np.random.default_rng(0)
    train, new = rng.normal(size=(150, 7)) * 3, rng.normal(size=(90, 7)) * 2
    labels, new_labels = rng.integers(0, 7, 150), rng.integers(0, 7, 90)
    found = diagnose(Reader(), batches(train, labels), batches(new, new_labels), temperature=2.5, name="validation")

    p = np.exp(new) / np.exp(new).sum(1, keepdims=True)
    right, confidence = p.argmax(1) == new_labels, p.max(1)
    ece = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert (found.samples, found.held_out, found.temperature) == (150, "validation", 2.5)
    assert found.train_accuracy == pytest.approx((train.argmax(1) == labels).mean())
    assert found.held_out_accuracy == pytest.approx(right.mean())
    assert found.calibration_error == pytest.approx(ece, abs=1e-5)
    assert found.entropy == pytest.approx(entropy(train, 2.5), rel=1e-5)
    assert found.held_out_entropy == pytest.approx(entropy(new, 2.5), rel=1e-5)
    assert found.maximum_entropy == pytest.approx(np.log(7))


def test_no_more_samples_are_asked_about_than_allowed() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 3)), rng.integers(0, 3, 200)
    reader = Reader()
    found = diagnose(reader, batches(logits, labels), batches(logits[:10], labels[:10]), most=60)
    assert found.samples == 60
    assert reader.asked == 80 + 10  # full batches
    assert found.train_accuracy == pytest.approx((logits[:60].argmax(1) == labels[:60]).mean())


def test_soft_targets_count_by_their_likeliest_class() -> None:
    logits = torch.eye(4)
    targets = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]])
    found = diagnose(Reader(), [(logits, targets)], [(logits, targets)])
    assert found.train_accuracy == 0.75


def given(train: float, held_out: float) -> Diagnosis:
    return Diagnosis(10_000, train, "test", held_out, 0.05, 2.0, 0.25, 0.75, float(np.log(10)))


@pytest.mark.parametrize(
    ("train", "held_out", "memorised"),
    [
        # The teacher of PyTorch's tutorial on CIFAR-10, without augmentation and with crop, flip and cosine decay.
        (0.978, 0.722, True),
        (0.818, 0.785, False),
        # The teachers of the recipes digits and mnist-mlp: nearly all right, on either side.
        (1.000, 0.9972, False),
        (0.9890, 0.9793, False),
        # What a residual network with crop and flip comes to on CIFAR-10.
        (1.000, 0.940, False),
        # Random labels of ten classes, memorised.
        (1.000, 0.100, True),
        # Right on neither side: it has still to learn, and its gap is less than half of its error.
        (0.600, 0.450, False),
        # Better on held-out data, as with much dropout or augmentation.
        (0.700, 0.850, False),
    ],
)
def test_the_rule_on_known_teachers(train: float, held_out: float, memorised: bool) -> None:
    found = given(train, held_out)
    assert found.memorised is memorised
    assert (found.warning is not None) is memorised


def test_the_warning_is_one_line_with_figures_and_remedy() -> None:
    warning = given(0.978, 0.722).warning
    assert warning is not None
    assert "\n" not in warning
    for word in (
        "97.8%",
        "72.2%",
        "0.25 nats at temperature 2, of at most 2.30",
        "memorised",
        "test",
        "augmentation",
        "weight decay",
    ):
        assert word in warning


def test_the_record_is_json() -> None:
    record = json.loads(json.dumps(given(0.978, 0.722).as_dict()))
    assert record.keys() == {field.name for field in dataclasses.fields(Diagnosis)} | {"memorised", "warning"}
    assert record["memorised"] is True


def test_what_cannot_be_diagnosed_is_said() -> None:
    class Silent(Reader):
        def __call__(self, batch: Batch) -> TeacherOutput:
            return TeacherOutput(None)

    class Draws(Reader):
        def __call__(self, batch: Batch) -> TeacherOutput:
            output: Any = Sampled(torch.ones(batch.size, 1), torch.zeros(batch.size, 1, dtype=torch.long))
            return TeacherOutput(output)

    loader = [(torch.eye(3), torch.arange(3))]
    with pytest.raises(RequestError, match="no logits"):
        diagnose(Silent(), loader, loader)
    with pytest.raises(RequestError, match="some classes alone no entropy is known"):
        diagnose(Reader(), loader, loader, cached=Draws())
    with pytest.raises(RequestError, match="no batch at all"):
        diagnose(Reader(), loader, [])
    with pytest.raises(RequestError, match="temperature must be above 0 and finite, not 0"):
        diagnose(Reader(), loader, loader, temperature=0)
