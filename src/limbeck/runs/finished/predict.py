"""A trained student's answers about files: read as its own data were read, in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.given_files import SampleForm, find, samples
from limbeck.data.loaders import pixels
from limbeck.data.splits import SEVERAL
from limbeck.data.text.files import TEXT as COLUMN
from limbeck.data.text.readings import ids_of
from limbeck.data.text.tokenizers import Tokenizer
from limbeck.distillers import Distiller, Scheme, SelfDistiller
from limbeck.engine.first.batch import settle
from limbeck.errors import RequestError, counted, unknown
from limbeck.models import preprocess
from limbeck.models.load import load_network, read_description
from limbeck.models.networks.multi_exit import MultiExit, exit_network
from limbeck.notices import tell
from limbeck.runs.components import HELD_OUT, HELD_OUT_VALUES
from limbeck.runs.machine import Machine
from limbeck.runs.texts import tokenizer_of
from limbeck.taps import evaluating
from limbeck.tasks import Classification
from limbeck.types import Batch, Inputs, each

MOST_NAMED = 20
"""Files that cannot be read are named one by one, up to so many."""


@dataclass(frozen=True)
class Prediction:
    """What a student says about one sample.

    Attributes:
        file: The file's path, for one of many rows with its number.
        top: The likeliest classes by name with their probabilities, likeliest first.
    """

    file: str
    top: Sequence[tuple[str, float]]

    def as_dict(self) -> dict[str, Any]:
        """File, class and probability; "top" with all likeliest classes, where more than one is asked for."""
        name, probability = self.top[0]
        found: dict[str, Any] = {"file": self.file, "class": name, "probability": probability}
        if len(self.top) > 1:
            found["top"] = [{"class": one, "probability": value} for one, value in self.top]
        return found


@dataclass
class Predictor:
    """A trained student with what its JSON file says about its data.

    Attributes:
        scheme: The student, with what prepares its inputs.
        form: What one sample is.
        classes: The classes' names; their numbers where the run knew no names.
        device: Where it computes.
        tokenizer: What makes ids of texts; None where samples are none.
        broken: The files that could not be read.
    """

    scheme: Scheme
    form: SampleForm
    classes: Sequence[str]
    device: torch.device
    tokenizer: Tokenizer | None = None
    broken: list[Path] = field(default_factory=list)

    def predict(
        self,
        paths: Sequence[Path],
        *,
        top: int = 1,
        batch_size: int | None = None,
        after: Callable[[int, int], None] = lambda done, of: None,
    ) -> Iterator[Prediction]:
        """The student's answer about each sample; a file that cannot be read is named on stderr and left out.

        Args:
            paths: Files, and folders with files.
            top: How many of the likeliest classes.
            batch_size: Samples that are computed at once; by default as many as a test of the run may take.
            after: Told after each file how many are done, and of how many.

        Raises:
            RequestError: A path is not there, no file can be read, or there are fewer classes than `top`.
        """
        if top > len(self.classes):
            raise RequestError(f"--top is {top}, and the student knows {len(self.classes)} classes")
        found = find(paths, self.form)
        if found.left_out:
            kinds = ", ".join(f"{suffix} {count:,}" for suffix, count in found.left_out.most_common(6))
            tell(f"left out by the ends of their names: {counted(found.left_out.total(), 'file')} ({kinds})")
        size = batch_size or max(1, min(HELD_OUT, HELD_OUT_VALUES // math.prod(self.form.shape)))
        waiting: list[tuple[str, Tensor | str]] = []
        for done, path in enumerate(found.files, start=1):
            waiting += self._read(path, alone=len(found.files) == 1)
            while len(waiting) >= size:
                yield from self._answers(waiting[:size], top)
                del waiting[:size]
            after(done, len(found.files))
        yield from self._answers(waiting, top)
        self._conclude(len(found.files))

    def _read(self, path: Path, alone: bool) -> list[tuple[str, Tensor | str]]:
        try:
            return list(samples(path, self.form))
        except RequestError as error:
            if alone:
                raise
            self.broken.append(path)
            if len(self.broken) <= MOST_NAMED:
                tell(str(error))
            return []

    def _conclude(self, files: int) -> None:
        if len(self.broken) == files:
            raise RequestError(f"none of the given files can be read ({counted(files, 'file')}); each is named above")
        if self.broken:
            tell(f"{len(self.broken):,} of {counted(files, 'file')} could not be read and are left out")

    @torch.no_grad()
    def _answers(self, batch: Sequence[tuple[str, Tensor | str]], top: int) -> Iterator[Prediction]:
        if not batch:
            return
        inputs = self._inputs([sample for _, sample in batch])
        if self.scheme.classes is None:
            targets = torch.zeros(len(batch), dtype=torch.long, device=self.device)
            settle(self.scheme, Batch(inputs, targets, torch.arange(len(batch)), 0), 0)
        with evaluating(self.scheme):
            probabilities, labels = self.scheme.predict(inputs).float().softmax(1).topk(top)
        for (name, _), values, numbers in zip(batch, probabilities.tolist(), labels.tolist(), strict=True):
            yield Prediction(name, [(self.classes[n], value) for n, value in zip(numbers, values, strict=True)])

    def _inputs(self, samples: Sequence[Tensor | str]) -> Inputs:
        """What the student reads, on its device."""
        if self.tokenizer is None:
            return pixels(torch.stack([one for one in samples if isinstance(one, Tensor)]).to(self.device))
        inputs, sizes, _ = ids_of([str(one) for one in samples], self.tokenizer, self.form.shape[0])
        return each(inputs, lambda x: x[:, : int(sizes.max())].long().to(self.device))


def predictor(
    source: Path,
    *,
    exit: int | None = None,
    machine: Machine | None = None,
    column: str = COLUMN,
    columns: Sequence[str] = (),
) -> Predictor:
    """Read a student from a run folder, one student's folder of a comparison, an export, or its JSON file.

    Args:
        source: The folder or file.
        exit: Of a student with several exits: 1 is the shallowest; by default all of them together.
        machine: The device.
        column: The column of the texts in files that have columns.
        columns: All columns of .tsv and .csv files of texts whose first line does not name them.

    Raises:
        RequestError: There is no trained student, or no such exit; its data were not one tensor a sample.
    """
    path = _description(source, exit)
    about = read_description(path)
    if about.get("task", "classification") != "classification":
        raise RequestError(f"predict gives classes, and the student of {source} learned {about['task']}")
    given = about["input"]
    sample = given.get("sample") or {"shape": given["shape"], "dtype": "uint8" if len(given["shape"]) == 3 else ""}
    if sample["dtype"] == SEVERAL:
        raise RequestError(f"the student of {source} reads several inputs by name, which files cannot give")
    form = SampleForm(tuple(sample["shape"]), sample["dtype"], column, columns)
    tokenizer = tokenizer_of(path) if form.is_text else None
    network = load_network(path)
    shape = tuple(given["shape"])
    size = shape[1:] if len(shape) == 3 and shape[1:] != form.shape[1:] else None
    device = (machine or Machine(progress=False)).fabric("32-true").device
    task = Classification(output=about.get("output"))
    scheme = _scheme(network, exit, path, inputs=preprocess(given.get("mean"), given.get("std"), size), task=task)
    names = about.get("class_names") or [str(number) for number in range(about["classes"])]
    return Predictor(scheme.to(device), form, names, device, tokenizer)


def _scheme(network: nn.Module, exit: int | None, path: Path, **common: Any) -> Scheme:
    if isinstance(network, MultiExit):
        if exit is None:
            return SelfDistiller(network, **common)
        return Distiller(exit_network(network, exit), **common)
    if exit is not None and path.stem != f"exit-{exit}":
        raise RequestError(f"the student of {path} has a single exit; leave --exit out")
    return Distiller(network, **common)


def _description(source: Path, exit: int | None) -> Path:
    """The student's JSON file."""
    if source.is_file():
        return source
    if not source.is_dir():
        raise RequestError(f"there is no run folder {source}")
    if (source / "student.json").exists():
        return source / "student.json"
    exported = {path.stem: path for path in sorted(source.glob("exit-*.json"))}
    if exit is not None and exported:
        if f"exit-{exit}" not in exported:
            raise unknown("exit", f"exit-{exit}", exported)
        return exported[f"exit-{exit}"]
    if len(exported) == 1:
        return next(iter(exported.values()))
    if exported:
        raise RequestError(f"{source} holds {', '.join(exported)}; choose one with --exit")
    students = sorted(path.parent.name for path in source.glob("*-seed*/student.json"))
    if students:
        raise RequestError(f"{source} is a comparison; name one of its students, such as {source / students[0]}")
    raise RequestError(f"{source} holds no trained student (student.json); a finished run and limbeck export write one")
