"""The modules that a function runs without being one: in its closure, its globals, its arguments, its object."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

DEPTH, MOST = 6, 1000
"""How many steps are followed from a function to a module, such as closure → object → list; how many values in all."""
FOREIGN = ("torch", "torchvision", "numpy", "builtins", "functools", "limbeck")
"""Packages whose own functions are not looked into."""


def modules_reached(function: Callable[..., Any]) -> list[nn.Module]:
    """The torch modules that a function reaches by itself, each once; none of those inside another.

    Looked at are closures, the globals that the code names, default arguments, `functools.partial`, bound methods,
    decorated functions, the attributes of objects, and lists, tuples and dicts of all these.

    >>> layer = nn.Linear(2, 2)
    >>> modules_reached(lambda x: layer(x)[0]) == [layer]
    True
    """
    found: dict[int, nn.Module] = {}
    seen: set[int] = set()
    todo: list[tuple[Any, int]] = [(function, 0)]
    while todo and len(seen) < MOST:
        value, depth = todo.pop()
        if id(value) in seen or depth > DEPTH:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            found[id(value)] = value
        else:
            todo += [(one, depth + 1) for one in _behind(value)]
    inner = {id(part) for module in found.values() for part in module.modules() if part is not module}
    return [module for key, module in found.items() if key not in inner]


def _behind(value: Any) -> Iterator[Any]:
    """What lies one step behind a value."""
    if isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, FunctionType):
        yield from _of_function(value)
    elif isinstance(value, Mapping):
        yield from islice(value.values(), MOST)
    elif isinstance(value, list | tuple | set):
        yield from islice(value, MOST)
    elif not isinstance(value, type | ModuleType | BuiltinFunctionType) and not _is_foreign(type(value)):
        yield from list(getattr(value, "__dict__", {}).values())
        yield from (inspect.getattr_static(value, slot, None) for slot in getattr(type(value), "__slots__", ()))
        yield inspect.getattr_static(type(value), "__call__", None)


def _of_function(function: FunctionType) -> Iterator[Any]:
    if _is_foreign(function):
        return
    yield from (function.__defaults__ or (), function.__kwdefaults__ or {}, getattr(function, "__wrapped__", None))
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # empty: it is filled later
            continue
    names = set(_names(function.__code__))
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):  # `networks.teacher(x)`: what the code names of it
            yield from (vars(value).get(other) for other in names if not _is_foreign(value))
        else:
            yield value


def _names(code: CodeType) -> Iterator[str]:
    """The names that a function's code uses, with those of the functions written inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_foreign(value: Any) -> bool:
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    return str(name).partition(".")[0] in FOREIGN
