"""What a file reads, by the kind of samples: here one tensor of one shape, in `texts` ids of tokens and their mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.data.text.tokenizers import Tokenizer
from limbeck.errors import RequestError
from limbeck.models.networks.staged import named
from limbeck.models.preprocess import as_pixels, preprocess
from limbeck.quantization.session import INPUT, Array, Given
from limbeck.types import Inputs

SCRIPT = '''"""Run the file with onnxruntime and NumPy alone: python run_onnx.py SAMPLES.npy [FILE.onnx]"""
import json, sys, numpy as np, onnxruntime  # noqa: E401
about = json.load(open("limbeck.json", encoding="utf-8"))
x = np.load(sys.argv[1])  # (B, *shape), pixels from 0 to 255 in uint8 or from 0 to 1 in floating point
x = x.astype(np.float32) / (255 if x.dtype == np.uint8 else 1)
before = about["input"]["normalise_before"]
if before:
    x = ((x - np.reshape(before["mean"], (-1, 1, 1))) / np.reshape(before["std"], (-1, 1, 1))).astype(np.float32)
session = onnxruntime.InferenceSession((sys.argv[2:] or [about["file"]])[0], providers=["CPUExecutionProvider"])
outputs, classes = session.run(None, {about["input"]["name"]: x})[0], about["classes"]
print(*SHOWN, sep="\\n")
'''
Size = tuple[int, int | None]
"""How many samples, and of texts how many tokens each."""


class Reading(Protocol):
    """One kind of samples.

    Attributes:
        names: The inputs of a file, in order.
        shape: One sample's, without the batch.
        fixed: Whether all samples have one shape, for which ranges of activations are calibrated.
        group: "images", "other" or "texts", of the tags of the Hugging Face Hub.
        script: A script that runs a file without PyTorch, with SHOWN for what it prints.
        samples: What that script is given, in the card.
        axes: For each input its axes of any size, for torch's exporter.
        trials: Sizes at which a file is compared with its network.
    """

    script: ClassVar[str]
    samples: ClassVar[str]

    @property
    def fixed(self) -> bool: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def group(self) -> str: ...

    @property
    def axes(self) -> tuple[Any, ...]: ...

    @property
    def trials(self) -> Sequence[Size]: ...

    def example(self, size: Size, seed: int = 1) -> dict[str, Tensor]:
        """Random inputs of some size."""

    def inputs(self, size: Size) -> Inputs:
        """The same as the network itself reads them."""

    def model(self, network: nn.Module, input: Mapping[str, Any]) -> nn.Module:
        """A network as a file holds it: of the inputs in order, with the normalisation that `input` says."""

    def read(self, inputs: Inputs, input: Mapping[str, Any]) -> dict[str, Array]:
        """From a batch's inputs to what a file reads, after the normalisation that `input` says."""

    def sizes(self, batches: Sequence[int]) -> dict[str, Size]:
        """At which sizes latency is measured, by the names that they have in the table; the smallest first."""

    def resized(self, given: Given, size: Size) -> dict[str, Array]:
        """What a file read, repeated or cut to some size."""

    def output(self, shape: tuple[int, ...]) -> list[int | str]:
        """One sample's output of some shape, with axes of any size by their names."""

    def described(self, input: Mapping[str, Any], inside: bool, tokenizer: Tokenizer | None) -> dict[str, Any]:
        """What a device build must know of the inputs.

        Args:
            input: What the network's description says of its input.
            inside: Whether the normalisation stands inside the file.
            tokenizer: What makes ids of texts; None where samples are none.
        """

    def sentence(self, described: Mapping[str, Any]) -> str:
        """The same for people."""


@dataclass(frozen=True)
class Plain:
    """Images and vectors: one tensor in fp32.

    Attributes:
        shape: One sample's.
        size: Height and width to which images are resized beside the file; None for none.
    """

    shape: tuple[int, ...]
    size: int | None = None
    fixed: ClassVar[bool] = True
    script: ClassVar[str] = SCRIPT
    samples: ClassVar[str] = "SAMPLES.npy"
    names: ClassVar[tuple[str, ...]] = (INPUT,)
    trials: ClassVar[Sequence[Size]] = ((1, None), (3, None), (16, None))

    @property
    def group(self) -> str:
        return "images" if len(self.shape) == 3 else "other"

    @property
    def axes(self) -> tuple[Any, ...]:
        return ({0: torch.export.Dim("batch")},)

    def example(self, size: Size, seed: int = 1) -> dict[str, Tensor]:
        return {INPUT: torch.rand(size[0], *self.shape, generator=torch.Generator().manual_seed(seed))}

    def inputs(self, size: Size) -> Inputs:
        return self.example(size)[INPUT]

    def model(self, network: nn.Module, input: Mapping[str, Any]) -> nn.Module:
        return named(inputs=normalisation(input) or nn.Identity(), network=network)

    def read(self, inputs: Inputs, input: Mapping[str, Any]) -> dict[str, Array]:
        if not isinstance(inputs, Tensor):
            raise RequestError(f"a network of one tensor was given inputs by name: {', '.join(inputs)}")
        x, ready = as_pixels(inputs.detach().cpu(), self.shape, self.size), normalisation(input)
        return {INPUT: np.ascontiguousarray(x.numpy() if ready is None else ready(x).float().numpy())}

    def sizes(self, batches: Sequence[int]) -> dict[str, Size]:
        return {str(batch): (batch, None) for batch in batches}

    def resized(self, given: Given, size: Size) -> dict[str, Array]:
        return {name: np.ascontiguousarray(np.resize(x, (size[0], *x.shape[1:]))) for name, x in given.items()}

    def output(self, shape: tuple[int, ...]) -> list[int | str]:
        return list(shape)

    def described(self, input: Mapping[str, Any], inside: bool, tokenizer: Tokenizer | None) -> dict[str, Any]:
        return {
            "name": INPUT,
            "shape": ["batch", *self.shape],
            "dtype": "float32",
            "range": input.get("range"),
            "layout": "NCHW" if len(self.shape) == 3 else "batch first",
            "resize": self.size,
            **normalised(input, inside),
        }

    def sentence(self, described: Mapping[str, Any]) -> str:
        shape = " × ".join(map(str, self.shape))
        ranged = " from {} to {}".format(*described["range"]) if described["range"] else ""
        return f"`{INPUT}`, {shape} in float32{ranged}, batch first; {where_normalised(described)}"


def normalisation(input: Mapping[str, Any]) -> nn.Module | None:
    """What subtracts the mean and divides by the standard deviation; None where `input` says neither."""
    return preprocess(input.get("mean"), input.get("std"), None)


def normalised(input: Mapping[str, Any], inside: bool) -> dict[str, Any]:
    """What a device build must know of it: the values, and those that the program must take care of itself."""
    mean: Any = input.get("mean")
    std: Any = input.get("std")
    given = mean is not None or std is not None
    values = {"mean": list(mean or [0.0] * len(std)), "std": list(std or [1.0] * len(mean))} if given else None
    return {"normalisation": values, "normalise_before": None if inside else values}


def where_normalised(described: Mapping[str, Any]) -> str:
    """The same for people."""
    if not described["normalisation"]:
        return "no normalisation"
    return f"normalisation {'beside' if described['normalise_before'] else 'inside'} the file"
