"""A network as ONNX, for runtimes without Python; not written unless it gives the same logits."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.engine.saving.files import write_bytes
from limbeck.errors import RequestError, RunError, reason_of
from limbeck.models import preprocess
from limbeck.models.logits import to_logits
from limbeck.models.networks.staged import named
from limbeck.models.onnx_writer import check_packages, converted
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
        try:
            found: Tensor = torch.from_numpy(session.run(None, {"input": x.numpy()})[0])
        except Exception as error:  # onnxruntime's errors have no class of their own in common
            raise RequestError(
                "this network cannot be written as ONNX: the file, made from 2 samples, fails on "
                f"{size}: {reason_of(error)}"
            ) from error
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
