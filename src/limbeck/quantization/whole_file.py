"""A network trained with quantisers as an ONNX file whose weights are whole numbers on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from limbeck.models.onnx_writer import converted
from limbeck.quantization.fake import LEVELS, quantise

SMALLEST = 1e-8


def written(model: nn.Module, shape: tuple[int, ...], output: str, metadata: Mapping[str, str], most: int) -> bytes:
    """The file of a network that `fake.exportable` made ready.

    Args:
        model: From (B, *shape) to its output.
        shape: One sample's.
        output: What the file calls its output.
        metadata: What it says of itself.
        most: Weights are whole numbers up to it.

    Raises:
        RequestError: The network cannot be written as ONNX.
    """
    import onnx

    content, _ = converted(model, shape, output, metadata, table={quantise._opoverload: _translation()})
    proto = onnx.load_from_string(content)
    _Rewriter(proto, most).run()
    return bytes(proto.SerializeToString())


def _translation() -> Any:
    """What the exporter makes of one quantiser."""
    import onnx
    import onnxscript

    op: Any = onnxscript.opset18

    def translated(x: Any, scale: float, zero: int) -> Any:
        step = op.Constant(value=onnx.helper.make_tensor("scale", onnx.TensorProto.FLOAT, [], [scale]))
        middle = op.Constant(value=onnx.helper.make_tensor("zero", onnx.TensorProto.UINT8, [], [min(zero, LEVELS)]))
        return op.DequantizeLinear(op.QuantizeLinear(x, step, middle), step, middle)

    return translated


class _Rewriter:
    """Puts whole numbers in the place of the weights and biases of products whose input is quantised."""

    def __init__(self, proto: Any, most: int) -> None:
        from onnx import numpy_helper

        self.proto, self.graph, self.most = proto, proto.graph, most
        self.values = {one.name: numpy_helper.to_array(one) for one in self.graph.initializer}
        self.values |= {
            node.output[0]: numpy_helper.to_array(node.attribute[0].t)
            for node in self.graph.node
            if node.op_type == "Constant" and node.attribute[0].name == "value"
        }
        self.makers = {name: node for node in self.graph.node for name in node.output}

    def run(self) -> None:
        """Rewrite all of them, and drop what nobody reads any more."""
        new = []
        for node in self.graph.node:
            before = self.makers.get(node.input[0]) if node.input else None
            known = len(node.input) > 1 and node.input[1] in self.values
            product = known and node.op_type in ("Conv", "Gemm", "MatMul")
            if product and before is not None and before.op_type == "DequantizeLinear":
                new += self._rewrite(node, self.values[before.input[1]])
            new.append(node)
        del self.graph.node[:]
        self.graph.node.extend(new)
        read = {name for node in self.graph.node for name in node.input}
        kept = [one for one in self.graph.initializer if one.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _rewrite(self, node: Any, step: Any) -> list[Any]:
        weight = self.values[node.input[1]]
        axis = 1 if node.op_type == "MatMul" or (node.op_type == "Gemm" and not _transposed(node)) else 0
        others = tuple(one for one in range(weight.ndim) if one != axis)
        scale = np.maximum(np.abs(weight).max(others), SMALLEST) / self.most
        shaped = scale.reshape([-1 if one == axis else 1 for one in range(weight.ndim)])
        whole = np.clip(np.round(weight / shaped), -self.most, self.most).astype(np.int8)
        made = [self._dequantised(node, 1, whole, scale.astype(np.float32), axis)]
        if len(node.input) > 2 and node.input[2] in self.values:
            bias_scale = (scale * float(step)).astype(np.float32)
            bias = np.round(self.values[node.input[2]] / bias_scale)
            if np.abs(bias).max(initial=0) < 2**31 - 1:
                made.append(self._dequantised(node, 2, bias.astype(np.int32), bias_scale, 0))
        return made

    def _dequantised(self, node: Any, position: int, whole: Any, scale: Any, axis: int) -> Any:
        """Let a node read whole numbers through a DequantizeLinear."""
        from onnx import helper, numpy_helper

        name = f"{node.name}_{'weight' if position == 1 else 'bias'}"
        zero = np.zeros(scale.shape, dtype=whole.dtype)
        for ending, value in (("whole", whole), ("scale", scale), ("zero", zero)):
            self.graph.initializer.append(numpy_helper.from_array(value, f"{name}_{ending}"))
        node.input[position] = f"{name}_read"
        inputs = [f"{name}_whole", f"{name}_scale", f"{name}_zero"]
        return helper.make_node("DequantizeLinear", inputs, [f"{name}_read"], name=f"{name}_dequantise", axis=axis)


def _transposed(gemm: Any) -> bool:
    return any(one.name == "transB" and one.i for one in gemm.attribute)
