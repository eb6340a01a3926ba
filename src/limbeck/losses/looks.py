"""Looks at values, by which a loss leaves out what only rare inputs need."""

from __future__ import annotations

from torch import Tensor


def can_look(x: Tensor) -> bool:
    """Whether a look at the values of x is cheap; on an accelerator it would stop the queue in each step."""
    return x.device.type == "cpu" and x.numel() > 0
