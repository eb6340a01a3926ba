"""Of models that return several outputs a recipe says which is meant: `output` of a teacher, of a student, of the task.

The teacher answers right by its second output, and class 0 by its first; the student's first head must stay as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import limbeck
from limbeck.data import DataSet
from limbeck.errors import RequestError
from limbeck.export import export_run
from limbeck.models.load import read_description
from limbeck.recipes import schema
from limbeck.recipes.read import check
from limbeck.runs import components, teachers
from limbeck.runs.finished.predict import predictor
from limbeck.runs.finished.read import evaluate_run
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.asking import Asking
from limbeck.runs.run import run
from limbeck.shipping import latency, ship
from limbeck.types import Batch

CODE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

def data():
    y = torch.arange(40) % 4
    y[30:] = 0
    x = torch.eye(4)[y] + 0.1 * torch.arange(40)[:, None] / 40
    return TensorDataset(x, y), TensorDataset(x, y)

class Pair(nn.Module):
    def forward(self, x):
        zero = 5 * torch.eye(4)[torch.zeros(len(x), dtype=torch.long)]
        return zero, 9 * x

class Named(Pair):
    def forward(self, x):
        return dict(zip(("zero", "right"), super().forward(x)))

class Heads(nn.Module):
    def __init__(self, pair=False):
        super().__init__()
        self.a, self.b, self.pair = nn.Linear(4, 4), nn.Linear(4, 4), pair

    def forward(self, x):
        return (self.a(x), self.b(x)) if self.pair else {"a": self.a(x), "b": self.b(x)}

def pair(): return Pair()
def named(): return Named()
def heads(pair=False): return Heads(pair)
"""
QUIET = Machine(accelerator="cpu", progress=False)
Y = torch.cat([torch.arange(30) % 4, torch.zeros(10, dtype=torch.long)])
X = torch.eye(4)[Y] + 0.1 * torch.arange(40)[:, None] / 40
ZERO = 18 / 40
"""Samples of class 0: 8 of the first 30, and the last 10."""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "several.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    return tmp_path


def recipe(teacher: dict[str, Any], student: dict[str, Any], **changes: Any) -> schema.Recipe:
    return check(
        {
            "data": {"name": "several:data", "batch_size": 20},
            "teacher": {"model": "several:named", **teacher},
            "student": {"model": "several:heads", **student},
            "distill": {"task_weight": 0, "terms": [{"loss": "kd", "temperature": 1}]},
            "epochs": 30,
            "optimizer": {"lr": 0.1},
            **changes,
        }
    )


def accuracy(path: Path, head: str) -> float:
    """What a head of the student's file is right about, by its weights and bias."""
    weights = load_file(path)
    logits: Tensor = X @ weights[f"{head}.weight"].T + weights[f"{head}.bias"]
    return float((logits.argmax(1) == Y).float().mean())


def test_the_right_outputs_teach_and_are_shipped(project: Path) -> None:
    made = recipe({"output": "right"}, {"output": "b"})
    result = run(made, root=project, out=project / "run", machine=QUIET)
    assert result["teacher"]["test_accuracy"] == 1.0
    assert result["distilled"]["test_accuracy"] == accuracy(project / "run/student.safetensors", "b") == 1.0
    assert result["distilled"]["test"]["agreement"] == 1.0
    data = components.data(made.data, project)
    start = components.model(made.student, data, made.seed).state_dict()
    for name in ("baseline", "student"):
        assert torch.equal(load_file(project / f"run/{name}.safetensors")["a.weight"], start["a.weight"])
    assert evaluate_run(project / "run")["accuracy"] == 1.0
    logits = limbeck.load_model(project / "run/student.json")(X)
    assert torch.equal(logits.argmax(1), Y)
    exported = export_run(project / "run", onnx=True)
    assert read_description(exported["json"])["output"] == "b"
    assert torch.equal(limbeck.load_model(exported["json"])(X), logits)
    np.save(project / "sample.npy", X[1:2].numpy())
    [said] = predictor(project / "run").predict([project / "sample.npy"])
    assert said.top[0][0] == "1"


