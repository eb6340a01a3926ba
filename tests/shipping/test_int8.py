"""int8 is chosen: schemes in their order, harmful layers found, bad files refused with the layers named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.export import write_onnx
from limbeck.quantization import session
from limbeck.shipping import runners
from limbeck.shipping.chosen import Chosen, settle
from limbeck.shipping.int8 import Attempt, Search, harmful, schemes, search
from limbeck.shipping.quantiser import Quantiser, Scheme
from limbeck.shipping.score import Gathering, Judged
from limbeck.tasks import Classification

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Hurt(nn.Module):
    """Two layers; in the second, outputs of very different size share one range of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.second = nn.Linear(16, 8)
        self.last = nn.Linear(8, 4)
        with torch.no_grad():
            self.second.weight[0] *= 3000
            self.last.weight[:, 0] /= 3000

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(self.second(self.first(x.flatten(1)).relu()))
        return found


@pytest.fixture(scope="module")
def hurt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("hurt") / "hurt.onnx"
    write_onnx(path, Hurt().eval(), {"shape": [16]})
    x = np.random.default_rng(0).random((256, 16), dtype=np.float32)
    return path, [{"input": x[i : i + 64]} for i in range(0, 256, 64)]


def test_schemes_come_in_their_order() -> None:
    plain = list(schemes(convolves=True, overflows=False))
    assert plain[0] == Scheme(True, "MinMax")
    assert plain[1] == Scheme(True, "MinMax", products_only=True)
    assert plain[2] == Scheme(False, "MinMax")
    assert plain[3].method == "Entropy"
    overflowing = list(schemes(convolves=False, overflows=True))
    assert overflowing[0] == Scheme(True, "MinMax", seven_bits=True)
    assert [one.method for one in overflowing[-2:]] == ["dynamic", "dynamic"]


def test_the_most_harmful_layer_is_found_and_left_out(hurt: tuple[Path, list[Any]]) -> None:
    path, calibration = hurt
    quantiser, fp32 = Quantiser(path, calibration), session.onnx(path)
    x = {"input": np.concatenate([batch["input"] for batch in calibration])}
    labels = fp32(x).argmax(1)

    def judge(run: runners.Runner) -> Judged:
        return judged(run(x), labels)

    try:
        assert set(quantiser.layers.values()) == {"first", "second", "last"}
        ranked = harmful(quantiser, fp32, Scheme(), lambda: False)
        assert next(iter(ranked)) in ("second", "last")
        assert ranked["first"] < 0.1 * max(ranked.values())
        found = search(quantiser, fp32, judge, judge(fp32), tolerance=0.0, seconds=60, overflows=False)
        assert all(one.drop == 1 - one.score for one in found.attempts)
        short = search(quantiser, fp32, judge, judge(fp32), tolerance=0.0, seconds=1e-9, overflows=False)
        assert len(short.attempts) == 1
        assert short.ended
    finally:
        quantiser.close()


def judged(logits: np.ndarray, labels: np.ndarray) -> Judged:
    gathering = Gathering(Classification())
    gathering.add(torch.from_numpy(logits), torch.from_numpy(labels), None)
    return gathering.judged()


def attempt(score: float, drop: float, distance: float) -> Attempt:
    return Attempt(Scheme(), (), b"", score, drop, distance)


def test_of_those_that_keep_the_tolerance_the_nearest_is_taken() -> None:
    lucky, near, bad = attempt(0.92, -0.02, 0.05), attempt(0.90, 0.0, 0.01), attempt(0.5, 0.4, 0.001)
    assert Search([lucky, near, bad]).best(0.003) is near
    assert Search([bad, attempt(0.6, 0.3, 0.9)]).best(0.003) == attempt(0.6, 0.3, 0.9)
    assert Search().best(0.003) is None


def test_a_file_that_the_test_set_shows_to_be_bad_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    path.write_bytes(b"")
    labels = np.arange(4)
    fp32, int8 = judged(np.eye(4), labels), judged(np.eye(4)[[0, 1, 2, 0]], labels)
    how = Chosen("validation", 1.0, 0.003, "max", Search(), attempt(1, 0, 0), rank=lambda: ["stage2.depthwise"])
    settle(how, fp32, int8, path)
    assert not path.exists()
    assert how.refused == (
        "int8 loses 25.00 points on the test set, and 0.30 are allowed; most error by stage2.depthwise"
    )
