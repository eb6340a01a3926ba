"""How teacher outputs become the tensors that are stored, and are read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.errors import RequestError, unknown
from limbeck.losses.response.sparse import TopK, spread
from limbeck.taps import LOGITS
from limbeck.types import TeacherOutput

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""What stored values can be."""
_TOP, _WHICH = "logits/top", "logits/index"


@dataclass(frozen=True)
class Coding:
    """How teacher outputs are stored.

    Attributes:
        dtype: One of `DTYPES`.
        top_k: Keep only the k likeliest classes, as log-probabilities; the rest of the mass is spread evenly over the
            other classes when it is read. None keeps all logits.
    """

    dtype: str = "float16"
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise unknown("dtype of stored teacher outputs", self.dtype, DTYPES)
        if self.top_k is not None and self.top_k < 1:
            raise RequestError(f"top_k must be 1 or more, not {self.top_k}")

    def encode(self, teacher_output: TeacherOutput) -> dict[str, Tensor]:
        """The tensors that are stored of a batch's teacher output.

        Raises:
            RequestError: A value is not finite or too large for the dtype, or there are fewer than k classes.
        """
        tensors = dict(teacher_output.features)
        if teacher_output.output is not None:
            tensors[LOGITS] = teacher_output.output
        coded = {}
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise RequestError(f"the teacher's {name} are not finite, so they are not stored; ask it at every step")
            if name == LOGITS and self.top_k is not None:
                top = TopK.of(tensor, self.top_k)
                # fp32 in any case: rounded, they may sum to more than one, and the rest of the mass is lost.
                coded[_TOP], coded[_WHICH] = top.log_probs, top.indices.to(torch.int32)
            else:
                coded[name] = tensor.to(DTYPES[self.dtype])
                if not torch.isfinite(coded[name]).all():
                    raise RequestError(f"the teacher's {name} are too large for {self.dtype}; store them as bfloat16")
        return coded

    @staticmethod
    def decode(tensors: Mapping[str, Tensor], classes: int | None) -> TeacherOutput:
        """The teacher output, in fp32, of the tensors that `encode` gave."""
        found = {name: tensor if name == _WHICH else tensor.float() for name, tensor in tensors.items()}
        logits = found.pop(LOGITS, None)
        if _TOP in found and classes is not None:
            top, which = found.pop(_TOP), found.pop(_WHICH).long()
            if top.dim() == 4:  # (B, k, H, W)
                logits = spread(top.movedim(1, -1), which.movedim(1, -1), classes, 1.0).movedim(-1, 1)
            else:
                logits = spread(top, which, classes, 1.0)
        return TeacherOutput(logits, found)
