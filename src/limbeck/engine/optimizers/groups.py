"""Parameters with options of their own, by their names in the network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.optim import Optimizer

from limbeck.errors import RequestError, shown, some, unknown

NORMS, BIASES = "norms", "biases"
"""Words for parameters that weight decay does no good to."""
OUTER = re.compile(r"^(student|peers\.\d+)\.")
"""What stands before a network's own names in what is trained."""


@dataclass(frozen=True)
class Grouped:
    """A function of what is trained that makes its optimizer with groups of parameters.

    Attributes:
        make: Makes the optimizer, from torch's mappings of parameters and options.
        groups: Pairs of a pattern of names, such as "features.*", and options; the first that fits counts.
        no_decay: Of NORMS and BIASES those that get no weight decay, but by a group that gives one.
    """

    make: Callable[[Iterable[Any]], Optimizer]
    groups: Sequence[tuple[str, Mapping[str, Any]]] = ()
    no_decay: Sequence[str] = ()

    def __post_init__(self) -> None:
        for word in self.no_decay:
            if word not in (NORMS, BIASES):
                raise unknown("word of no_decay", word, (NORMS, BIASES))

    def of(self, trained: nn.Module) -> Optimizer:
        """The optimizer of all of a module's parameters that require a gradient.

        Raises:
            RequestError: A pattern fits no parameter.
        """
        norms = _norms(trained)
        made: dict[str, dict[str, Any]] = {}
        named = {name: one for name, one in trained.named_parameters() if one.requires_grad}
        self._check(list(named))
        for name, parameter in named.items():
            options = self._options(name, norms)
            made.setdefault(repr(sorted(options.items())), {"params": [], **options})["params"].append(parameter)
        return self.make(list(made.values()))

    def _options(self, name: str, norms: set[str]) -> dict[str, Any]:
        is_norm, is_bias = name in norms, name.rpartition(".")[2] == "bias"
        spared = (is_norm and NORMS in self.no_decay) or (is_bias and BIASES in self.no_decay)
        own = next((options for pattern, options in self.groups if _fits(pattern, name)), {})
        return {**({"weight_decay": 0.0} if spared else {}), **own}

    def _check(self, names: Sequence[str]) -> None:
        for pattern, _ in self.groups:
            if not any(_fits(pattern, name) for name in names):
                plain = [OUTER.sub("", name) for name in names]
                raise RequestError(f"the group {shown(pattern)} fits no trained parameter; there are {some(plain)}")


def _fits(pattern: str, name: str) -> bool:
    return fnmatchcase(OUTER.sub("", name), pattern)


def _norms(trained: nn.Module) -> set[str]:
    """The parameters of norms, by class names: networks bring norms of their own."""
    return {
        f"{path}.{name}"
        for path, module in trained.named_modules()
        if "norm" in type(module).__name__.lower()
        for name, _ in module.named_parameters(recurse=False)
    }
