"""How teacher outputs become the tensors that are stored, and are read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor

from limbeck.errors import RequestError, unknown
from limbeck.losses import TopK
from limbeck.losses.response.sparse import spread
from limbeck.taps import LOGITS
from limbeck.teachers.codecs import Codec, Likeliest, Plain, Sampling
from limbeck.types import TeacherOutput

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""What stored values can be."""
CODECS = ("dense", "topk", "sampled")
"""How logits are stored: all of them, the likeliest, or some that are drawn."""
DEFAULT_BITS, EXACT_BITS = 16, 32
BITS = (*range(8, 17), EXACT_BITS)
"""Bits of a stored log-probability; 32 are fp32, beside indices of 32 bits."""
FINE_BITS = 12
"""Fewest bits of a draw's weight, whose logarithm they hold in steps of at most 1.6 %."""


@dataclass(frozen=True)
class Coding:
    """How teacher outputs are stored.

    Attributes:
        dtype: One of `DTYPES`, of features and of dense logits.
        top_k: Keep only the k likeliest classes, as log-probabilities, and the mass of the rest. None keeps all logits.
        draws: Keep so many classes that are drawn from the teacher's distribution, in place of all logits.
        bits: Of each log-probability, one of `BITS`; None for 32 where dtype is float32, else for 16.
        power: Draw from p^power, with weights; 1 draws from p itself.
    """

    dtype: str = "float16"
    top_k: int | None = None
    draws: int | None = None
    bits: int | None = None
    power: float = 1.0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise unknown("dtype of stored teacher outputs", self.dtype, DTYPES)
        for name, value in (("top_k", self.top_k), ("draws", self.draws)):
            if value is not None and value < 1:
                raise RequestError(f"{name} must be 1 or more, not {value}")
        if self.top_k is not None and self.draws is not None:
            raise RequestError("give either top_k or draws: the likeliest classes, or some that are drawn")
        if self.bits is not None and self.bits not in BITS:
            raise RequestError(f"bits of a stored log-probability are 8 to 16, or 32 for fp32, not {self.bits}")
        if self.draws is not None and self.bits == EXACT_BITS:
            raise RequestError("weights of draws take 8 to 16 bits, not 32")
        if self.draws is not None and self.power != 1 and self.bits is not None and self.bits < FINE_BITS:
            raise RequestError(
                f"weights of draws from p^{self.power:g} take {FINE_BITS} to 16 bits, not {self.bits}: in fewer, "
                "rounding biases them"
            )
        if not 0 < self.power <= 4:
            raise RequestError(f"power lies above 0 and at most at 4, not {self.power}")

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Coding:
        """The coding of outputs that are stored, from what is said about them.

        Raises:
            RequestError: It is none.
        """
        if "codec" not in about:  # a store of format 2
            return cls(about["dtype"], about["top_k"], bits=None if about["top_k"] is None else EXACT_BITS)
        return cls(**{name: about[name] for name in ("dtype", "top_k", "draws", "bits", "power")})

    @property
    def codec(self) -> str:
        """One of `CODECS`."""
        if self.draws is not None:
            return "sampled"
        return "dense" if self.top_k is None else "topk"

    @property
    def about(self) -> dict[str, Any]:
        """What must be known to read the values."""
        return {"codec": self.codec, **asdict(self), "bits": None if self.codec == "dense" else self.value_bits}

    @property
    def value_bits(self) -> int:
        """Of each log-probability."""
        return self.bits or (EXACT_BITS if self.dtype == "float32" and self.top_k is not None else DEFAULT_BITS)

    @property
    def words(self) -> str:
        """What it is, in a word or two."""
        bits = "" if self.bits is None else f", {self.bits} bits"
        if self.draws is not None:
            drawn = "" if self.power == 1 else f" from p^{self.power:g}"
            return f"{self.draws} draws{drawn}{bits if self.power != 1 else ''}"
        return self.dtype if self.top_k is None else f"the {self.top_k} likeliest{bits}"

    def encode(self, teacher_output: TeacherOutput, index: Tensor | None = None, view: int = 0) -> dict[str, Tensor]:
        """The tensors that are stored of a batch's teacher output.

        Args:
            teacher_output: What the teacher said.
            index: (B,) the samples' indices, and `view` their view, of which draws are a function; None for 0 … B − 1.
            view: Likewise.

        Raises:
            RequestError: A value is not finite or too large for the dtype, or there are fewer than k classes.
        """
        tensors = dict(teacher_output.features)
        if teacher_output.output is not None:
            tensors[LOGITS] = teacher_output.output
        coded: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise RequestError(f"the teacher's {name} are not finite, so they are not stored; ask it at every step")
            if name == LOGITS and self.codec != "dense":
                at = torch.arange(len(tensor)) if index is None else index
                coded |= self._codec(classes_of(tensor)).encode(tensor, at, view)
            else:
                coded[name] = tensor.to(DTYPES[self.dtype])
                if not torch.isfinite(coded[name]).all():
                    raise RequestError(f"the teacher's {name} are too large for {self.dtype}; store them as bfloat16")
        return coded

    def encode_top(self, top: TopK, classes: int) -> dict[str, Tensor]:
        """The tensors that are stored of the `top_k` likeliest of so many classes, (B, k) or (B, L, k)."""
        codec = self._codec(classes)
        if not isinstance(codec, Plain | Likeliest):
            raise RequestError("log-probabilities of the likeliest classes are stored with top_k, and not with draws")
        return codec.encode_top(top)

    def decode(self, tensors: Mapping[str, Tensor], classes: int | None, sparse: bool = False) -> TeacherOutput:
        """The teacher output, in fp32, of the tensors that `encode` gave.

        Args:
            tensors: What was stored.
            classes: How many classes there are; None where no logits are stored.
            sparse: Give the likeliest classes as a `TopK`; else the rest of the mass is spread evenly over the other
                classes. What was drawn is a `Sampled` in any case.
        """
        tensors = dict(tensors)
        output: Any = None
        if self.codec != "dense" and classes is not None:
            output = self._codec(classes).decode(tensors)
            if isinstance(output, TopK) and not sparse:
                output = _dense(output, classes)
        features = {name: tensor.float() for name, tensor in tensors.items()}
        return TeacherOutput(cast(Tensor, features.pop(LOGITS, output)), features)

    def _codec(self, classes: int) -> Codec:
        if self.draws is not None:
            return Sampling(classes, self.draws, self.value_bits if self.power != 1 else None, self.power)
        if self.top_k is None:
            raise ValueError("dense logits need no codec")
        if self.value_bits == EXACT_BITS:
            return Plain(classes, self.top_k)
        return Likeliest(classes, self.top_k, self.value_bits)


def classes_of(logits: Tensor) -> int:
    """C of logits (B, C), (B, L, C) or (B, C, H, W)."""
    return logits.shape[1 if logits.dim() == 4 else -1]


def _dense(top: TopK, classes: int) -> Tensor:
    """All logits: the rest of the mass is spread evenly."""
    if top.log_probs.dim() == 4:  # (B, k, H, W)
        return spread(top.log_probs.movedim(1, -1), top.indices.movedim(1, -1), classes, 1.0).movedim(-1, 1)
    return spread(top.log_probs, top.indices, classes, 1.0)
