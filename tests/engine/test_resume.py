from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Distiller, Hardware, Saving, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.engine.optimizers import named
from limbeck.errors import RequestError, RunError
from limbeck.types import Batch


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


class Interrupted:
    """A loader that dies at one batch of one epoch."""

    def __init__(self, loader: Any, epoch: int, step: int) -> None:
        self.loader, self.at = loader, (epoch, step)
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.loader, "set_epoch"):
            self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch]:
        for step, batch in enumerate(self.loader):
            if (self.epoch, step) == self.at:
                raise Killed
            yield batch


def limbeck_loader(data: InMemory) -> Any:
    return make_loader(data, 16, shuffle=True, seed=5)


def torch_loader(data: InMemory) -> Any:
    return DataLoader(TensorDataset(data.inputs, data.targets), 16, shuffle=True)


def go(student: nn.Module, teacher: nn.Module, loader: Any, out: Path, **options: Any) -> bytes:
    terms = [Term(losses.kd, weight=0.5), Term(losses.mse, student="2", teacher="2", adapter="auto")]
    fit(
        Distiller(student, terms),
        loader,
        teacher=teacher,
        epochs=4,
        optimizer=partial(torch.optim.Adam, lr=0.01),
        schedule=named.cosine(4),
        out=out,
        seed=5,
        progress=False,
        hardware=Hardware("cpu"),
        **options,
    )
    return (out / "student.safetensors").read_bytes()


@pytest.mark.parametrize("make", [limbeck_loader, torch_loader])
@pytest.mark.parametrize(("epoch", "step", "every"), [(0, 2, None), (2, 3, None), (2, 5, 2), (0, 3, 1)])
def test_a_killed_run_goes_on_to_the_same_student(
    make: Any,
    epoch: int,
    step: int,
    every: int | None,
    blobs: InMemory,
    student: nn.Module,
    teacher: nn.Module,
    tmp_path: Path,
) -> None:
    whole = go(copy.deepcopy(student), teacher, make(blobs), tmp_path / "whole")
    broken = tmp_path / "broken"
    with pytest.raises(Killed):
        go(
            copy.deepcopy(student),
            teacher,
            Interrupted(make(blobs), epoch, step),
            broken,
            saving=Saving(checkpoint_steps=every),
        )
    torch.manual_seed(99)
    assert (
        go(copy.deepcopy(student), teacher, make(blobs), broken, saving=Saving(checkpoint_steps=every), resume=True)
        == whole
    )
    numbers = [
        [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in path.read_text().splitlines()]
        for path in (tmp_path / "whole" / "metrics.jsonl", broken / "metrics.jsonl")
    ]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) == 4


def test_resuming_a_finished_run_changes_nothing(
    blobs: InMemory, student: nn.Module, teacher: nn.Module, tmp_path: Path
) -> None:
    first = go(student, teacher, limbeck_loader(blobs), tmp_path)
    assert go(copy.deepcopy(student), teacher, limbeck_loader(blobs), tmp_path, resume=True) == first


def test_a_damaged_checkpoint_is_named(blobs: InMemory, student: nn.Module, teacher: nn.Module, tmp_path: Path) -> None:
    go(student, teacher, limbeck_loader(blobs), tmp_path)
    last = tmp_path / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(RequestError, match=r"last\.pt is damaged .*delete it to begin again"):
        go(student, teacher, limbeck_loader(blobs), tmp_path, resume=True)


def test_a_checkpoint_of_other_settings_is_refused(
    blobs: InMemory, student: nn.Module, teacher: nn.Module, tmp_path: Path
) -> None:
    go(student, teacher, limbeck_loader(blobs), tmp_path)
    with pytest.raises(RequestError, match="made with steps 6, and this run has 12"):
        go(student, teacher, make_loader(blobs, 8), tmp_path, resume=True)


def test_a_full_disk_leaves_the_last_checkpoint(
    blobs: InMemory, student: nn.Module, teacher: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        go(student, teacher, Interrupted(limbeck_loader(blobs), 2, 0), tmp_path)
    last = tmp_path / "checkpoints" / "last.pt"
    before = last.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("limbeck.atomic.os.fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        go(student, teacher, limbeck_loader(blobs), tmp_path, resume=True)
    assert last.read_bytes() == before
    assert [p.name for p in last.parent.iterdir()] == ["last.pt"]
