"""`quantize` in recipes: what result.json says of an int8 file is what onnxruntime finds in it, at equal epochs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from limbeck.compare.comparison import compare
from limbeck.compare.table import table
from limbeck.data import sets
from limbeck.errors import RequestError
from limbeck.models import mlp
from limbeck.models.load import load_model
from limbeck.recipes.length import at_length
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.shipping import latency, ship

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.usefixtures("few_digits")

QUIET = Machine(accelerator="cpu", progress=False)
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "data": {"batch_size": 64},
    "teacher": {"model": "mlp", "hidden": [64], "epochs": 4, "optimizer": {"lr": 0.01}},
    "student": {"model": "mlp", "hidden": [24], "mean": [0.3], "std": [0.4]},
    "distill": {"terms": [{"loss": "kd", "weight": 0.5, "temperature": 2}]},
    "epochs": 4,
    "optimizer": {"lr": 0.01},
    "quantize": {"epochs": 1, "samples": 64},
}


def accuracy(path: Path) -> float:
    """What onnxruntime, fed with pixels alone, gets right of the test set."""
    test = sets.load("digits", Path()).test
    x = test.inputs.numpy().astype(np.float32) / 255  # type: ignore[union-attr]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return float((session.run(None, {"input": x})[0].argmax(1) == test.targets.numpy()).mean())


def phases(folder: Path) -> dict[str, int]:
    """How many epochs each training recorded."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {phase: sum(one["phase"] == phase for one in records) for phase in {one["phase"] for one in records}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, few_digits: None) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("quantized") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMBECK_CACHE", str(tmp_path_factory.mktemp("cache")))
        return folder, run(check(RECIPE), root=folder, out=folder, machine=QUIET)


@pytest.mark.parametrize(("student", "phase"), [("baseline", "baseline"), ("distilled", "student")])
def test_the_figures_are_those_of_the_file_in_onnxruntime(
    finished: tuple[Path, dict[str, Any]], student: str, phase: str
) -> None:
    import onnx

    folder, result = finished
    entry, path = result["int8"][student], folder / f"{phase}-int8.onnx"
    assert entry["file"] == path.name
    assert entry["test_accuracy"] == entry["test"]["accuracy"] == pytest.approx(accuracy(path), abs=1e-9)
    assert entry["bytes"] == path.stat().st_size
    weights = [one for one in onnx.load(path).graph.initializer if np.prod(one.dims) >= 240]
    assert [one.data_type for one in weights] == [onnx.TensorProto.INT8] * 2
    most = max(np.abs(onnx.numpy_helper.to_array(one)).max() for one in weights)
    assert most == {8: 127, 7: 63}[entry["bits"]]


