"""Any function as teacher: a module's output taken apart, another framework's model, a service, a rule."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.models import refuse_lazy
from limbeck.models.probabilities import Ending
from limbeck.taps import LOGITS, Conversion, dtype_of, evaluating, logits_of, readable, taken_from
from limbeck.teachers.reached import modules_reached
from limbeck.types import Batch, Inputs, Signal


class FunctionTeacher:
    """A function that teaches: from a batch's inputs to logits, without gradients.

    Modules that it reaches, such as `teacher` in `lambda x: teacher(x)[0]`, are in eval mode meanwhile and left as they
    were, and inputs of a dtype that they cannot read are brought to theirs, as by `ModuleTeacher`.

    Args:
        function: Gets the inputs, named ones as keyword arguments. It returns logits (B, C), or a mapping of "logits"
            and features by name; each a tensor, or anything that NumPy takes for an array. Of a tuple with tensors
            one is the logits: the first (B, classes).
        numpy: It gets NumPy arrays in place of tensors.
        probabilities: It returns probabilities in place of logits, as scikit-learn's `predict_proba` does.
        fingerprint: What names this function, so that signals which it gave can be known again; without it every
            FunctionTeacher is one of its own, since code can change without its name.
        classes: See there; None takes a tuple's first tensor (B, ...).

    Attributes:
        notes: What should be known of how it is read, such as "returns a tuple …"; empty before its first call.

    Raises:
        RequestError: `function` cannot be called.

    >>> teacher = FunctionTeacher(lambda x: x[:, :2] * 3)
    >>> teacher(Batch(torch.ones(1, 4), torch.tensor([0]), torch.tensor([0]))).logits
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
    ) -> None:
        if not callable(function):
            raise RequestError(f"a teacher is a module, a Teacher or a function of the inputs, not {function!r}")
        self.function = function
        self.numpy = numpy
        self.classes = classes
        self.fingerprint = fingerprint or f"function-{secrets.token_hex(8)}"
        self.notes: list[str] = []
        self._ending = Ending(probabilities=probabilities)
        self._modules: list[nn.Module] | None = None
        self._reads: Conversion | None = None

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Signal:
        said = self._first_call(batch.inputs) if self._modules is None else self._call(batch.inputs, self._modules)
        if _is_tuple(said):
            said = logits_of(said, self.classes)
        by_name = said if isinstance(said, Mapping) else {LOGITS: said}
        tensors = {name: self._tensor(name, value, batch) for name, value in by_name.items()}
        logits = tensors.pop(LOGITS, None)
        return Signal(None if logits is None else self._ending(logits), tensors)

    def _first_call(self, inputs: Inputs) -> Any:
        """The first call, which finds out what the function runs, and how that reads inputs."""
        modules = modules_reached(self.function)
        for module in modules:
            refuse_lazy(module)

        def run(conversion: Conversion | None) -> Any:
            self._reads = conversion
            return self._call(inputs, modules)

        if modules:
            said, self._reads = readable(run, inputs, dtype_of(modules[0]))
        else:
            said = run(None)
        read = self._reads and self._reads.note(inputs)
        taken = taken_from(said, logits_of(said, self.classes)) if _is_tuple(said) else None
        self.notes = [note for note in (read, taken) if note]
        self._modules = modules
        return said

    def _call(self, inputs: Inputs, modules: list[nn.Module]) -> Any:
        if self._reads is not None:
            inputs = self._reads.after(self._reads.before(inputs))
        with ExitStack() as stack:
            for module in modules:
                stack.enter_context(evaluating(module))
            if isinstance(inputs, Tensor):
                return self.function(self._given(inputs))
            return self.function(**{name: self._given(value) for name, value in inputs.items()})

    def _given(self, value: Tensor) -> Any:
        return value.cpu().numpy() if self.numpy else value

    def _tensor(self, name: str, value: Any, batch: Batch) -> Tensor:
        try:
            tensor = torch.as_tensor(value, device=batch.targets.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise RequestError(
                f"the teacher function gave {type(value).__name__} as {name}, no array: {error}"
            ) from error
        if tensor.shape[:1] != (batch.size,) or (name == LOGITS and tensor.dim() < 2):
            raise RequestError(
                f"the teacher function gave {name} of shape {tuple(tensor.shape)} for {batch.size} samples; "
                f"{'logits are (B, C)' if name == LOGITS else 'features are (B, ...)'}"
            )
        return tensor.float()


def _is_tuple(said: Any) -> bool:
    """Whether it is several tensors; a list of numbers may be an array."""
    return isinstance(said, tuple | list) and any(isinstance(one, Tensor) and one.dim() > 1 for one in said)
