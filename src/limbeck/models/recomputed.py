"""Gradient checkpointing: blocks keep their inputs alone in training, and are computed anew in the backward pass."""

from __future__ import annotations

from typing import Any

from torch import nn

from limbeck.errors import RequestError

OWN = "gradient_checkpointing"
"""What limbeck's own networks, and the parts of transformers' models, call it."""
_HUGGING_FACE = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
"""What models of transformers call it, from the newest to the oldest."""


def recompute_blocks(model: nn.Module) -> None:
    """Let a model compute its blocks anew in each backward pass; gradients are the same, memory is less, time is more.

    Args:
        model: limbeck's `transformer` or `text_encoder`, or a model of transformers (`hf:`); changed in place.

    Raises:
        RequestError: Another model, or one of transformers that cannot do it.

    Source: Chen et al.: Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174.
    """
    inner: Any = getattr(model, "encoder", model)  # of a sentence encoder
    enable = next((getattr(inner, name) for name in _HUGGING_FACE if hasattr(inner, name)), None)
    if enable is not None:
        if not getattr(inner, "supports_gradient_checkpointing", True):
            raise RequestError(f"gradient_checkpointing: {type(inner).__name__} cannot do it; leave it out")
        enable({"use_reentrant": False})
    elif hasattr(type(model), OWN):
        setattr(model, OWN, True)
    else:
        raise RequestError(
            "gradient_checkpointing is for transformer, text_encoder and models of Hugging Face (hf:), and not for "
            f"{type(model).__name__}; leave it out"
        )


def recomputes(model: nn.Module) -> bool:
    """Whether some of a model's blocks are computed anew in the backward pass."""
    return any(getattr(module, OWN, False) is True for module in model.modules())
