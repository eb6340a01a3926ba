"""Any function as teacher: a module's output taken apart, another framework's model, a service, a rule."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.models import refuse_lazy
from limbeck.models.foreign.pieces import Pieces
from limbeck.models.probabilities import Ending
from limbeck.taps import (
    LOGITS,
    Choice,
    Conversion,
    NoOutputError,
    by_position,
    check_choice,
    dtype_of,
    evaluating,
    output_of,
    readable,
    taken_from,
)
from limbeck.teachers.reached import modules_reached
from limbeck.teachers.state import Frozen
from limbeck.types import Batch, Inputs, TeacherOutput, each, flat, tensors_of


class FunctionTeacher:
    """A function that teaches: from a batch's inputs to logits, without gradients.

    Modules that it reaches, such as `teacher` in `lambda x: teacher(x)[0]`, are in eval mode meanwhile and left as they
    were, and inputs of a dtype that they cannot read are brought to theirs, as by `ModuleTeacher`. It gets a copy of
    the inputs, into which it may write; one that takes batches of a single size is called in pieces.

    Args:
        function: Gets the inputs, named ones as keyword arguments (a single one whose name it does not know by its
            position). It returns logits (B, C), or a mapping of "logits"
            and features by name; each a tensor, or anything that NumPy takes for an array. Of a tuple with tensors
            one is the logits: the first (B, classes).
        numpy: It gets NumPy arrays in place of tensors.
        probabilities: It returns probabilities in place of logits, as scikit-learn's `predict_proba` does.
        fingerprint: What names this function, so that what it gave can be known again; without it every
            FunctionTeacher is one of its own, since code can change without its name.
        classes: See there; None takes a tuple's first tensor (B, ...).
        output: Which part of a tuple, of a mapping or of a record is the logits: a position, a name, or a function;
            None takes a mapping's "logits".

    Attributes:
        notes: What should be known of how it is run, such as "returns a tuple …"; empty before its first call.

    Raises:
        RequestError: `function` cannot be called.

    >>> teacher = FunctionTeacher(lambda x: x[:, :2] * 3)
    >>> teacher(Batch(torch.ones(1, 4), torch.tensor([0]), torch.tensor([0]))).output
    tensor([[3., 3.]])
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        numpy: bool = False,
        probabilities: bool = False,
        fingerprint: str | None = None,
        classes: int | None = None,
        output: Choice = None,
    ) -> None:
        check_choice(output)
        if not callable(function):
            raise RequestError(f"a teacher is a module, a Teacher or a function of the inputs, not {function!r}")
        self.function = function
        self.numpy = numpy
        self.classes = classes
        self.output = output
        self.fingerprint = fingerprint or f"function-{secrets.token_hex(8)}"
        self._ending = Ending(probabilities=probabilities)
        self._modules: list[nn.Module] | None = None
        self._frozen = Frozen([])
        self._pieces = Pieces()
        self._reads: Conversion | None = None
        self._said: list[str | None] = []

    @property
    def notes(self) -> list[str]:
        return [note for note in (*self._said, *self._ending.notes, self._frozen.note, self._pieces.note) if note]

    @torch.no_grad()
    def __call__(self, batch: Batch) -> TeacherOutput:
        if self._modules is None:
            tensors = self._first_call(batch)
        else:
            with self._frozen.kept():
                tensors = self._call(batch, self._modules)
        logits = tensors.pop(LOGITS, None)
        if logits is not None:
            logits = self._ending(logits)
        return TeacherOutput(logits, tensors)

    def _first_call(self, batch: Batch) -> dict[str, Tensor]:
        """The first call, which finds out what the function runs, and how that reads inputs."""
        modules = modules_reached(self.function)
        for module in modules:
            refuse_lazy(module)
        self._frozen = Frozen(modules)
        taken: list[str | None] = []

        def run(conversion: Conversion | None) -> dict[str, Tensor]:
            self._reads = conversion
            taken.clear()
            return self._call(batch, modules, lambda said: taken.append(self._taken_from(said)))

        with self._frozen.kept():
            if modules:
                tensors, self._reads = readable(run, batch.inputs, dtype_of(modules[0]))
            else:
                tensors = run(None)
        self._said = [self._reads.note(batch.inputs) if self._reads else None, *taken[:1]]
        self._modules = modules
        return tensors

    def _call(
        self, batch: Batch, modules: list[nn.Module], see: Callable[[Any], None] = lambda _: None
    ) -> dict[str, Tensor]:
        """The tensors by name; `see` gets what the function returned."""
        device = batch.device

        def run(inputs: Inputs) -> dict[str, Tensor]:
            said = self._said_of(inputs)
            see(said)
            size = len(tensors_of(inputs)[0])
            by_name = said if isinstance(said, Mapping) else {LOGITS: self._logits_in(said)}
            found = {name: _tensor(name, value, size, device) for name, value in by_name.items()}
            if self.output is not None and isinstance(said, Mapping):
                found[LOGITS] = _tensor(LOGITS, self._output_of(found), size, device)
            return found

        inputs = each(batch.inputs, Tensor.clone)  # the student reads them too, and a function may write into its own
        if self._reads is not None:
            inputs = self._reads.after(self._reads.before(inputs))
        with ExitStack() as stack:
            for module in modules:
                stack.enter_context(evaluating(module))
            return self._pieces.run(run, inputs, batch.size)

    def _said_of(self, inputs: Inputs) -> Any:
        if isinstance(inputs, Tensor):
            return self.function(self._given(inputs))
        alone = by_position(self.function, inputs)
        if alone is not None:
            return self.function(self._given(alone))
        return self.function(**{name: self._given(value) for name, value in flat(inputs).items()})

    def _logits_in(self, said: Any) -> Any:
        return self._output_of(said) if _has_parts(said) else said

    def _output_of(self, said: Any) -> Tensor:
        try:
            return output_of(said, self.output, self.classes)
        except NoOutputError as error:
            raise error.of("teacher") from error

    def _taken_from(self, said: Any) -> str | None:
        named = isinstance(self.output, str | int)
        return taken_from(said, self._logits_in(said)) if _has_parts(said) and not named else None

    def _given(self, value: Tensor) -> Any:
        return value.cpu().numpy() if self.numpy else value


def _tensor(name: str, value: Any, size: int, device: torch.device) -> Tensor:
    try:
        tensor = torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RequestError(f"the teacher function gave {type(value).__name__} as {name}, no array: {error}") from error
    decided = name == LOGITS and tensor.dim() < 2 and not tensor.is_floating_point()  # class indices, or none
    if tensor.shape[:1] != (size,) or decided:
        raise RequestError(
            f"the teacher function gave {name} of shape {tuple(tensor.shape)} for {size} samples; "
            f"{'outputs are logits (B, C), or numbers (B,)' if name == LOGITS else 'features are (B, ...)'}"
        )
    return tensor.float()


def _has_parts(said: Any) -> bool:
    """Whether it is several tensors, in a tuple or a record; a list of numbers may be an array."""
    if isinstance(said, tuple | list):
        return any(isinstance(one, Tensor) and one.dim() > 1 for one in said)
    return is_dataclass(said) and not isinstance(said, Mapping)
