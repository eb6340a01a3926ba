"""Numbers and choices that a training is asked for, checked before anything is built."""

from __future__ import annotations

from limbeck.errors import RequestError, shown


def check(
    epochs: int,
    accumulate_steps: int,
    restore_best: bool,
    max_grad_norm: float | None,
    checkpoint_steps: int | None,
    *,
    validates: bool,
) -> None:
    """Raise RequestError for numbers and choices that no training can start with."""
    if (max_grad_norm is not None and not max_grad_norm > 0) or (checkpoint_steps is not None and checkpoint_steps < 1):
        raise RequestError(
            f"max_grad_norm and checkpoint_steps must be positive, not {max_grad_norm} and {checkpoint_steps}"
        )
    if epochs < 1 or accumulate_steps < 1 or not isinstance(epochs, int):
        raise RequestError(
            f"epochs and accumulate_steps must be whole numbers from 1 on, not {epochs} and {accumulate_steps}"
        )
    if not isinstance(restore_best, bool):
        raise RequestError(f"restore_best is True or False, not {shown(restore_best)}")
    if restore_best and not validates:
        raise RequestError(
            "restore_best chooses by validation accuracy: give validation data (data.validation in a recipe)"
        )
