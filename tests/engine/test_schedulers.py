"""Schedulers of torch in `fit`: the rates and weights of a plain torch loop, also after an interruption."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import SGD, Optimizer, lr_scheduler
from torch.optim.swa_utils import SWALR

from limbeck import Distiller, Hardware, Run, Saving, fit
from limbeck.data import InMemory, make_loader
from limbeck.engine.optimizers.schedulers import EveryStep
from limbeck.errors import RequestError

EPOCHS, STEPS = 5, 6  # of 96 samples by 16
Make = Callable[[Optimizer], Any]


def warmed(optimizer: Optimizer) -> lr_scheduler.SequentialLR:
    first = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=2)
    return lr_scheduler.SequentialLR(optimizer, [first, lr_scheduler.ExponentialLR(optimizer, 0.5)], milestones=[2])


def chained(optimizer: Optimizer) -> lr_scheduler.ChainedScheduler:
    parts = [lr_scheduler.ConstantLR(optimizer, 0.1, total_iters=2), lr_scheduler.ExponentialLR(optimizer, 0.9)]
    return lr_scheduler.ChainedScheduler(parts, optimizer)


PER_EPOCH: dict[str, Make] = {
    "cosine": partial(lr_scheduler.CosineAnnealingLR, T_max=EPOCHS),
    "step": partial(lr_scheduler.StepLR, step_size=2, gamma=0.3),
    "milestones": partial(lr_scheduler.MultiStepLR, milestones=[1, 3]),
    "restarts": partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=2),
    "lambda": partial(lr_scheduler.LambdaLR, lr_lambda=lambda epoch: min(1.0, (epoch + 1) / 4)),
    "multiplied": partial(lr_scheduler.MultiplicativeLR, lr_lambda=lambda epoch: 0.8),
    "polynomial": partial(lr_scheduler.PolynomialLR, total_iters=EPOCHS),
    "warmed": warmed,
    "chained": chained,
    "swa": partial(SWALR, swa_lr=0.01, anneal_epochs=2),
    "one cycle of epochs": partial(lr_scheduler.OneCycleLR, max_lr=0.5, total_steps=EPOCHS),
}
PER_STEP: dict[str, Make] = {
    "one cycle": partial(lr_scheduler.OneCycleLR, max_lr=0.5, total_steps=EPOCHS * STEPS),
    "one cycle by epochs": partial(lr_scheduler.OneCycleLR, max_lr=0.5, epochs=EPOCHS, steps_per_epoch=STEPS),
    "cyclic": partial(lr_scheduler.CyclicLR, base_lr=0.01, max_lr=0.2, step_size_up=4),
    "cosine of all steps": partial(lr_scheduler.CosineAnnealingLR, T_max=EPOCHS * STEPS),
}
ALL = [(make, False) for make in PER_EPOCH.values()] + [(make, True) for make in PER_STEP.values()]
NAMES = [*PER_EPOCH, *PER_STEP]


def sgd(network: nn.Module) -> SGD:
    return SGD(network.parameters(), lr=0.2, momentum=0.9)


def batches(data: InMemory) -> Any:
    return make_loader(data, 16, shuffle=True, seed=3)


def train(network: nn.Module, data: InMemory, optimizer: Any, schedule: Any, **options: Any) -> Run:
    options = {"epochs": EPOCHS, "progress": False, "hardware": Hardware("cpu"), "seed": 3} | options
    loader = options.pop("loader", None) or batches(data)
    return fit(Distiller(network), loader, optimizer=optimizer, schedule=schedule, **options)


def plain(network: nn.Module, data: InMemory, make: Make, per_step: bool) -> list[float]:
    """Torch's own loop; the rate of each epoch's last step."""
    optimizer = sgd(network)
    stepped, loader, rates = make(optimizer), batches(data), []
    for epoch in range(EPOCHS):
        loader.set_epoch(epoch)
        for batch in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(batch.inputs), batch.targets).backward()
            optimizer.step()
            rate = optimizer.param_groups[0]["lr"]
            if per_step:
                stepped.step()
        rates.append(rate)
        if not per_step:
            stepped.step()
    return rates


def weights(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.filterwarnings("ignore:The epoch parameter in")  # of torch's SequentialLR, in the plain loop
@pytest.mark.parametrize(("make", "per_step"), ALL, ids=NAMES)
def test_rates_and_weights_are_those_of_a_plain_loop(make: Make, per_step: bool, blobs: InMemory) -> None:
    start = nn.Linear(4, 3)
    expected = copy.deepcopy(start)
    rates = plain(expected, blobs, make, per_step)
    assert len(set(rates)) > 1
    given, made = copy.deepcopy(start), copy.deepcopy(start)
    optimizer = sgd(given)
    run = train(given, blobs, optimizer, make(optimizer))
    assert [record["lr"] for record in run.metrics] == pytest.approx(rates, rel=1e-12)
    torch.testing.assert_close(weights(given), weights(expected))
    again = train(made, blobs, partial(SGD, lr=0.2, momentum=0.9), make)
    assert [record["lr"] for record in again.metrics] == pytest.approx(rates, rel=1e-12)
    assert torch.equal(weights(made), weights(given))


class Killed(BaseException): ...


class Interrupted:
    """A loader that dies at one batch of one epoch."""

    def __init__(self, loader: Any, epoch: int, step: int) -> None:
        self.loader, self.at, self.epoch = loader, (epoch, step), 0

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        for step, batch in enumerate(self.loader):
            if (self.epoch, step) == self.at:
                raise Killed
            yield batch


@pytest.mark.parametrize(("make", "per_step"), ALL, ids=NAMES)
def test_a_resumed_run_equals_an_uninterrupted_one(make: Make, per_step: bool, blobs: InMemory, tmp_path: Path) -> None:
    start = nn.Linear(4, 3)
    whole, part = copy.deepcopy(start), copy.deepcopy(start)
    make_sgd = partial(SGD, lr=0.2, momentum=0.9)
    expected = train(whole, blobs, make_sgd, make)
    with pytest.raises(Killed):
        train(
            part,
            blobs,
            make_sgd,
            make,
            loader=Interrupted(batches(blobs), 2, 5),
            out=tmp_path,
            saving=Saving(checkpoint_steps=2),
        )
    resumed = copy.deepcopy(start)
    run = train(resumed, blobs, make_sgd, make, out=tmp_path, saving=Saving(checkpoint_steps=2), resume=True)
    assert [record["lr"] for record in run.metrics] == [record["lr"] for record in expected.metrics]
    assert torch.equal(weights(resumed), weights(whole))


def test_a_plateau_follows_the_validation_and_is_resumed(blobs: InMemory, tmp_path: Path) -> None:
    val = make_loader(blobs, 96)
    make = partial(lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0, threshold=0.05)
    run = train(nn.Linear(4, 3), blobs, partial(SGD, lr=0.5), make, val=val, epochs=8)
    best, rate, rates = float("inf"), 0.5, []
    for record in run.metrics:  # by hand, as torch's documentation has it
        rates.append(rate)
        better = record["val_loss"] < best * (1 - 0.05)
        best = min(best, record["val_loss"]) if better else best
        rate = rate if better else rate * 0.5
    assert [record["lr"] for record in run.metrics] == rates
    assert len(set(rates)) > 2
    torch.manual_seed(0)
    start = nn.Linear(4, 3)
    whole = train(copy.deepcopy(start), blobs, partial(SGD, lr=0.5), make, val=val, epochs=8)
    train(copy.deepcopy(start), blobs, partial(SGD, lr=0.5), make, val=val, epochs=3, out=tmp_path)
    rest = train(copy.deepcopy(start), blobs, partial(SGD, lr=0.5), make, val=val, epochs=8, out=tmp_path, resume=True)
    assert [record["lr"] for record in rest.metrics] == [record["lr"] for record in whole.metrics]
    with pytest.raises(RequestError, match="ReduceLROnPlateau follows the validation after each epoch: give fit val="):
        train(start, blobs, partial(SGD, lr=0.5), make)
    upwards = partial(make, mode="max")
    assert train(start, blobs, partial(SGD, lr=0.5), upwards, val=val).metrics


def test_every_step_and_accumulated_batches(blobs: InMemory, capsys: pytest.CaptureFixture[str]) -> None:
    make = partial(lr_scheduler.ExponentialLR, gamma=0.9)
    run = train(
        nn.Linear(4, 3), blobs, partial(SGD, lr=1.0), EveryStep(make), epochs=2, accumulate_steps=4, progress=True
    )
    # Two steps an epoch, of four batches and of two.
    assert [record["lr"] for record in run.metrics] == pytest.approx([0.9, 0.9**3])
    assert "limbeck: student: ExponentialLR is stepped after each step" in capsys.readouterr().err


def test_schedules_of_transformers_count_steps(blobs: InMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    def linear(step: int, *, warmup: int) -> float:
        return min(1.0, step / warmup)

    monkeypatch.setattr(linear, "__module__", "transformers.optimization")
    make = partial(lr_scheduler.LambdaLR, lr_lambda=partial(linear, warmup=10))
    run = train(nn.Linear(4, 3), blobs, partial(SGD, lr=1.0), make, epochs=2)
    assert [record["lr"] for record in run.metrics] == pytest.approx([0.5, 1.0])


def test_a_scheduler_of_timm_counts_what_it_was_made_for(blobs: InMemory, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm.scheduler")

    def make(optimizer: Optimizer, per_epoch: bool = True) -> Any:
        length = 5 if per_epoch else 30
        return timm.CosineLRScheduler(
            optimizer, t_initial=length, t_in_epochs=per_epoch, warmup_t=2, warmup_lr_init=0.01
        )

    for per_epoch in (True, False):
        network = nn.Linear(4, 3)
        optimizer = SGD(network.parameters(), lr=0.1)
        probe, rates = make(SGD(nn.Linear(1, 1).parameters(), lr=0.1), per_epoch), []
        for epoch in range(EPOCHS):  # as timm's own training script calls it
            for step in range(STEPS):
                rates.append(probe.optimizer.param_groups[0]["lr"])
                probe.step_update(epoch * STEPS + step + 1)
            probe.step(epoch + 1)
        run = train(network, blobs, optimizer, make(optimizer, per_epoch))
        assert [record["lr"] for record in run.metrics] == pytest.approx(rates[STEPS - 1 :: STEPS])


def test_an_optimizer_that_fabric_has_wrapped_is_taken_with_its_scheduler(blobs: InMemory) -> None:
    start = nn.Linear(4, 3)
    expected, given = copy.deepcopy(start), copy.deepcopy(start)
    make = PER_EPOCH["cosine"]
    rates = plain(expected, blobs, make, per_step=False)
    model, optimizer = Fabric(accelerator="cpu").setup(given, sgd(given))
    run = train(model, blobs, optimizer, make(optimizer))
    assert [record["lr"] for record in run.metrics] == pytest.approx(rates)
    assert run.student is given
    torch.testing.assert_close(weights(given), weights(expected))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (lambda: lr_scheduler.StepLR(sgd(nn.Linear(4, 3)), 1), "is bound to another optimizer than the one that is"),
        (lambda: "cosine", "schedule is a function of time in epochs, a scheduler of .* not str"),
        (lambda: lr_scheduler.CosineAnnealingLR, "makes no scheduler either: .*T_max"),
        (lambda: lambda given: given.nothing, "makes no scheduler either: .*nothing"),
        (lambda: lambda given: [given], "schedule gives list of the optimizer, which is no scheduler"),
        (
            lambda: partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=29),
            "made for 29 steps, and this training takes 30 in 5 epochs; make it with total_steps=30",
        ),
    ],
)
def test_what_will_not_do_is_refused_before_the_first_step(schedule: Any, message: str, blobs: InMemory) -> None:
    network = nn.Linear(4, 3)
    start = weights(network).clone()
    with pytest.raises(RequestError, match=message):
        train(network, blobs, partial(SGD, lr=0.1), schedule())
    assert torch.equal(weights(network), start)


def test_a_checkpoint_of_another_schedule_is_refused(blobs: InMemory, tmp_path: Path) -> None:
    make_sgd = partial(SGD, lr=0.1)
    steps = partial(lr_scheduler.StepLR, step_size=1)
    train(nn.Linear(4, 3), blobs, make_sgd, steps, out=tmp_path, epochs=1)
    with pytest.raises(RequestError, match="was made with a torch scheduler"):
        train(nn.Linear(4, 3), blobs, make_sgd, None, out=tmp_path, resume=True)
    with pytest.raises(
        RequestError, match="the checkpoint's scheduler has kind StepLR, and this run's CosineAnnealingLR"
    ):
        train(nn.Linear(4, 3), blobs, make_sgd, PER_EPOCH["cosine"], out=tmp_path, resume=True)
