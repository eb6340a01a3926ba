"""`limbeck inspect` of foreign models: their own layers, and the size of what a quantised graph was made from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.errors import RequestError
from limbeck.models.build import build
from limbeck.models.inspect import inspect
from limbeck.taps import Taps

os.environ.setdefault("KERAS_BACKEND", "torch")
SHAPE = (3, 8, 8)
PARAMETERS = (3 * 4 * 9 + 4) + (4 * 4 * 9 + 4) + (4 * 10 + 10)
MULTIPLY_ADDS = 64 * 4 * 27 + 64 * 4 * 36 + 4 * 10


def test_a_keras_file_shows_its_layers(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras", reason="the extra keras is not installed")
    layers = keras.layers
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="first"), layers.ReLU(name="act")], name="inner")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.GlobalAveragePooling2D(name="pool"),
            inner,
            layers.Dense(10, activation="softmax", name="scores"),
        ]
    )
    model.save(tmp_path / "a.keras")
    name = f"keras:{tmp_path / 'a.keras'}"
    found = inspect(name, SHAPE, 10, probabilities=True)
    assert {tap.name for tap in found.taps} == {
        "conv", "norm", "pool", "inner", "inner.first", "inner.act", "scores",
    }  # fmt: skip
    assert not any(tap.operation for tap in found.taps)
    assert found.parameters == model.count_params()
    assert found.multiply_adds == 36 * 4 * 27 + 4 * 4 + 4 * 10
    with pytest.raises(RequestError, match="unknown tap of KerasModel 'log'; valid: conv, inner,"):
        Taps(build(name, input_shape=SHAPE, classes=10), ["log"])


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions with a shortcut around the second one, and a linear layer."""
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    make, rng = onnx.helper, np.random.default_rng(0)
    nodes = [
        make.make_node("Conv", ["image", "k1", "b1"], ["c1"], pads=[1] * 4),
        make.make_node("Relu", ["c1"], ["r1"]),
        make.make_node("Conv", ["r1", "k2", "b2"], ["c2"], pads=[1] * 4),
        make.make_node("Add", ["c2", "r1"], ["sum"]),
        make.make_node("GlobalAveragePool", ["sum"], ["pooled"]),
        make.make_node("Flatten", ["pooled"], ["flat"]),
        make.make_node("MatMul", ["flat", "w"], ["product"]),
        make.make_node("Add", ["product", "b"], ["logits"]),
    ]
    shapes = {"k1": (4, 3, 3, 3), "b1": (4,), "k2": (4, 4, 3, 3), "b2": (4,), "w": (4, 10), "b": (10,)}
    made = make.make_graph(
        nodes,
        "g",
        [make.make_tensor_value_info("image", 1, ["n", *SHAPE])],
        [make.make_tensor_value_info("logits", 1, ["n", 10])],
        [onnx.numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in shapes.items()],
    )
    path = tmp_path_factory.mktemp("graphs") / "float.onnx"
    onnx.save(make.make_model(made, opset_imports=[make.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_an_onnx_graph_shows_its_tensors(graph: Path) -> None:
    found = inspect(f"onnx:{graph}", SHAPE, 10)
    assert [tap.name for tap in found.taps] == ["c1", "r1", "c2", "sum", "pooled", "flat", "product", "logits"]
    assert (found.parameters, found.multiply_adds) == (PARAMETERS, MULTIPLY_ADDS)


@pytest.mark.filterwarnings("ignore")  # of onnxruntime's own quantisation
@pytest.mark.parametrize("kind", ["QDQ", "QDQ by channel", "QOperator", "dynamic"])
def test_a_quantised_graph_is_as_large_as_what_it_was_made_from(graph: Path, kind: str, tmp_path: Path) -> None:
    quantization: Any = pytest.importorskip("onnxruntime.quantization")

    class Samples(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[Any] = iter([{"image": np.ones((2, *SHAPE), np.float32)}] * 2)

        def get_next(self) -> Any:
            return next(self.left, None)

    path = tmp_path / "quantised.onnx"
    if kind == "dynamic":
        quantization.quantize_dynamic(graph, path)
    else:
        way = quantization.QuantFormat[kind.split()[0]]
        quantization.quantize_static(graph, path, Samples(), quant_format=way, per_channel=" " in kind)
    found = inspect(f"onnx:{path}", SHAPE, 10)
    assert (found.parameters, found.multiply_adds) == (PARAMETERS, MULTIPLY_ADDS)
    assert not any(tap.operation for tap in found.taps)
