"""Files that somebody gives to be predicted: images read as an image folder's are, and vectors in CSV or .npy files."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.data.text.files import ENDINGS, is_dataset
from limbeck.data.text.files import TEXT as COLUMN
from limbeck.data.text.files import rows as text_rows
from limbeck.data.text.texts import TEXT
from limbeck.errors import RequestError, as_request, some

TABLES = (".csv", ".npy")
"""How the names of files end that hold many samples each, a row a sample."""


@dataclass(frozen=True)
class SampleForm:
    """What one sample of a run's data is.

    Attributes:
        shape: (C, H, W) for images, else what one row holds.
        dtype: "uint8" for pixels 0–255, "text", else that of floating-point numbers.
        column: The column of the texts in files that have columns.
        columns: All columns of .tsv and .csv files of texts whose first line does not name them.
    """

    shape: tuple[int, ...]
    dtype: str
    column: str = COLUMN
    columns: Sequence[str] = ()

    @property
    def is_image(self) -> bool:
        """Whether image files can be read as samples."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3) and self.dtype == "uint8"

    @property
    def is_text(self) -> bool:
        """Whether samples are texts, which a tokenizer makes ids of."""
        return self.dtype == TEXT


@dataclass(frozen=True)
class Found:
    """The files under some paths.

    Attributes:
        files: Those that hold samples, each folder's in order of their names.
        left_out: How many other files there are in folders, by the ends of their names.
    """

    files: Sequence[Path]
    left_out: Counter[str]


def find(paths: Sequence[Path], form: SampleForm) -> Found:
    """The files that can hold samples; a folder's with those of the folders inside it.

    Raises:
        RequestError: A path is not there, or no file is left.
    """
    from limbeck.data.image_folder import SUFFIXES, is_hidden  # and torchvision, at a second or so

    endings = ENDINGS if form.is_text else (*SUFFIXES, ".npy") if form.is_image else TABLES
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    for path in paths:
        if form.is_text and is_dataset(path):
            files.append(path)
        elif path.is_dir():
            for inside in sorted(one for one in path.rglob("*") if one.is_file() and not is_hidden(one)):
                taken = inside.name.lower().endswith(endings)
                if taken:
                    files.append(inside)
                else:
                    left_out[inside.suffix.lower() or "without a suffix"] += 1
        elif path.is_file():
            files.append(path)
        else:
            raise RequestError(f"there is no file or folder {path}")
    if not files:
        kind = "file of texts" if form.is_text else "image" if form.is_image else "CSV or .npy file"
        raise RequestError(f"there is no {kind} in {some([str(path) for path in paths])}")
    return Found(files, left_out)


def samples(path: Path, form: SampleForm) -> Iterator[tuple[str, Tensor | str]]:
    """The samples that a file holds, each with its name: the file's, and for one of many rows its number from 1.

    A text file holds a text a line; of .jsonl, .tsv, .csv, .parquet and folders of datasets it is one column.

    Raises:
        RequestError: The file is damaged, or what it holds does not fit.
    """
    if form.is_text:
        yield from text_rows(path, form.column, form.columns)
    elif path.suffix.lower() in TABLES:
        rows = _array(path, form) if path.suffix.lower() == ".npy" else _csv(path, form)
        yield from ((f"{path}:{number}", row) for number, row in enumerate(rows, start=1))
    elif form.is_image:
        yield str(path), _image(path, form.shape)
    else:
        raise RequestError(f"cannot read {path}: this run learned from rows of {_shape(form)}; give .csv or .npy files")


def _image(path: Path, shape: tuple[int, ...]) -> Tensor:
    from torchvision.transforms import v2

    from limbeck.data.image_folder import brought_to, decoded

    image = decoded(str(path))
    channels, height, width = shape
    if channels == 1:
        image = image.convert("L")
    if image.size != (width, height):
        if height == width:
            steps = brought_to(height)
        else:
            scale = max(height / image.height, width / image.width)
            covering = [math.ceil(scale * image.height), math.ceil(scale * image.width)]
            steps = [v2.Resize(covering), v2.CenterCrop([height, width])]
        image = v2.Compose(steps)(image)
    pixels: Tensor = v2.functional.pil_to_tensor(image)
    return pixels


def _array(path: Path, form: SampleForm) -> Tensor:
    with as_request(lambda reason: f"cannot read {path}: {reason}"):
        values = np.load(path, allow_pickle=False)
    grey = form.is_image and form.shape[0] == 1
    if grey and values.shape[1:] == form.shape[1:]:
        values = values[:, None]
    if values.shape[1:] != form.shape:
        raise RequestError(
            f"{path} has the shape {values.shape}, and this run reads (N, {', '.join(map(str, form.shape))})"
        )
    return _checked(values, path, form)


def _csv(path: Path, form: SampleForm) -> Tensor:
    with (
        as_request(lambda reason: f"cannot read {path}: {reason}"),
        path.open(encoding="utf-8-sig", newline="") as file,
    ):
        rows = [row for row in csv.reader(file) if row]
    if rows and not any(map(_is_number, rows[0])):  # the names of columns
        rows = rows[1:]
    wanted = math.prod(form.shape)
    for number, row in enumerate(rows, start=1):
        if len(row) != wanted:
            raise RequestError(f"{path}, row {number}, has {len(row)} cells, and this run reads {wanted} numbers a row")
        wrong = next((cell for cell in row if not _is_number(cell)), None)
        if wrong is not None:
            raise RequestError(f"{path}, row {number}: {wrong[:40]!r} is not a number")
    values = np.array(rows, dtype=np.float64).reshape(-1, *form.shape)
    return _checked(values, path, form)


def _checked(values: np.ndarray[Any, Any], path: Path, form: SampleForm) -> Tensor:
    """The values in the dtype in which the run read its data."""
    if not len(values):
        raise RequestError(f"{path} holds no row")
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise RequestError(f"{path} holds values that are not finite numbers")
    if form.dtype == "uint8":
        if values.min() < 0 or values.max() > 255 or (values != np.round(values)).any():
            raise RequestError(
                f"{path} runs from {values.min():g} to {values.max():g}, and this run learned from whole numbers "
                "0 to 255"
            )
        return torch.from_numpy(values.astype(np.uint8))
    return torch.from_numpy(values.astype(np.float32))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _shape(form: SampleForm) -> str:
    return f"shape ({', '.join(map(str, form.shape))})"
