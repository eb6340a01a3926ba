"""A task of the user's own that classifies has what Classification has, also where it is not derived from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.data import DataSet, InMemory
from limbeck.distillers import Distiller
from limbeck.errors import RequestError
from limbeck.quantization.training import outputs_of
from limbeck.runs.checks import _check_labels
from limbeck.shipping.kinds import kind
from limbeck.tasks import Classification, LanguageModelling, MultiLabel, Regression, Segmentation, Task
from limbeck.types import Batch, Targets

ROOT = Path(__file__).parents[2]


class Hinge(Task):
    """Classes by a margin."""

    monitor, mode, classifies = "hinge", "min", True

    def loss(self, output: Tensor, targets: Targets) -> Tensor:
        assert isinstance(targets, Tensor)
        return F.multi_margin_loss(output, targets)


def test_who_classifies_samples() -> None:
    tasks = [Hinge(), Classification(), LanguageModelling(), Segmentation(), MultiLabel(), Regression()]
    assert [one.classifies_samples for one in tasks] == [True, True, False, False, False, False]


def test_an_own_classifier_is_like_the_known_one() -> None:
    assert kind(Hinge()) == kind(Classification()) != kind(Regression())
    assert outputs_of(Hinge()) == outputs_of(Classification()) != outputs_of(Regression())


def test_its_labels_are_checked() -> None:
    pixels, labels = torch.zeros(4, 3), torch.tensor([0, 1, 2, 5])
    split = InMemory(pixels, labels)
    data = DataSet("own", split, split, 3, (3,))
    scheme = Distiller(nn.Linear(3, 3), task=Hinge())
    example = Batch(pixels, labels, torch.arange(4), 0)
    with pytest.raises(RequestError, match="has the label 5, and the student 3 outputs"):
        _check_labels(scheme, example, data)


def test_what_a_task_can_do_is_asked_of_the_task() -> None:
    files = [path for path in ROOT.glob("src/limbeck/**/*.py") if path.parent.name != "tasks"]
    asked = re.compile(r"isinstance\([^\n]*\bClassification\)")
    assert len(files) > 150
    assert [path.name for path in files if asked.search(path.read_text(encoding="utf-8"))] == []
