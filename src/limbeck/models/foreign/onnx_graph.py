"""An ONNX file read: its tensors by name, its size, and sessions of onnxruntime that give what is wanted of it."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from limbeck.errors import RequestError, reason_of, shown, unknown
from limbeck.models.foreign.folders import of_folder
from limbeck.models.foreign.onnx_causes import cause_of
from limbeck.models.foreign.onnx_codes import Scale, scales
from limbeck.models.foreign.onnx_size import Sizes, weights

FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


@dataclass(frozen=True)
class Node:
    """What computes a tensor.

    Attributes:
        kind: The operation, such as "Conv".
        reads: Those tensors among its inputs that the graph computes too.
        products: Multiply-adds for each value of its output, of a convolution or a matrix product with weights.
    """

    kind: str
    reads: tuple[str, ...]
    products: int = 0


@dataclass(frozen=True)
class Graph:
    """An ONNX file.

    Attributes:
        path: The file.
        content: Its bytes; weights that it keeps in files beside it are left there.
        tensors: What the graph computes from its inputs: each tensor's node by its name, in running order.
        outputs: Each output's tensor by its name; for scikit-learn's list of dictionaries that which it is made of.
        scales: What the codes in a quantised tensor stand for, by its name.
        whole: Its inputs that it cuts down to whole numbers before anything else.
        parameters: How many weights it holds, quantised ones counted as what they were made of.
        digest: SHA-256 of the file, and of the files beside it that hold its weights.
    """

    path: Path
    content: bytes
    tensors: dict[str, Node]
    outputs: dict[str, str]
    scales: dict[str, Scale]
    whole: frozenset[str]
    parameters: int
    digest: bytes

    @classmethod
    def read(cls, path: str | Path) -> Graph:
        """Read a file.

        Raises:
            RequestError: It is missing or damaged, or its weights are; the extra is not installed.
        """
        onnx = _imported("onnx")
        path = Path(path)
        if path.is_dir():
            raise RequestError(f"{path} is a folder, and no ONNX file; {of_folder(path)}")
        if not path.is_file():
            raise RequestError(f"there is no ONNX file {path}")
        content = path.read_bytes()
        try:
            model = onnx.load_model_from_string(content)
        except Exception as error:
            raise RequestError(f"cannot read the ONNX file {path}: it is damaged ({reason_of(error)})") from error
        if not model.graph.output:
            raise RequestError(f"cannot read the ONNX file {path}: it is damaged, or no ONNX file (no graph in it)")
        zipped = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "ZipMap"}
        outputs = {output.name: zipped.get(output.name, output.name) for output in model.graph.output}
        return cls(
            path,
            content,
            _computed(onnx, model.graph),
            outputs,
            scales(onnx, model.graph),
            _whole(onnx, model.graph),
            weights(onnx, model.graph),
            _digest(path, content, model),
        )

    def first_weighted(self) -> str | None:
        """What the first node with trained weights gets, before it is quantised; None for the input itself."""
        for node in self.tensors.values():
            if node.kind in _WEIGHTED:
                name = node.reads[0] if node.reads else None
                while name is not None and self.tensors[name].kind in _QUANTISE:
                    before = self.tensors[name].reads
                    if not before and self.tensors[name].kind == "DequantizeLinear":
                        return name
                    name = before[0] if before else None
                return name
        return None

    def session(self, wanted: Sequence[str], providers: Sequence[str] | None = None) -> Any:
        """A session of onnxruntime whose outputs are the wanted tensors.

        Raises:
            RequestError: onnxruntime refuses the graph or a provider; the extra is not installed.
        """
        onnx, runtime = _imported("onnx"), _imported("onnxruntime")
        available = runtime.get_available_providers()
        if providers is None:
            providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
        for name in providers:  # onnxruntime takes another one in place of an unknown one
            if name not in available:
                raise unknown("provider of onnxruntime", name, available)
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(self.path.parent.absolute())
        )
        model = onnx.load_model_from_string(self.content)
        known = {output.name: output for output in model.graph.output}
        # onnxruntime finds out the type of an output that has only a name.
        chosen = [known.get(name, onnx.ValueInfoProto(name=name)) for name in wanted]
        del model.graph.output[:]
        model.graph.output.extend(chosen)
        try:
            return runtime.InferenceSession(model.SerializeToString(), options, providers=list(providers))
        except Exception as error:
            raise RequestError(f"onnxruntime cannot load {self.path}: {cause_of(error)}") from error

    def quiet(self) -> Any:
        """Options for a run that raises its errors, and does not print them."""
        options = _imported("onnxruntime").RunOptions()
        options.log_severity_level = 4  # fatal
        return options


_WEIGHTED = (
    "Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "ConvInteger", "MatMulInteger",
    "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits", "QLinearConv", "QLinearMatMul", "QGemm",
    "LinearClassifier", "LinearRegressor", "SVMClassifier", "SVMRegressor", "TreeEnsembleClassifier",
    "TreeEnsembleRegressor", "TreeEnsemble",
)  # fmt: skip
"""Nodes whose weights were trained on what they get."""
_QUANTISE = ("QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear")


def _computed(onnx: Any, graph: Any) -> dict[str, Node]:
    """The tensors that depend on the graph's inputs."""
    fed = {value.name for value in graph.input} - {weight.name for weight in graph.initializer}
    sizes = Sizes(graph)
    tensors: dict[str, Node] = {}
    for node in graph.node:  # the format demands that a node stands after those that it reads
        reads = tuple(name for name in node.input if name in tensors)
        depends = reads or fed & set(node.input) or any(attribute.HasField("g") for attribute in node.attribute)
        if depends and node.op_type != "ZipMap":
            tensors |= {name: Node(node.op_type, reads, sizes.products(node)) for name in node.output if name}
        elif not depends:
            sizes.follow(onnx, node)
    return tensors


def _whole(onnx: Any, graph: Any) -> frozenset[str]:
    """The inputs of which nothing is read but what is left when they are cut down to whole numbers."""
    kinds = {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.UINT8, onnx.TensorProto.INT8}
    cut, kept = set[str](), set[str]()
    for node in graph.node:
        casts = node.op_type == "Cast" and node.attribute[0].i in kinds
        (cut if casts else kept).update(node.input)
    return frozenset(cut - kept)


def runtime_version() -> str:
    """Which onnxruntime computes the graphs."""
    return str(_imported("onnxruntime").__version__)


def _digest(path: Path, content: bytes, model: Any) -> bytes:
    digest = hashlib.sha256(content)
    folder = path.parent.resolve()
    for name in sorted(_beside(model)):
        file = path.parent / name
        if not file.resolve().is_relative_to(folder):
            raise RequestError(f"{path} keeps weights in {shown(name)}, outside of its folder; that is not followed")
        if not file.is_file():
            raise RequestError(f"{path} keeps weights in the file {shown(name)} beside it, and that is missing")
        with file.open("rb") as content_beside:
            digest.update(hashlib.file_digest(content_beside, "sha256").digest())
    return digest.digest()


def _beside(message: Any) -> set[str]:
    """The files beside it in which a model keeps tensors, wherever in its graphs, functions and attributes they are."""
    if message.DESCRIPTOR.name == "TensorProto":  # its values need not be looked at
        return {entry.value for entry in message.external_data if entry.key == "location"}
    found: set[str] = set()
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if hasattr(value, "__len__") else (value,):
                found |= _beside(one)
    return found


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise RequestError("ONNX models need the extra: pip install 'limbeck[onnx]'") from None
