"""Each part is averaged over its own steps, by sums that are exact and cost the same at every look."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import Batch, Distiller, Hardware, Step, TeacherOutput, fit
from limbeck.distillers import Scheme
from limbeck.engine import meter as meters
from limbeck.engine.meter import Meter
from limbeck.engine.totals import Totals
from limbeck.errors import RunError
from limbeck.tasks import Classification


def step(loss: float, parts: dict[str, float], size: int = 2, right: int = 0, ignored: int = 0) -> tuple[Step, Batch]:
    """A step of two classes with so many right predictions, and so many samples without a label at its end."""
    targets = torch.ones(size, dtype=torch.int64)
    targets[:right] = 0
    targets[size - ignored :] = -100
    logits = torch.tensor([[1.0, 0.0]]).repeat(size, 1)
    made = Step(torch.tensor(loss), logits, {name: torch.tensor(value) for name, value in parts.items()})
    return made, Batch(torch.zeros(size, 1), targets, torch.arange(size))


def means(*steps: tuple[Step, Batch]) -> dict[str, float]:
    meter = Meter(Classification(), "student", 0)
    for one in steps:
        meter.add(*one)
    return meter.look().means()


def test_parts_are_averaged_over_the_steps_that_have_them() -> None:
    found = means(step(1, {"a": 1}), step(100, {"b": 100}))
    assert found == {"loss": 50.5, "accuracy": 0, "a": 1, "b": 100}


def test_the_order_of_parts_does_not_matter() -> None:
    found = means(
        step(0, {"a": 1, "b": 2}, size=1), step(0, {"b": 4, "a": 3}, size=3), step(0, {}), step(0, {"b": 8}, size=4)
    )
    assert found["a"] == (1 + 3 * 3) / 4
    assert found["b"] == (2 + 3 * 4 + 4 * 8) / 8
    assert list(found) == ["loss", "accuracy", "a", "b"]


def test_a_part_may_be_called_as_a_column_of_the_record() -> None:
    found = means(step(7, {"loss": 1, "accuracy": 2, "lr": 3}, right=1))
    assert found == {"loss": 7, "accuracy": 0.5, "loss'": 1, "accuracy'": 2, "lr'": 3}


def test_samples_without_a_label_count_neither_as_right_nor_as_wrong() -> None:
    found = means(
        step(3, {"task": 2, "task 1": 2, "kd": 1}, size=4, right=1, ignored=2),
        step(1, {"task": 0, "task 1": 0, "kd": 5}, size=4, ignored=4),
    )
    assert found == {"loss": 2, "accuracy": 0.5, "task": 2, "task 1": 2, "kd": 3}
    assert means(step(1, {"task": 0, "kd": 5}, ignored=2)) == {"loss": 1, "kd": 5}


def test_soft_labels_are_counted_beside_hard_ones() -> None:
    one, hard = step(1, {}, size=2, right=1)
    soft = hard._replace(targets=torch.tensor([[0.9, 0.1], [0.8, 0.2]]))
    assert means((one, hard), (one, soft))["accuracy"] == 0.75


def test_means_do_not_depend_on_when_they_are_looked_at() -> None:
    rng = random.Random(0)
    steps = [
        (rng.randint(1, 9), torch.tensor(rng.uniform(-1, 1) * 10 ** rng.randint(-9, 9)).item()) for _ in range(300)
    ]
    exact = sum(Fraction(n) * Fraction(value) for n, value in steps) / sum(n for n, _ in steps)
    for every in (1, 7, 300):
        meter = Meter(Classification(), "student", 0)
        for number, (n, value) in enumerate(steps):
            meter.add(*step(value, {}, size=n))
            if number % every == 0:  # as a resumed run has it
                meter = Meter(Classification(), "student", 0, meter.steps + 1, meter.look().sums)
        assert meter.look().means()["loss"] == float(exact)


def test_sums_of_processes_are_joined_by_name() -> None:
    first, second = Totals(), Totals()
    first.add("a", 1, [1e16])
    second.add("a", 2, [1.0, -1e16])
    second.add("b", 4, [2.0])
    joined = Totals()
    joined.merge([first.sums, second.sums])
    assert joined.means() == {"a": 1 / 3, "b": 0.5}


def test_a_look_costs_no_more_late_in_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter(Classification(), "student", 0)
    for _ in range(500):
        meter.add(*step(0.1, {"a": 0.3}))
    meter.look()
    summed = 0

    def counting(numbers: Any) -> float:
        nonlocal summed
        numbers = list(numbers)
        summed += len(numbers)
        return fsum(numbers)

    fsum = math.fsum
    monkeypatch.setattr(math, "fsum", counting)
    meter.add(*step(0.1, {"a": 0.3}))
    meter.look()
    assert summed < 50
    assert meter.steps == 501


@pytest.mark.parametrize("held", [1, meters.HELD])
def test_the_step_and_term_that_are_not_finite_are_named(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "HELD", held)
    meter = Meter(Classification(), "student", 2, steps=10)
    meter.add(*step(1, {"a": 1}))
    meter.look()
    for one in (step(1, {"b": 1}), step(1, {"a": 1}), step(math.nan, {"a": 1, "b": math.inf}), step(math.nan, {})):
        meter.add(*one)
    with pytest.raises(RunError, match="student: b is not finite in epoch 3, step 14; try a lower learning rate"):
        meter.look()


class Changing(Scheme):
    """Its second step of two has other parts than its first."""

    def forward(self, batch: Batch, teacher_output: TeacherOutput | None = None) -> Step:
        logits = self.student(batch.inputs)
        name = "even" if int(batch.inputs[0, 0]) % 2 == 0 else "odd"
        return Step(logits.square().mean(), logits, {name: batch.inputs.mean()})


def batches() -> list[tuple[Tensor, Tensor]]:
    return [(torch.full((2, 2), float(i)), torch.zeros(2, dtype=torch.int64)) for i in range(6)]


def train(loader: Any, out: Path, **options: Any) -> Any:
    sgd = partial(torch.optim.SGD, lr=0.01)
    given = {"epochs": 1, "optimizer": sgd, "progress": False, "hardware": Hardware("cpu"), "out": out} | options
    return fit(Changing(nn.Linear(2, 2)), loader, **given)


def test_fit_reports_each_part_under_its_name(tmp_path: Path) -> None:
    record = train(batches(), tmp_path).metrics[0]
    assert (record["even"], record["odd"]) == (2, 3)  # means of 0, 2, 4 and of 1, 3, 5


def test_an_epoch_without_labels_has_no_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unlabelled = [(x, torch.full_like(y, -100)) for x, y in batches()]
    sgd = partial(torch.optim.SGD, lr=0.01)
    run = fit(Distiller(nn.Linear(2, 2)), unlabelled, epochs=1, optimizer=sgd, hardware=Hardware("cpu"))
    assert "accuracy" not in run.metrics[0]
    assert run.metrics[0]["loss"] == 0
    assert "no labels" in capsys.readouterr().err
