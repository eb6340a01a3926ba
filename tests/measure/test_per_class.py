"""Figures by class, by hand: classes that are never predicted, or have no samples, have no such figure."""

from __future__ import annotations

import torch

from limbeck.measure.per_class import confusion, macro, per_class


def test_by_hand() -> None:
    counts = confusion(torch.tensor([0, 0, 1, -100]), torch.tensor([0, 0, 0, 1]), 3)
    assert counts.tolist() == [[2, 0, 0], [1, 0, 0], [0, 0, 0]]
    rows = per_class(counts)
    assert rows == [
        {"support": 2, "precision": 2 / 3, "recall": 1.0, "f1": 0.8},
        {"support": 1, "precision": None, "recall": 0.0, "f1": 0.0},
        {"support": 0, "precision": None, "recall": None, "f1": None},
    ]
    assert macro(rows) == {"precision": 2 / 3, "recall": 0.5, "f1": 0.4}
