"""What losses need to know where several processes share a batch."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def several() -> bool:
    """Whether several processes train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def is_first() -> bool:
    """Whether this is the only process, or the first one."""
    return not several() or distributed.get_rank() == 0


def of_all_processes(part: Tensor) -> Tensor:
    """The parts (B, ...) of all processes, joined, without a gradient; all must call it, with one shape."""
    if not several():
        return part.detach()
    parts = [torch.empty_like(part) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, part.detach().contiguous())
    return torch.cat(parts)
