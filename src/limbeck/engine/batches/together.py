"""What is read of a step's batches, which is one decision of all processes."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_fabric import Fabric

from limbeck.distillers import Scheme
from limbeck.types import Batch


def asked(scheme: Scheme, window: Sequence[Batch], fabric: Fabric) -> list[Batch]:
    """A step's batches as teacher and student read them.

    Where a scheme writes some of them itself, it does so with a batch of all processes or with none: which of them is
    drawn by the first sample of what they read together, the first process's.
    """
    if not scheme.generates or fabric.world_size == 1:
        return [scheme.asked(batch) for batch in window]
    own = [int(batch.index[0]) for batch in window]
    first: list[int] = fabric.broadcast(own)
    return [scheme.asked(batch, at) for batch, at in zip(window, first, strict=True)]
