"""The first batch's labels: a loss on labels without any adds nothing, and nobody would see it."""

from __future__ import annotations

from limbeck.distillers import Scheme
from limbeck.types import Batch


def check_labels(scheme: Scheme, batch: Batch) -> list[str]:
    """A line for a scheme with a loss on labels whose first batch has none."""
    weight, targets = getattr(scheme, "task_weight", 1.0), batch.targets
    if not weight or not scheme.task.labelled:
        return []
    if targets is not None and (not hasattr(targets, "device") or bool(scheme.task.known(targets).any())):
        return []
    named, remedy = "the loss on labels", ""
    if hasattr(scheme, "task_weight"):
        named, remedy = f"{named} (task_weight {weight:g})", ", or set task_weight=0 where none are meant"
    return [f"no sample of the first batch has a label, and {named} is 0 for such batches: give labels{remedy}"]
