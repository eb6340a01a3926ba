"""The size of a model: parameters and multiply-adds."""

from __future__ import annotations

import torch
from torch import nn

from limbeck.late_compiler import put_off, without_triton
from limbeck.taps import call, evaluating
from limbeck.taps.wrappers import hooks_run
from limbeck.types import Inputs


def parameter_count(model: nn.Module) -> int:
    """The number of parameters, shared ones counted once; with those of models that PyTorch does not run itself."""
    elsewhere = sum(getattr(module, "foreign_parameters", 0) for module in model.modules())
    return sum(p.numel() for p in model.parameters()) + elsewhere


@torch.no_grad()
def multiply_adds(model: nn.Module, inputs: Inputs) -> int:
    """Multiply-adds of one sample's forward pass: matrix products, convolutions and attention.

    Args:
        model: Its mode and statistics are left as they are.
        inputs: An example batch of exactly one sample.
    """
    with without_triton():
        from torch.utils import flop_counter

    put_off(flop_counter._FlopCounterMode)
    with evaluating(model), hooks_run(model.modules()), flop_counter.FlopCounterMode(display=False) as counter:
        call(model, inputs)
        elsewhere = getattr(model, "foreign_multiply_adds", None)
        more: int = elsewhere(inputs) if elsewhere else 0
    return int(counter.get_total_flops()) // 2 + more
