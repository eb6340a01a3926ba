"""A network as ONNX, for runtimes without Python; not written unless it gives the same logits."""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.engine.files import write_bytes
from limbeck.errors import RequestError, RunError, reason_of
from limbeck.models import preprocess
from limbeck.models.logits import to_logits
from limbeck.models.networks.staged import named
from limbeck.taps.wrappers import unwrapped

TOLERANCE = 1e-4
"""Most by which a logit may differ; with logits beyond 1, this share of the largest."""


def write_onnx(
    path: Path,
    network: nn.Module,
    input: Mapping[str, Any],
    *,
    output: str = "logits",
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write a network with its normalisation as one ONNX file that takes batches of any size.

    Args:
        path: The file.
        network: A plain network in eval mode, from normalised samples to logits (B, classes).
        input: Its "shape" without the batch, and its "mean" and "std" by channel, or None.
        output: What the file calls what the network gives.
        metadata: What else the file shall say of itself.

    Returns:
        What to know to use the file: names, shapes, range, opset, and by how much its logits differ.

    Raises:
        RequestError: The extra is not installed, or the network cannot be written as ONNX.
        RunError: onnxruntime gives other logits than the network; then nothing is written.
    """
    check_packages()
    ready = preprocess(input.get("mean"), input.get("std"), None) or nn.Identity()
    model = named(inputs=ready, network=to_logits(copy.deepcopy(unwrapped(network)).cpu())).eval()
    shape = tuple(input["shape"])
    content, opset = converted(model, shape, output, metadata or {})
    difference, classes = _checked(model, content, shape)
    write_bytes(path, content)
    return {
        "file": path.name,
        "input": {"name": "input", "shape": ["batch", *shape], "range": [0, 1]},
        "output": {"name": output, "shape": ["batch", classes]},
        "normalisation": "inside: give pixels on the scale 0 to 1, without subtracting a mean",
        "opset": opset,
        "largest_difference": difference,
    }


def check_packages() -> None:
    """Raise RequestError where a package is not installed that ONNX needs."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise RequestError(f"ONNX needs {package} of the extra: pip install 'limbeck[onnx]'")


def converted(
    model: nn.Module,
    shape: tuple[int, ...],
    output: str = "logits",
    metadata: Mapping[str, str] = MappingProxyType({}),
    table: Mapping[Any, Any] | None = None,
) -> tuple[bytes, int]:
    """A network of one input as ONNX, and the opset; `table` says what becomes of operations that torch does not know.

    Raises:
        RequestError: The network cannot be written as ONNX.
    """
    example = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    return exported(model, (example,), ["input"], output, ({0: torch.export.Dim("batch")},), metadata, table)


def exported(
    model: nn.Module,
    example: tuple[Tensor, ...],
    names: list[str],
    output: str,
    dynamic: tuple[Any, ...],
    metadata: Mapping[str, str] = MappingProxyType({}),
    table: Mapping[Any, Any] | None = None,
) -> tuple[bytes, int]:
    """A network as ONNX, and the opset.

    Args:
        model: The network, in eval mode.
        example: Its inputs.
        names: What the file calls them.
        output: What it calls what the network gives.
        dynamic: For each input the axes of any size, as torch.export takes them.
        metadata: What else the file shall say of itself.
        table: What becomes of operations that torch does not know.

    Raises:
        RequestError: The network cannot be written as ONNX.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's exporter warns of its own internals
            program = torch.onnx.export(
                model,
                example,
                dynamo=True,
                input_names=names,
                output_names=[output],
                dynamic_shapes=dynamic,
                external_data=False,
                custom_translation_table=dict(table or {}),
                verbose=False,
            )
    except Exception as error:
        raise RequestError(f"this network cannot be written as ONNX: {reason_of(_cause(error))}") from error
    if program is None:
        raise RequestError("this network cannot be written as ONNX: torch gave nothing back")
    proto = program.model_proto
    # The exporter notes the source line behind each node, with the paths of this machine.
    for part in (
        *proto.graph.node,
        *proto.graph.input,
        *proto.graph.output,
        *proto.graph.value_info,
        proto.graph,
        proto,
    ):
        part.ClearField("metadata_props")
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    opset = next(one.version for one in proto.opset_import if one.domain == "")
    return proto.SerializeToString(), opset


def _cause(error: Exception) -> Exception:
    """What is behind an error of torch's exporter, which itself tells its own steps alone."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


@torch.no_grad()
def _checked(model: nn.Module, content: bytes, shape: tuple[int, ...]) -> tuple[float, int]:
    """The largest difference of a logit, over batches of one and of several samples; and how many logits there are."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    largest = 0.0
    logits = torch.empty(0)
    for size in (1, 3, 16):
        x = torch.rand(size, *shape, generator=generator)
        logits = model(x)
        found: Tensor = torch.from_numpy(session.run(None, {"input": x.numpy()})[0])
        largest = max(largest, difference(found, logits))
    return largest, logits.shape[1]


def difference(found: Tensor, expected: Tensor, file: str = "the ONNX file", left: str = "written") -> float:
    """The largest difference of what a file gives to what its network gives.

    Raises:
        RunError: It is more than rounding; `file` is then not `left`.
    """
    largest = (found - expected).abs().max().item() if found.shape == expected.shape else float("inf")
    # A comparison that NaN does not pass.
    if not largest <= TOLERANCE * max(1.0, expected.abs().max().item()):
        raise RunError(f"{file} would differ from the network by {largest:.2g}; it was not {left}")
    return float(largest)
