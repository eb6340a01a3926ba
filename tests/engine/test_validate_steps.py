"""Validation within an epoch: when it happens, that it changes nothing else, and that the best of it is kept."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from dying import Killed
from limbeck import Callback, Distiller, Hardware, RequestError, Run, Saving, fit
from limbeck.data import InMemory, make_loader
from limbeck.engine.callbacks.hooks import Training


class Noting(Callback):
    """Where each validation was, its score, and the student then."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int | None, float]] = []
        self.students: list[dict[str, Tensor]] = []

    def validation_end(self, training: Training) -> None:
        assert training.record is not None
        self.seen.append((training.epoch, training.record.get("step"), training.record["val_accuracy"]))
        self.students.append(copy.deepcopy(training.scheme.student.state_dict()))


class Dies(Callback):
    """Ends the process in the second epoch, after its second step."""

    def step_end(self, training: Training) -> None:
        if (training.epoch, training.step) == (2, 2):
            raise Killed


def trained(blobs: InMemory, noting: Noting | None = None, **options: Any) -> Run:
    """A student with dropout, two epochs of three steps."""
    torch.manual_seed(3)
    student = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    loader = make_loader(blobs, 32, shuffle=True)
    given: dict[str, Any] = {"epochs": 2, "val": make_loader(blobs, 40), "callbacks": [noting] if noting else []}
    make = partial(SGD, lr=0.5)
    return fit(Distiller(student), loader, optimizer=make, progress=False, hardware=Hardware("cpu"), **given | options)


def test_it_is_done_every_so_many_batches_and_changes_nothing_else(blobs: InMemory) -> None:
    noting = Noting()
    run, plain = trained(blobs, noting, validate_steps=1), trained(blobs)
    assert [seen[:2] for seen in noting.seen] == [(1, 1), (1, 2), (1, None), (2, 1), (2, 2), (2, None)]
    for one, other in zip(run.student.state_dict().values(), plain.student.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    seconds = {"seconds"}
    assert [{k: v for k, v in r.items() if k not in seconds} for r in run.metrics] == [
        {k: v for k, v in r.items() if k not in seconds} for r in plain.metrics
    ]


def test_the_best_of_all_validations_is_kept_also_by_a_killed_training(blobs: InMemory, tmp_path: Path) -> None:
    noting = Noting()
    falls = {"schedule": lambda time: 1.0 if time < 1.4 else -3.0}  # the last steps undo what was learned
    options: dict[str, Any] = {"validate_steps": 1, "keep": "best", "saving": Saving(checkpoint_steps=1), **falls}
    run = trained(blobs, noting, out=tmp_path / "whole", **options)
    scores = [score for *_, score in noting.seen]
    best = scores.index(max(scores))
    assert noting.seen[best][1] is not None, "within an epoch"
    for name, value in run.student.state_dict().items():
        assert torch.equal(value, noting.students[best][name])
    with pytest.raises(Killed):
        trained(blobs, callbacks=[Dies()], out=tmp_path / "killed", **options)
    trained(blobs, out=tmp_path / "killed", resume=True, **options)
    file = "student.safetensors"
    assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_it_needs_validation_data(blobs: InMemory) -> None:
    with pytest.raises(RequestError, match="validate_steps: there is nothing to validate on"):
        trained(blobs, val=None, validate_steps=2)
