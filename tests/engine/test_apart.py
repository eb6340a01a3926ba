"""What two processes validate, read and train by halves, beside plain loops and beside one process."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apart
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import forked
from limbeck.engine import make_fabric
from limbeck.engine.devices import sharding
from limbeck.seeds import derive, seeded
from limbeck.types import Batch

pytestmark = [pytest.mark.slow, forked.needed]
shards = pytest.mark.skipif(not sharding.ON_CPU, reason="this torch shards on GPUs only")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all that two processes have written."""
    folder = tmp_path_factory.mktemp("two")
    forked.by_two(apart.main, folder)
    return folder


def written(two: Path, name: str) -> list[Any]:
    return [torch.load(two / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)]


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [
        pytest.param(strategy, kind, marks=shards if strategy == "fsdp" else ())
        for strategy, kinds in apart.KINDS.items()
        for kind in kinds
    ],
)
def test_one_student_is_kept_for_all_by_every_held_out_sample_once(strategy: str, kind: str, two: Path) -> None:
    first, second = written(two, f"{strategy} {kind}")
    assert first["figures"] == second["figures"]
    for name, value in first["student"].items():
        assert torch.equal(value, second["student"][name]), name
    student, data = apart.normed(), apart.made(apart.HELD_OUT)
    student.load_state_dict(first["student"])
    logits = student.eval()(data.inputs)
    best, loss = max(first["figures"], key=lambda figures: figures[0])
    assert (logits.argmax(1) == data.targets).sum().item() / apart.HELD_OUT == best
    assert F.cross_entropy(logits, data.targets).item() == pytest.approx(loss, rel=1e-5)
    assert best > first["figures"][-1][0]  # it was not the last


@pytest.mark.parametrize("kind", apart.SHARED)
def test_each_process_tests_its_share_alone(kind: str, two: Path) -> None:
    both = written(two, f"{kind} shared")
    counted = [number for share in both for batch, count in share for number in batch[:count]]
    assert sorted(counted) == sorted(apart.made(apart.HELD_OUT).inputs[:, 0].tolist())
    assert len(both[0]) == len(both[1])
    run = [sum(len(batch) for batch, _ in share) for share in both]
    assert max(run) <= {"one batch": apart.HELD_OUT}.get(kind, 2 * 16)


@pytest.mark.parametrize("kind", ["loader", "DataLoader"])
def test_one_sample_for_two_processes_counts_once(kind: str, two: Path) -> None:
    assert [[(len(batch), count) for batch, count in share] for share in written(two, f"{kind} of one")] == [
        [(1, 1)],
        [(1, 0)],
    ]


