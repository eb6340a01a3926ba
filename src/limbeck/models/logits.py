"""A network as files and users run it: from inputs to the tensor of its logits."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from limbeck.models.foreign.hugging_face import returns_records
from limbeck.taps import Choice, call, output_of


class Logits(nn.Module):
    """A network that returns its logits among other things, as one that returns them alone."""

    def __init__(self, network: nn.Module, output: Choice = None) -> None:
        super().__init__()
        self.network = network
        self.output = output

    def forward(self, *inputs: Tensor, **named: Any) -> Tensor:
        returned = self.network(*inputs) if inputs else call(self.network, named)
        return output_of(returned, self.output)


def to_logits(network: nn.Module, output: Choice = None) -> nn.Module:
    """The network itself, or what gives the part of what it returns that was chosen as a tensor.

    Of a model of Hugging Face's transformers that is the logits, where nothing was chosen.
    """
    return Logits(network, output) if output is not None or returns_records(network) else network
