"""Data sets of the user's own, by the name of a function that returns one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from limbeck.data.splits import DataSet, FromDisk, InMemory, Split, are_classes
from limbeck.errors import RequestError, reason_of
from limbeck.imports import load_object
from limbeck.options import fitting
from limbeck.seeds import derive, seeded
from limbeck.types import IGNORED


def load_own(name: str, options: Mapping[str, Any] = MappingProxyType({})) -> DataSet:
    """What a function of the user's own gives for these options: a DataSet, or (train, test).

    Raises:
        RequestError: An option that it does not take, or what it gives is no data set.
    """
    maker = load_object(name, "data set")
    if not callable(maker):
        raise RequestError(f"data set {name} must be a function, not {type(maker).__name__}")
    options = fitting(f"data set {name}", maker, options)
    try:
        made = maker(**options)
    except Exception as error:
        raise RequestError(f"data set {name} fails: {type(error).__name__}: {reason_of(error)}") from error
    if not isinstance(made, DataSet):
        if not isinstance(made, Sequence) or len(made) != 2:
            raise RequestError(
                f"data set {name} must return a limbeck DataSet or (train, test), not {type(made).__name__}"
            )
        train, test = (
            _split(part, f"{name}, {part_name}") for part, part_name in zip(made, ("train", "test"), strict=True)
        )
        made = DataSet(name, train, test, _outputs(train, test), _shape_of(train, name))
    for part_name, part in (("train", made.train), ("test", made.test)):
        if not len(part):
            raise RequestError(f"data set {name}, {part_name}, holds no sample")
        if are_classes(part.targets):
            _check_labels(part.targets, made.classes, f"{name}, {part_name}")
    return made


def _outputs(train: Split, test: Split) -> int:
    """Classes, or, of targets that are numbers, how many of them a sample has."""
    targets = train.targets
    if targets.is_floating_point():
        return 1 if targets.dim() == 1 else targets.shape[1]
    return int(max(targets.max(), test.targets.max())) + 1


def _split(dataset: Any, name: str) -> Split:
    if isinstance(dataset, InMemory | FromDisk):
        return dataset
    if isinstance(dataset, TensorDataset):
        if len(dataset.tensors) != 2 or not len(dataset):
            raise RequestError(f"data set {name} must hold two tensors, inputs and labels, of at least one sample")
        inputs, labels = dataset.tensors
        return InMemory(inputs, _checked(labels, name))
    try:
        count = len(dataset)
        targets = getattr(dataset, "targets", None)
        labels = _stacked([dataset[i][1] for i in range(count)]) if targets is None else torch.as_tensor(targets)
    except Exception as error:
        raise RequestError(
            f"data set {name} must be map-style: len(d), and d[i] gives (input, label): {error}"
        ) from error
    labels = _checked(labels, name)
    return FromDisk(dataset, labels, _sampled(dataset, labels, name), random=_varies(dataset))


def _stacked(labels: list[Any]) -> Tensor:
    return torch.stack(labels) if labels and isinstance(labels[0], Tensor) else torch.as_tensor(np.asarray(labels))


def _checked(labels: Tensor, name: str) -> Tensor:
    """Labels as tasks have them: class indices as int64, other targets as they are."""
    if not len(labels):
        raise RequestError(f"data set {name} holds no sample")
    if labels.is_complex():
        raise RequestError(f"data set {name}: targets are numbers or class indices, not {labels.dtype}")
    if labels.is_floating_point():
        return labels.float()
    if are_classes(labels):
        _check_labels(labels, None, name)
    return labels.long()


def _check_labels(labels: Tensor, classes: int | None, name: str) -> None:
    known = labels[labels != IGNORED]
    if not len(known):
        return
    low, high = int(known.min()), int(known.max())
    if low < 0 or (classes is not None and high >= classes):
        wanted = "0 on" if classes is None else f"0 to {classes - 1}"
        raise RequestError(f"data set {name}: labels run from {low} to {high}; they must count from {wanted}")


def _shape_of(split: Split, name: str) -> tuple[int, ...]:
    example = split.sample(0)
    if isinstance(example, Mapping) and example:
        example = next(iter(example.values()))
    if not isinstance(example, Tensor):
        raise RequestError(
            f"data set {name} gives {type(example).__name__} as input; give tensors (v2.PILToTensor makes them)"
        )
    return tuple(example.shape)


def _sampled(dataset: Any, labels: Tensor, name: str, most: int = 256) -> str:
    """A digest of all labels and of some inputs, each read under one seed: a random transform gives the same then.

    To read every input could take hours; a `FromDisk` of one's own comes with a fingerprint of one's own.
    """
    digest = hashlib.blake2b(f"{name} {len(labels)}".encode(), digest_size=8)
    digest.update(labels.numpy().tobytes())
    for i in _some(len(labels), most):
        with seeded(i):
            for value in _leaves(dataset[i][0]):
                digest.update(value.contiguous().numpy().data if isinstance(value, Tensor) else repr(value).encode())
    return digest.hexdigest()


def _varies(dataset: Any, most: int = 64) -> bool:
    """Whether some samples differ from look to look.

    Each is looked at under seeds of its own, so that a flip at p = 0.5 is missed once in 2⁶⁴ times. What is missed
    does no harm: every sample is read under a seed, and then always under the same one.
    """
    for i in _some(len(dataset), most):
        looks = []
        for look in (1, 2):
            with seeded(derive(look, "look", i)):
                looks.append(dataset[i][0])
        if not _alike(*looks):
            return True
    return False


def _some(count: int, most: int) -> list[int]:
    """The positions of some samples, without a period that data could share."""
    generator = torch.Generator().manual_seed(0)
    chosen: list[int] = torch.randperm(count, generator=generator)[:most].sort().values.tolist()
    return chosen


def _leaves(value: Any) -> list[Any]:
    return [value[name] for name in sorted(value)] if isinstance(value, Mapping) else [value]


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return all(map(_alike, _leaves(one), _leaves(other)))
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)
