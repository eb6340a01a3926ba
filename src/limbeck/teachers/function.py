"""Any function as teacher: another framework's model, a service, a rule."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.models.probabilities import Ending
from limbeck.taps import LOGITS
from limbeck.types import Batch, Inputs, Signal


class FunctionTeacher:
    """A function that teaches: from a batch's inputs to logits, without gradients.

    Args:
        function: Gets the inputs, named ones as keyword arguments. It returns logits (B, C), or a mapping of "logits"
            and features by name; each a tensor, or anything that NumPy takes for an array.
        numpy: It gets NumPy arrays in place of tensors.
        probabilities: It returns probabilities in place of logits, as scikit-learn's `predict_proba` does.
        fingerprint: What names this function, so that signals which it gave can be known again; without it every
            FunctionTeacher is one of its own, since code can change without its name.

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
    ) -> None:
        if not callable(function):
            raise RequestError(f"a teacher is a module, a Teacher or a function of the inputs, not {function!r}")
        self.function = function
        self.numpy = numpy
        self.fingerprint = fingerprint or f"function-{secrets.token_hex(8)}"
        self._ending = Ending(probabilities=probabilities)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Signal:
        said = self._call(batch.inputs)
        by_name = said if isinstance(said, Mapping) else {LOGITS: said}
        tensors = {name: self._tensor(name, value, batch) for name, value in by_name.items()}
        logits = tensors.pop(LOGITS, None)
        return Signal(None if logits is None else self._ending(logits), tensors)

    def _call(self, inputs: Inputs) -> Any:
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
