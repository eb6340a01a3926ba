"""Operations: names for the tensors that a forward makes between modules, those of a torch.fx graph.

An operation is named by the module in whose forward it stands and by its function, as torchvision's feature extraction
names the nodes of a graph: "layer1.0.add", then "layer1.0.add_1" for the next addition there, "flatten" for one in the
model's own forward. No graph is traced: the operations are seen as the model runs, so its forward may branch and loop.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode, get_overridable_functions
from torch.utils.hooks import RemovableHandle

from limbeck.taps.wrappers import plain_modules

See = Callable[[str, str, Any], None]

# Python's operators arrive as methods of Tensor, in-place ones too; a graph calls them by their names in `operator`.
_OPERATORS = {
    "add_": "add", "sub_": "sub", "rsub": "sub", "mul_": "mul",
    "div": "truediv", "div_": "truediv", "rdiv": "truediv", "rfloordiv": "floordiv",
    "remainder": "mod", "rpow": "pow", "rmatmul": "matmul", "and": "and_", "or": "or_",
}  # fmt: skip


class Operations(TorchFunctionMode):
    """Sees, while `watching`, every operation on tensors in the forward of certain modules, and every layer run there.

    Args:
        model: What runs.
        scopes: Paths of the modules whose forwards are watched, of those that `watched` gives.
        see: Called as `see(name, kind, value)` with each operation's name, function and result; likewise with the
            path, type and output of a module of torch.nn, of which the second run is "PATH_1".
    """

    def __init__(self, model: nn.Module, scopes: Collection[str], see: See) -> None:
        super().__init__()
        self._counts: Counter[str] = Counter()
        self._modules = plain_modules(model) if scopes else {}
        self._scopes = frozenset(scopes)
        self._names = _names()
        self._see = see
        self._running: list[str | None] = []
        self._on = ExitStack()

    @contextmanager
    def watching(self) -> Iterator[Counter[str]]:
        """Watch whatever runs inside; gives how often each name, without its number, was seen."""
        inside = tuple(f"{scope}." if scope else "" for scope in self._scopes)
        handles: list[RemovableHandle] = []
        try:
            for path, module in self._modules.items():
                known = path in self._scopes or path.startswith(inside)
                if known and not isinstance(module, torch.jit.ScriptModule):  # which calls no hooks
                    before, after = self._around(path, module)
                    handles.append(module.register_forward_pre_hook(before))
                    handles.append(module.register_forward_hook(after, always_call=True))
            yield self._counts
        finally:
            self._on.close()
            for handle in handles:
                handle.remove()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        scope = self._running[-1] if self._running else None
        if scope is not None and _on_tensors(result) and _on_tensors([*args, *(kwargs or {}).values()]):
            name = self._names.get(function)
            if name is not None:
                self._see(self._numbered(f"{scope}.{name}" if scope else name), name, result)
        return result

    def _around(self, path: str, module: nn.Module) -> tuple[Callable[..., None], Callable[..., None]]:
        own = path if path in self._scopes else None

        def before(module: nn.Module, args: Any) -> None:
            # Torch's functions call a mode while it is on, at a price; so it is on within the scopes alone.
            if own is not None and not any(scope is not None for scope in self._running):
                self._on.enter_context(self)
            self._running.append(own)

        def after(module: nn.Module, args: Any, output: Any) -> None:
            self._running.pop()
            if own is not None and not any(scope is not None for scope in self._running):
                self._on.close()
            if _is_layer(module):  # whoever runs it: blocks may share one activation
                self._see(self._numbered(path, module=True), type(module).__name__, output)

        return before, after

    def _numbered(self, name: str, module: bool = False) -> str:
        count = self._counts[name]
        numbered = f"{name}_{count}" if count else name
        while numbered in self._modules and not (module and not count):
            count += 1
            numbered = f"{name}_{count}"
        self._counts[name] = count + 1
        return numbered


def watched(model: nn.Module) -> list[str]:
    """Paths of the modules in whose forward operations have names: all but the layers of torch.nn, and foreign ones."""
    return [path for path, module in plain_modules(model).items() if _is_scope(path, module)]


def scope_of(path: str, model: nn.Module) -> str | None:
    """The path of the module in whose forward an operation of this name could stand; None where it names none."""
    scope, _, last = path.rpartition(".")
    modules = plain_modules(model)
    possible = scope in modules and _is_scope(scope, modules[scope])
    return scope if possible and (unnumbered(last) in _names().values() or unnumbered(path) in modules) else None


def guessed(model: nn.Module) -> list[str]:
    """Names that a graph of the model has, for an error's suggestions; none of a model that cannot be traced."""
    from torchvision.models.feature_extraction import NodePathTracer

    tracer = NodePathTracer()
    try:
        tracer.trace(model)
    except Exception:  # a forward that branches, or anything else that the model's own code does to a proxy
        return []
    # A graph's inputs and its output are no operations.
    return [name for node, name in tracer.node_to_qualname.items() if node.op not in ("placeholder", "output")]


def unnumbered(name: str) -> str:
    """The name of an operation without its number."""
    return re.sub(r"_\d+$", "", name)


def _is_scope(path: str, module: nn.Module) -> bool:
    # In what runs a model of another framework, operations are limbeck's or the framework's own, and no layers.
    return (not path or not _is_layer(module)) and getattr(module, "shows_operations", True)


def _is_layer(module: nn.Module) -> bool:
    # As torch.fx decides which modules to look into.
    return type(module).__module__.startswith(("torch.nn", "torch.ao.nn")) and not isinstance(module, nn.Sequential)


@cache
def _names() -> dict[Any, str]:
    """What a graph calls each function of torch; attributes, whose getters are called `__get__`, are no operations."""
    functions = [function for group in get_overridable_functions().values() for function in group]
    # Those that work in place are not among them: torch.relu_.
    places = ((place, name) for place in (torch, functional) for name in dir(place) if re.search("[a-z]_$", name))
    functions += [getattr(place, name) for place, name in places if callable(getattr(place, name))]
    return {function: _name(function) for function in functions if function.__name__ not in ("__get__", "__set__")}


def _name(function: Any) -> str:
    name: str = function.__name__.removeprefix("__").removesuffix("__")
    is_method = hasattr(function, "__objclass__") or "." in function.__qualname__
    return _OPERATORS.get(name, name) if is_method else name


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)


def _on_tensors(value: Any) -> bool:
    return next(_tensors(value), None) is not None
