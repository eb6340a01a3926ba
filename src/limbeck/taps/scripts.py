"""Hidden tensors of TorchScript, whose modules call no hooks: a copy of the program that returns them too.

The program's calls of its modules are marked, and then written out in one graph; a mark shows which module was called,
with what, and what it gave. The graph runs on the same weights as the program itself.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.jit import ScriptModule

from limbeck.errors import RequestError, some
from limbeck.taps.names import Tap
from limbeck.taps.wrappers import part_at

_FORWARD = "forward"
_MARK = "prim::TupleConstruct"

See = Callable[[str, tuple[Any, ...], Any], None]
"""Called with the path of a module, its inputs and its output."""


@dataclass(frozen=True)
class _Call:
    """One call of a module in a graph: its path, and the graph's values for its output and its inputs."""

    path: str
    output: Any
    inputs: tuple[Any, ...]


class Scripted:
    """A TorchScript module that shows what its modules give.

    Those that it calls within a loop or a branch are not shown: whether, and how often, they run is not known before.

    Args:
        script: The module; it stays as it is.

    Attributes:
        paths: The modules that are shown, in running order; the last is "", the script itself.
    """

    def __init__(self, script: ScriptModule) -> None:
        self._script: Any = script
        self._copy = _copied(script)
        _mark(self._copy)
        self._graph = self._copy._c._get_method(_FORWARD).graph.copy()
        torch._C._jit_pass_inline(self._graph)
        self._calls = _marked(self._graph)
        self.paths = [*dict.fromkeys(call.path for call in self._calls), ""]

    @contextmanager
    def shown(self, see: See, paths: Sequence[str] | None = None) -> Iterator[None]:
        """Inside, `see` gets what modules of these paths, all by default, have read and given at each run."""
        calls = [call for call in self._calls if paths is None or call.path in paths]
        run = _returning(self._graph, calls)
        schema = self._script._c._get_method(_FORWARD).schema

        def forward(*args: Any, **kwargs: Any) -> Any:
            _share(self._script, self._copy)
            output, *values = run(self._copy, *_ordered(schema, args, kwargs))
            for call in calls:
                given, *read = values[: 1 + len(call.inputs)]
                del values[: 1 + len(call.inputs)]
                see(call.path, tuple(read), given)
            if paths is None or "" in paths:
                see("", args or tuple(kwargs.values()), output)
            return output

        vars(self._script)[_FORWARD] = forward
        try:
            yield
        finally:
            del vars(self._script)[_FORWARD]


class TapsOfScripts:
    """Those taps of a model that lie in scripts.

    Args:
        model: The model, which is a script, or holds some.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._taps: dict[str, dict[str, list[Tap]]] = {}  # by the script's path, and by the module's within it
        self._scripted: dict[str, Scripted] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> TapsOfScripts:
        """The same taps of the copied model: a graph cannot be copied so."""
        made = TapsOfScripts(copy.deepcopy(self._model, memo))
        for root, taps in self._taps.items():
            for inner, ones in taps.items():
                for tap in ones:
                    made.take(tap, f"{root}.{inner}".strip("."))
        return made

    def take(self, tap: Tap, path: str) -> bool:
        """Take a tap at a module of this path, if that lies in a script, and say whether it does.

        Raises:
            RequestError: The script shows nothing of that module.
        """
        root = _outermost(self._model, path)
        if root is None:
            return False
        inner = path.removeprefix(root).lstrip(".")
        if root not in self._scripted:
            self._scripted[root] = Scripted(part_at(self._model, root))  # type: ignore[arg-type]  # it is one
        if inner not in self._scripted[root].paths:
            raise RequestError(
                f"{tap}: the TorchScript program calls it within a loop or a branch, or not at all; "
                f"{_others(self._scripted[root].paths[:-1])}"
            )
        self._taps.setdefault(root, {}).setdefault(inner, []).append(tap)
        return True

    @contextmanager
    def read(self, store: Callable[[Tap, Any], None]) -> Iterator[None]:
        """Inside, `store` gets each tap with what was read there."""
        with ExitStack() as stack:
            for root, taps in self._taps.items():

                def see(path: str, inputs: tuple[Any, ...], output: Any, taps: Any = taps) -> None:
                    for tap in taps[path]:
                        store(tap, inputs if tap.side == "in" else output)

                stack.enter_context(self._scripted[root].shown(see, tuple(taps)))
            yield


def scripts_in(model: nn.Module) -> dict[str, Any]:
    """The scripts in a model that Python calls, by their paths: those that lie in no other script."""
    scripts = {path: module for path, module in model.named_modules() if _is_called(module)}
    return {path: module for path, module in scripts.items() if _outermost(model, path) == path}


def _is_called(module: Any) -> bool:
    """Whether it is a script that is run by calling it, and not by methods of other names alone."""
    return isinstance(module, ScriptModule) and bool(module._c._has_method(_FORWARD))


def _outermost(model: nn.Module, path: str) -> str | None:
    """The path of the outermost script on the way to a path; None where there is none."""
    names = path.split(".") if path else []
    paths = (".".join(names[:depth]) for depth in range(len(names) + 1))
    return next((one for one in paths if _is_called(part_at(model, one))), None)


def _others(paths: Sequence[str]) -> str:
    return f"it shows {some(paths)}" if paths else "it shows no module, as a frozen one; give the network itself"


def _copied(script: ScriptModule) -> Any:
    """The same program with graphs of its own, which nothing has run or optimized yet."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # of TorchScript's future
        torch.jit.save(script, buffer)
        buffer.seek(0)
        copied: Any = torch.jit.load(buffer)  # type: ignore[no-untyped-call]
    return copied


