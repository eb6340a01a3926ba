"""onnxruntime's quantiser on one ONNX file: calibrated once a method, asked for a file as often as one likes."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.notices import tools_silenced
from limbeck.quantization.session import Given
from limbeck.types import content

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operations that multiply with weights: an int8 file is small and fast by these."""
TABLES = "Gather"
"""What reads rows of a table, such as the vectors of tokens."""
METHODS = ("MinMax", "Entropy", "Percentile")
"""How ranges of activations are found from what calibration shows: the whole range, or a part of it."""
_WEIGHT = {**dict.fromkeys(PRODUCTS, 1), TABLES: 0}
"""Which of a node's inputs is its weight."""


@dataclass(frozen=True)
class Scheme:
    """One way to quantise.

    Attributes:
        per_channel: A scale for each output channel of a weight; else one for the whole weight.
        method: One of `METHODS`, or "dynamic" for ranges that are found anew for each batch.
        seven_bits: Weights in -64…64, which processors without VNNI multiply without overflow.
        products_only: Only `PRODUCTS` are quantised; what stands between them computes in fp32, and tables stay so.
        left_out: Nodes that stay in fp32.
    """

    per_channel: bool = True
    method: str = "MinMax"
    seven_bits: bool = False
    products_only: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The scheme for the table of attempts."""
        parts = ["per channel" if self.per_channel else "per tensor", self.method]
        parts += ["7-bit weights"] * self.seven_bits + ["products only"] * self.products_only
        return ", ".join(parts)


class Quantiser:
    """Makes int8 files from one fp32 file.

    Args:
        path: The ONNX file.
        calibration: Batches as the file reads them.
        fixed: Whether all samples have one shape, so that ranges which are found once hold for all.
        network: What the file was made from, by whose weights layers are named that the file names otherwise.
    """

    def __init__(
        self, path: Path, calibration: Sequence[Given], fixed: bool = True, network: nn.Module | None = None
    ) -> None:
        import onnx
        from onnxruntime.quantization import quant_pre_process

        self.calibration, self.fixed = calibration, fixed
        self._folder = tempfile.TemporaryDirectory(prefix="limbeck-int8-")
        self._ready = Path(self._folder.name) / "ready.onnx"
        with tools_silenced():
            quant_pre_process(path, self._ready, skip_symbolic_shape=True)
        self._names = _weights(onnx.load(path), network)
        self._ranges: dict[str, Any] = {}

    def close(self) -> None:
        """Remove the temporary files."""
        self._folder.cleanup()

    @cached_property
    def layers(self) -> dict[str, str]:
        """Nodes that multiply with weights or read a table of them, and what the network calls these layers."""
        import onnx

        graph = onnx.load(self._ready).graph
        held = {one.name for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT}
        found: dict[str, str] = {}
        for node in graph.node:
            at = _WEIGHT.get(node.op_type)
            if at is not None and any(name in held for name in node.input[at : at + 1]):
                name = self._names.get(node.name, node.name)
                shared = name in found.values()  # such as a table that is the last layer's weight too
                found[node.name] = f"{name}, {node.op_type}" if shared else name
        return found

    @cached_property
    def convolves(self) -> bool:
        """Whether there is a convolution, which no dynamic file computes fast."""
        import onnx

        return any(node.op_type.startswith("Conv") for node in onnx.load(self._ready).graph.node)

    def file(self, scheme: Scheme, only: str | None = None) -> bytes:
        """The file that a scheme makes; with `only`, that one node quantised."""
        target = Path(self._folder.name) / "int8.onnx"
        with tools_silenced():
            if scheme.method == "dynamic":
                self._dynamic(scheme, target, [only] if only else None)
            else:
                self._static(scheme, target, [only] if only else [])
        return target.read_bytes()

    def _static(self, scheme: Scheme, target: Path, only: list[str]) -> None:
        from onnxruntime.quantization import QDQQuantizer, QuantType
        from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
        from onnxruntime.quantization.registry import QDQRegistry

        kinds = list(PRODUCTS) if scheme.products_only else list(QDQRegistry)
        quantiser = QDQQuantizer(
            load_model_with_shape_infer(self._ready),
            scheme.per_channel,
            scheme.seven_bits,
            QuantType.QInt8,
            QuantType.QUInt8,
            self._calibrated(scheme.method),
            only,
            list(scheme.left_out),
            kinds,
            {},
        )
        quantiser.quantize_model()
        quantiser.model.save_model_to_file(str(target), False)

    def _dynamic(self, scheme: Scheme, target: Path, only: list[str] | None) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            self._ready,
            target,
            per_channel=scheme.per_channel,
            reduce_range=scheme.seven_bits,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(PRODUCTS) if scheme.products_only else None,
            nodes_to_quantize=only,
            nodes_to_exclude=list(scheme.left_out),
        )

    def _calibrated(self, method: str) -> Any:
        from onnxruntime.quantization import CalibrationMethod, create_calibrator

        if method not in self._ranges:
            calibrator = create_calibrator(
                self._ready,
                None,
                augmented_model_path=str(Path(self._folder.name) / "augmented.onnx"),
                calibrate_method=CalibrationMethod[method],
            )
            calibrator.collect_data(_Reader(self.calibration))
            self._ranges[method] = calibrator.compute_data()
        return self._ranges[method]


class _Reader:
    """Hands out batches as onnxruntime's calibration asks for them."""

    def __init__(self, batches: Sequence[Given]) -> None:
        self._left = iter(batches)

    def get_next(self) -> Given | None:
        return next(self._left, None)

    def __iter__(self) -> Iterator[Given]:
        return self._left


def _weights(model: Any, network: nn.Module | None) -> dict[str, str]:
    """What the network calls the layer whose weight a node multiplies with or reads, by the node's name."""
    held = {one.name: one for one in model.graph.initializer}
    known = {} if network is None else {_content(one): name for name, one in network.named_parameters()}
    found = {}
    for node in model.graph.node:
        at = _WEIGHT.get(node.op_type)
        if at is None:
            continue
        given = [name for name in node.input[at:] if name in held]
        named = [name for name in given if name.endswith(".weight")]
        named += [known[key] for name in given for key in _contents(held[name]) if key in known]
        if named:
            found[node.name] = re.sub(r"^((network|plain)\.)+", "", named[0].removesuffix(".weight"))
    return found


def _contents(weight: Any) -> list[bytes]:
    """Digests of a weight of a file as it is, and transposed, as a product's stands there."""
    from onnx import numpy_helper

    values = torch.from_numpy(np.array(numpy_helper.to_array(weight)))
    return [_content(values), _content(values.T)] if values.dim() == 2 else []


def _content(tensor: Tensor) -> bytes:
    shape = repr(tuple(tensor.shape)).encode()
    return hashlib.sha256(shape + bytes(content(tensor))).digest()
