"""What a search sees of its trainings, as any callback does, and what becomes of a lost sign of life."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import limbeck
from limbeck import Distiller, Hardware, Saving, fit
from limbeck.data import InMemory, make_loader
from limbeck.engine import Run
from limbeck.tuning import studies
from limbeck.tuning.studies import Study, open_storage
from limbeck.tuning.trainer import PHASE, Watch


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


def train(blobs: InMemory, watch: Watch, phase: str = PHASE, **given: Any) -> Run:
    torch.manual_seed(0)
    batches, hardware = make_loader(blobs, 32), Hardware("cpu")
    options: dict[str, Any] = {"epochs": 5, "progress": False, "saving": Saving(phase=phase), **given}
    options |= {"optimizer": partial(torch.optim.Adam, lr=0.01), "callbacks": [watch]}
    return fit(Distiller(nn.Linear(4, 3)), batches, val=batches, hardware=hardware, **options)


def test_a_training_that_has_lost_ends_as_one_that_a_callback_stops(blobs: InMemory) -> None:
    seen: list[list[float]] = []
    beats: list[int] = []

    def lost(scores: list[float]) -> bool:
        seen.append(scores)
        return len(scores) == 2

    watch = Watch("accuracy", lambda: beats.append(len(seen)), lost)
    assert isinstance(watch, limbeck.Callback)
    run = train(blobs, watch)
    curve = [one["val_accuracy"] for one in run.metrics]
    assert len(curve) == 2
    assert seen == [[], curve[:1], curve]
    assert beats == [1, 2], "a sign of life after each epoch"
    run = train(blobs, watch, phase="hint", epochs=3)
    assert (len(run.metrics), len(seen), len(beats)) == (3, 3, 5), "scores of a stage before are not compared"


def test_what_was_killed_in_the_moment_it_lost_trains_no_further_epoch(blobs: InMemory, tmp_path: Path) -> None:
    def dies() -> None:
        raise Killed

    with pytest.raises(Killed):
        train(blobs, Watch("accuracy", dies), out=tmp_path)
    run = train(blobs, Watch("accuracy", lambda: None, lambda scores: bool(scores)), out=tmp_path, resume=True)
    assert len(run.metrics) == 1


def test_a_sign_of_life_that_is_lost_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (
        Study(open_storage(str(tmp_path / "log"), tmp_path), "search", "max", 0, shared=True) for _ in range(2)
    )
    slow = one.start(2)
    assert slow is not None
    one.beat(slow)
    assert one._frozen(0).user_attrs[studies.OWNER]["process"] == os.getpid()
    # Taken for dead, it is done by another process.
    other.finish(slow, {"state": "complete", "value": 0.5, "epochs": 1, "seconds": 1.0})
    one.beat(slow)
    one.finish(slow, {"state": "complete", "value": 0.1, "epochs": 1, "seconds": 9.0})
    assert [record["value"] for record in other.records()] == [0.5]

    def full(*given: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(one.storage, "set_trial_user_attr", full)
    one.beat(slow)
    with pytest.raises(OSError, match="no space left"):
        one.start(2)
