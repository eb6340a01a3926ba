"""What a file of a network with several inputs by name reads: a tensor for each, as the loader gives them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.data.text.tokenizers import Tokenizer
from limbeck.errors import RequestError
from limbeck.export.texts import ByName
from limbeck.models.preprocess import is_image
from limbeck.quantization.session import Array, Given
from limbeck.shipping.reading import Size, normalisation, normalised, where_normalised
from limbeck.types import Inputs

SCRIPT = '''"""Run the file with onnxruntime and NumPy alone: python run_onnx.py SAMPLES.npz [FILE.onnx]"""
import json, sys, numpy as np, onnxruntime  # noqa: E401
about = json.load(open("limbeck.json", encoding="utf-8"))
found = np.load(sys.argv[1])  # an array (B, …) for each input, by its name
before = about["input"]["normalise_before"]
given = {one["name"]: found[one["name"]].astype(one["dtype"]) for one in about["input"]["inputs"]}
for name in about["input"]["images"] if before else ():
    x = (given[name] - np.reshape(before["mean"], (-1, 1, 1))) / np.reshape(before["std"], (-1, 1, 1))
    given[name] = x.astype(np.float32)
session = onnxruntime.InferenceSession((sys.argv[2:] or [about["file"]])[0], providers=["CPUExecutionProvider"])
outputs, classes = session.run(None, given)[0], about["classes"]
print(*SHOWN, sep="\\n")
'''
FEW = 16
"""Samples that are kept as examples, at most."""
Axis = tuple[str, int]
"""One axis of an input, by the input's name."""


@dataclass(frozen=True)
class Several:
    """Named inputs.

    Attributes:
        sample: A few samples of the longest batch: by name (B, …), as the file reads them.
        lengths: The axes that differ from batch to batch: what each is called, its shortest and its longest.
        prepare: What makes the network's inputs of those of a batch, but for the normalisation; None for nothing.
    """

    sample: Mapping[str, Tensor]
    lengths: Mapping[Axis, tuple[str, int, int]]
    prepare: nn.Module | None = None
    script: ClassVar[str] = SCRIPT
    samples: ClassVar[str] = "SAMPLES.npz"
    group: ClassVar[str] = "other"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.sample)

    @property
    def fixed(self) -> bool:
        return not self.lengths

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(next(iter(self.sample.values())).shape[1:])

    @cached_property
    def axes(self) -> tuple[Any, ...]:
        dims = {called: torch.export.Dim(called, max=most) for called, _, most in self.lengths.values()}
        batch = torch.export.Dim("batch")
        return (tuple({0: batch, **self._of(name, dims)} for name in self.names),)

    def _of(self, name: str, each: Mapping[str, Any]) -> dict[int, Any]:
        """What stands for the axes of one input, by what they are called."""
        return {axis: each[called] for (own, axis), (called, _, _) in self.lengths.items() if own == name}

    @property
    def trials(self) -> Sequence[Size]:
        shortest = min((least for _, least, _ in self.lengths.values()), default=None)
        return [(1, None), (3, shortest), (16, None)]

    def example(self, size: Size, seed: int = 1) -> dict[str, Tensor]:
        """The samples again, from another one on for each seed, with axes of so many entries where these may differ."""
        found = {}
        for name, x in self.sample.items():
            rows = x[(torch.arange(size[0]) + seed) % len(x)]
            for (own, axis), (_, least, most) in self.lengths.items():
                if own == name:
                    length = most if size[1] is None else max(least, min(size[1], most))
                    rows = rows.index_select(axis, torch.arange(length) % rows.shape[axis])
            found[name] = rows.contiguous()
        return found

    def inputs(self, size: Size) -> Inputs:
        return self.example(size)

    def model(self, network: nn.Module, input: Mapping[str, Any]) -> nn.Module:
        return ByName(network, self.names, normalisation(input))

    def read(self, inputs: Inputs, input: Mapping[str, Any]) -> dict[str, Array]:
        found = _tensors(inputs, self.prepare, normalisation(input))
        return {name: np.ascontiguousarray(x.numpy()) for name, x in found.items()}

    def sizes(self, batches: Sequence[int]) -> dict[str, Size]:
        return {str(batch): (batch, None) for batch in batches}

    def resized(self, given: Given, size: Size) -> dict[str, Array]:
        return {name: np.ascontiguousarray(np.resize(x, (size[0], *x.shape[1:]))) for name, x in given.items()}

    def output(self, shape: tuple[int, ...]) -> list[int | str]:
        longest = {most: called for called, _, most in self.lengths.values()}
        first = [longest.get(shape[0], shape[0])] if len(shape) > 1 else list(shape[:1])
        return [*first, *shape[1:]]

    def described(self, input: Mapping[str, Any], inside: bool, tokenizer: Tokenizer | None) -> dict[str, Any]:
        first, *_ = inputs = [self._described(name, x) for name, x in self.sample.items()]
        images = [name for name, x in self.sample.items() if is_image(x)]
        return {**first, "names": list(self.names), "inputs": inputs, "images": images} | {
            "range": None,
            "layout": "batch first",
            **normalised(input, inside),
        }

    def _described(self, name: str, x: Tensor) -> dict[str, Any]:
        called = self._of(name, {one: one for one, _, _ in self.lengths.values()})
        shape = ["batch", *(called.get(axis, size) for axis, size in enumerate(x.shape) if axis)]
        return {"name": name, "shape": shape, "dtype": str(x.dtype).removeprefix("torch.")}

    def sentence(self, described: Mapping[str, Any]) -> str:
        inputs = [(one["name"], ", ".join(map(str, one["shape"])), one["dtype"]) for one in described["inputs"]]
        each = "; ".join(f"`{name}`, ({shape}) in {kind}" for name, shape, kind in inputs)
        return f"{each}; {where_normalised(described)}"


