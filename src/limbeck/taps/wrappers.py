"""Wrappers that people put around a network: taken off, so that its parts have their own plain names.

A wrapper shares the network's parameters, so what is trained inside it is the user's own network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import Any

import torch
from torch import nn

from limbeck.errors import RequestError

_COMPILED = "torch._dynamo.eval_frame.OptimizedModule"
_SHARED = (
    "torch.nn.parallel.distributed.DistributedDataParallel",
    "lightning_fabric.wrappers._FabricModule",
    "lightning.fabric.wrappers._FabricModule",
    "apex.parallel.distributed.DistributedDataParallel",
    "deepspeed.runtime.engine.DeepSpeedEngine",
)
"""Wrappers that bring the gradients of several processes together."""
_INSIDE = {
    _COMPILED: "_orig_mod",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.CheckpointWrapper": "_checkpoint_wrapped_module",
    "timm.utils.model_ema.ModelEmaV2": "module",
    "timm.utils.model_ema.ModelEmaV3": "module",
    **{name: "_forward_module" if name.endswith("._FabricModule") else "module" for name in _SHARED},
}
"""Where each wrapper holds its network. By name: none of their packages is imported for this."""
_FLAT = "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel"


def unwrapped(module: nn.Module) -> nn.Module:
    """The plain network inside torch.compile, DataParallel, Fabric, AveragedModel and the like, nested ones too.

    Raises:
        RequestError: It is in the shards of FSDP 1, whose parameters have no names of their own.
    """
    return _layers(module)[-1]


def is_compiled(module: nn.Module) -> bool:
    """Whether a network was compiled by its user as a whole."""
    layers = _layers(module)
    return any(_COMPILED in _kinds(layer) for layer in layers) or layers[-1]._compiled_call_impl is not None


def is_shared(module: nn.Module) -> bool:
    """Whether a network came in a wrapper that brings the gradients of several processes together."""
    return any(kind in _SHARED for layer in _layers(module) for kind in _kinds(layer))


def runnable(module: nn.Module) -> nn.Module:
    """The plain network; compiled as its user compiled it, where that was so."""
    layers = _layers(module)
    compiled = next((layer for layer in reversed(layers) if _COMPILED in _kinds(layer)), None)
    if compiled is None:
        return layers[-1]
    if compiled._orig_mod is layers[-1]:
        return compiled
    made: nn.Module = compiled.dynamo_ctx(layers[-1])  # type: ignore[operator]  # torch: Tensor | Module
    return made


def plain_modules(model: nn.Module) -> dict[str, nn.Module]:
    """All modules by their paths as if there was no wrapper, around the model or around a part of it."""
    found: dict[nn.Module, str] = {}
    for _, path, module in _paths(model):
        if _inside(module) is None:
            found.setdefault(module, path)  # as `named_modules` has it, a shared module has one name
    return {path: module for module, path in found.items()}


def real_paths(model: nn.Module) -> dict[str, str]:
    """From the path of each module as if there was no wrapper to its path in the model as it is."""
    return {plain: real for real, plain, _ in _paths(model)}  # of a wrapper and what it holds, the latter comes later


def part_at(model: nn.Module, path: str) -> nn.Module:
    """The module at a path; `get_submodule`, which scripts do not have."""
    return reduce(getattr, path.split("."), model) if path else model


def plain_names(model: nn.Module) -> dict[str, str]:
    """From each name of a network's state dict to the name without the wrappers of its parts."""
    paths = {real: plain for real, plain, _ in _paths(model)}
    names = {}
    for name in model.state_dict():
        path, _, last = name.rpartition(".")
        names[name] = _join(paths.get(path, path), last)
    return names


def hooks_run(modules: Iterable[nn.Module]) -> AbstractContextManager[object]:
    """Inside, those of these modules that their user compiled run as they are: what is compiled may call no hooks."""
    return as_written() if compiled_by_user(modules) else nullcontext()


def as_written() -> AbstractContextManager[object]:
    """Inside, nothing that was compiled runs so: every module runs its own code."""
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def calls_hooks(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """Mark what a module is compiled to as calling the hooks that are on its parts."""
    compiled.calls_hooks = True  # type: ignore[attr-defined]
    return compiled


def compiled_by_user(modules: Iterable[nn.Module]) -> bool:
    """Whether the user has compiled one of some modules."""
    return any(type(one).__name__ == "OptimizedModule" or _runs_compiled(one) for one in modules)


def _runs_compiled(module: nn.Module) -> bool:
    compiled = module._compiled_call_impl
    return compiled is not None and not getattr(compiled, "calls_hooks", False)


def _paths(module: nn.Module, real: str = "", plain: str = "") -> Iterator[tuple[str, str, nn.Module]]:
    """Every module, wrappers too, with its path and with the path that it would have without wrappers."""
    yield real, plain, module
    inside = _inside(module)
    if inside is not None:
        yield from _paths(getattr(module, inside), _join(real, inside), plain)
        return
    for name, child in module._modules.items():
        if child is not None:
            yield from _paths(child, _join(real, name), _join(plain, name))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _layers(module: nn.Module) -> list[nn.Module]:
    """A module, what it wraps, what that wraps, and so on to the plain network."""
    layers = [module]
    while (inside := _inside(layers[-1])) is not None:
        layers.append(getattr(layers[-1], inside))
    return layers


def _inside(module: nn.Module) -> str | None:
    """The attribute in which a wrapper holds its network; None of a plain module."""
    kinds = _kinds(module)
    if _FLAT in kinds:
        raise RequestError(
            "a network in FullyShardedDataParallel has no parameters of its own names; give the plain network: "
            "fit(…, hardware=Hardware(strategy='fsdp')) brings it into shards"
        )
    found = next((_INSIDE[kind] for kind in kinds if kind in _INSIDE), None)
    return found if found and isinstance(getattr(module, found, None), nn.Module) else None


def _kinds(module: nn.Module) -> list[str]:
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__]
