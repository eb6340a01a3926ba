"""A data set's parts in memory or on disk, and what is known of it: names of classes, counts, digests."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from limbeck.data.stratified import split
from limbeck.errors import RequestError
from limbeck.seeds import derive
from limbeck.tasks import Task
from limbeck.types import Inputs, content, each, flat

if TYPE_CHECKING:
    from limbeck.data.text.tokenizers import Tokenizer


SEVERAL = "several inputs"
"""The dtype of samples that are no single tensor, in a description."""


@dataclass(frozen=True)
class InMemory:
    """Samples as tensors: inputs (N, ...), uint8 for pixels 0–255 or float, or several by name; targets (N, ...), class
    indices int64.
    """

    inputs: Inputs
    targets: Tensor

    @property
    def together(self) -> int:
        """How many samples that follow one another stay together, in one batch and in one part."""
        return 1

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, index: Tensor) -> Self:
        return replace(self, inputs=each(self.inputs, lambda x: x[index]), targets=self.targets[index])

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of every sample and label."""
        digest = hashlib.blake2b(digest_size=8)
        for name, tensor in self.by_name.items():
            digest.update(f"{name}{(tensor.shape, tensor.dtype)!r}".encode())
            digest.update(content(tensor))
        digest.update(content(self.targets))
        return digest.hexdigest()

    @property
    def by_name(self) -> dict[str, Tensor]:
        """The inputs by name; "" for the one of samples that have one each."""
        return {"": self.inputs} if isinstance(self.inputs, Tensor) else flat(self.inputs)

    @property
    def tensor(self) -> Tensor:
        """The inputs of samples that have one each.

        Raises:
            RequestError: They have several by name.
        """
        if isinstance(self.inputs, Tensor):
            return self.inputs
        raise RequestError(f"these samples have the inputs {', '.join(self.inputs)}, and one without a name is wanted")

    def sample(self, index: int) -> Inputs:
        """One sample's inputs."""
        return each(self.inputs, lambda x: x[index])

    @property
    def lengths(self) -> Tensor | None:
        """(N,) by which samples of like length are put into one batch; None to leave the order as it is."""
        return None

    def handed_out(self, inputs: Inputs, targets: Tensor, index: Tensor) -> tuple[Inputs, Tensor]:
        """Some samples as a batch has them.

        Args:
            inputs: As they lie in memory.
            targets: Likewise.
            index: (B,) their positions, on the CPU.
        """
        return inputs, targets


@dataclass(frozen=True)
class FromDisk:
    """A map-style dataset of (input, label) that worker processes read.

    Attributes:
        dataset: What is read, by index.
        targets: Its labels, (N, ...), class indices int64.
        fingerprint: Changes with any sample.
        random: Whether one index gives varying inputs.
        portable: Like the fingerprint, but the same for a copy of the files elsewhere, whose times differ.
    """

    dataset: Dataset[Any]
    targets: Tensor
    fingerprint: str
    random: bool = False
    portable: str = ""
    together: ClassVar[int] = 1

    def __len__(self) -> int:
        return len(self.targets)

    def sample(self, index: int) -> Any:
        """One sample's inputs."""
        return self.dataset[index][0]

    def subset(self, index: Tensor) -> FromDisk:
        chosen = hashlib.blake2b(index.numpy().tobytes(), digest_size=8).hexdigest()
        part = Subset(self.dataset, index.tolist())
        portable = self.portable and f"{self.portable}-{chosen}"
        return FromDisk(part, self.targets[index], f"{self.fingerprint}-{chosen}", self.random, portable)


Split = InMemory | FromDisk


def are_classes(targets: Tensor) -> bool:
    """Whether targets are a class index a sample."""
    return targets.dim() == 1 and not targets.is_floating_point()


