"""What a step is tried on: a copy of a scheme, so that nothing of it, its gradients or the generators changes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

from limbeck.distillers import Scheme
from limbeck.seeds import same_draws
from limbeck.taps.wrappers import as_written, compiled_by_user


@contextmanager
def stand_in(scheme: Scheme) -> Iterator[Scheme]:
    """A copy of a scheme, in training mode, with its compiled parts run as they are; afterwards all is as it was.

    Where a scheme holds something that cannot be copied, it stands in for itself and is put back; only what its modules
    change in place besides their tensors, such as a list, stays changed.
    """
    with same_draws():
        copied = _copied(scheme)
        with as_it_is(scheme), _unchanged(scheme, copied):
            yield (copied or scheme).train()


def as_it_is(scheme: Scheme) -> AbstractContextManager[object]:
    """Inside, what the user has compiled runs as it is.

    In older torch (2.11 among it), what first runs while each operation is watched is never compiled afterwards.
    """
    return as_written() if has_compiled_parts(scheme) else nullcontext()


def has_compiled_parts(scheme: Scheme) -> bool:
    """Whether the user has compiled the student or a part of the scheme."""
    return scheme.is_compiled or compiled_by_user(scheme.modules())


def _copied(scheme: Scheme) -> Scheme | None:
    """A copy that can be trained; None where there can be none."""
    try:
        made = copy.deepcopy(scheme)
        leaves = all(parameter.is_leaf for parameter in made.parameters())  # those of a script's copy are none
    except Exception:  # a handle, a lock, a tensor with a history
        return None
    return made if leaves else None


@contextmanager
def _unchanged(scheme: nn.Module, copied: nn.Module | None) -> Iterator[None]:
    """Put back what runs of a scheme itself may change; of a copy nothing needs to be."""
    if copied is None:
        with unchanged(scheme):
            yield
        return
    for parameter in copied.parameters():
        parameter.grad = None
    yield


@contextmanager
def unchanged(scheme: nn.Module) -> Iterator[None]:
    """Afterwards a scheme's tensors, gradients, modes and extra states are as they were; inside it has no gradients.

    What its modules hold by name is too, where it was replaced: a flag, a count, a buffer that was set anew.
    """
    tensors: list[Tensor] = [*scheme.parameters(), *scheme.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    gradients = [(parameter, parameter.grad) for parameter in scheme.parameters()]
    scripts = [(module, module.training) for module in scheme.modules() if isinstance(module, ScriptModule)]
    kept = [held for module in scheme.modules() if not isinstance(module, ScriptModule) for held in _held(module)]
    extras = [(module, copy.deepcopy(module.get_extra_state())) for module in scheme.modules() if _has_extra(module)]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for own, before in kept:
            for name in own.keys() - before.keys():
                del own[name]
            own.update(before)
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for script, mode in scripts:
            script.training = mode
        for module, extra in extras:
            module.set_extra_state(extra)


def _held(module: nn.Module) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The attributes, parameters, buffers and parts of a module by name, each with a copy."""
    for own in (vars(module), module._parameters, module._buffers, module._modules):
        yield own, dict(own)


def _has_extra(module: nn.Module) -> bool:
    return type(module).get_extra_state is not nn.Module.get_extra_state
