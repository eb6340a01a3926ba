"""torch's compiler is imported where something is compiled, and not before: it takes twice as long as torch itself.

Two ask for it without a need. Fabric imports the class of compiled modules; torch's optimizers import the compiler at
their first call, to be left out of what it compiles. Both hold here until somebody imports `torch._dynamo`; from then
on everything is as torch has it. Triton, whose class of kernels torch's counter of operations asks for, waits likewise.
Where torch or Fabric look different than expected, nothing is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import FunctionType
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim import optimizer as torchs

from limbeck.imports import standing_in

COMPILER = "torch._dynamo"
TRITON = "triton.runtime.jit"
_MARK = "__dynamo_disable"
"""Where `torch._disable_dynamo` keeps what it calls instead of a function."""


class _Late(type):
    """The type of a class whose instances are those of another one, `MODULE.NAME`, once somebody has imported that."""

    MODULE: str
    NAME: str

    def __instancecheck__(cls, value: Any) -> bool:
        real = getattr(sys.modules.get(cls.MODULE), cls.NAME, None)
        return real not in (None, cls) and isinstance(value, real)  # it is the class itself while that stands in


class CompiledModule(metaclass=_Late):
    """What torch.compile makes of a module, as far as `isinstance` goes; asking imports nothing."""

    MODULE, NAME = f"{COMPILER}.eval_frame", "OptimizedModule"


class TritonFunction(metaclass=_Late):
    """A kernel of Triton's, likewise."""

    MODULE, NAME = TRITON, "JITFunction"


@contextmanager
def asked_for_the_class_alone() -> Iterator[None]:
    """Inside, importing torch's compiler gives `OptimizedModule` alone, a class that `isinstance` takes for the real.

    Raises:
        ImportError: Something else of the compiler was imported by name.
    """
    with standing_in(COMPILER, OptimizedModule=CompiledModule):
        yield


class _UntilCompiler(MetaPathFinder):
    """Takes its marks off as soon as the compiler is imported, before that looks at anything; finds no module."""

    def __init__(self) -> None:
        self.marked: list[FunctionType] = []

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == COMPILER:
            while self.marked:
                vars(self.marked.pop()).pop(_MARK, None)


_until = _UntilCompiler()


@contextmanager
def without_triton() -> Iterator[None]:
    """Inside, importing Triton's kernels gives their class alone, as `TritonFunction`: one asks for no more."""
    with standing_in(TRITON, JITFunction=TritonFunction):
        yield


def put_off(kind: type = Optimizer) -> None:
    """Let the methods of a class run without the compiler until it is imported; by default those of optimizers.

    Args:
        kind: A class of torch with methods that the compiler is to leave out, and that import it for this.
    """
    if COMPILER in sys.modules:
        return
    for wrapper in vars(kind).values():
        inner = getattr(wrapper, "__wrapped__", None)
        if _is_disabled(wrapper) and isinstance(inner, FunctionType) and not hasattr(inner, _MARK):
            setattr(inner, _MARK, inner)
            _until.marked.append(inner)
    if _until not in sys.meta_path:
        sys.meta_path.insert(0, _until)


def _is_disabled(function: Any) -> bool:
    """Whether a function is what `torch._disable_dynamo` makes of one."""
    module = sys.modules.get("torch._compile")
    return isinstance(function, FunctionType) and module is not None and function.__globals__ is vars(module)


def take_step(optimizer: Optimizer) -> None:
    """`optimizer.step()`, without the compiler where that is not imported.

    The step of torch's optimizers imports it, in order to tell it to stand aside. Without it they do the same; hooks
    and steps of other kinds are respected.
    """
    own = None if COMPILER in sys.modules or _is_hooked(optimizer) else _update(optimizer)
    if own is None:
        optimizer.step()
        return
    with torch.set_grad_enabled(optimizer.defaults["differentiable"]):
        own(optimizer)


def _is_hooked(optimizer: Optimizer) -> bool:
    everybodys = torchs._global_optimizer_pre_hooks or torchs._global_optimizer_post_hooks
    own = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return bool(everybodys or own)


def _update(optimizer: Optimizer) -> FunctionType | None:
    """What torch's step wraps twice: in its hooks, and in the question to the compiler; None where it does not."""
    kind = type(optimizer)
    hooks = kind.step
    asking = getattr(hooks, "__wrapped__", None)
    update = getattr(asking, "__wrapped__", None)
    if "step" in vars(optimizer) or not kind.__module__.startswith("torch.optim.") or hasattr(update, "__wrapped__"):
        return None
    names = [one.__code__.co_name for one in (hooks, asking) if isinstance(one, FunctionType)]
    return update if names == ["wrapper", "_use_grad"] and isinstance(update, FunctionType) else None