def _share(script: ScriptModule, copied: ScriptModule) -> None:
    """Give a copy the script's own weights, buffers and modes, as they are now."""
    for one, other in zip(script.modules(), copied.modules(), strict=True):
        if getattr(one, "training", None) != getattr(other, "training", None):  # a frozen script has none
            other.training = one.training
        for mine, its in ((one._parameters, other._parameters), (one._buffers, other._buffers)):
            for name, value in mine.items():
                if its[name] is not value:
                    setattr(other, name, value)


def _mark(script: Any) -> None:
    """Behind each call of a module put a node, which nobody reads, of that module, what it gives and what it got.

    Both are copied at once: what runs afterwards may work in place.
    """
    done = set[str]()
    for module in script.modules():
        kind = str(module._c._type().str())
        if kind in done:  # modules of one type share their graphs
            continue
        done.add(kind)
        for method in module._c._method_names():
            graph = module._c._get_method(method).graph
            for node in list(graph.findAllNodes("prim::CallMethod")):
                if node.s("name") == _FORWARD:
                    called, *inputs = node.inputs()
                    got = [_clone(graph, value, node) for value in inputs]
                    mark = _tuple(graph, [called, node.output(), *got]).insertAfter(node)
                    mark.replaceInput(1, _clone(graph, node.output(), mark))


def _marked(graph: Any) -> list[_Call]:
    """The calls that a graph was marked with; the marks are taken out."""
    calls: list[_Call] = []
    nodes = list(graph.nodes())  # those of loops and branches lie in blocks of their own
    for node in nodes:
        if node.kind() != _MARK or not _is_module(next(node.inputs())):
            continue
        called, *values = node.inputs()
        path = _path(called)
        if path:
            for place, value in enumerate(values):  # a copy of the graph keeps names, and no numbers
                value.setDebugName(f"shown.{len(calls)}.{place}")
            calls.append(_Call(path, values[0], tuple(values[1:])))
        node.destroy()
    return calls


def _is_module(value: Any) -> bool:
    return isinstance(value.type(), torch._C.ClassType)


def _path(value: Any) -> str:
    """The path of a module that a graph looks up; "" for the graph's own, and for one that is found otherwise."""
    names: list[str] = []
    while value.node().kind() == "prim::GetAttr":
        names.append(value.node().s("name"))
        value = value.node().input()
    return ".".join(reversed(names)) if value.node().kind() == "prim::Param" else ""


def _returning(graph: Any, calls: Sequence[_Call]) -> Callable[..., Any]:
    """A function of a module and its inputs that gives the graph's output, then each call's output and inputs."""
    whole = graph.copy()
    found = {value.debugName(): value for value in whole.inputs()}
    found |= {value.debugName(): value for node in whole.nodes() for value in node.outputs()}
    names = [value.debugName() for call in calls for value in (call.output, *call.inputs)]
    (output,) = whole.outputs()
    packed = _tuple(whole, [output, *(found[name] for name in names)])
    whole.appendNode(packed)
    whole.eraseOutput(0)
    whole.registerOutput(packed.output())
    made: Callable[..., Any] = torch._C._create_function_from_graph("tapped", whole)
    return made


def _tuple(graph: Any, values: Sequence[Any]) -> Any:
    node = graph.create(_MARK, list(values), 1)
    node.output().setType(torch._C.TupleType([value.type() for value in values]))
    return node


def _clone(graph: Any, value: Any, node: Any) -> Any:
    """A copy of a graph's value, where that is a tensor, made before a node."""
    if not isinstance(value.type(), torch._C.TensorType):
        return value
    nothing = graph.create("prim::Constant", [], 1)  # in place of a memory format
    nothing.output().setType(torch._C.NoneType.get())
    copied = graph.create("aten::clone", [value, nothing.output()], 1)
    for new in (nothing, copied):
        new.insertBefore(node)
    return copied.output()


def _ordered(schema: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments in the order in which a method takes them."""
    ordered = list(args)
    for argument in schema.arguments[1 + len(args) :]:
        if argument.name not in kwargs and not argument.has_default_value():
            raise TypeError(f"forward() is missing a value for argument {argument.name!r}")
        ordered.append(kwargs.get(argument.name, argument.default_value))
    return ordered
