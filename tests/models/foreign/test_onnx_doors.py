"""ONNX graphs with narrow doors: for one sample inside, with a number among their inputs, or in training mode."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck import ModuleTeacher, OnnxModel
from limbeck.engine.first.answers import check_answers
from limbeck.errors import RequestError
from limbeck.models.build import build
from limbeck.tasks import Classification
from limbeck.types import Batch

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
FLOAT = onnx.TensorProto.FLOAT
WEIGHTS = np.random.default_rng(0).normal(size=(48, 10)).astype(np.float32)
IMAGES = torch.rand(7, 3, 4, 4, generator=torch.Generator().manual_seed(0))
EXPECTED = torch.from_numpy(IMAGES.numpy().reshape(7, 48) @ WEIGHTS)


def saved(path: Path, nodes: list[Any], constants: dict[str, Any], more: list[Any] = []) -> Path:  # noqa: B006
    make = onnx.helper
    images = make.make_tensor_value_info("x", FLOAT, ["n", 3, 4, 4])
    graph = make.make_graph(
        nodes,
        "g",
        [images, *more],
        [make.make_tensor_value_info("logits", FLOAT, ["n", 10])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in {"w": WEIGHTS, **constants}.items()],
    )
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8), path)
    return path


def node(*args: Any, **attributes: Any) -> Any:
    return onnx.helper.make_node(*args, **attributes)


def test_a_graph_for_one_sample_inside_runs_sample_by_sample(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nodes = [node("Reshape", ["x", "shape"], ["flat"]), node("MatMul", ["flat", "w"], ["logits"])]
    model = OnnxModel(saved(tmp_path / "one.onnx", nodes, {"shape": np.array([1, 48])}))
    torch.testing.assert_close(model(IMAGES), EXPECTED, rtol=0, atol=1e-5)
    torch.testing.assert_close(model(IMAGES[:3]), EXPECTED[:3], rtol=0, atol=1e-5)
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "takes one sample at a time, whatever its input says, and is run so" in said
    batch = Batch(IMAGES, torch.arange(7), torch.arange(7))
    flat = ModuleTeacher(OnnxModel(tmp_path / "one.onnx"), ["flat"])(batch).features["flat"]
    assert torch.equal(flat, IMAGES.flatten(1))


def test_a_graph_that_joins_its_samples_runs_sample_by_sample(tmp_path: Path) -> None:
    """It runs on seven, and gives a single row for them all."""
    nodes = [
        node("Reshape", ["x", "shape"], ["rows"]),
        node("MatMul", ["rows", "w"], ["each"]),
        node("ReduceMean", ["each"], ["logits"], axes=[0], keepdims=1),
    ]
    model = OnnxModel(saved(tmp_path / "mean.onnx", nodes, {"shape": np.array([-1, 48])}))
    torch.testing.assert_close(model(IMAGES), EXPECTED, rtol=0, atol=1e-5)


def test_another_failure_is_told_as_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nodes = [node("Reshape", ["x", "shape"], ["flat"], name="to_rows"), node("MatMul", ["flat", "w"], ["logits"])]
    model = OnnxModel(saved(tmp_path / "wrong.onnx", nodes, {"shape": np.array([2, 48])}))
    with pytest.raises(RequestError) as told:
        model(IMAGES)
    assert capfd.readouterr().err == ""
    said = str(told.value)
    assert re.search(r"onnxruntime cannot run .* on 7 samples: its node to_rows \(Reshape\) fails: ", said)
    assert re.search(r"Input shape:\{7,3,4,4\}, requested shape:\{2,48\}; .*: export it with free sizes$", said)
    assert ".h" not in said


@pytest.mark.parametrize(
    ("nodes", "constants", "versions", "said"),
    [
        (
            [("MatMul", ["x", "w"], ["logits"])],
            {"w": WEIGHTS.astype(np.float64)},
            {},
            r"bound to different types .*named",
        ),
        ([("Own", ["x"], ["logits"])], {}, {"domain": "mine"}, r"mine:Own.* is not a registered .*ONNX's own: export"),
        ([("Relu", ["x"], ["logits"])], {}, {"ir_version": 99}, "IR version: 99, .*install a newer onnxruntime"),
        ([("Relu", ["x"], ["logits"])], {}, {"opset": 99}, "Opset 99 .*install a newer onnxruntime"),
        ([("Gather", ["x", "at"], ["logits"])], {"at": np.array([9])}, {}, r"its node named \(Gather\) fails: .*idx=9"),
    ],
)
def test_what_onnxruntime_refuses_is_told_with_its_node(
    nodes: list[Any], constants: dict[str, Any], versions: dict[str, Any], said: str, tmp_path: Path
) -> None:
    made = [node(*one, name="named", domain=versions.get("domain", "")) for one in nodes]
    model = onnx.load(saved(tmp_path / "odd.onnx", made, constants))
    model.ir_version = versions.get("ir_version", model.ir_version)
    model.opset_import[0].version = versions.get("opset", 17)
    if "domain" in versions:
        model.opset_import.append(onnx.helper.make_opsetid(versions["domain"], 1))
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(RequestError, match=said):
        OnnxModel(tmp_path / "odd.onnx", logits="logits")(IMAGES)


@pytest.mark.parametrize("shape", [[], [1]])
def test_a_number_among_the_inputs_is_given_once(tmp_path: Path, shape: list[int]) -> None:
    keep = onnx.helper.make_tensor_value_info("keep_prob", FLOAT, shape)
    nodes = [
        node("Flatten", ["x"], ["flat"]),
        node("Mul", ["flat", "keep_prob"], ["kept"]),
        node("MatMul", ["kept", "w"], ["logits"]),
    ]
    path = saved(tmp_path / "keep.onnx", nodes, {}, [keep])
    for value in (1.0, 0.5):
        model = build(f"onnx:{path}", input_shape=(3, 4, 4), classes=10, fixed={"keep_prob": value})
        torch.testing.assert_close(model(IMAGES), value * EXPECTED, rtol=0, atol=1e-5)
    assert not torch.equal(OnnxModel(path, fixed={"keep_prob": 1}).digest, model.digest)
    with pytest.raises(
        RequestError, match=r"keep_prob of .* is one number and no value a sample: .* fixed=\{'keep_prob'"
    ):
        OnnxModel(path)(IMAGES)
    with pytest.raises(RequestError, match=r"unknown input of .* 'keep'; did you mean keep_prob"):
        OnnxModel(path, fixed={"keep": 1.0, "keep_prob": 1.0})(IMAGES)


@pytest.mark.parametrize("on", [True, False])
def test_dropout_that_is_switched_on_is_said(tmp_path: Path, on: bool) -> None:
    nodes = [
        node("Flatten", ["x"], ["flat"]),
        node("MatMul", ["flat", "w"], ["scores"]),
        node("Dropout", ["scores", "ratio", "on"], ["logits"]),
    ]
    path = saved(tmp_path / "dropout.onnx", nodes, {"ratio": np.float32(0.25), "on": np.array(on)})
    teacher, batch = ModuleTeacher(OnnxModel(path)), Batch(IMAGES, torch.arange(7), torch.arange(7))
    notes = check_answers(teacher, batch, teacher(batch), Classification(), labelled=False)
    assert len(notes) == on
    assert all("gives other answers when asked again" in note for note in notes)


def test_batch_norm_in_training_mode_is_said(tmp_path: Path) -> None:
    nodes = [
        node("Flatten", ["x"], ["flat"]),
        node("MatMul", ["flat", "w"], ["scores"]),
        node("BatchNormalization", ["scores", "one", "zero", "zero", "one"], ["logits", "m", "v"], training_mode=1),
    ]
    one = np.ones(10, np.float32)
    path = saved(tmp_path / "norm.onnx", nodes, {"one": one, "zero": 0 * one})
    teacher, batch = ModuleTeacher(OnnxModel(path)), Batch(IMAGES, torch.arange(7), torch.arange(7))
    (note,) = check_answers(teacher, batch, teacher(batch), Classification(), labelled=False)
    assert "gives other answers when asked again" in note
