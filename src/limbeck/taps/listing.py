"""What a model offers to taps: its modules, and the operations between them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.taps.forward import call, evaluating
from limbeck.taps.operations import Operations, watched
from limbeck.taps.scripts import Scripted, scripts_in
from limbeck.taps.wrappers import hooks_run, part_at, plain_modules, unwrapped
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
            found[path] = TapInfo(path, _kind(module), tuple(output.shape), size)

    def record_within(script: str, path: str, args: tuple[Any, ...], output: Any) -> None:
        module = part_at(part_at(model, script), path)
        if module is not model:
            record(module, args, output)

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
        with evaluating(model), hooks_run(model.modules()), ExitStack() as stack:
            for path, script in scripts_in(model).items():
                stack.enter_context(Scripted(script).shown(partial(record_within, path)))
            if operations:
                call(model, inputs)  # a first pass may fill caches, by operations that never run again
                found.clear()
            with Operations(model, scopes, record_operation).watching():
                call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())


def _kind(module: nn.Module) -> str:
    """A module's type; of one of a program, TorchScript or of torch.export, the type that it was made from."""
    if isinstance(module, torch.jit.ScriptModule):
        return str(module.original_name)
    made_from = getattr(module, "_ty", None)
    return made_from.rpartition(".")[2] if isinstance(made_from, str) else type(module).__name__
