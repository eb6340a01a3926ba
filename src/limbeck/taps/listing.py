"""What a model offers to taps: its modules, and the operations between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.taps.forward import call, evaluating
from limbeck.taps.operations import Operations, watched
from limbeck.taps.wrappers import hooks_run, plain_modules, unwrapped
from limbeck.types import Inputs


@dataclass(frozen=True)
class TapInfo:
    """What `trace` found at one tap.

    Attributes:
        name: The tap.
        kind: The module's type, or the operation.
        shape: The tensor's shape, with the batch.
        parameters: The module's own number of them.
        operation: Whether the tap names an operation, or one more run of a module, and no module.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    operation: bool = False


@torch.no_grad()
def trace(model: nn.Module, inputs: Inputs, *, operations: bool = False) -> list[TapInfo]:
    """List the modules of a model whose output is a tensor, in the order in which they run.

    Args:
        model: The model; its mode and its statistics are left as they are.
        inputs: An example, batch first.
        operations: List the operations between modules too.
    """
    model = unwrapped(model)
    found: dict[str, TapInfo] = {}
    paths = {path: module for path, module in plain_modules(model).items() if path}
    names = {module: path for path, module in paths.items()}

    def record(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            path = names[module]
            size = sum(p.numel() for p in module.parameters())
            found.pop(path, None)  # a module that runs twice stands where it ran last
            found[path] = TapInfo(path, type(module).__name__, tuple(output.shape), size)

    def record_operation(name: str, kind: str, value: Any) -> None:
        if name in paths:
            return  # a module's first run
        several = {f"{name}:{i}": one for i, one in enumerate(value)} if isinstance(value, list | tuple) else {}
        for tap, tensor in (several or {name: value}).items():
            if isinstance(tensor, Tensor):
                found[tap] = TapInfo(tap, kind, tuple(tensor.shape), 0, operation=True)

    scopes = watched(model) if operations else ()
    shown = [module for module in names if not isinstance(module, torch.jit.ScriptModule)]  # which calls no hooks
    handles = [module.register_forward_hook(record) for module in shown]
    try:
        with evaluating(model), hooks_run(model.modules()):
            if operations:
                call(model, inputs)  # a first pass may fill caches, by operations that never run again
                found.clear()
            with Operations(model, scopes, record_operation).watching():
                call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())
