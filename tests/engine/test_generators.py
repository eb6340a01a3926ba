"""Generators that a user's loader holds are brought back when a run is resumed, or it is said that they are not."""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_resume import Interrupted, Killed, go
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, TensorDataset, WeightedRandomSampler

from limbeck import Distiller, Hardware, Saving, fit
from limbeck.data import InMemory
from limbeck.engine.batches.generators import restore, state_of


@pytest.mark.parametrize(
    ("generator", "draw"),
    [(torch.Generator().manual_seed(3), lambda one: torch.rand(1, generator=one).item()),
     (random.Random(3), lambda one: one.gauss(0, 1)),
     (np.random.RandomState(3), lambda one: one.randn()),
     *[(np.random.Generator(kind(3)), lambda one: (one.random(dtype=np.float32), one.normal()))
       for kind in (np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64)]],
)  # fmt: skip
def test_a_state_is_written_and_read_without_running_anything(generator: Any, draw: Callable[[Any], Any]) -> None:
    draw(generator)
    file = io.BytesIO()
    torch.save(state_of(generator), file)
    following = [draw(generator) for _ in range(3)]
    file.seek(0)
    restore(generator, torch.load(file, weights_only=True))
    assert [draw(generator) for _ in range(3)] == following


def data_loader(data: InMemory, **options: Any) -> DataLoader[Any]:
    batches = {} if "batch_sampler" in options else {"batch_size": 16}
    return DataLoader(TensorDataset(data.inputs, data.targets), **batches, **options)


def seeded_generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def by_loader(data: InMemory) -> Any:
    return data_loader(data, shuffle=True, generator=seeded_generator())


def by_sampler(data: InMemory) -> Any:
    return data_loader(data, sampler=RandomSampler(data.inputs, generator=seeded_generator()))


def drawn_as_it_goes(data: InMemory) -> Any:
    """Torch draws 32 at a time."""
    sampler = RandomSampler(data.inputs, replacement=True, num_samples=96, generator=seeded_generator())
    return data_loader(data, sampler=sampler)


def weighted(data: InMemory) -> Any:
    return data_loader(data, sampler=WeightedRandomSampler([1.0] * 48 + [3.0] * 48, 96, generator=seeded_generator()))


def with_workers(data: InMemory) -> Any:
    return data_loader(data, shuffle=True, generator=seeded_generator(), num_workers=1)


class Batches(Sampler[list[int]]):
    """A batch sampler of a user's own; `shuffle` changes a list in place."""

    def __init__(self, shuffle: Callable[[list[int]], None]) -> None:
        self.shuffle = shuffle

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(96))
        self.shuffle(order)
        return iter([order[start : start + 16] for start in range(0, 96, 16)])

    def __len__(self) -> int:
        return 6


class Own:
    """Draws by a generator of its own, one level further down."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def __call__(self, order: list[int]) -> None:
        self.generator.shuffle(order)


def by_numpy(data: InMemory) -> Any:
    return data_loader(data, batch_sampler=Batches(Own(np.random.default_rng(3))))


def by_python(data: InMemory) -> Any:
    return data_loader(data, batch_sampler=Batches(Own(random.Random(3))))


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Augments by a generator of its own, in the main process."""

    def __init__(self, data: InMemory) -> None:
        self.data, self.noise = data, np.random.RandomState(3)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.data.inputs[index] + 0.1 * self.noise.rand(), self.data.targets[index]

    def __len__(self) -> int:
        return 96


def augmented(data: InMemory) -> Any:
    return DataLoader(Noisy(data), batch_size=16)


@pytest.mark.parametrize(
    "make", [by_loader, by_sampler, drawn_as_it_goes, weighted, with_workers, by_numpy, by_python, augmented]
)
@pytest.mark.parametrize(("epoch", "step", "every"), [(2, 0, None), (2, 4, 2)])
def test_a_generator_of_the_users_own_is_brought_back(
    make: Any,
    epoch: int,
    step: int,
    every: int | None,
    blobs: InMemory,
    student: nn.Module,
    teacher: nn.Module,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = go(copy.deepcopy(student), teacher, make(blobs), tmp_path / "whole")
    died = Interrupted(make(blobs), epoch, step)
    with pytest.raises(Killed):
        go(copy.deepcopy(student), teacher, died, tmp_path / "broken", saving=Saving(checkpoint_steps=every))
    resumed = go(copy.deepcopy(student), teacher, make(blobs), tmp_path / "broken", resume=True)
    assert resumed == whole
    assert capsys.readouterr().err == ""


def test_a_generator_shared_with_validation_is_brought_back(
    blobs: InMemory, student: nn.Module, teacher: nn.Module, tmp_path: Path
) -> None:
    def run(out: Path, epochs: int) -> list[float]:
        generator = seeded_generator()
        few = RandomSampler(blobs.inputs, num_samples=20, generator=generator)
        val = data_loader(blobs, sampler=few)
        train = data_loader(blobs, shuffle=True, generator=generator)
        scheme = Distiller(copy.deepcopy(student))
        options = {
            "val": val,
            "optimizer": partial(torch.optim.SGD, lr=0.1),
            "progress": False,
            "hardware": Hardware("cpu"),
        }
        done = fit(scheme, train, epochs=epochs, out=out, resume=True, **options)
        return [record["val_loss"] for record in done.metrics]

    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    assert run(tmp_path / "parts", 4) == whole
    assert len(set(whole)) == 4


def test_the_first_epoch_is_that_of_a_plain_loop(blobs: InMemory) -> None:
    """The look at the first batch, before training, draws nothing."""
    seen: list[Tensor] = []

    class Noting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                seen.append(x)
            return super().forward(x)

    optimizer = partial(torch.optim.SGD, lr=0.1)
    fit(
        Distiller(Noting(4, 3)),
        by_loader(blobs),
        epochs=1,
        optimizer=optimizer,
        progress=False,
        hardware=Hardware("cpu"),
    )
    expected = list(by_loader(blobs))
    for batch, (inputs, _) in zip(seen[-len(expected) :], expected, strict=True):  # after the steps that are tried
        assert torch.equal(batch, inputs)


class Counting(Batches):
    """Its order is a function of how often it was gone through, which nothing outside can set."""

    def __init__(self) -> None:
        super().__init__(lambda order: random.Random(self.calls).shuffle(order))
        self.calls = 0

    def __iter__(self) -> Iterator[list[int]]:
        self.calls += 1
        return super().__iter__()


def test_an_order_that_cannot_be_brought_back_is_named(
    blobs: InMemory, student: nn.Module, teacher: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Killed):
        go(student, teacher, Interrupted(data_loader(blobs, batch_sampler=Counting()), 2, 0), tmp_path)
    assert capsys.readouterr().err == ""
    go(student, teacher, data_loader(blobs, batch_sampler=Counting()), tmp_path, resume=True)
    said = capsys.readouterr().err
    assert "Counting.calls cannot be restored; give the sampler set_epoch(epoch) or a generator" in said
    assert said.count("\n") == 1
