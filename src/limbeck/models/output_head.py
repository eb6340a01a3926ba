"""Where a language model's logits come from: the hidden states that its head reads, and the head's weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from limbeck.dtensors import is_dtensor
from limbeck.errors import RequestError, unknown
from limbeck.losses.tokens import Head

_CAP = "final_logit_softcapping"
_FACTOR, _DIVISOR = "logit_scale", "logits_scaling"
"""What transformers' configurations call what logits are multiplied by, and what they are divided by."""


@dataclass(frozen=True)
class OutputHead:
    """Logits = cap · tanh(z / cap), z = scale · (W h + b): what of a model h, W and b are.

    Attributes:
        hidden: The tap that gives h, (B, L, D).
        weight: The name of W, (V, D), among the model's parameters.
        bias: That of b, (V,), or None.
        scale: See `limbeck.losses.tokens.Head`.
        cap: Likewise.
    """

    hidden: str
    weight: str
    bias: str | None = None
    scale: float = 1.0
    cap: float | None = None

    def of(self, model: nn.Module) -> Head:
        """The head with the model's weights as they are now.

        Raises:
            RequestError: The weights are shards.
        """
        weight = _tensor(model, self.weight)
        if is_dtensor(weight):
            raise RequestError("logits in chunks need a head that is whole, and this one is sharded")
        return Head(weight, None if self.bias is None else _tensor(model, self.bias), self.scale, self.cap)


def find_head(
    model: nn.Module, head: str | OutputHead | None = None, scale: float | None = None, cap: float | None = None
) -> OutputHead:
    """The head of a language model.

    Args:
        model: The model.
        head: The path of its last linear layer, such as "lm_head"; or all of it. None takes what the model says itself:
            an attribute `output_head`, or the module of `get_output_embeddings()`, as models of transformers have it.
        scale: What the layer's products are multiplied by; None takes it from the model's configuration.
        cap: The soft cap, likewise.

    Raises:
        RequestError: There is no such layer, or it is no plain linear one.
    """
    if isinstance(head, OutputHead):
        return head
    own = getattr(model, "output_head", None)
    if head is None and isinstance(own, OutputHead):
        return own
    paths = {id(module): path for path, module in model.named_modules()}
    if head is None:
        module = _embeddings(model)
        if id(module) not in paths:
            raise RequestError(f"{type(model).__name__} does not show its head; name it, such as head: lm_head")
        head = paths[id(module)]
    found = dict(model.named_modules()).get(head)
    if found is None:
        linear = [path for path, one in model.named_modules() if isinstance(one, nn.Linear)]
        raise unknown(f"head of {type(model).__name__}", head, linear)
    if type(found) is not nn.Linear:
        raise RequestError(
            f"the head {head} is {type(found).__name__}, and logits in chunks need a plain Linear; leave chunked out"
        )
    config = getattr(model, "config", None)
    factor = _number(config, _FACTOR) or 1.0
    divisor = _number(config, _DIVISOR) or 1.0
    bias = None if found.bias is None else f"{head}.bias"
    return OutputHead(
        f"{head}:in",
        f"{head}.weight",
        bias,
        factor / divisor if scale is None else scale,
        _number(config, _CAP) if cap is None else cap,
    )


def _embeddings(model: nn.Module) -> Any:
    get = getattr(model, "get_output_embeddings", None)
    return get() if callable(get) else None


def _number(config: Any, name: str) -> float | None:
    value = getattr(config, name, None)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _tensor(model: nn.Module, name: str) -> Tensor:
    path, _, last = name.rpartition(".")
    try:
        found = getattr(model.get_submodule(path), last)
    except AttributeError:
        raise unknown(f"weight of {type(model).__name__}", name, dict(model.named_parameters())) from None
    if not isinstance(found, Tensor):
        raise RequestError(f"{name} of {type(model).__name__} is no tensor")
    return found
