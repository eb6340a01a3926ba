"""The digits are scikit-learn's, wherever they are read."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from limbeck.data import digits


@pytest.mark.parametrize("file", [digits.FILE, "no/such/file"])
def test_digits_are_scikit_learns(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "FILE", file)
    images, classes = digits.read_digits()
    theirs = load_digits()
    np.testing.assert_array_equal(images, theirs.images)
    np.testing.assert_array_equal(classes, theirs.target)
