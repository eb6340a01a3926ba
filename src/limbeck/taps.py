"""Taps: named places in a model where a tensor is read during its one forward pass.

"layer3.1.conv2"      the output of that module
"layer3.1.conv2:in"   its first input
"encoder:0"           element 0 of a tuple output; "encoder:hidden" of a mapping; "encoder:in:1" its second input
"logits"              the model's own output
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError, unknown
from limbeck.types import Inputs

LOGITS = "logits"


@dataclass(frozen=True)
class Tap:
    """One parsed tap name.

    Attributes:
        name: As it was written.
        path: The module's path in its model.
        side: "in" for its input, "out" for its output.
        element: Which element of a tuple (int) or mapping (str), or None for a plain tensor.
    """

    name: str
    path: str
    side: str
    element: int | str | None

    @classmethod
    def parse(cls, name: str) -> Tap:
        """Read a tap name; raise RequestError where it has too many parts."""
        path, *rest = name.split(":")
        side = "out"
        if rest and rest[0] == "in":
            side = rest.pop(0)
        if len(rest) > 1:
            raise RequestError(
                f"tap {name!r} is not of the form module, module:in, module:ELEMENT or module:in:ELEMENT"
            )
        element = int(rest[0]) if rest and rest[0].isdigit() else rest[0] if rest else None
        return cls(name, path, side, element)

    def read(self, value: Any) -> Tensor:
        """The tensor that this tap names in what its module was given or has returned."""
        if self.side == "in" and self.element is None:
            value = next(iter(value.values() if isinstance(value, Mapping) else value), None)
        elif self.element is not None:
            try:
                value = value[self.element]
            except (KeyError, IndexError, TypeError):
                raise RequestError(f"tap {self.name!r}: no element {self.element!r} in {_describe(value)}") from None
        if not isinstance(value, Tensor):
            raise RequestError(f"tap {self.name!r} names no tensor but {_describe(value)}")
        return value


class Taps:
    """The taps of one model, checked against its modules when made.

    Args:
        model: The model to read.
        names: Tap names; "logits" may be among them and is always given.

    Raises:
        RequestError: A name that is no module of the model; the message gives the nearest ones.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2))
    >>> taps = Taps(model, ["0", "2:in"])
    >>> output, tensors = taps.run(torch.zeros(5, 4))
    >>> {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    {'0': (5, 3), '2:in': (5, 3), 'logits': (5, 2)}
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self.model = model
        self.taps = [Tap.parse(name) for name in dict.fromkeys(names) if name != LOGITS]
        modules = dict(model.named_modules())
        for tap in self.taps:
            if tap.path not in modules:
                raise unknown(f"tap of {type(model).__name__}", tap.name, [path for path in modules if path])
        self._reads: int | None = None

    def run(self, inputs: Inputs) -> tuple[Any, dict[str, Tensor]]:
        """One forward pass: the model's output, and the tensor at each tap (and "logits")."""
        with self.capture() as tensors:
            output = call(self.model, inputs)
        self._check_reached(tensors)
        tensors[LOGITS] = logits_of(output)
        return output, tensors

    def run_to_last(self, inputs: Inputs) -> dict[str, Tensor]:
        """The tensor at each tap, the model running no deeper than its last tap; "logits" is not among them.

        The first call runs through and counts the tensors read, so that a module that runs twice gives its last
        tensor here too; later calls stop after as many.
        """
        reads = 0

        def count() -> None:
            nonlocal reads
            reads += 1
            if reads == self._reads:
                raise _Reached

        with self.capture(count) as tensors, suppress(_Reached):
            call(self.model, inputs)
        self._check_reached(tensors)
        self._reads = self._reads or reads
        return tensors

    def _check_reached(self, tensors: Mapping[str, Tensor]) -> None:
        for tap in self.taps:
            if tap.name not in tensors:
                raise RequestError(
                    f"tap {tap.name!r}: the forward pass of {type(self.model).__name__} does not reach it"
                )

    @contextmanager
    def capture(self, after_read: Callable[[], None] = lambda: None) -> Iterator[dict[str, Tensor]]:
        """Read the taps of whatever forward pass runs inside; a module that runs twice gives its last tensor.

        Args:
            after_read: Called whenever a tap was read.
        """
        tensors: dict[str, Tensor] = {}
        handles = []

        def store(name: str, tensor: Tensor) -> None:
            # Cloned: a later in-place operation (ReLU(inplace=True), x += y) would overwrite it.
            tensors[name] = tensor.clone()
            after_read()

        try:
            for tap in self.taps:
                module = self.model.get_submodule(tap.path)
                if tap.side == "in":
                    handles.append(module.register_forward_pre_hook(_read_input(tap, store), with_kwargs=True))
                else:
                    handles.append(module.register_forward_hook(_read_output(tap, store)))
            yield tensors
        finally:
            for handle in handles:
                handle.remove()


class _Reached(BaseException):
    """The last tap is read; no Exception, so that no model's own error handling takes it for one."""


def _read_input(tap: Tap, store: Callable[[str, Tensor], None]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A module that is called by keywords alone has them as its inputs: "encoder:in:hidden_states".
        store(tap.name, tap.read(args if args and not isinstance(tap.element, str) else kwargs or args))

    return hook


def _read_output(tap: Tap, store: Callable[[str, Tensor], None]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        store(tap.name, tap.read(output))

    return hook


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Run a model on one tensor, or on named inputs as keyword arguments."""
    return model(inputs) if isinstance(inputs, Tensor) else model(**inputs)


def logits_of(output: Any) -> Tensor:
    """The logits in a model's output: the tensor itself, or its `logits` attribute or key.

    Raises:
        RequestError: There is none.
    """
    if isinstance(output, Tensor):
        return output
    found = output.get(LOGITS) if isinstance(output, Mapping) else getattr(output, LOGITS, None)
    if isinstance(found, Tensor):
        return found
    raise RequestError(
        f"the model returns no logits but {_describe(output)}; return a tensor, or give it a field 'logits'"
    )


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a mapping of {', '.join(map(str, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} elements"
    return f"a {type(value).__name__}"


@dataclass(frozen=True)
class TapInfo:
    """What `trace` found at one tap: its name, module type, output shape (with the batch) and own parameters."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


@torch.no_grad()
def trace(model: nn.Module, inputs: Inputs) -> list[TapInfo]:
    """List the modules of a model whose output is a tensor, in the order in which they run.

    Args:
        model: The model; its mode and its statistics are left as they are.
        inputs: An example, batch first.
    """
    found: dict[str, TapInfo] = {}
    paths = {module: path for path, module in model.named_modules() if path}

    def record(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            path = paths[module]
            size = sum(p.numel() for p in module.parameters())
            found.pop(path, None)  # a module that runs twice stands where it ran last
            found[path] = TapInfo(path, type(module).__name__, tuple(output.shape), size)

    handles = [module.register_forward_hook(record) for module in paths]
    try:
        with evaluating(model):
            call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())


def match(teacher: list[TapInfo], student: list[TapInfo], most: int = 8) -> list[tuple[TapInfo, TapInfo]]:
    """Propose pairs (teacher tap, student tap) worth a feature loss, last layers first.

    A natural hint is what a stage hands to the next one: the last map of each height and width, the last tokens, the
    last vectors. Maps of one size pair first, then those nearest in depth; equal shapes win over adaptable ones.

    Args:
        teacher: What `trace` gave for the teacher.
        student: What `trace` gave for the student, on the same input.
        most: The number of pairs at most.
    """
    pairs = []
    remaining = _stage_ends(student)
    for t in reversed(_stage_ends(teacher)):
        fitting = [s for s in remaining if len(s.shape) == len(t.shape)]
        same_size = [s for s in fitting if s.shape[2:] == t.shape[2:]]
        best = next((s for s in reversed(same_size) if s.shape == t.shape), None)
        if fitting:
            best = best or (same_size or fitting)[-1]
            pairs.append((t, best))
            remaining = remaining[: remaining.index(best)]
    return pairs[:most]


def _stage_ends(taps: list[TapInfo]) -> list[TapInfo]:
    """For each rank and resolution the last of the outermost modules that give it; the model's output left out."""
    ends: dict[tuple[int, ...], TapInfo] = {}
    for tap in taps:
        if tap.shape != taps[-1].shape:
            size = (len(tap.shape), *tap.shape[2:])
            if size not in ends or tap.name.count(".") <= ends[size].name.count("."):
                ends[size] = tap
    return sorted(ends.values(), key=taps.index)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module of a model in eval mode, and back to the mode that each was in."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
