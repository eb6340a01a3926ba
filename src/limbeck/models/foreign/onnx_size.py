"""The size of an ONNX graph: its weights and multiply-adds, those of a quantised one as of what it was made from."""

from __future__ import annotations

import math
from typing import Any

_WEIGHT = {
    "Conv": 1, "FusedConv": 1, "Gemm": 1, "FusedGemm": 1, "MatMul": 1, "FusedMatMul": 1,
    "ConvInteger": 1, "MatMulInteger": 1, "DynamicQuantizeMatMul": 1, "MatMulIntegerToFloat": 1,
    "QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3,
}  # fmt: skip
"""Which input of a node its weights are."""
_CODES = {
    "DequantizeLinear": (0,), "ConvInteger": (1,), "MatMulInteger": (0, 1), "DynamicQuantizeMatMul": (1,),
    "MatMulIntegerToFloat": (1,), "DynamicQuantizeLSTM": (1, 2), "Gather": (0,),
}  # fmt: skip
"""Which inputs of a node may be weights of whole numbers; all of those that are named QLinear…."""
_SCALES = {
    "DequantizeLinear": (1, 2), "QuantizeLinear": (1, 2), "MatMulIntegerToFloat": (2, 3, 4, 5),
    "DynamicQuantizeMatMul": (2, 3), "DynamicQuantizeLSTM": (8, 9, 10, 11), "MatMulNBits": (1, 2, 3),
}  # fmt: skip
"""Which inputs of a node say how codes are to be read, and are no weights; the packed ones are counted apart."""
_UNCHANGED = ("DequantizeLinear", "Cast", "Identity")


class Sizes:
    """The shapes of a graph's weights, also of those that it computes from others, such as dequantised ones."""

    def __init__(self, graph: Any) -> None:
        self._shapes = {weight.name: list(weight.dims) for weight in graph.initializer}

    def follow(self, onnx: Any, node: Any) -> None:
        """Take note of a node that depends on weights alone."""
        shape = self._shapes.get(node.input[0]) if node.input else None
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            shape = list(node.attribute[0].t.dims)
        elif node.op_type == "Transpose" and shape is not None:
            order = _attribute(node, "perm")
            shape = [shape[i] for i in order.ints] if order else shape[::-1]
        elif node.op_type not in _UNCHANGED:
            shape = None
        if shape is not None and node.output:
            self._shapes[node.output[0]] = shape

    def products(self, node: Any) -> int:
        """Multiply-adds for each value of a node's output; 0 where it has no weights, or is no product."""
        if node.op_type == "MatMulNBits":
            inner = _attribute(node, "K")
            return int(inner.i) if inner else 0
        place = _WEIGHT.get(node.op_type, len(node.input))
        weight = self._shapes.get(node.input[place], []) if place < len(node.input) else []
        if len(weight) < 2:
            return 0
        if "Conv" in node.op_type:
            return math.prod(weight[1:])
        flipped = _attribute(node, "transB")
        return int(weight[-1 if flipped and flipped.i else -2])


def weights(onnx: Any, graph: Any) -> int:
    """The number of weights: tensors of real numbers, codes for such, and the coefficients of scikit-learn's nodes."""
    real = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                tensors[node.output[0]] = attribute.t
    floats = {name for name, tensor in tensors.items() if tensor.data_type in real}
    codes, scales = _placed(graph, _CODES), _placed(graph, _SCALES) | _products_of_scales(graph)
    for node in graph.node:
        if node.op_type.startswith("QLinear") or node.op_type == "QGemm":  # tensor, scale, code of 0; and so on
            codes.update(node.input)
            for name, following in zip(node.input, [*node.input[1:], ""], strict=True):
                scales.update({name, following} if name in floats else ())
    counted = [tensor for name, tensor in tensors.items() if name in (floats | codes) - scales]
    packed = [node for node in graph.node if node.op_type == "MatMulNBits"]
    return (
        sum(math.prod(map(int, tensor.dims)) for tensor in counted)
        + sum(int(_attribute(node, "K").i * _attribute(node, "N").i) for node in packed)
        + sum(len(attribute.floats) for node in graph.node for attribute in node.attribute)
    )


def _products_of_scales(graph: Any) -> set[str]:
    """The weights' scales where a graph that is quantised as it runs multiplies them by those of its inputs."""
    found = {node.output[1] for node in graph.node if node.op_type == "DynamicQuantizeLinear"}
    return {
        name for node in graph.node if node.op_type == "Mul" and found & set(node.input) for name in node.input
    } - found


def _placed(graph: Any, places: dict[str, tuple[int, ...]]) -> set[str]:
    """The tensors that stand at such places of nodes."""
    return {
        node.input[place]
        for node in graph.node
        for place in places.get(node.op_type, ())
        if place < len(node.input) and node.input[place]
    }


def _attribute(node: Any, name: str) -> Any:
    return next((attribute for attribute in node.attribute if attribute.name == name), None)
