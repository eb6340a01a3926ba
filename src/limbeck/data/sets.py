"""Data sets by name: a training and a test split, in memory as uint8 where they fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from limbeck.errors import RequestError, unknown
from limbeck.imports import load_object
from limbeck.seeds import derive, seeded

MEMORY_LIMIT = 4 * 2**30
"""Image folders are decoded into memory up to this many bytes of uint8 pixels."""


@dataclass(frozen=True)
class InMemory:
    """Samples held as tensors: inputs (N, ...), uint8 for pixels 0–255 or float; targets (N,) int64."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, index: Tensor) -> InMemory:
        return InMemory(self.inputs[index], self.targets[index])

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of every sample and label."""
        digest = hashlib.blake2b(repr((self.inputs.shape, self.inputs.dtype)).encode(), digest_size=8)
        for tensor in (self.inputs, self.targets):
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class FromDisk:
    """A map-style dataset of (input, label) that worker processes read; `random` if one index gives varying inputs."""

    dataset: Dataset[Any]
    targets: Tensor
    fingerprint: str
    random: bool = False

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, index: Tensor) -> FromDisk:
        chosen = hashlib.blake2b(index.numpy().tobytes(), digest_size=8).hexdigest()
        part = Subset(self.dataset, index.tolist())
        return FromDisk(part, self.targets[index], f"{self.fingerprint}-{chosen}", self.random)


Split = InMemory | FromDisk


@dataclass(frozen=True)
class DataSet:
    """A data set for classification.

    Attributes:
        name: What it is called in results.
        train: What students and teachers learn from.
        test: Read once, at the end.
        classes: Number of classes.
        input_shape: One sample's shape, (C, H, W) for images; of several inputs by name, the first one's.
        validation: For every choice that is made: taken from the training split, or of its own; None without one.
        note: What must be known about the splits; told once.
    """

    name: str
    train: Split
    test: Split
    classes: int
    input_shape: tuple[int, ...]
    validation: Split | None = None
    note: str = ""

    def with_validation(self, fraction: float, seed: int = 0) -> DataSet:
        """Take a stratified part of the training split away for validation.

        Raises:
            RequestError: The part would leave a split without one sample of each class, or there is one already.
        """
        from sklearn.model_selection import train_test_split

        if self.validation is not None:
            raise RequestError(
                f"data.validation would take a part of the training set, and {self.name} has a validation set of its "
                "own; leave data.validation out"
            )
        try:
            kept, taken = train_test_split(
                np.arange(len(self.train)),
                test_size=fraction,
                stratify=self.train.targets.numpy(),
                random_state=derive(seed, "validation") % 2**32,
            )
        except ValueError as error:
            raise RequestError(
                f"cannot take {fraction:.0%} of {len(self.train)} samples for validation: {error}"
            ) from error
        kept, taken = torch.from_numpy(np.sort(kept)), torch.from_numpy(np.sort(taken))
        return replace(self, train=self.train.subset(kept), validation=self.train.subset(taken))


def load(name: str, root: Path, *, size: int | None = None) -> DataSet:
    """Load a data set by name.

    Args:
        name: One of `NAMES`, or "package.module:callable" that returns a `DataSet` or two datasets of (x, y).
        root: Folder of the data; torchvision's sets are looked up in it, and downloaded to it when missing.
        size: Height and width to which the images of an image folder are resized.

    Raises:
        RequestError: An unknown name; data that is missing and cannot be fetched, or cannot be read.
    """
    if ":" in name:
        return _own(name)
    if name not in NAMES:
        raise unknown("data set", name, [*NAMES, "package.module:callable"])
    if size is not None and name != "image-folder":
        raise RequestError(f"data.size resizes the images of image-folder; for {name} give the model a size instead")
    return NAMES[name](root, size)


def _digits(root: Path, size: int | None) -> DataSet:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # Ink is counted from 0 to 16 there; 0–255 here, as in every other image.
    inputs = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    targets = torch.from_numpy(digits.target).long()
    everything = np.arange(len(targets))
    train, test = train_test_split(everything, test_size=0.2, stratify=digits.target, random_state=0)
    whole = InMemory(inputs, targets)
    return DataSet("digits", whole.subset(torch.from_numpy(train)), whole.subset(torch.from_numpy(test)), 10, (1, 8, 8))


def _torchvision(name: str, kind: str) -> Callable[[Path, int | None], DataSet]:
    def load_set(root: Path, size: int | None) -> DataSet:
        import torchvision

        maker = getattr(torchvision.datasets, kind)
        splits = []
        for train in (True, False):
            part = _present_or_downloaded(maker, name, root, train)
            pixels = torch.as_tensor(part.data)
            pixels = pixels.unsqueeze(1) if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2).contiguous()
            splits.append(InMemory(pixels, torch.as_tensor(part.targets).long()))
        shape = tuple(splits[0].inputs.shape[1:])
        return DataSet(name, splits[0], splits[1], len(part.classes), shape)

    return load_set


def _present_or_downloaded(maker: Callable[..., Any], name: str, root: Path, train: bool) -> Any:
    try:
        return maker(root, train=train, download=False)
    except Exception as missing:
        try:
            return maker(root, train=train, download=True)
        except Exception as error:
            raise RequestError(
                f"cannot read {name} in {root} ({_line(missing)}) nor download it ({_line(error)}); "
                "name the folder that holds it with --data-root or LIMBECK_DATA"
            ) from error


def _image_folder(root: Path, size: int | None) -> DataSet:
    from limbeck.data.image_folder import read_parts

    parts = read_parts(root, size)
    shape = parts["train"].shape or ()
    fits = sum(map(len, parts.values())) * int(np.prod(shape)) <= MEMORY_LIMIT
    splits: dict[str, Split] = {}
    for name, images in parts.items():
        targets = torch.tensor(images.targets)
        splits[name] = InMemory(images.in_memory(), targets) if fits else FromDisk(images, targets, images.fingerprint)
    note = ""
    if "test" not in splits:
        splits["test"] = splits.pop("validation")
        note = (
            f"{root} has no test/, so {Path(parts['validation'].root).name}/ is the test set, read once at the end; "
            "for choices, data.validation takes a part of the training set"
        )
    classes = len(parts["train"].classes)
    return DataSet("image-folder", splits["train"], splits["test"], classes, shape, splits.get("validation"), note)


def _own(name: str) -> DataSet:
    maker = load_object(name, "data set")
    if not callable(maker):
        raise RequestError(f"data set {name} must be a function without arguments, not {type(maker).__name__}")
    try:
        made = maker()
    except Exception as error:
        raise RequestError(f"data set {name} fails: {type(error).__name__}: {_line(error)}") from error
    if not isinstance(made, DataSet):
        if not isinstance(made, Sequence) or len(made) != 2:
            raise RequestError(
                f"data set {name} must return a limbeck DataSet or (train, test), not {type(made).__name__}"
            )
        train, test = (
            _split(part, f"{name}, {part_name}") for part, part_name in zip(made, ("train", "test"), strict=True)
        )
        classes = int(max(train.targets.max(), test.targets.max())) + 1
        made = DataSet(name, train, test, classes, _shape_of(train, name))
    for part_name, part in (("train", made.train), ("test", made.test)):
        _check_labels(part.targets, made.classes, f"{name}, {part_name}")
    return made


def _split(dataset: Any, name: str) -> Split:
    if isinstance(dataset, InMemory | FromDisk):
        return dataset
    if isinstance(dataset, TensorDataset):
        if len(dataset.tensors) != 2 or not len(dataset):
            raise RequestError(f"data set {name} must hold two tensors, inputs and labels, of at least one sample")
        inputs, labels = dataset.tensors
        _check_labels(labels, None, name)
        return InMemory(inputs, labels.long())
    try:
        count = len(dataset)
        targets = getattr(dataset, "targets", None)
        labels = torch.as_tensor([dataset[i][1] for i in range(count)] if targets is None else targets)
    except Exception as error:
        raise RequestError(
            f"data set {name} must be map-style: len(d), and d[i] gives (input, label): {error}"
        ) from error
    _check_labels(labels, None, name)
    return FromDisk(dataset, labels.long(), _sampled(dataset, labels, name), random=_varies(dataset))


def _check_labels(labels: Tensor, classes: int | None, name: str) -> None:
    if not len(labels):
        raise RequestError(f"data set {name} holds no sample")
    if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex():
        raise RequestError(
            f"data set {name}: labels must be whole numbers, one a sample, not {labels.dtype} {tuple(labels.shape)}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        last = (classes or high + 1) - 1
        raise RequestError(f"data set {name}: labels run from {low} to {high}; they must count from 0 to {last}")


def _shape_of(split: Split, name: str) -> tuple[int, ...]:
    example = split.inputs[0] if isinstance(split, InMemory) else split.dataset[0][0]
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


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


NAMES: dict[str, Callable[[Path, int | None], DataSet]] = {
    "digits": _digits,
    "mnist": _torchvision("mnist", "MNIST"),
    "fashion-mnist": _torchvision("fashion-mnist", "FashionMNIST"),
    "cifar10": _torchvision("cifar10", "CIFAR10"),
    "cifar100": _torchvision("cifar100", "CIFAR100"),
    "image-folder": _image_folder,
}
"""The data sets that a recipe can name."""
