"""One step of an optimizer, at the least cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from limbeck.late_compiler import take_step


class _Group(NamedTuple):
    """A parameter group with its tensors, in the order in which the kernels take them."""

    kernel: Callable[..., None]
    options: dict[str, Any]
    parameters: list[nn.Parameter]
    first_moments: list[Tensor]
    second_moments: list[Tensor]
    steps: list[Tensor]
    counts: Tensor
    """All `steps`, side by side in memory, so that one operation counts on."""


class Stepper:
    """Steps an optimizer; for torch's fused Adam and AdamW without collecting all tensors anew at each step.

    On a network of a few thousand weights the collecting takes longer than the update. Wherever something is out of
    the ordinary (another optimizer, hooks, a parameter without a gradient, a new group), that is `optimizer.step()`.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._groups: Sequence[_Group] | None = None

    @torch.no_grad()
    def __call__(self) -> None:
        """Update the parameters by the gradients they hold."""
        gradients = [[parameter.grad for parameter in group.parameters] for group in self._groups or ()]
        missing = any(grad is None for some in gradients for grad in some)
        if self._groups is None or missing or _is_special(self.optimizer, self._groups):
            take_step(self.optimizer)
            self._groups = _collected(self.optimizer)
            return
        for group, some in zip(self._groups, gradients, strict=True):
            kernel, options, parameters, first, second, steps, counts = group
            beta1, beta2 = options["betas"]
            same = {name: options[name] for name in ("lr", "weight_decay", "eps", "amsgrad", "maximize")}
            counts.add_(1)
            kernel(parameters, some, first, second, [], steps, beta1=beta1, beta2=beta2, **same)


def _is_special(optimizer: Optimizer, groups: Sequence[_Group]) -> bool:
    """Whether something came to an optimizer since its groups were collected."""
    hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return bool(hooked) or [len(group.parameters) for group in groups] != [
        len(group["params"]) for group in optimizer.param_groups
    ]


def _collected(optimizer: Optimizer) -> Sequence[_Group] | None:
    """The groups of an optimizer that has made a step; None where only its own `step` will do."""
    # A subclass, or a step put in its place, may do something else.
    if type(optimizer) not in (Adam, AdamW) or "step" in vars(optimizer):
        return None
    if not all(group["fused"] and not group["amsgrad"] for group in optimizer.param_groups):
        return None
    groups = []
    for group in optimizer.param_groups:
        states = [optimizer.state[parameter] for parameter in group["params"]]
        kinds = {(parameter.device, parameter.dtype) for parameter in group["params"]}
        if not all(states) or len(kinds) > 1:  # some parameter has had no gradient yet; a kernel takes one kind
            return None
        counts = torch.stack([state["step"] for state in states])
        for number, state in enumerate(states):
            state["step"] = counts[number]
        first, second, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
        decoupled = isinstance(optimizer, AdamW) or group.get("decoupled_weight_decay", False)
        kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
        groups.append(_Group(kernel, group, list(group["params"]), first, second, steps, counts))
    return groups
