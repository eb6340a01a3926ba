"""What a file of texts reads: ids of tokens, of any number and length of texts, and where there is padding a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.data.text.tokenizers import FILE, Tokenizer
from limbeck.errors import RequestError
from limbeck.export.texts import ByName, text_inputs
from limbeck.quantization.session import Array, Given
from limbeck.shipping.reading import Size
from limbeck.types import Inputs

SCRIPT = '''"""Run the file with onnxruntime, NumPy and tokenizers alone: python run_onnx.py TEXTS.txt [FILE.onnx]"""
import json, sys, numpy as np, onnxruntime, tokenizers  # noqa: E401
about = json.load(open("limbeck.json", encoding="utf-8"))
reader = tokenizers.Tokenizer.from_file(about["input"]["tokenizer"])  # cuts, frames and pads texts by itself
reader.encode_special_tokens = True  # what a text writes like a special token is text
found = reader.encode_batch(open(sys.argv[1], encoding="utf-8").read().splitlines())  # a text a line
ids, mask = (np.array([getattr(one, name) for one in found]) for name in ("ids", "attention_mask"))
session = onnxruntime.InferenceSession((sys.argv[2:] or [about["file"]])[0], providers=["CPUExecutionProvider"])
outputs, classes = session.run(None, dict(zip(about["input"]["names"], (ids, mask))))[0], about["classes"]
print(*SHOWN, sep="\\n")
'''
LENGTHS = (32, 128, 512)
"""Tokens of the texts on which latency is measured."""


@dataclass(frozen=True)
class OfTexts:
    """Texts: ids of tokens, and a mask where batches are padded, in int64.

    Attributes:
        names: "input_ids", and "attention_mask".
        vocab: How many ids there are.
        length: Tokens of a text at most, as the student was trained.
        network: What reads them, which says by its positions how long a text may be.
        prepare: What takes them out of a batch that holds the texts in other tokens too; None for none.
    """

    names: tuple[str, ...]
    vocab: int
    length: int
    network: nn.Module
    prepare: nn.Module | None = None
    fixed: ClassVar[bool] = False
    script: ClassVar[str] = SCRIPT
    samples: ClassVar[str] = "TEXTS.txt"
    group: ClassVar[str] = "texts"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def axes(self) -> tuple[Any, ...]:
        dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=max(self.longest, 2))}
        return (tuple(dims for _ in self.names),)

    @cached_property
    def longest(self) -> int:
        """The largest of the lengths that are measured, and of its own, that the network takes."""
        return max([self.length, *self._lengths])

    @cached_property
    def _lengths(self) -> list[int]:
        return [length for length in LENGTHS if length <= self.length or self._takes(length)]

    def _takes(self, length: int) -> bool:
        try:
            with torch.no_grad():
                self.model(self.network, {})(*self.example((1, length)).values())
        except Exception:  # anybody's network, on more tokens than it has positions
            return False
        return True

    @property
    def trials(self) -> Sequence[Size]:
        return [(1, self.longest), (3, max(self.length // 2, 2)), (5, self.length)]

    def example(self, size: Size, seed: int = 1) -> dict[str, Tensor]:
        return text_inputs(self.names, self.vocab, size[0], size[1] or self.length, seed)

    def inputs(self, size: Size) -> Inputs:
        return self.example(size)

    def model(self, network: nn.Module, input: Mapping[str, Any]) -> nn.Module:
        return ByName(network, self.names)

    def read(self, inputs: Inputs, input: Mapping[str, Any]) -> dict[str, Array]:
        inputs = inputs if self.prepare is None else self.prepare(inputs)
        if not isinstance(inputs, Mapping) or not set(self.names) <= set(inputs):
            raise RequestError(f"a student of texts reads {' and '.join(self.names)}, and these inputs are others")
        found = {name: inputs[name] for name in self.names}
        return {
            name: np.ascontiguousarray(x.cpu().long().numpy()) for name, x in found.items() if isinstance(x, Tensor)
        }

    def sizes(self, batches: Sequence[int]) -> dict[str, Size]:
        """The smallest batch at every length, larger ones at the shortest."""
        first, *others = batches
        lengths = self._lengths or [self.length]
        sizes = [*((first, length) for length in lengths), *((batch, lengths[0]) for batch in others)]
        return {f"{batch}x{length}": (batch, length) for batch, length in sizes}

    def resized(self, given: Given, size: Size) -> dict[str, Array]:
        """The ids of texts of that many tokens, without padding."""
        batch, length = size
        ids = np.resize(given[self.names[0]], (batch, length or self.length))
        return {name: ids if name == self.names[0] else np.ones_like(ids) for name in self.names}

    def output(self, shape: tuple[int, ...]) -> list[int | str]:
        return ["length", *shape[1:]] if len(shape) > 1 else list(shape)

    def described(self, input: Mapping[str, Any], inside: bool, tokenizer: Tokenizer | None) -> dict[str, Any]:
        return {
            "name": self.names[0],
            "names": list(self.names),
            "shape": ["batch", "length"],
            "dtype": "int64",
            "range": [0, self.vocab - 1],
            "vocabulary": self.vocab,
            "max_length": self.length,
            "pad_id": None if tokenizer is None else tokenizer.pad,
            "end_id": None if tokenizer is None else tokenizer.end,
            "tokenizer": FILE,
        }

    def sentence(self, described: Mapping[str, Any]) -> str:
        named = " and ".join(f"`{name}`" for name in self.names)
        return f"{named}, (batch, length) in int64, of texts of up to {self.length} tokens of `{FILE}`"
