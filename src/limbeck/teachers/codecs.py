"""Compact forms of logits over many classes: the likeliest of them, or some that are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from limbeck.losses import Sampled, TopK
from limbeck.teachers.draws import draw, starts
from limbeck.teachers.packing import bits_for, coded, decoded, pack, unpack

_TOP, _WHICH = "logits/top", "logits/index"
_INDICES, _VALUES, _REST = "logits/indices", "logits/values", "logits/rest"
_REST_BITS, _RANGE = 16, 32.0
"""The mass of the rest, as a logarithm down to e^−32."""


class Codec(Protocol):
    """From logits (B, C), (B, L, C) or (B, C, H, W) to the tensors that are stored, and back to a sparse form."""

    def encode(self, logits: Tensor, index: Tensor, view: int) -> dict[str, Tensor]: ...

    def decode(self, tensors: dict[str, Tensor]) -> TopK | Sampled:
        """What was stored; its tensors are taken out of `tensors`."""
        ...


@dataclass(frozen=True)
class Plain:
    """The k likeliest classes: log-probabilities in fp32, and indices in 32 bits, where the logits have theirs."""

    classes: int
    top_k: int

    def encode(self, logits: Tensor, index: Tensor, view: int) -> dict[str, Tensor]:
        return self.encode_top(TopK.of(logits, self.top_k))

    def encode_top(self, top: TopK) -> dict[str, Tensor]:
        # fp32 in any case: rounded, they may sum to more than one, and the rest of the mass is lost.
        return {_TOP: top.log_probs, _WHICH: top.indices.to(torch.int32)}

    def decode(self, tensors: dict[str, Tensor]) -> TopK:
        return TopK(tensors.pop(_TOP), tensors.pop(_WHICH).long())


@dataclass(frozen=True)
class Likeliest:
    """The k likeliest classes: indices at the bits that C needs, log-probabilities in `bits`, the rest's mass in 16.

    The steps of a log-probability go from 0 down to −2 · bits, and what is rounded is scaled to leave the rest its
    mass. Bytes of a position: ⌈k · bits(C) / 8⌉ + ⌈k · bits / 8⌉ + 2.
    """

    classes: int
    top_k: int
    bits: int

    def encode(self, logits: Tensor, index: Tensor, view: int) -> dict[str, Tensor]:
        last = _last(logits)
        top = TopK(*(x.view(*last.shape[:-1], -1) for x in TopK.of(last.flatten(0, -2), self.top_k)))
        return self.encode_top(top)

    def encode_top(self, top: TopK) -> dict[str, Tensor]:
        """The tensors of the likeliest classes, which lie in the last dimension."""
        named = top.log_probs.logsumexp(-1).clamp(max=-torch.finfo(torch.float32).tiny)
        rest = (-torch.expm1(named)).clamp(min=math.exp(-_RANGE)).log()
        return {
            _INDICES: pack(top.indices, bits_for(self.classes)),
            _VALUES: pack(coded(top.log_probs, -2.0 * self.bits, 0.0, self.bits), self.bits),
            _REST: pack(coded(rest, -_RANGE, 0.0, _REST_BITS).unsqueeze(-1), _REST_BITS),
        }

    def decode(self, tensors: dict[str, Tensor]) -> TopK:
        indices = unpack(tensors.pop(_INDICES), self.top_k, bits_for(self.classes))
        log_probs = decoded(unpack(tensors.pop(_VALUES), self.top_k, self.bits), -2.0 * self.bits, 0.0, self.bits)
        rest = decoded(unpack(tensors.pop(_REST), 1, _REST_BITS), -_RANGE, 0.0, _REST_BITS)
        if self.top_k < self.classes:
            rest = torch.where(rest < math.log(0.5), rest, -math.inf)  # where most is left, the named say it better
        named, left = log_probs.logsumexp(-1, keepdim=True), torch.log1p(-rest.exp())
        # Rounded up they might hold more than there is; where the rest is larger than they, they stand as they are.
        scaled = log_probs - named + left
        return TopK(*map(_back, (torch.where(rest > -math.inf, scaled, log_probs - named.clamp(min=0)), indices)))


@dataclass(frozen=True)
class Sampling:
    """K classes drawn from p, or from p^power with weights (`limbeck.teachers.draws`).

    Bytes of a position: ⌈K · bits(C) / 8⌉, and ⌈K · bits / 8⌉ for the weights where the power is not 1.

    Source: Anshumann et al.: Sparse Logit Sampling, ACL 2025, arXiv:2503.16870; the draws are systematic here.
    """

    classes: int
    draws: int
    bits: int | None
    power: float

    def encode(self, logits: Tensor, index: Tensor, view: int) -> dict[str, Tensor]:
        last = _last(logits)
        wide = last if last.dtype == torch.float64 else last.float()
        flat = wide.log_softmax(-1).reshape(-1, self.classes)
        start = starts(index, flat.shape[0] // max(1, len(logits)), view).flatten()
        indices, weights = (x.view(*last.shape[:-1], -1) for x in draw(flat, self.draws, self.power, start))
        stored = {_INDICES: pack(indices, bits_for(self.classes))}
        if self.bits is not None:
            stored[_VALUES] = pack(coded(weights, -_RANGE, _RANGE, self.bits), self.bits)
        return stored

    def decode(self, tensors: dict[str, Tensor]) -> Sampled:
        indices = unpack(tensors.pop(_INDICES), self.draws, bits_for(self.classes))
        if self.bits is None:
            weights = torch.full(indices.shape, 1 / self.draws, device=indices.device)
        else:
            codes = unpack(tensors.pop(_VALUES), self.draws, self.bits)
            weights = decoded(codes, -_RANGE, _RANGE, self.bits).exp() / self.draws
        return Sampled(_back(weights), _back(indices))


def _last(logits: Tensor) -> Tensor:
    """Classes in the last dimension."""
    return logits.movedim(1, -1) if logits.dim() == 4 else logits


def _back(x: Tensor) -> Tensor:
    """Classes where logits of so many dimensions have theirs."""
    return x.movedim(-1, 1) if x.dim() == 4 else x