def test_epochs_for_int8_are_a_part_of_the_recipe_s(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    assert phases(folder) == {"teacher": 4, "baseline": 3, "student": 3, "baseline-int8": 1, "student-int8": 1}
    for student, taught_by in (("baseline", "labels"), ("distilled", "the teacher")):
        assert (result[student]["epochs"], result["int8"][student]["epochs"]) == (3, 1)
        assert result["int8"][student]["taught_by"] == taught_by
    assert result["int8"]["distilled"]["test"]["agreement"] > 0.5


def test_a_resumed_run_trains_for_int8_what_is_missing(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    import shutil

    folder, result = finished
    again = tmp_path / "run"
    shutil.copytree(folder, again)
    for name in ("result.json", "student-int8.onnx", "student-int8.json", "student-int8.safetensors"):
        (again / name).unlink()
    shutil.rmtree(again / "checkpoints")
    resumed = run(check(RECIPE), root=folder, out=again, resume=True, machine=QUIET)
    untimed = [
        {name: {k: v for k, v in one.items() if k != "seconds"} for name, one in found["int8"].items()}
        for found in (result, resumed)
    ]
    assert untimed[0] == untimed[1]
    assert (again / "student-int8.onnx").read_bytes() == (folder / "student-int8.onnx").read_bytes()


def test_a_run_of_other_epochs_for_int8_is_another_run(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    with pytest.raises(RequestError, match=r"quantize\.epochs was 1 and is 2"):
        run(check(changed(quantize={"epochs": 2, "samples": 64})), root=folder, out=folder, resume=True, machine=QUIET)


def test_a_network_with_quantisers_is_no_student(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    with pytest.raises(RequestError, match=r"the int8 file is student-int8\.onnx beside it"):
        load_model(folder / "student-int8.json")


def test_ship_takes_the_file_that_the_run_has_trained(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 8)
    folder, result = finished
    given: dict[str, Any] = {"formats": ["onnx-int8"], "batch": [1], "memory": False, "calibration_samples": 128}
    found = ship(folder, out=tmp_path / "out", tolerance=20, progress=False, **given)
    for model, name in (("distilled", "student"), ("baseline", "baseline")):
        assert found["chosen"]["run"][model]["scheme"].startswith("trained for int8")
        (row,) = (one for one in found["rows"] if (one["model"], one["precision"]) == (model, "int8"))
        assert (tmp_path / "out" / row["file"]).read_bytes() == (folder / f"{name}-int8.onnx").read_bytes()
        assert row["score"] == pytest.approx(result["int8"][model]["test_accuracy"], abs=1e-9)


def test_another_length_keeps_the_share_for_int8() -> None:
    recipe = check(changed(epochs=20, quantize={"epochs": 4}))
    assert at_length(recipe, 10).quantize == recipe.quantize.model_copy(update={"epochs": 2})  # type: ignore
    assert at_length(recipe, 2).quantize.epochs == 1  # type: ignore
    assert at_length(check(changed(quantize={"epochs": 0})), 2).quantize.epochs == 0  # type: ignore


def changed(**keys: Any) -> dict[str, Any]:
    return copy.deepcopy(RECIPE) | keys


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (changed(quantize={"epochs": 4}), r"quantize.epochs 4 leaves nothing of 4 epochs"),
        (changed(quantize={}), "of 4 that is less than one; write quantize.epochs: 1, or 0"),
        (
            changed(student={"model": "byot_small", "widths": [4, 6], "depth": 1}, distill={"scheme": "self"}),
            "this one has several exits",
        ),
        (changed(quantize={"epoch": 1}), r"unknown key 'quantize.epoch'; did you mean epochs"),
        (changed(quantize={"bits": 4}), "quantize.bits: "),
        (changed(quantize={"epochs": True}), "quantize.epochs: true and false"),
        (changed(student={"model": "test_quantized:ragged"}), r"ragged cannot be quantised: torch.export cannot take"),
        (changed(student={"model": "test_quantized:scaled"}), "has no convolution and no linear layer"),
    ],
)
def test_what_cannot_be_quantised_is_refused_before_training(
    recipe: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with pytest.raises(RequestError, match=message) as error:
        run(check(recipe), root=tmp_path, out=tmp_path / "run", machine=QUIET)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def ragged(*, input_shape: tuple[int, ...], classes: int) -> torch.nn.Module:
    """A network whose way depends on its values."""

    class Ragged(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x.flatten(1))
            return y if y.sum() > 0 else 2 * y

    return Ragged(64, classes)


def scaled(*, input_shape: tuple[int, ...], classes: int) -> torch.nn.Module:
    """A network that multiplies, and has no layer that int8 knows."""

    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(classes))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, : len(self.scale)] * self.scale

    return Scaled()


def test_labels_alone_need_labels(tmp_path: Path) -> None:
    weights = tmp_path / "teacher.pt"
    torch.save(mlp(input_shape=(1, 8, 8), classes=10, hidden=[8]).state_dict(), weights)
    teacher = {"model": "mlp", "hidden": [8], "weights": str(weights)}
    distill = {"task_weight": 0, "terms": [{"loss": "mse"}]}
    recipe = changed(task="embedding", teacher=teacher, distill=distill, quantize={"epochs": 1, "teacher": False})
    with pytest.raises(RequestError, match=r"quantize.teacher: false trains by labels, and this task has none"):
        run(check(recipe), root=tmp_path, out=tmp_path / "run", machine=QUIET)


def test_ways_to_int8_are_compared_at_equal_epochs(tmp_path: Path) -> None:
    recipe = check({key: value for key, value in changed(epochs=10).items() if key != "quantize"})
    with pytest.raises(RequestError, match="of 3 that is less than one"):
        compare(at_length(recipe, 3), ["qat"], [0], root=tmp_path, out=tmp_path / "none", machine=QUIET)
    found = compare(recipe, ["ptq", "qat-kd"], [0], root=tmp_path, out=tmp_path / "c", machine=QUIET)
    assert list(found["methods"]) == ["baseline", "ptq", "qat-kd"]
    entries = {
        name: json.loads((tmp_path / "c" / f"{name}-seed0" / "result.json").read_text()) for name in found["methods"]
    }
    assert [entry["epochs"] for entry in entries.values()] == [10, 10, 10]
    assert "fp32" not in entries["baseline"]
    for method, epochs, taught_by in (("ptq", 10, None), ("qat-kd", 9, "the teacher")):
        entry = entries[method]
        assert entry["taught_by"] == taught_by
        assert entry["fp32"]["epochs"] == epochs
        assert entry["test_accuracy"] == pytest.approx(
            accuracy(tmp_path / "c" / f"{method}-seed0" / entry["file"]), abs=1e-9
        )
        assert entry["test"] != entry["fp32"]["test"]
        hits = load_file(tmp_path / "c" / f"{method}-seed0" / "test_hits.safetensors")["student"]
        assert hits.mean() == pytest.approx(entry["test_accuracy"])
    assert table([tmp_path / "c"]).unequal == []
