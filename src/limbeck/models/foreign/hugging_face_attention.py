"""The attention heads of a model of transformers: which of them stay, and what of its tensors belongs to these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError

Heads = Sequence[int] | int
"""Numbers of the heads that are kept in each layer, from 0; or how many, those with the largest output projections."""
_QUERIES, _KEYS, _OUTPUTS = ("q_proj",), ("k_proj", "v_proj"), ("o_proj", "out_proj")


@dataclass(frozen=True)
class Attention:
    """The heads of each layer of a model.

    Attributes:
        heads: H, how many there are.
        keys: K ≤ H, how many keys and values; H / K heads that follow one another share each.
        width: Numbers of a head.
    """

    heads: int
    keys: int
    width: int

    @classmethod
    def of(cls, model: nn.Module) -> Attention:
        """As its configuration says it.

        Raises:
            RequestError: It says nothing of heads, or another number for each layer.
        """
        settings: Any = getattr(model, "config", None)
        heads, hidden = (getattr(settings, name, None) for name in ("num_attention_heads", "hidden_size"))
        keys = getattr(settings, "num_key_value_heads", None) or heads
        if not (isinstance(heads, int) and isinstance(keys, int) and isinstance(hidden, int)) or heads % keys:
            raise RequestError(f"{type(model).__name__} shows no number of heads that its layers have in common")
        return cls(heads, keys, getattr(settings, "head_dim", None) or hidden // heads)

    def kept(self, asked: Heads, output: Tensor | None) -> list[int]:
        """The heads of one layer that stay, in order.

        Args:
            asked: Their numbers, or how many.
            output: (D, H · width), by whose norms the strongest are found; None for any so many.

        Raises:
            RequestError: There are no such heads, or keys would be left with unequal numbers of them.
        """
        self._check(asked)
        shared = self.heads // self.keys
        if isinstance(asked, int):
            return self._strongest(asked, torch.zeros(self.heads) if output is None else self._norms(output))
        counts = {sum(head // shared == key for head in asked) for key in range(self.keys)} - {0}
        if len(counts) > 1:
            raise self._unequal(list(asked))
        return sorted(asked)

    def of_kept(self, heads: Sequence[int]) -> Attention:
        """What is left with some heads."""
        return Attention(len(heads), len(self._keys_of(heads)), self.width)

    def part(self, name: str, tensor: Tensor, heads: Sequence[int]) -> Tensor | None:
        """What of a tensor belongs to some heads, by its name; None where that is not known."""
        *_, layer, kind = ["", *name.split(".")]
        if layer in _QUERIES and len(tensor) == self.heads * self.width:
            return tensor[self._rows(heads)]
        if layer in _KEYS and len(tensor) == self.keys * self.width:
            return tensor[self._rows(self._keys_of(heads))]
        if layer in _OUTPUTS and kind == "weight" and tensor.shape[1] == self.heads * self.width:
            return tensor[:, self._rows(heads)]
        return tensor[list(heads)] if tensor.shape == (self.heads,) else None

    def _check(self, asked: Heads) -> None:
        numbers = range(1, self.heads + 1) if isinstance(asked, int) else range(self.heads)
        given = [asked] if isinstance(asked, int | float) else list(asked)
        if (
            not given
            or len(set(given)) < len(given)
            or any(type(one) is not int or one not in numbers for one in given)
        ):
            raise RequestError(
                f"heads are different numbers from 0 to {self.heads - 1}, such as [0, {self.heads - 1}], or how many, "
                f"1 to {self.heads}, not {asked if isinstance(asked, int | float) else given}"
            )

    def _strongest(self, count: int, norms: Tensor) -> list[int]:
        """So many heads of each key where that works out, else all heads of some keys."""
        shared = self.heads // self.keys
        each = norms.view(self.keys, shared)
        if count % self.keys == 0:
            groups = [_largest(one, count // self.keys) for one in each]
            return [key * shared + head for key, some in enumerate(groups) for head in some]
        if count % shared:
            raise self._unequal(count)
        keys = _largest(each.square().sum(1), count // shared)
        return [key * shared + head for key in keys for head in range(shared)]

    def _unequal(self, asked: Any) -> RequestError:
        return RequestError(
            f"{self.heads // self.keys} heads share a key each, and of each that is kept as many must stay, not heads: "
            f"{asked}"
        )

    def _norms(self, output: Tensor) -> Tensor:
        return output.detach().float().reshape(-1, self.heads, self.width).square().sum((0, 2)).sqrt().cpu()

    def _keys_of(self, heads: Sequence[int]) -> list[int]:
        return sorted({head // (self.heads // self.keys) for head in heads})

    def _rows(self, heads: Sequence[int]) -> list[int]:
        return list(chain.from_iterable(range(head * self.width, (head + 1) * self.width) for head in heads))


def _largest(values: Tensor, count: int) -> list[int]:
    """Places of the largest values, in order; of equal ones the first."""
    order = sorted(range(len(values)), key=lambda at: (-float(values[at]), at))
    return sorted(order[:count])


def is_output(name: str) -> bool:
    """Whether a tensor is the weight of an output projection, by its name."""
    return name.endswith(tuple(f"{one}.weight" for one in _OUTPUTS))


def set_heads(settings: Any, attention: Attention) -> None:
    """Let a configuration say how many heads there are, and how wide."""
    settings.num_attention_heads, settings.head_dim = attention.heads, attention.width
    if getattr(settings, "num_key_value_heads", None) is not None:
        settings.num_key_value_heads = attention.keys


def wider(model: nn.Module) -> RequestError:
    """That fewer heads would have another width."""
    return RequestError(
        f"heads are not cut out of {type(model).__name__}: its configuration has no head_dim beside hidden_size and "
        "num_attention_heads, so that fewer heads would be wider; Llama, Mistral, Qwen, Gemma and ViT have one"
    )
