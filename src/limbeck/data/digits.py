"""The handwritten digits of scikit-learn, from its file, without its import, which takes twice as long as torch's."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = "datasets/data/digits.csv.gz"
"""In scikit-learn's package: 64 pixels and the class a line."""


def read_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Images, (1797, 8, 8), of ink from 0 to 16, and their classes, (1797,); `sklearn.datasets.load_digits`.

    Source: E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI machine learning repository, 1998.
    """
    package = find_spec("sklearn")
    path = Path((package.submodule_search_locations or [""])[0], FILE) if package else None
    if path is None or not path.is_file():
        from sklearn.datasets import load_digits

        digits = load_digits()
        return digits.images, digits.target
    rows = np.loadtxt(path, delimiter=",")
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)
