"""A network as files and users run it: from inputs to the tensor of its logits."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from limbeck.models.foreign.hugging_face import returns_records
from limbeck.taps import logits_of


class Logits(nn.Module):
    """A network that returns its logits among other things, as one that returns them alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor, **named: Any) -> Tensor:
        return logits_of(self.network(*inputs, **named))


def to_logits(network: nn.Module) -> nn.Module:
    """The network itself, or, of a model of Hugging Face's transformers, what gives its logits as a tensor."""
    return Logits(network) if returns_records(network) else network