@dataclass(frozen=True)
class DataSet:
    """A data set: what is learned from, and what is tested on.

    Attributes:
        name: What it is called in results.
        train: What students and teachers learn from.
        test: Read once, at the end.
        classes: Number of classes; of a task without classes the number of outputs, such as labels of several a
            sample, numbers to predict, or the width of an embedding.
        input_shape: One sample's shape, (C, H, W) for images; of several inputs by name, the first one's.
        validation: For every choice that is made: taken from the training split, or of its own; None without one.
        note: What must be known about the splits; told once.
        class_names: What the labels 0, 1, … are called; empty where that is not known.
        task: What is learned from it where the recipe does not say; None for a class a sample.
        tokenizer: What made tokens of its texts; None of other data.
        origin: What else its content is a function of, by name, such as the version of the package that it is part of.
    """

    name: str
    train: Split
    test: Split
    classes: int
    input_shape: tuple[int, ...]
    validation: Split | None = None
    note: str = ""
    class_names: tuple[str, ...] = ()
    task: Task | None = None
    tokenizer: Tokenizer | None = None
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> Iterator[tuple[str, Split]]:
        """The splits that there are, by name."""
        named = (("train", self.train), ("validation", self.validation), ("test", self.test))
        return ((name, split) for name, split in named if split is not None)

    def counts(self, split: Split) -> list[int]:
        """How many samples each class has in a split; [] where targets are not a class a sample."""
        if not are_classes(split.targets):
            return []
        return torch.bincount(split.targets[split.targets >= 0], minlength=self.classes).tolist()

    def class_name(self, label: int) -> str:
        """What a label is called: its class's name, or its number."""
        return repr(self.class_names[label]) if label < len(self.class_names) else str(label)

    def with_validation(self, fraction: float, seed: int = 0) -> DataSet:
        """Take a part of the training split away for validation, stratified by class where samples have one each.

        Raises:
            RequestError: The part would leave a split without one sample of each class, or there is one already.
        """
        if self.validation is not None:
            raise RequestError(
                f"data.validation would take a part of the training set, and {self.name} has a validation set of its "
                "own; leave data.validation out"
            )
        if self.train.together > 1:
            raise RequestError(
                f"data.validation takes single samples, and those of {self.name} stay together; give a share as "
                "data.options.validation"
            )
        targets, taken_from = self.train.targets, np.arange(len(self.train))
        classes = are_classes(targets) and bool((targets >= 0).any())
        if classes:
            self._check_fraction(fraction)
            taken_from = np.flatnonzero((targets >= 0).numpy())  # samples without a label stay where they teach
        try:
            _, drawn = split(
                len(taken_from),
                fraction,
                derive(seed, "validation") % 2**32,
                targets.numpy()[taken_from] if classes else None,
            )
        except ValueError as error:
            raise RequestError(
                f"cannot take {fraction:.0%} of {len(self.train)} samples for validation: {error}"
            ) from error
        taken = np.sort(taken_from[drawn])
        kept = np.setdiff1d(np.arange(len(self.train)), taken)
        parts = [self.train.subset(torch.from_numpy(part)) for part in (kept, taken)]
        return replace(self, train=parts[0], validation=parts[1])

    def limited(self, samples: int) -> DataSet:
        """The data set for a trial: so many samples of each split at most, drawn by one seed."""
        validation = None if self.validation is None else _drawn(self.validation, samples, "validation")
        test = _drawn(self.test, samples, "test")
        return replace(self.with_training(samples), validation=validation, test=test)

    def with_training(self, samples: int) -> DataSet:
        """The data set for a trial: so many samples of the training split at most, drawn by one seed."""
        return replace(self, train=_drawn(self.train, samples, "train"))

    def _check_fraction(self, fraction: float) -> None:
        """Raise RequestError where a part of the training split would leave a class out."""
        there = {label: n for label, n in enumerate(self.counts(self.train)) if n}
        total = sum(there.values())
        taken = math.ceil(fraction * total)
        fewest = min(there, key=lambda label: there[label], default=0)
        if there.get(fewest) == 1:
            raise RequestError(
                f"data.validation cannot take a sample of each class from the training set: class "
                f"{self.class_name(fewest)} has only one there; add samples of it, or leave data.validation out"
            )
        if min(taken, total - taken) < len(there):
            raise RequestError(
                f"data.validation of {fraction:g} gives {taken:,} samples for validation and {total - taken:,} for "
                f"training, and both need one of each of the {len(there):,} classes; choose another fraction"
            )


def _drawn(split: Split, samples: int, name: str) -> Split:
    """Some samples of a split, in its order; a split that has no more is as it is."""
    if len(split) <= samples:
        return split
    each = split.together
    if samples < each:
        raise RequestError(f"{samples} of the {name} samples are none: {each} stay together; give a larger limit")
    generator = torch.Generator().manual_seed(derive(0, "limit", name) % 2**63)
    groups = torch.randperm(len(split) // each, generator=generator)[: samples // each].sort().values
    return split.subset((groups[:, None] * each + torch.arange(each)).flatten())
