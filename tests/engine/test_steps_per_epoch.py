"""Epochs of a number of steps: one goes on in the data where the one before stopped."""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dying import Dies, Killed
from limbeck import Distiller, Hardware, Saving, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.engine.batches.source import Source


def loader(samples: int = 11, size: int = 3) -> Any:
    generator = torch.Generator().manual_seed(0)
    data = InMemory(torch.randn(samples, 4, generator=generator), torch.arange(samples) % 3)
    return make_loader(data, size, shuffle=True, seed=2)


def epochs(source: Source, count: int) -> list[list[list[int]]]:
    found = []
    for epoch in range(count):
        source.set_epoch(epoch)
        found.append([batch.index.tolist() for batch in source.starting_at()])
    return found


@pytest.mark.parametrize("steps", [1, 3, 4, 7, 9])
def test_epochs_of_so_many_steps_are_pieces_of_whole_passes(steps: int) -> None:
    whole = [one for epoch in epochs(Source(loader(), torch.device("cpu")), 9) for one in epoch]
    source = Source(loader(), torch.device("cpu"), steps=steps)
    assert len(source) == steps
    pieces = epochs(source, 4)
    assert [len(one) for one in pieces] == [steps] * 4
    assert [one for piece in pieces for one in piece] == whole[: 4 * steps]
    source.set_epoch(2)
    assert [batch.index.tolist() for batch in source.starting_at(steps - 1)] == pieces[2][steps - 1 :]


def test_a_batch_of_one_sample_is_left_out_of_each_pass() -> None:
    source = Source(loader(10), torch.device("cpu"), steps=5)
    source.least = 2
    found = epochs(source, 2)
    assert [len(one) for one in found] == [5, 5]
    assert all(len(batch) == 3 for one in found for batch in one)
    first, second = (sorted(chain.from_iterable(some)) for some in (found[0][:3], found[0][3:] + found[1][:1]))
    assert len(set(first)) == len(set(second)) == 9


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.2), nn.Linear(5, 3))


def test_a_killed_training_resumes_in_the_middle_of_an_epoch_of_steps(tmp_path: Path) -> None:
    def go(teacher: Dies, out: Path, resume: bool = False) -> dict[str, torch.Tensor]:
        options: dict[str, Any] = {"epochs": 3, "steps_per_epoch": 5, "saving": Saving(checkpoint_steps=2), "seed": 1}
        options |= {"progress": False, "hardware": Hardware("cpu"), "measure_balance": False}
        sgd = partial(torch.optim.SGD, lr=0.1)
        run = fit(Distiller(net(), [Term(losses.kd)]), loader(), optimizer=sgd, teacher=teacher, out=out,
                  resume=resume, **options)  # fmt: skip
        assert len(run.metrics) == 3
        return run.student.state_dict()

    dies = Dies(net(7), float("inf"))
    whole = go(dies, tmp_path / "one")
    with pytest.raises(Killed):
        go(Dies(net(7), dies.asked - 3), tmp_path / "two")
    again = go(Dies(net(7), float("inf")), tmp_path / "two", resume=True)
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
