"""Trainings that end where validation stops improving: when, and the same after an interruption."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from limbeck import Distiller, EarlyStopping, Hardware, Run, Saving, fit
from limbeck.data import InMemory, make_loader
from limbeck.engine.loop import Loop
from limbeck.errors import RequestError
from limbeck.tasks import Classification


def records(*values: float) -> list[dict[str, float]]:
    return [{"val_accuracy": value} for value in values]


@pytest.mark.parametrize(
    ("patience", "min_delta", "values", "ends"),
    [
        (1, 0.0, (0.5, 0.5), 2),  # the same is no improvement
        (2, 0.0, (0.5, 0.4, 0.6, 0.6, 0.5, 0.9), 5),
        (2, 0.1, (0.5, 0.55, 0.6, 0.9), 3),  # 0.6 is not more than 0.1 above 0.5
        (3, 0.0, (0.1, 0.2, 0.3), None),
        (1, 0.0, (0.0, 0.0), 2),
    ],
)
def test_when_it_ends(patience: int, min_delta: float, values: tuple[float, ...], ends: int | None) -> None:
    stopping = EarlyStopping(patience, min_delta)
    over = [stopping.ended(records(*values[: n + 1]), Classification()) for n in range(len(values))]
    assert (over.index(True) + 1 if True in over else None) == ends


def trained(blobs: InMemory, **options: Any) -> Run:
    torch.manual_seed(3)
    given: dict[str, Any] = {"epochs": 12, "val": make_loader(blobs, 32), "callbacks": [EarlyStopping(3)]} | options
    loader = make_loader(blobs, 32, shuffle=True)
    make = partial(SGD, lr=0.5)
    return fit(Distiller(nn.Linear(4, 3)), loader, optimizer=make, progress=False, hardware=Hardware("cpu"), **given)


def test_a_training_ends_and_says_so(blobs: InMemory, tmp_path: Path) -> None:
    whole = trained(blobs, callbacks=[])
    accuracies = [record["val_accuracy"] for record in whole.metrics]
    best = max(accuracies)
    # By hand: it saturates, and ends 3 epochs after the first epoch with its highest accuracy so far.
    since, highest, ends = 0, -1.0, len(accuracies)
    for number, value in enumerate(accuracies, start=1):
        since, highest = (0, value) if value > highest else (since + 1, highest)
        if since == 3:
            ends = number
            break
    assert ends < 12
    assert best > 0.9
    run = trained(blobs, out=tmp_path)
    assert [record["val_accuracy"] for record in run.metrics] == accuracies[:ends]
    said = json.loads((tmp_path / "student.json").read_text())["training"]
    assert (said["epochs"], said["stopped_early"]) == (ends, True)


def test_a_resumed_training_ends_in_the_same_epoch(
    blobs: InMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, epoch = trained(blobs), Loop.epoch

    def dies(self: Loop, state: Any) -> Any:
        if state.epoch == len(whole.metrics) - 2:
            raise KeyboardInterrupt
        return epoch(self, state)

    monkeypatch.setattr(Loop, "epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        trained(blobs, out=tmp_path)
    monkeypatch.undo()
    resumed = trained(blobs, out=tmp_path, resume=True)
    assert len(resumed.metrics) == len(whole.metrics)
    assert torch.equal(resumed.student.weight, whole.student.weight)  # type: ignore[arg-type]
    again = trained(blobs, out=tmp_path, resume=True)  # which has ended: nothing is trained
    assert len(again.metrics) == len(whole.metrics)


def test_every_so_many_epochs_a_student_is_written(blobs: InMemory, tmp_path: Path) -> None:
    about = {"model": "mlp", "options": {"hidden": []}, "classes": 3, "input": {"shape": [4]}}
    run = trained(blobs, epochs=5, callbacks=[], saving=Saving(save_every=2, about=about), out=tmp_path)
    written = sorted(path.name for path in tmp_path.glob("student-epoch*"))
    assert written == [f"student-epoch{n}.{kind}" for n in (2, 4) for kind in ("json", "safetensors")]
    shorter = trained(blobs, epochs=2, callbacks=[])
    from safetensors.torch import load_file

    assert torch.equal(load_file(tmp_path / "student-epoch2.safetensors")["weight"], shorter.student.weight)  # type: ignore[arg-type]
    assert not torch.equal(run.student.weight, shorter.student.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val": None}, "EarlyStopping looks at the validation: give validation data"),
        ({"saving": Saving(save_every=0)}, "save_every is a whole number from 1 on, not 0"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], message: str, blobs: InMemory) -> None:
    with pytest.raises(RequestError, match=message):
        trained(blobs, **options)


@pytest.mark.parametrize("given", [(0, 0.0), (1, -0.1), (True, 0.0), (1, float("nan"))])
def test_wrong_patience_is_refused(given: tuple[int, float]) -> None:
    with pytest.raises(RequestError, match="patience of 1 or more"):
        EarlyStopping(*given)
