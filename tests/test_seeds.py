from __future__ import annotations

import random

import numpy as np
import torch

from limbeck.seeds import random_state, restore_random_state


def test_all_generators_go_on_where_they_stood() -> None:
    def draw() -> list[float]:
        numbers = [random.gauss(), random.random(), *np.random.randn(3), np.random.rand(), torch.rand(()).item()]
        return [float(number) for number in numbers]

    draw()  # an odd number of Gaussian draws leaves one waiting in Python's and NumPy's generators
    kept = random_state()
    first, second = draw(), draw()
    restore_random_state(kept)
    assert [draw(), draw()] == [first, second]
