"""Taps of one model, read during its one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from limbeck.errors import RequestError, unknown
from limbeck.taps.forward import call
from limbeck.taps.names import LOGITS, Tap
from limbeck.taps.operations import Operations, guessed, scope_of, unnumbered
from limbeck.taps.outputs import logits_of
from limbeck.taps.scripts import TapsOfScripts
from limbeck.taps.wrappers import hooks_run, part_at, real_paths, runnable, unwrapped
from limbeck.types import Inputs

Store = Callable[[Tap, Any], None]

TRACED_INPUTS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 11)
"""Whether hooks on inputs are compiled once. torch 2.6 compiles them anew at every pass, and 2.11 does not."""


def _nothing() -> None:
    pass


class Taps:
    """The taps of one model, checked against its modules when made, those of operations when it first runs.

    Args:
        model: The model to read; wrappers around it or its parts (torch.compile, DataParallel) are seen through.
        names: Tap names; "logits" may be among them and is always given.
        role: Which model it is, for errors, where several are read: "student" or "teacher".

    Raises:
        RequestError: A name that is no module of the model, nor could be an operation in the forward of one; the
            message gives the nearest ones.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2))
    >>> taps = Taps(model, ["0", "2:in"])
    >>> output, tensors = taps.run(torch.zeros(5, 4))
    >>> {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    {'0': (5, 3), '2:in': (5, 3), 'logits': (5, 2)}
    """

    def __init__(self, model: nn.Module, names: Iterable[str], role: str = "") -> None:
        self.model = unwrapped(model)
        kind = type(self.model).__name__
        self._called = f"the {role} ({kind})" if role else kind
        self.taps = [Tap.parse(name, self._called) for name in dict.fromkeys(names) if name != LOGITS]
        self._whole = self.model if self.taps else runnable(model)
        self._parts = tuple(self.model.modules())
        self._paths = real_paths(self.model)
        self._scopes: dict[str, list[Tap]] = {}  # taps of operations, by the module in whose forward they stand
        self._pass = _Pass()
        self._hooks: list[_Hook] = []
        self._scripts = TapsOfScripts(self.model)
        for tap in self.taps:
            if tap.path not in self._paths:
                scope = scope_of(tap.path, self.model)
                if scope is None:
                    known = [*filter(None, self._paths), *guessed(self.model)]
                    raise unknown(f"tap of {self._called}", tap.name, known)
                if tap.side == "in":
                    raise RequestError(f"{tap}: an operation has no input to tap; name what gives it")
                self._scopes.setdefault(scope, []).append(tap)
            elif not self._scripts.take(tap, self._paths[tap.path]):
                self._hooks.append(_Hook(tap, self._pass))
        self._counts: dict[bool, dict[str, int]] = {}
        self._reads: int | None = None

    @property
    def untraced(self) -> Tap | None:
        """A tap that torch.compile would not see, as it sees modules' hooks: of an operation, or within TorchScript."""
        hooked = [hook.tap for hook in self._hooks if hook.tap.side == "out" or TRACED_INPUTS]
        return next((tap for tap in self.taps if tap not in hooked), None)

    def run(self, inputs: Inputs, output: Callable[[Any], Tensor] = logits_of) -> tuple[Any, dict[str, Tensor]]:
        """One forward pass: what the model returned, and the tensor at each tap (and "logits").

        Args:
            inputs: What the model reads.
            output: What of it is its logits, or what stands for them, such as a task's output.

        Raises:
            RequestError: Nothing that it returned is that; a tap that the pass does not reach or that is no tensor; an
                operation's tap whose number means different things in training and in evaluation.
        """
        if not self.taps:
            returned = call(self._whole, inputs)
            return returned, {LOGITS: output(returned)}
        with self.capture() as tensors:
            returned = call(self.model, inputs)
        self._check_modes()
        tensors[LOGITS] = output(returned)
        return returned, tensors

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
        self._reads = self._reads or reads
        return tensors

    @contextmanager
    def capture(self, after_read: Callable[[], None] = _nothing) -> Iterator[dict[str, Tensor]]:
        """Read the taps of whatever forward pass runs inside; a module that runs twice gives its last tensor.

        The tensors are there when the block has ended.

        Args:
            after_read: Called whenever a tap was read.

        Raises:
            RequestError: A tap that the pass did not reach, or that is no tensor.
        """
        found: dict[str, Tensor] = {}
        with ExitStack() as stack:
            stack.enter_context(self._pass.reading(found, after_read))
            stack.enter_context(hooks_run(self._parts))
            of_operations = [tap for taps in self._scopes.values() for tap in taps]
            stack.enter_context(self._scripts.read(self._pass.store))
            for hook in self._hooks:
                stack.callback(hook.on(part_at(self.model, self._paths[hook.tap.path])).remove)
            seen = stack.enter_context(self._operations(of_operations, self._pass.store)) if of_operations else []
            yield found
        self._check_reached(found, seen)

    @contextmanager
    def _operations(self, taps: Iterable[Tap], store: Store) -> Iterator[list[str]]:
        """Store the taps of operations; gives the list to which the name of each operation seen is added."""
        names: list[str] = []

        def see(name: str, kind: str, value: Any) -> None:
            names.append(name)
            for tap in taps:
                if tap.path == name:
                    store(tap, value)

        with Operations(self.model, self._scopes, see).watching() as counts:
            yield names
        self._counts.setdefault(self.model.training, dict(counts))

    def _check_reached(self, tensors: Mapping[str, Tensor], seen: list[str]) -> None:
        missing = next((tap for tap in self.taps if tap.name not in tensors), None)
        if missing is None:
            return
        if missing.path in self._paths:
            raise RequestError(f"{missing}: the forward pass does not reach it")
        raise unknown(f"tap of {self._called}", missing.name, [*filter(None, self._paths), *seen])

    def _check_modes(self) -> None:
        """What is counted differs where only one of the modes runs an operation, as noise in training."""
        if len(self._counts) < 2 or self._counts[True] is self._counts[False]:
            return
        for tap in (tap for taps in self._scopes.values() for tap in taps):
            training, evaluation = (self._counts[mode].get(unnumbered(tap.path), 0) for mode in (True, False))
            if training != evaluation:
                raise RequestError(
                    f"{tap}: there are {training} such operations in training and {evaluation} in "
                    "evaluation, so its number is not sure; pass what you mean through an nn.Identity, and tap that"
                )
        self._counts[False] = self._counts[True]  # compared once


class _Reached(BaseException):
    """The last tap is read; no Exception, so that no model's own error handling takes it for one."""


class _Pass:
    """What a forward pass has shown so far."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._after_read = _nothing

    def store(self, tap: Tap, value: Any) -> None:
        # Cloned: a later in-place operation (ReLU(inplace=True), x += y) would overwrite it.
        self._tensors[tap.name] = tap.read(value).clone()
        self._after_read()

    @contextmanager
    def reading(self, found: dict[str, Tensor], after_read: Callable[[], None]) -> Iterator[None]:
        """Inside, tensors are stored; they are in `found` afterwards, and what was read before is as it was."""
        before = dict(self._tensors), self._after_read
        self._tensors.clear()
        self._after_read = after_read
        try:
            yield
            found.update(self._tensors)
        finally:
            self._tensors.clear()
            self._tensors.update(before[0])
            self._after_read = before[1]


class _Hook:
    """Reads a tap at a module. It is the same at each pass, so that code which was compiled with it serves the next."""

    def __init__(self, tap: Tap, run: _Pass) -> None:
        self.tap = tap
        self._run = run

    def on(self, module: nn.Module) -> RemovableHandle:
        if self.tap.side == "in":
            return module.register_forward_pre_hook(self._before, with_kwargs=True)
        return module.register_forward_hook(self._after)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A module that is called by keywords alone has them as its inputs: "encoder:in:hidden_states".
        self._run.store(self.tap, args if args and not isinstance(self.tap.element, str) else kwargs or args)

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._run.store(self.tap, output)
