"""A finished run's answers about its test set, sample by sample: what a report by class is made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.data.splits import DataSet
from limbeck.folders import data_root
from limbeck.measure.per_class import confusion, macro, per_class
from limbeck.runs import identity
from limbeck.runs.finished.read import classifier, evaluated, ready
from limbeck.runs.machine import Machine
from limbeck.taps import evaluating


@dataclass(frozen=True)
class Answers:
    """What a run's student says about its test set.

    Attributes:
        figures: What `limbeck evaluate` shows.
        data: The run's data.
        names: Its classes, (C,).
        files: The test samples' files in order, where they came from files; else empty.
        probabilities: Of each sample and class, (N, C).
    """

    figures: dict[str, Any]
    data: DataSet
    names: list[str]
    files: list[str]
    probabilities: Tensor

    @property
    def predicted(self) -> Tensor:
        """The likeliest class of each sample, (N,)."""
        return self.probabilities.argmax(1)

    @property
    def confusion(self) -> Tensor:
        """(C, C), labels as rows."""
        return confusion(self.data.test.targets, self.predicted, len(self.names))

    def mistakes(self, most: int) -> list[int]:
        """The samples with another label than the likeliest class, the surest mistakes first."""
        targets, predicted = self.data.test.targets, self.predicted
        wrong = ((targets >= 0) & (targets != predicted)).nonzero().flatten()
        order = self.probabilities[wrong].amax(1).argsort(descending=True, stable=True)
        chosen: list[int] = wrong[order[:most]].tolist()
        return chosen

    def pixels(self, index: int) -> Tensor | None:
        """A test sample as uint8 (C, H, W) with one or three channels; None where it is no such image."""
        sample = self.data.test.sample(index)
        if not isinstance(sample, Tensor) or sample.dim() != 3 or sample.dtype != torch.uint8:
            return None
        return sample if sample.shape[0] in (1, 3) else None

    def as_dict(self) -> dict[str, Any]:
        """The figures, those of each class, their means, and the confusion matrix."""
        rows = per_class(self.confusion)
        classes = [{"class": name, **row} for name, row in zip(self.names, rows, strict=True)]
        return {**self.figures, "classes": classes, "macro": macro(rows), "confusion": self.confusion.tolist()}


def answers(run: Path, root: Path | None = None, machine: Machine | None = None) -> Answers:
    """Ask the student of a run about its test set.

    Args:
        run: The run folder.
        root: Folder of the data; by default the one that the run had, else the usual one.
        machine: The device; by default the CPU.

    Raises:
        RequestError: As `classifier` raises.
    """
    found = classifier(run, root, "evaluate --report")
    figures = evaluated(run, found, machine)
    scheme, loader = ready(found, machine)
    with torch.no_grad(), evaluating(scheme):
        probabilities = torch.cat([scheme.predict(batch.inputs).float().softmax(1).cpu() for batch in loader])
    data = found.data
    names = list(data.class_names) or [str(number) for number in range(data.classes)]
    return Answers(figures, data, names, _files(data, root or identity.data_root(run) or data_root()), probabilities)


def _files(data: DataSet, root: Path) -> list[str]:
    if data.name != "image-folder":
        return []
    from limbeck.data.image_folder import test_files

    return test_files(root)
