"""Data sets by name: a training and a test split, in memory as uint8 where they fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from limbeck.data.digits import read_digits
from limbeck.data.own import load_own
from limbeck.data.splits import DataSet, FromDisk, InMemory, Split, are_classes
from limbeck.data.stratified import split
from limbeck.data.text.chat import text_chat
from limbeck.data.text.classes import text_classes
from limbeck.data.text.language import text_files
from limbeck.data.text.python_docs import python_docs
from limbeck.data.text.sentences import text_sentences
from limbeck.data.text.triples import text_triples
from limbeck.errors import RequestError, reason_of, unknown
from limbeck.options import fitting

if TYPE_CHECKING:
    from limbeck.data.image_folder import Images

MEMORY_LIMIT = 4 * 2**30
"""Image folders are decoded into memory up to this many bytes of uint8 pixels."""


def load(
    name: str, root: Path, *, size: int | None = None, options: Mapping[str, Any] = MappingProxyType({})
) -> DataSet:
    """Load a data set by name.

    Args:
        name: One of `NAMES`, or "package.module:callable" that returns a `DataSet` or two datasets of (x, y).
        root: Folder of the data; torchvision's sets are looked up in it, and downloaded to it when missing.
        size: Height and width to which the images of an image folder are resized.
        options: Arguments of the callable, or of a data set of texts.

    Raises:
        RequestError: An unknown name; data that is missing and cannot be fetched, or cannot be read; a single class.
    """
    if options and ":" not in name and name not in TEXTS:
        raise RequestError(
            f"data.options are arguments of {', '.join(TEXTS)} and of package.module:callable; {name} takes none"
        )
    found = load_own(name, options) if ":" in name else _known(name, root, size, options)
    if found.classes < 2 and found.task is None and are_classes(found.train.targets):
        called = f", {found.class_names[0]!r}" if found.class_names else ""
        raise RequestError(
            f"{name} has only one class{called}, and a classifier tells two or more apart; give the samples of each "
            "class a label (for image-folder: a folder) of their own"
        )
    return found


def _known(name: str, root: Path, size: int | None, options: Mapping[str, Any]) -> DataSet:
    if name not in NAMES and name not in TEXTS:
        raise unknown("data set", name, [*NAMES, *TEXTS, "package.module:callable"])
    if size is not None and name != "image-folder":
        raise RequestError(f"data.size resizes the images of image-folder; for {name} give the model a size instead")
    if name in TEXTS:
        return TEXTS[name](root, **fitting(f"data set {name}", TEXTS[name], options, given=["root"]))
    return NAMES[name](root, size)


def _digits(root: Path, size: int | None) -> DataSet:
    images, classes = read_digits()
    # Ink is counted from 0 to 16 there; 0–255 here, as in every other image.
    inputs = torch.from_numpy(np.round(images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    whole = InMemory(inputs, torch.from_numpy(classes).long())
    train, test = (whole.subset(torch.from_numpy(part)) for part in split(len(classes), 0.2, 0, classes))
    return DataSet("digits", train, test, 10, (1, 8, 8), class_names=tuple("0123456789"))


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
            shape = tuple(pixels.shape[1:])
        names = tuple(map(str, part.classes))
        return DataSet(name, splits[0], splits[1], len(names), shape, class_names=names)

    return load_set


def _present_or_downloaded(maker: Callable[..., Any], name: str, root: Path, train: bool) -> Any:
    try:
        return maker(root, train=train, download=False)
    except Exception as missing:
        try:
            return maker(root, train=train, download=True)
        except Exception as error:
            raise RequestError(
                f"cannot read {name} in {root} ({reason_of(missing)}) nor download it ({reason_of(error)}); "
                "name the folder that holds it with --data-root or LIMBECK_DATA"
            ) from error


def _image_folder(root: Path, size: int | None) -> DataSet:
    from limbeck.data.image_folder import read_parts  # and torchvision, at a second or so

    parts = read_parts(root, size)
    shape = parts["train"].shape or ()
    fits = sum(map(len, parts.values())) * int(np.prod(shape)) <= MEMORY_LIMIT
    splits: dict[str, Split] = {}
    for name, images in parts.items():
        targets = torch.tensor(images.targets)
        splits[name] = InMemory(images.in_memory(), targets) if fits else _on_disk(images, targets)
    note = "; ".join(images.note for images in parts.values())
    if "test" not in splits:
        splits["test"] = splits.pop("validation")
        note += (
            f"; {root} has no test/, so {Path(parts['validation'].root).name}/ is the test set, read once at the end; "
            "for choices, data.validation takes a part of the training set"
        )
    names = tuple(parts["train"].classes)
    validation = splits.get("validation")
    return DataSet("image-folder", splits["train"], splits["test"], len(names), shape, validation, note, names)


def _on_disk(images: Images, targets: Tensor) -> FromDisk:
    return FromDisk(images, targets, images.fingerprint, portable=images.portable)


NAMES: dict[str, Callable[[Path, int | None], DataSet]] = {
    "digits": _digits,
    "mnist": _torchvision("mnist", "MNIST"),
    "fashion-mnist": _torchvision("fashion-mnist", "FashionMNIST"),
    "cifar10": _torchvision("cifar10", "CIFAR10"),
    "cifar100": _torchvision("cifar100", "CIFAR100"),
    "image-folder": _image_folder,
}
"""The data sets of images that a recipe can name."""
TEXTS: dict[str, Callable[..., DataSet]] = {
    "python-docs": python_docs,
    "text-files": text_files,
    "text-classes": text_classes,
    "text-chat": text_chat,
    "text-sentences": text_sentences,
    "text-triples": text_triples,
}
"""The data sets of texts, which take options."""