@pytest.mark.parametrize("quantize", [{"epochs": 10, "samples": 16}, None])
def test_int8_files_give_the_output(
    quantize: dict[str, Any] | None, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other head is in no file; it would be right about class 0 alone."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(latency, "ROUNDS", 8)
    made = recipe({"output": "right"}, {"output": "b"}, epochs=40, quantize=quantize)
    result = run(made, root=project, out=project / "run", machine=QUIET, baseline=False)
    given: dict[str, Any] = {"formats": ["onnx-int8"], "batch": [1], "memory": False, "calibration_samples": 16}
    found = ship(project / "run", out=project / "files", tolerance=20, progress=False, **given)
    [row] = [one for one in found["rows"] if (one["model"], one["precision"]) == ("distilled", "int8")]
    files = {project / "files" / row["file"]: row["score"]}
    if quantize:
        files[project / "run/student-int8.onnx"] = result["int8"]["distilled"]["test_accuracy"]
    for path, score in files.items():
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        [answers] = session.run(None, {session.get_inputs()[0].name: X.numpy()})
        assert (answers.argmax(1) == Y.numpy()).mean() == score == 1.0
        weights = [one for one in onnx.load(path).graph.initializer if list(one.dims) == [4, 4]]
        assert [one.data_type for one in weights] == [onnx.TensorProto.INT8]


def test_the_wrong_output_is_another_teacher(project: Path) -> None:
    made = recipe({"model": "several:pair", "output": 0}, {"pair": True, "output": 1}, epochs=1)
    result = run(made, root=project, out=project / "run", machine=QUIET, baseline=False)
    assert result["teacher"]["test_accuracy"] == ZERO
    changed = made.model_copy(update={"teacher": made.teachers[0].model_copy(update={"output": 1})})
    with pytest.raises(RequestError, match=r"teacher.output was 0 and is 1"):
        run(changed, root=project, out=project / "run", machine=QUIET, baseline=False, resume=True)


def test_the_tasks_output_holds_for_students_and_for_teachers_that_have_it(project: Path) -> None:
    made = recipe({"model": "several:pair"}, {"pair": True}, task={"name": "classification", "output": 1}, epochs=1)
    assert made.student.output == 1
    data = components.data(made.data, project)
    [one] = teachers.candidates(made, data)
    batch = Batch(X, Y, torch.arange(40))
    assert torch.equal(teachers.as_one([one])(batch).output, 9 * X)
    made = recipe({"model": "mlp", "hidden": [2], "epochs": 1}, {}, task={"name": "classification", "output": "b"})
    [one] = teachers.candidates(made, data)
    assert torch.equal(teachers.as_one([one])(batch).output, one.module(X))


def test_a_teacher_is_trained_by_its_output_and_kept_apart(project: Path) -> None:
    trained = {"model": "several:heads", "epochs": 20, "optimizer": {"lr": 0.1}}
    made, other = (recipe({**trained, "output": head}, {"output": "a"}, epochs=1) for head in "ba")
    result = run(made, root=project, out=project / "run", machine=QUIET, baseline=False)
    assert result["teacher"]["test_accuracy"] == accuracy(Path(result["teacher"]["weights"]), "b") == 1.0
    data = components.data(made.data, project)
    kept, made_of = zip(*(keys(one, data) for one in (made, other)), strict=True)
    assert kept[0] != kept[1]
    assert made_of[0]["teacher"] != made_of[1]["teacher"]


def keys(made: schema.Recipe, data: DataSet) -> tuple[str, dict[str, str]]:
    """The name of the kept teacher, and what its stored outputs are made of."""
    found = teachers.candidates(made, data)
    assert found[0].kept is not None
    asking = Asking(made, data, QUIET.fabric("32-true"), schema.Store())
    return found[0].kept.name, asking.made_of(teachers.as_one(found))


@pytest.mark.parametrize(
    ("teacher", "student", "words"),
    [
        (
            {"output": "z"},
            {"output": "b"},
            "teacher returns .*zero, right, which has no output 'z'; .*teacher.output",
        ),
        ({"output": "right"}, {"output": "z"}, "student returns .*a, b, which has no output 'z'; .*student.output"),
        ({"output": "right"}, {}, "the student returns .*a, b.*student.output:"),
        ({}, {"output": "b"}, "the teacher returns .*zero, right.*teacher.output:"),
    ],
)
def test_a_missing_or_wrong_output_is_said_before_the_first_step(
    teacher: dict[str, Any], student: dict[str, Any], words: str, project: Path
) -> None:
    with pytest.raises(RequestError, match=words):
        run(recipe(teacher, student), root=project, out=project / "run", machine=QUIET)
    assert not (project / "run").exists()
