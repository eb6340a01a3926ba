"""A network written as ONNX by torch's exporter: the file's bytes, which nobody has compared with the network yet."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError, reason_of
from limbeck.notices import tools_silenced


def check_packages() -> None:
    """Raise RequestError where a package is not installed that ONNX needs."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise RequestError(f"ONNX needs {package}: pip install 'limbeck[onnx]'")


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
        with warnings.catch_warnings(), tools_silenced():
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
            if program is None:
                raise RequestError("torch gave nothing back")
            proto = program.model_proto
    except Exception as error:
        reason = reason_of(_cause(error))
        raise RequestError(f"this network cannot be written as ONNX: {reason}{_older()}") from error
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


def _older() -> str:
    """What to install beside a torch whose exporter does not fit the newest packages."""
    if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 7):
        return ""
    return f"; beside torch {torch.__version__} it takes onnxscript==0.5.0 and onnx-ir==0.1.12, or take a newer torch"


def _cause(error: Exception) -> Exception:
    """What is behind an error of torch's exporter, which itself tells its own steps alone."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error
