"""A network of texts as ONNX: ids of tokens, and where there is padding a mask, of any number and length of texts."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.engine.saving.files import write_bytes
from limbeck.export.onnx import difference
from limbeck.models.onnx_writer import check_packages, exported
from limbeck.taps import call, logits_of
from limbeck.taps.wrappers import unwrapped

AXES = ("batch", "length")
"""What the axes of the inputs are called in the file."""


class ByName(nn.Module):
    """A network of named inputs as one that takes them in order, and gives its logits alone.

    Args:
        network: The network.
        names: Its inputs.
        ready: What prepares them, by name; None for nothing.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], ready: nn.Module | None = None) -> None:
        super().__init__()
        self.network, self.names, self.ready = network, tuple(names), ready

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip(self.names, inputs, strict=True))
        return logits_of(call(self.network, self.ready(given) if self.ready else given))


def write_text_onnx(
    path: Path, network: nn.Module, input: Mapping[str, Any], *, metadata: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Write a network of texts as one ONNX file with int64 inputs (batch, length), both of any size.

    Args:
        path: The file.
        network: A plain network in eval mode.
        input: Its "shape" (L,), and as its "sample" the names of its "inputs" and how many ids there are, "vocab".
        metadata: What else the file shall say of itself.

    Returns:
        What to know to use the file: names, shapes, opset, and by how much its logits differ.

    Raises:
        RequestError: The extra is not installed, or the network cannot be written as ONNX.
        RunError: onnxruntime gives other logits than the network; then nothing is written.
    """
    check_packages()
    names, vocab, most = input["sample"]["inputs"], input["sample"]["vocab"], input["shape"][0]
    model = ByName(copy.deepcopy(unwrapped(network)).cpu(), names).eval()
    example = tuple(text_inputs(names, vocab, 3, most).values())
    dims = dict(enumerate((torch.export.Dim("batch"), torch.export.Dim("length", max=most))))
    content, opset = exported(model, example, list(names), "logits", (tuple(dims for _ in names),), metadata or {})
    sizes = [(1, most), (3, max(most // 2, 2)), (5, most)]
    found = [_difference(model, content, text_inputs(names, vocab, *size)) for size in sizes]
    write_bytes(path, content)
    shape = list(model(*example).shape)
    return {
        "file": path.name,
        "input": [{"name": name, "shape": list(AXES), "dtype": "int64"} for name in names],
        "output": {"name": "logits", "shape": [AXES[0], *([AXES[1]] if len(shape) == 3 else []), shape[-1]]},
        "opset": opset,
        "largest_difference": max(found),
    }


def text_inputs(names: Sequence[str], vocab: int, count: int, length: int, seed: int = 1) -> dict[str, Tensor]:
    """Inputs for a trial: random ids, and where a mask is asked for texts of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {names[0]: torch.randint(vocab, (count, length), generator=generator)}
    for name in names[1:]:
        sizes = torch.linspace(length, max(1, length // 2), count).long()
        inputs[name] = (torch.arange(length) < sizes[:, None]).long()
    return inputs


@torch.no_grad()
def _difference(model: nn.Module, content: bytes, inputs: dict[str, Tensor]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    given = {name: value.numpy() for name, value in inputs.items()}
    found: Tensor = torch.from_numpy(session.run(None, given)[0])
    return difference(found, model(*inputs.values()))
