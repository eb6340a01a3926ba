"""What a module's outputs depend on besides its weights: settings, code, closures, and the versions of what runs it."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.dtensors import is_dtensor
from limbeck.models.foreign.programs import program_text
from limbeck.taps.wrappers import unwrapped
from limbeck.types import content

DEPTH = 4
"""So deep mappings and lists of settings are looked into."""
KNOWN = ("torch", "limbeck", "builtins")
"""Packages whose code is known by their version."""
_PLAIN = (str, int, float, bool, complex, bytes, type(None), torch.dtype, torch.device, torch.Size)
_OWN = frozenset({*vars(nn.Module()), "forward_signature"})
"""Attributes of every module; its weights and parts are seen otherwise, and its mode is no setting."""


def identity(module: nn.Module) -> str:
    """Hexadecimal digest of what a module computes, but for its weights and buffers.

    These are the settings of each part that are plain values or functions, the code of classes and functions that are
    not torch's with what their closures hold, hooks, scripts and graphs, and the versions of torch and of the packages
    that the classes come from. Of a model of another framework it is what that says of itself (`identity()`).
    """
    digest = hashlib.sha256()
    for line in _lines(unwrapped(module)):
        digest.update(line.encode())
    return digest.hexdigest()


def settings(value: Any) -> str:
    """A setting as text: plain values as they are, of a function its code and what it holds."""
    return json.dumps(_plain(value, DEPTH), sort_keys=True, default=repr)


def _lines(module: nn.Module) -> Iterator[str]:
    packages, codes = {"torch"}, dict[type, str]()
    for name, part in module.named_modules():
        kind = type(part)
        packages.add(kind.__module__.partition(".")[0])
        codes[kind] = codes.get(kind) or _code_of_class(kind)
        yield f"{name} {kind.__qualname__} {part.extra_repr()} {codes[kind]}\n"
        if not isinstance(part, torch.jit.ScriptModule):
            yield settings({key: value for key, value in vars(part).items() if key not in _OWN})
            hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
            yield json.dumps(_plain(hooks, DEPTH), default=repr)
        itself = getattr(kind, "identity", None)
        if itself is not None and kind.__module__.startswith("limbeck."):
            yield str(itself(part))
        for key in sorted(part._non_persistent_buffers_set):
            yield f"{key} {_tensor(part._buffers[key])}"
    yield program_text(module)
    yield repr([(name, getattr(sys.modules.get(name), "__version__", "")) for name in sorted(packages)])


def _plain(value: Any, depth: int) -> Any:
    """A setting as plain values; "" for what is none, such as modules, whose parts are seen otherwise."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, Tensor):
        return _tensor(value)
    if depth == 0 or isinstance(value, nn.Module | type):
        return getattr(value, "__qualname__", "")
    if isinstance(value, Mapping):
        return {str(_plain(key, 1)): _plain(one, depth - 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, depth - 1) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(str(_plain(one, depth - 1)) for one in value)
    if isinstance(value, functools.partial):
        return [_plain(one, depth - 1) for one in (value.func, value.args, value.keywords)]
    if isinstance(value, MethodType):
        return _plain(value.__func__, depth)
    if isinstance(value, FunctionType):
        return _function(value, depth)
    return type(value).__qualname__ + getattr(value, "__name__", "")


def _function(function: FunctionType, depth: int) -> list[Any]:
    held = [_held(cell) for cell in function.__closure__ or ()]
    read = {name: function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__}
    numbers = {name: value for name, value in read.items() if isinstance(value, _PLAIN)}
    given = [function.__defaults__, function.__kwdefaults__, held, numbers]
    return [_code(function.__code__), *(_plain(one, depth - 1) for one in given)]


def _held(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty: it is filled later
        return ""


def _code_of_class(kind: type) -> str:
    """A digest of the methods that a class and those that it comes from have in packages of unknown versions."""
    digest = hashlib.sha256()
    for one in kind.__mro__:
        if one.__module__.partition(".")[0] not in KNOWN:
            for name, value in sorted(vars(one).items()):
                function = getattr(value, "__func__", getattr(value, "fget", value))
                if isinstance(function, FunctionType):
                    digest.update(f"{name} {json.dumps(_function(function, 2), default=repr)}".encode())
                elif isinstance(value, _PLAIN) and not name.startswith("__"):
                    digest.update(f"{name} {value!r}".encode())
    return digest.hexdigest()


def _code(code: CodeType) -> str:
    """A digest of compiled code; the lines and the file that it comes from are no part of it."""
    constants = [_constant(one) for one in code.co_consts]
    parts = [code.co_code.hex(), constants, code.co_names, code.co_varnames, code.co_freevars]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _code(value)
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)


def _tensor(value: Tensor | None) -> str:
    if value is None or value.is_meta or is_dtensor(value):
        return ""
    return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(content(value)).hexdigest()}"
