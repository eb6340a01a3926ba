"""Batches as people's loaders give them: pairs, triples, dicts, inputs alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.types import Batch, Targets, tensors_of

LABELS = ("labels", "label", "targets", "target", "y")
"""What targets are called in a dict."""
SINGLE = ("x", "input", "inputs", "image", "images", "img", "features", "data")
"""Names of the one input of a dict that a model takes by its position."""
_REFUSED = (
    "a loader gives (inputs, targets), (ids, mask, targets), a dict with labels, or inputs alone; this one gives {}: "
    "say how it is read by the task's batch=, a function to (inputs, targets)"
)


def as_batch(item: Any) -> Batch:
    """A Batch from what a loader gives; the index is -1, unknown, where it gives none.

    (x, y) and what follows y in a longer tuple is left out; (ids, mask, y) where the second is a mask of the form of
    the first, which then are the inputs "input_ids" and "attention_mask"; a dict, whose "labels" (or "label",
    "targets", "target", "y") are the targets, "index" the samples' positions, and whose other tensors are the inputs;
    x alone, a tensor or (x,), without targets. Targets that are an array, a list of numbers, or of tensors of one value
    each, become a tensor, and so do arrays among the inputs.

    Raises:
        RequestError: It is none of these.
    """
    if isinstance(item, Batch):
        return item
    item = _with_tensors(item)
    if isinstance(item, Tensor):
        return made(item, None)
    if isinstance(item, Mapping):
        return _of_mapping(item)
    if not isinstance(item, tuple | list) or not len(item) >= 1:
        raise RequestError(_REFUSED.format(described(item)))
    if len(item) == 1:
        return as_batch(item[0])
    first, second = item[:2]
    if len(item) == 3 and _is_mask(first, second):
        return made({"input_ids": first, "attention_mask": second}, item[2], item)
    return made(first, second, item)


def made(inputs: Any, targets: Targets, item: Any = None) -> Batch:
    """A batch of these, of unknown samples.

    Raises:
        RequestError: The inputs are no tensors, or the targets are for another number of samples.
    """
    targets = _numbers(targets)
    if not _are_inputs(inputs) or not isinstance(targets, Tensor | Mapping | list | tuple | None):
        raise RequestError(_REFUSED.format(described((inputs, targets) if item is None else item)))
    samples = len(tensors_of(inputs)[0])
    return Batch(inputs, targets, torch.full((samples,), -1, device="cpu"))


def _of_mapping(item: Mapping[Any, Any]) -> Batch:
    labels = next((name for name in LABELS if name in item), None)
    inputs = {
        name: value for name, value in item.items() if name not in (labels, "index") and _are_inputs(value, False)
    }
    if not inputs:
        raise RequestError(_REFUSED.format(described(item)))
    name, *others = inputs
    targets = None if labels is None else item[labels]
    batch = made(inputs[name] if not others and name in SINGLE else inputs, targets, item)
    index = item.get("index")
    return batch._replace(index=index.cpu().long()) if isinstance(index, Tensor) and index.dim() == 1 else batch


def _with_tensors(item: Any) -> Any:
    """The same with tensors in place of NumPy's arrays of numbers among its inputs."""
    if isinstance(item, np.ndarray) and item.dtype.kind in "biuf":
        return torch.as_tensor(item)
    if isinstance(item, Mapping) and any(isinstance(one, np.ndarray | Mapping) for one in item.values()):
        return {name: _with_tensors(one) for name, one in item.items()}
    if type(item) in (tuple, list) and item and isinstance(item[0], np.ndarray | Mapping):
        inputs, *rest = item
        return [_with_tensors(inputs), *(_with_tensors(one) if isinstance(one, np.ndarray) else one for one in rest)]
    return item


def _are_inputs(inputs: Any, groups: bool = True) -> bool:
    if isinstance(inputs, Tensor):
        return inputs.dim() > 0
    return isinstance(inputs, Mapping) and bool(inputs) and all(map(_are_inputs, inputs.values()))


def _numbers(targets: Targets) -> Targets:
    """Targets that hold a number a sample, as a tensor; others, such as a list of boxes, as they are."""
    if isinstance(targets, np.ndarray) and targets.dtype.kind in "biuf":
        return torch.as_tensor(targets)
    if not isinstance(targets, list | tuple) or not targets:
        return targets
    if all(isinstance(one, Tensor) and one.dim() == 0 for one in targets):
        return torch.stack(list(targets))
    return torch.tensor(targets) if all(isinstance(one, int | float | np.number) for one in targets) else targets


def _is_mask(ids: Any, mask: Any) -> bool:
    """Whether the second of three is an attention mask of the first."""
    if not isinstance(ids, Tensor) or not isinstance(mask, Tensor) or ids.shape != mask.shape or ids.dim() < 2:
        return False
    whole = not ids.is_floating_point() and not mask.is_floating_point()
    return whole and bool(((mask == 0) | (mask == 1)).all())


def described(item: Any) -> str:
    """What a loader has given, in words."""
    if isinstance(item, Mapping):
        return f"a dict of {', '.join(f'{name}: {type(value).__name__}' for name, value in item.items()) or 'nothing'}"
    if isinstance(item, tuple | list):
        kinds = ", ".join(type(one).__name__ for one in item[:4])
        return f"a {type(item).__name__} of {len(item)} ({kinds})"
    return type(item).__name__
