"""Several labels a sample are no probabilities; losses for classes that exclude each other are said where none do."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import Distiller, RequestError, Term, fit, losses
from limbeck.tasks import (
    Classification,
    LanguageModelling,
    MultiLabel,
    Regression,
    Segmentation,
    Task,
    TokenClassification,
)
from limbeck.tasks.positions import Positions

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
LABELS = (X > 0).float()
SGD = partial(torch.optim.SGD, lr=0.01)


class Everywhere(nn.Module):
    """Logits of four classes for each of four tokens, or of each of 2×2 pixels."""

    def __init__(self, pixels: bool) -> None:
        super().__init__()
        self.head, self.pixels = nn.Linear(1, 4), pixels

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x[..., None])
        return logits.transpose(1, 2).unflatten(2, (2, 2)) if self.pixels else logits


def network(task: Task) -> nn.Module:
    return Everywhere(isinstance(task, Segmentation)) if isinstance(task, Positions) else nn.Linear(4, 4)


def train(task: Task, targets: Tensor, *terms: Term) -> None:
    torch.manual_seed(0)
    scheme = Distiller(network(task), terms, task=task)
    fit(scheme, [(X, targets)], teacher=network(task) if terms else None, epochs=1, optimizer=SGD, progress=False)


def test_several_labels_are_no_probabilities() -> None:
    with pytest.raises(RequestError, match=r"add up to 1, and those of a sample here to .*task=MultiLabel\(\)"):
        train(Classification(), LABELS)
    train(MultiLabel(), LABELS)
    train(Classification(), X.softmax(1).half().float())
    train(Classification(loss=nn.BCEWithLogitsLoss()), LABELS)


@pytest.mark.parametrize(
    ("task", "loss", "words"),
    [
        (
            MultiLabel(),
            losses.kd,
            "term kd compares probabilities of classes .* multi-label has none; see sigmoid_kd",
        ),
        (Regression(), losses.dist, "term dist compares .* regression has none; see mse or bounded_regression"),
        (Regression(), losses.CTKD, "term CTKD compares .* regression has none"),
        (MultiLabel(), losses.sigmoid_kd, ""),
        (Regression(), losses.mse, ""),
        (Regression(), losses.bounded_regression, ""),
        (Classification(), losses.kd, ""),
        (TokenClassification(), losses.kd, ""),
        (LanguageModelling(), losses.kd, ""),
        (Segmentation(), losses.kd, ""),
    ],
)
def test_losses_for_other_tasks_are_said(task: Task, loss: Any, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    targets = X.argmax(1) if isinstance(task, Classification) else LABELS
    if isinstance(task, Positions):
        targets = LABELS.long().unflatten(1, (2, 2)) if isinstance(task, Segmentation) else LABELS.long()
    train(task, targets, Term(loss))
    said = [line for line in capsys.readouterr().err.splitlines() if "compares probabilities" in line]
    assert bool(said) == bool(words)
    assert not words or re.search(words, said[0])