@pytest.mark.parametrize("kind", apart.ORDERS)
def test_a_joined_batch_of_two_is_the_one_of_a_single_process(kind: str, two: Path) -> None:
    first, second = written(two, f"order {kind}")
    alone = apart.ordered(make_fabric(accelerator="cpu"), kind)
    joined = [sorted(a + b) for a, b in zip(first, second, strict=True)]
    assert joined == [sorted(batch) for batch in alone]
    assert joined[: len(joined) // 2] != joined[len(joined) // 2 :]


@pytest.mark.parametrize("kind", apart.ORDERS)
def test_a_resumed_run_reads_on_in_the_order_of_its_epoch(kind: str, two: Path) -> None:
    for whole, resumed in zip(written(two, f"order {kind}"), written(two, f"resumed {kind}"), strict=True):
        assert resumed == whole[len(whole) // 2 :]


def test_every_sample_is_read_once_an_epoch_in_an_order_of_the_seed(two: Path) -> None:
    orders = written(two, "order shuffled"), written(two, "order of seed 1")
    for first, second in orders:
        epoch = [*first[:5], *second[:5]]
        assert sorted(number for batch in epoch for number in batch) == list(range(apart.SAMPLES))
    assert orders[0] != orders[1]


def test_batches_of_a_batch_sampler_stay_whole(two: Path) -> None:
    first, second = written(two, "order by twos")
    assert len(first) == len(second) == 2 * 17  # the 35th batch of an epoch is left out
    assert all(b == a + 1 and a % 2 == 0 for a, b in first + second)
    assert len({a for a, _ in first[:17] + second[:17]}) == 34


def halves(module: nn.Module, loss: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    """A plain loop: each half of a batch by a copy of its own, the gradients averaged, buffers those of the first."""
    copies, data = [module, copy.deepcopy(module)], apart.made(apart.SAMPLES)
    for _ in range(apart.EPOCHS):
        for x, y in zip(data.inputs.split(apart.BATCH), data.targets.split(apart.BATCH), strict=True):
            parts = zip(copies, (0, 1), strict=True)
            grads = [
                torch.autograd.grad(loss(one, x[rank::2], y[rank::2]), list(one.parameters())) for one, rank in parts
            ]
            with torch.no_grad():
                for one in copies:
                    for parameter, a, b in zip(one.parameters(), *grads, strict=True):
                        parameter -= apart.RATE * (a + b) / 2
        for own, first in zip(copies[1].buffers(), module.buffers(), strict=True):
            own.copy_(first)
    return module.state_dict()


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return -model(x).log_softmax(1)[torch.arange(len(y)), y].mean()


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    p = teacher.detach().softmax(1)
    return (p * (p.log() - student.log_softmax(1))).sum(1).mean()


def test_batch_norm_sees_halves_and_its_statistics_are_the_first_processes(two: Path) -> None:
    expected = halves(apart.start(apart.normed), cross_entropy)
    assert expected["1.running_mean"].abs().max() > 0.01
    for found in written(two, "batch norm"):
        same(found, {f"student.{name}": value for name, value in expected.items()})


def whole(module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """A plain loop on joined batches."""
    data = apart.made(apart.SAMPLES)
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=apart.RATE)
    for _ in range(apart.EPOCHS):
        for x, y in zip(data.inputs.split(apart.BATCH), data.targets.split(apart.BATCH), strict=True):
            optimizer.zero_grad()
            loss(x, y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def test_peers_teach_each_other_as_on_the_joined_batch(two: Path) -> None:
    scheme = apart.start(lambda: apart.scheme("mutual"))
    one, other = scheme.peers

    def loss(x: Tensor, y: Tensor) -> Tensor:
        task = cross_entropy(one, x, y) + cross_entropy(other, x, y)
        return task + divergence(other(x), one(x)) + divergence(one(x), other(x))

    whole(scheme, loss)
    for found in written(two, "mutual"):
        same(found, scheme.state_dict())


def test_exits_learn_from_the_deepest_in_halves(two: Path) -> None:
    scheme, data = apart.start(lambda: apart.scheme("self")), apart.made(apart.SAMPLES)
    with seeded(derive(0, "adapters")):
        scheme.prepare(Batch(data.inputs, data.targets, torch.arange(apart.SAMPLES)), None)

    def loss(scheme: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        (deepest, middle, shallow), (feature, _, hinted) = scheme.student(x)
        soft = (deepest.detach() / 3).softmax(1)
        total = F.cross_entropy(deepest, y)
        for logits in (middle, shallow):
            said = -(soft * (logits / 3).log_softmax(1)).sum(1).mean()
            total = total + 0.7 * F.cross_entropy(logits, y) + 0.3 * said
        hint = (scheme.adapters["exit1"](hinted) - feature.detach()).square().sum().sqrt()
        return total + 0.03 * hint

    expected = halves(scheme, loss)
    for found in written(two, "self"):
        same(found, {name: value for name, value in expected.items() if isinstance(value, Tensor)})


def test_the_average_is_the_same_in_all_processes(two: Path) -> None:
    student = apart.start(lambda: apart.scheme("mean teacher")).student
    average, steps = copy.deepcopy(student), 0

    def loss(x: Tensor, y: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        d = min(0.7, 1 - 1 / steps)
        with torch.no_grad():
            for mean, present in zip(average.parameters(), student.parameters(), strict=True):
                mean.copy_(d * mean + (1 - d) * present)
        return cross_entropy(student, x, y) + 2 * divergence(average(x), student(x))

    whole(student, loss)
    expected = {
        f"{name}.{key}": value
        for name, one in (("student", student), ("ema", average))
        for key, value in one.state_dict().items()
    }
    assert not torch.allclose(expected["ema.0.weight"], expected["student.0.weight"], atol=1e-3)
    for found in written(two, "mean teacher"):
        same(found, expected)
