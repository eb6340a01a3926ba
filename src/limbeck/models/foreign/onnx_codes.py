"""Quantised tensors of an ONNX graph: what the whole numbers in them stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

_PLACES = {
    "QuantizeLinear": (1, 2), "QLinearConv": (6, 7), "QLinearMatMul": (6, 7), "QGemm": (7, 8), "QLinearAdd": (6, 7),
    "QLinearMul": (6, 7), "QLinearSoftmax": (3, 4), "QLinearSigmoid": (3, 4), "QLinearLeakyRelu": (3, 4),
    "QLinearAveragePool": (3, 4), "QLinearGlobalAveragePool": (3, 4),
}  # fmt: skip
"""Where a node that gives codes has their scale, and the code of 0."""
_KEEPS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Transpose", "MaxPool", "Slice", "Gather", "Expand")
"""Nodes that move values, and leave each as it is."""


@dataclass(frozen=True)
class Scale:
    """What the codes of a tensor stand for: `step` · (code − `zero`)."""

    step: float
    zero: int

    def real(self, codes: Tensor) -> Tensor:
        """The real numbers, in fp32."""
        return (codes.float() - self.zero) * self.step


def scales(onnx: Any, graph: Any) -> dict[str, Scale]:
    """The scale of each quantised tensor that has one for all of its values."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.HasField("t")
    }
    found: dict[str, Scale] = {}
    for node in graph.node:
        if node.op_type in _PLACES:
            step, zero = (_number(onnx, constants, node, place) for place in _PLACES[node.op_type])
            if step is not None and zero is not None:
                found[node.output[0]] = Scale(step, int(zero))
        elif node.op_type in _KEEPS and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def _number(onnx: Any, constants: dict[str, Any], node: Any, place: int) -> float | None:
    """The single number that a node reads at this place; 0 where it reads none, None where that is not one number."""
    if place >= len(node.input) or not node.input[place]:
        return 0.0
    tensor = constants.get(node.input[place])
    if tensor is None or np.prod(tensor.dims) != 1:
        return None
    return float(onnx.numpy_helper.to_array(tensor).reshape(()))
