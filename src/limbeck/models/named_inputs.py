"""Models that call the same input by different names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from limbeck.errors import RequestError, unknown
from limbeck.types import Inputs, flat


class NamedInputs(nn.Module):
    """Give a model the inputs of a batch under the names of its own parameters; it gets those that are named here.

    Teacher and student each have their own, as `inputs` of `ModuleTeacher` and of the schemes. What prepares images
    follows it: `nn.Sequential(NamedInputs({"image": "left"}), Preprocess(mean=[0.5], std=[0.5]))`.

    Args:
        names: {parameter of the model's forward: input in the batch}; a sequence where both have one name.

    Raises:
        RequestError: No name at all; when called, a batch without that input, or with a single one that has no name.

    >>> import torch
    >>> batch = {"left": torch.zeros(2, 3), "right": torch.ones(2, 3)}
    >>> sorted(NamedInputs({"image": "left", "other": "right"})(batch))
    ['image', 'other']
    """

    def __init__(self, names: Mapping[str, str] | Sequence[str]) -> None:
        super().__init__()
        self.names = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
        if not self.names:
            raise RequestError("a model needs at least one input: {parameter of the model: input in the batch}")

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """The batch's inputs → keyword arguments of the model."""
        if isinstance(inputs, Tensor):
            given = ", ".join(self.names.values())
            raise RequestError(
                f"the batch has one input without a name, and {given} was asked for; leave the names out"
            )
        named = flat(inputs)
        for name in self.names.values():
            if name not in named:
                raise unknown("input of the batch", name, named)
        return {parameter: named[name] for parameter, name in self.names.items()}

    def extra_repr(self) -> str:
        return ", ".join(f"{parameter}={name}" for parameter, name in self.names.items())
