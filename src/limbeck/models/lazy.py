"""Layers that learn their shape from the first batch, such as nn.LazyLinear, before and after that."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from limbeck.errors import RequestError
from limbeck.seeds import derive, seeded


def lazy_layers(model: nn.Module) -> list[str]:
    """The names of the layers that do not know their shape yet."""
    return [
        name or type(layer).__name__
        for name, layer in model.named_modules()
        if any(is_lazy(x) for x in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)))
    ]


def materialise(model: nn.Module, run: Callable[[], object], seed: int) -> None:
    """Let a model's lazy layers learn their shapes; their start is a function of the seed.

    Args:
        model: The model; one without such layers is not run at all.
        run: Runs it on an example, in whatever mode the model is in.
        seed: What the layers' start is drawn from.

    Raises:
        RequestError: A layer that is not run, and still does not know its shape.
    """
    if not lazy_layers(model):
        return
    with torch.no_grad(), seeded(derive(seed, "lazy layers")):
        run()
    left = lazy_layers(model)
    if left:
        raise RequestError(
            f"{', '.join(left[:4])}: nothing runs this lazy layer, so that its shape stays unknown; give it its number "
            "of inputs, or leave it out"
        )


def refuse_lazy(teacher: nn.Module) -> None:
    """Raise RequestError for a teacher with layers that have never run: it cannot have been trained."""
    left = lazy_layers(teacher)
    if left:
        raise RequestError(
            f"the teacher is not trained: its lazy layer {left[0]} has never run; run it once on an example and load "
            "its weights first"
        )