def several(batches: Iterable[Inputs], prepare: nn.Module | None = None) -> Several:
    """What is read, from all batches that it shall read: axes that differ among them may have any size up to the most.

    Args:
        batches: Their inputs.
        prepare: What makes the network's inputs of them, but for the normalisation; None for nothing.

    Raises:
        RequestError: Inputs in groups, inputs of another name or number of axes in one batch, or such that do not have
            the batch as their first axis.
    """
    longest: dict[str, Tensor] = {}
    sizes: dict[Axis, list[int]] = defaultdict(list)
    for given in batches:
        found = _tensors(given, prepare)
        if longest and _axes(found) != _axes(longest):
            raise RequestError(
                f"each batch has the same inputs, and one has {_words(longest)}, another {_words(found)}"
            )
        if any(not x.dim() for x in found.values()) or len({len(x) for x in found.values()}) > 1:
            raise RequestError(f"the first axis of each input is the batch's, and these are {_words(found)}")
        for name, x in found.items():
            for axis in range(1, x.dim()):
                sizes[name, axis].append(x.shape[axis])
            if name not in longest or x[0].numel() > longest[name][0].numel():
                longest[name] = x[:FEW].clone()
    count = min(map(len, longest.values()))
    return Several({name: x[:count] for name, x in longest.items()}, _lengths(sizes), prepare)


def _lengths(sizes: Mapping[Axis, list[int]]) -> dict[Axis, tuple[str, int, int]]:
    """The axes that differ; those that differ alike have one name."""
    called: dict[tuple[int, ...], str] = {}
    found = {}
    for axis, each in sizes.items():
        if len(set(each)) > 1:
            name = called.setdefault(tuple(each), "length" if not called else f"length_{len(called) + 1}")
            found[axis] = (name, min(each), max(each))
    return found


def _tensors(inputs: Inputs, *prepare: nn.Module | None) -> dict[str, Tensor]:
    """Inputs by name on the CPU after what prepares them, fractions in fp32."""
    for one in prepare:
        inputs = inputs if one is None else one(inputs)
    if not isinstance(inputs, Mapping) or not all(isinstance(x, Tensor) for x in inputs.values()):
        raise RequestError(
            "a network of several inputs is shipped with tensors by name, without groups; a recipe names them by "
            "`inputs` of the model, such as {ids: text.ids}"
        )
    found = {name: x.detach().cpu() for name, x in inputs.items() if isinstance(x, Tensor)}
    return {name: number(x) for name, x in found.items()}


def number(x: Tensor) -> Tensor:
    """Fractions in fp32, as files read them; whole numbers as they are."""
    return x.float() if x.is_floating_point() else x


def _axes(found: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: x.dim() for name, x in found.items()}


def _words(found: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(x.shape)}" for name, x in found.items())
