from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, TensorDataset, WeightedRandomSampler

from limbeck import Distiller, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.engine import optim
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
        schedule=optim.cosine(4),
        out=out,
        seed=5,
        progress=False,
        accelerator="cpu",
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
        go(copy.deepcopy(student), teacher, Interrupted(make(blobs), epoch, step), broken, checkpoint_steps=every)
    torch.manual_seed(99)
    assert go(copy.deepcopy(student), teacher, make(blobs), broken, checkpoint_steps=every, resume=True) == whole
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

    monkeypatch.setattr("limbeck.engine.files.os.fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        go(student, teacher, limbeck_loader(blobs), tmp_path, resume=True)
    assert last.read_bytes() == before
    assert [p.name for p in last.parent.iterdir()] == ["last.pt"]


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
        go(copy.deepcopy(student), teacher, died, tmp_path / "broken", checkpoint_steps=every)
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
        options = {"val": val, "optimizer": partial(torch.optim.SGD, lr=0.1), "progress": False, "accelerator": "cpu"}
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
    fit(Distiller(Noting(4, 3)), by_loader(blobs), epochs=1, optimizer=optimizer, progress=False, accelerator="cpu")
    for batch, (inputs, _) in zip(seen, by_loader(blobs), strict=True):
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


def test_a_checkpoint_from_before_generators_were_kept_goes_on(
    blobs: InMemory, student: nn.Module, teacher: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Killed):
        go(student, teacher, Interrupted(by_loader(blobs), 2, 0), tmp_path)
    path = tmp_path / "checkpoints" / "last.pt"
    content = torch.load(path, weights_only=True)
    del content["state"]["drawing"]
    torch.save(content, path)
    go(student, teacher, by_loader(blobs), tmp_path, resume=True)
    assert "of an earlier version, holds no states of the loader's generators" in capsys.readouterr().err
