"""Students of every task are shipped: the table has the task's monitor, in its direction, of the file on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.shipping import OwnModel, latency, ship
from limbeck.shipping.intervals import jackknife
from limbeck.shipping.score import Gathering, Judged, lost
from limbeck.tasks import Classification, Embedding, MultiLabel, Regression, Segmentation, Task

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def batches(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(50), y.split(50), strict=True))


def linear(weight: Tensor) -> nn.Module:
    network = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        network.weight.copy_(weight)
    return network


X = random(200, 6)
WEIGHT = random(3, 6, seed=1) - 0.5
NOISE = 0.2 * (random(200, 3, seed=2) - 0.5)
IMAGES = random(120, 1, 6, 6, seed=3)
MASKS = (IMAGES[:, 0] + 0.2 * random(120, 6, 6, seed=4) > 0.6).long()
CONV = nn.Conv2d(1, 2, 1)
with torch.no_grad():
    CONV.weight.copy_(torch.tensor([0.0, 8.0]).view(2, 1, 1, 1))
    CONV.bias.copy_(torch.tensor([0.0, -4.0]))  # type: ignore[union-attr]
CASES: dict[str, tuple[Task, nn.Module, Tensor, Tensor]] = {
    "regression": (Regression(), linear(WEIGHT), X, X @ WEIGHT.T + NOISE),
    "multi-label": (MultiLabel(), linear(WEIGHT), X, (X @ WEIGHT.T + NOISE > 0).float()),
    "segmentation": (Segmentation(), CONV, IMAGES, MASKS),
}


def expected(name: str, outputs: np.ndarray, targets: np.ndarray) -> float:
    """The monitor by NumPy and scikit-learn."""
    if name == "regression":
        return float(np.sqrt(((outputs - targets) ** 2).mean()))
    if name == "multi-label":
        return float(average_precision_score(targets, outputs, average="macro"))
    said = outputs.argmax(1)
    both = [((said == k) & (targets == k)).sum() / ((said == k) | (targets == k)).sum() for k in range(2)]
    return float(np.mean(both))


@pytest.mark.parametrize("name", CASES)
def test_the_table_has_the_tasks_monitor_of_the_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 4)
    task, network, x, y = CASES[name]
    parts = {"test": batches(x, y), "validation": batches(x, y), "calibration": batches(x, y)}
    teacher = network if name == "regression" else None
    own = OwnModel(network, **parts, teacher=teacher, baseline=network, task=task, name="mine")
    found = ship(own, out=tmp_path / "out", formats=["onnx", "onnx-int8"], batch=[1], tolerance=50, memory=False)
    assert (found["task"], found["monitor"], found["mode"]) == (task.name, task.monitor, task.mode)
    for precision in ("fp32", "int8"):
        (row,) = (
            r for r in found["rows"] if (r["model"], r["runtime"], r["precision"]) == ("distilled", "onnx", precision)
        )
        session = onnxruntime.InferenceSession(tmp_path / "out" / row["file"], providers=["CPUExecutionProvider"])
        # In the batches that ship read: dynamic int8 takes each batch's own range.
        outputs = np.concatenate([session.run(None, {"input": some.numpy()})[0] for some, _ in batches(x, y)])
        assert row["score"] == pytest.approx(expected(name, outputs, y.numpy()), abs=1e-5)
        low, high = row["interval"]
        assert low < row["score"] < high
        low, high = row["beside_baseline"]["interval"]
        assert low <= row["beside_baseline"]["difference"] <= high
    about = json.loads((tmp_path / "out" / "limbeck.json").read_text())
    assert about["output"]["shape"] == ["batch", *outputs.shape[1:]]
    np.save(tmp_path / "samples.npy", x[:4].numpy())
    run = [sys.executable, "run_onnx.py", str(tmp_path / "samples.npy")]
    printed = subprocess.run(run, cwd=tmp_path / "out", capture_output=True, text=True, check=True).stdout
    alone = session.run(None, {"input": x[:4].numpy()})[0]
    if name == "segmentation":
        assert [json.loads(line) for line in printed.splitlines()] == alone.argmax(1).tolist()
    if name == "regression":
        np.testing.assert_allclose([json.loads(line) for line in printed.splitlines()], alone, atol=1e-4)


def gathered(outputs: torch.Tensor, targets: torch.Tensor) -> Judged:
    gathering = Gathering(Regression())
    gathering.add(outputs, targets, None)
    return gathering.judged()


def test_less_of_an_error_is_better_in_drops_and_on_the_frontier() -> None:
    y = random(40, 1)

    def judged(shift: float) -> Judged:
        return gathered(y + shift, y)

    assert judged(0.3).drop(judged(0.2)) == pytest.approx(0.5)
    assert judged(0.1).drop(judged(0.2)) == pytest.approx(-0.5)
    assert lost(0.5, "min") == "50.00 %"
    assert lost(0.005, "max") == "0.50 points"


def test_the_jackknife_covers_the_score_of_the_population() -> None:
    """Of 300 samples of 200 squared errors, 95 % of the intervals hold the population's root mean square."""
    generator = torch.Generator().manual_seed(5)
    covered = 0
    for _ in range(300):
        errors = torch.randn(200, 1, generator=generator)
        low, high = gathered(errors, torch.zeros(200, 1)).interval
        covered += low <= 1.0 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    from scipy import stats

    values = np.array([1.0, 4.0, 2.0, 8.0, 5.0])
    without = [float(np.delete(values, at).mean()) for at in range(5)]
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert jackknife(float(values.mean()), without) == pytest.approx((low, high))


def test_embeddings_are_judged_beside_their_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 4)
    teacher = linear(random(5, 6, seed=6) - 0.5)
    own = OwnModel(teacher, test=[X[:100], X[100:]], teacher=teacher, task=Embedding(), name="mine")
    found = ship(own, out=tmp_path / "out", int8=False, formats=["onnx"], batch=[1], memory=False)
    assert found["rows"][-1]["score"] == pytest.approx(1, abs=1e-5)


def test_what_has_no_softmax_is_refused(tmp_path: Path) -> None:
    one = linear(random(1, 6, seed=7))
    regression = OwnModel(one, test=batches(X, X[:, :1]), task=Regression())
    for own in (regression, OwnModel(one, test=batches(X, (X[:, 0] > 0.5).long()))):
        with pytest.raises(RequestError, match="leave it beside"):
            ship(own, out=tmp_path / "out", int8=False, postprocessing="inside")
    classifier = OwnModel(linear(WEIGHT), test=batches(X, X.argmax(1) % 3), task=Classification(), name="other")
    with pytest.raises(RequestError, match="ship them one by one"):
        ship([regression, classifier], out=tmp_path / "out", int8=False)
    assert list(tmp_path.iterdir()) == []
