from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from limbeck.data import DataSet, FromDisk, InMemory, make_loader
from limbeck.data.order import Order
from limbeck.errors import RequestError


def pixels(n: int = 23) -> InMemory:
    return InMemory(torch.arange(n * 4, dtype=torch.uint8).view(n, 1, 2, 2), torch.arange(n) % 3)


def epoch(loader: Any, number: int = 0) -> list[int]:
    loader.set_epoch(number)
    return [i for batch in loader for i in batch.index.tolist()]


class Noisy(Dataset[tuple[torch.Tensor, int]]):
    """A random transform that draws from all three global generators."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.tensor([float(i), torch.rand(()).item(), np.random.rand(), random.random()]), i % 3


def test_every_sample_comes_once_with_its_index_and_pixels_in_0_1() -> None:
    split = pixels()
    batches = list(make_loader(split, 5, shuffle=True))
    assert [b.size for b in batches] == [5, 5, 5, 5, 3]
    assert sorted(i for b in batches for i in b.index.tolist()) == list(range(23))
    for batch in batches:
        torch.testing.assert_close(batch.inputs, split.inputs[batch.index].float() / 255)
        assert torch.equal(batch.targets, split.targets[batch.index])


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first, second = (make_loader(pixels(), 5, shuffle=True, seed=7) for _ in range(2))
    assert epoch(first, 3) == epoch(second, 3)
    assert epoch(first, 3) != epoch(first, 4)
    assert epoch(first, 3) != epoch(make_loader(pixels(), 5, shuffle=True, seed=8), 3)


def test_an_epoch_can_begin_at_any_batch() -> None:
    loader = make_loader(pixels(), 5, shuffle=True)
    whole = [b.index.tolist() for b in loader]
    assert [b.index.tolist() for b in loader.starting_at(3)] == whole[3:]


def test_drop_last_drops_the_last_partial_batch() -> None:
    assert [b.size for b in make_loader(pixels(), 5, drop_last=True)] == [5, 5, 5, 5]


def test_processes_share_each_joined_batch() -> None:
    joined = [set(b.index.tolist()) for b in make_loader(pixels(), 6, shuffle=True)]
    parts = [
        [set(b.index.tolist()) for b in make_loader(pixels(), 6, shuffle=True, rank=rank, world_size=2)]
        for rank in range(2)
    ]
    for whole, a, b in zip(joined, *parts, strict=True):
        assert not a & b
        assert len(a) == len(b)
        assert a | b <= whole
    assert [a | b for a, b in zip(*parts, strict=True)][:-1] == joined[:-1]


@pytest.mark.parametrize("lengths", [None, torch.arange(36) % 7])
def test_samples_that_stay_together_share_a_batch_and_a_process(lengths: torch.Tensor | None) -> None:
    whole = Order(36, 12, True, False, 0, 0, 1, lengths=lengths, together=3)
    index = whole.index().view(-1, 3)
    assert sorted(index[:, 0].tolist()) == list(range(0, 36, 3)) != index[:, 0].tolist()
    assert torch.equal(index, index[:, :1] + torch.arange(3))
    parts = [Order(36, 12, True, False, 0, rank, 2, lengths=lengths, together=3).index() for rank in (0, 1)]
    for number, batch in enumerate(index.view(3, 12)):
        own = [part.view(3, 2, 3)[number] for part in parts]
        assert all(torch.equal(one, one[:, :1] + torch.arange(3)) for one in own)
        assert sorted(torch.cat(own).flatten().tolist()) == sorted(batch.tolist())
    for batch_size, processes, multiple in ((12, 6, 18), (8, 1, 3)):
        with pytest.raises(RequestError, match=f"batch_size {batch_size} is to be a multiple of {multiple}: 3 samples"):
            Order(36, batch_size, True, False, 0, 0, processes, together=3)
    with pytest.raises(RequestError, match="3 stay together here"):
        Order(36, 12, True, False, 0, 0, 1, torch.ones(36), together=3)


def test_random_pixels_do_not_depend_on_the_number_of_workers() -> None:
    split = FromDisk(Noisy(), torch.arange(12) % 3, "noisy", random=True)

    def views(workers: int, number: int) -> torch.Tensor:
        loader = make_loader(split, 4, shuffle=True, workers=workers)
        loader.set_epoch(number)
        batches = list(loader)
        assert {b.view for b in batches} == {number}
        inputs, index = torch.cat([b.inputs for b in batches]), torch.cat([b.index for b in batches])
        return inputs[index.argsort()]

    torch.manual_seed(1)
    alone = views(0, 1)
    torch.testing.assert_close(alone, views(2, 1))
    assert (alone[:, 1:] != views(0, 2)[:, 1:]).all()


def test_reading_does_not_move_the_generator_that_dropout_uses() -> None:
    split = FromDisk(Noisy(), torch.arange(12) % 3, "noisy", random=True)
    state = torch.get_rng_state()
    list(make_loader(split, 4, shuffle=True))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"batch_size": 5, "world_size": 2}, "does not divide by 2 processes"),
        ({"batch_size": 99, "drop_last": True}, "23 samples do not fill one batch of 99"),
    ],
)
def test_batches_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make_loader(pixels(), **options)


def test_validation_is_stratified_seeded_and_apart() -> None:
    split = InMemory(torch.arange(300.0).view(300, 1), torch.arange(300) % 3)
    data = DataSet("made", split, split, 3, (1,))
    first, second = data.with_validation(0.2), data.with_validation(0.2)
    assert first.validation is not None
    assert second.validation is not None
    assert torch.equal(first.validation.inputs, second.validation.inputs)
    assert first.validation.targets.bincount().tolist() == [20, 20, 20]
    assert len(first.train) == 240
    assert not set(first.train.inputs.flatten().tolist()) & set(first.validation.inputs.flatten().tolist())
    with pytest.raises(RequestError, match="for validation"):
        data.with_validation(0.001)


def test_the_index_stays_on_the_cpu_where_a_kept_teacher_output_is_looked_up() -> None:
    batch = next(iter(make_loader(pixels(), 6, device="meta")))
    assert (batch.inputs.device.type, batch.index.device.type) == ("meta", "cpu")
    assert batch.to(torch.device("meta")).index.device.type == "cpu"


@pytest.mark.parametrize(
    ("samples", "processes", "batch"), [(45, 2, 16), (45, 4, 16), (1, 3, 1), (5, 4, 1), (64, 4, 16)]
)
@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"drop_last": True}])
def test_shares_count_every_sample_once(samples: int, processes: int, batch: int, options: dict[str, Any]) -> None:
    loader = make_loader(
        InMemory(torch.arange(samples).float()[:, None], torch.zeros(samples).long()), batch, **options
    )
    expected = sorted(number for one in loader for number in one.index.tolist())
    found, lengths = [], set()
    for rank in range(processes):
        share, counted = loader.share(rank, processes)
        index = [number for one in share for number in one.index.tolist()]
        assert index[counted:] == [] or len(index) - counted == 1
        found += index[:counted]
        lengths.add((len(share), sum(1 for _ in share)))
    assert sorted(found) == expected
    assert len(lengths) == 1
    assert len(set(lengths.pop())) == 1


def test_weights_draw_samples_as_often_as_they_say() -> None:
    split = InMemory(torch.arange(1000.0).unsqueeze(1), torch.arange(1000) % 10)
    weights = torch.where(split.targets == 3, 9.0, 1.0)
    loader = make_loader(split, 100, shuffle=True, seed=4, weights=weights)
    first = torch.cat([batch.index for batch in loader])
    again = torch.cat([batch.index for batch in make_loader(split, 100, shuffle=True, seed=4, weights=weights)])
    assert torch.equal(first, again)
    share = float((split.targets[first] == 3).double().mean())
    assert abs(share - 0.5) < 3 * (0.25 / 1000) ** 0.5  # 9 · 100 of 1,800 in all
    loader.set_epoch(1)
    assert not torch.equal(first, torch.cat([batch.index for batch in loader]))
    with pytest.raises(RequestError, match="a weight of 0 or more for each of 1000 samples"):
        make_loader(split, 100, weights=-weights)
