"""Weights and temperatures that follow a schedule, against plain loops with the values written out."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from limbeck import Distiller, Hardware, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.distillers.by_epoch import by_epoch, cosine, linear
from limbeck.errors import RequestError
from limbeck.recipes import schema
from limbeck.recipes.length import at_length
from limbeck.recipes.read import check
from limbeck.runs import learners


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"name": "constant", "from": 3}, [3, 3, 3, 3, 3]),
        ({"name": "linear", "from": 0, "to": 1, "epochs": 3}, [0, 0.5, 1, 1, 1]),
        ({"name": "linear", "from": 8, "to": 2, "epochs": 1}, [2, 2, 2, 2, 2]),
        ({"name": "cosine", "from": 8, "to": 2, "epochs": 4}, [8, 6.5, 3.5, 2, 2]),  # 5 + 3 cos(0, 60°, 120°, 180°)
        ({"name": "step", "from": 4, "milestones": [2, 3]}, [4, 4, 0.4, 0.04, 0.04]),
        ({"name": "step", "from": 1, "milestones": [1], "factor": 3}, [1, 3, 3, 3, 3]),
    ],
)
def test_values_by_epoch(given: dict[str, Any], values: list[float]) -> None:
    assert [by_epoch(given)(epoch) for epoch in range(5)] == pytest.approx(values)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "lineal", "from": 0}, "unknown schedule by epoch 'lineal'; did you mean linear"),
        ({"name": "linear", "from": 0, "to": 1}, r"schedule linear lacks epochs; write it as in \{name: linear"),
        ({"name": "linear", "from": 0, "til": 1}, "unknown key of schedule linear 'til'"),
        ({"name": "cosine", "from": 0, "to": "x", "epochs": 2}, "to of schedule cosine is a number, not 'x'"),
        ({"name": "cosine", "from": 0, "to": 1, "epochs": 0}, "1 or more epochs, not 0"),
        ({"name": "step", "from": 1, "milestones": 3}, "milestones of schedule step is a list of epochs"),
        ({"name": "step", "from": 1, "milestones": [3], "factor": 0}, "factor .* above 0"),
    ],
)
def test_a_wrong_schedule_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        by_epoch(given)


def test_training_follows_both_schedules(blobs: InMemory, teacher: nn.Module) -> None:
    student, teacher = nn.Linear(4, 3), teacher.eval()
    plain = copy.deepcopy(student)
    loader = make_loader(blobs, 16, shuffle=True)
    term = Term(losses.kd, weight=linear(0.0, 1.0, 3), temperature=cosine(8.0, 2.0, 3))
    make = partial(torch.optim.SGD, lr=0.1)
    distiller = Distiller(student, [term], task_weight=0.5)
    fit(distiller, loader, teacher=teacher, epochs=3, optimizer=make, progress=False, hardware=Hardware("cpu"))

    optimizer = make(plain.parameters())
    for epoch, (weight, temperature) in enumerate([(0.0, 8.0), (0.5, 5.0), (1.0, 2.0)]):
        loader.set_epoch(epoch)
        for batch in loader:
            logits = plain(batch.inputs)
            soft = (teacher(batch.inputs).detach() / temperature).softmax(-1)
            kl = (soft * (soft.log() - (logits / temperature).log_softmax(-1))).sum(-1).mean() * temperature**2
            optimizer.zero_grad()
            (0.5 * nn.functional.cross_entropy(logits, batch.targets) + weight * kl).backward()
            optimizer.step()
    torch.testing.assert_close(student.weight, plain.weight, rtol=1e-4, atol=1e-6)


def recipe(**term: Any) -> schema.Recipe:
    terms = [{"loss": "kd"} | term]
    return check({"teacher": {"model": "mlp", "epochs": 1}, "student": {"model": "mlp"}, "distill": {"terms": terms}})


def test_a_recipe_gives_them_and_another_length_stretches_them() -> None:
    weight = {"name": "linear", "from": 0, "to": 1, "epochs": 10}
    made = recipe(weight=weight, temperature={"name": "step", "from": 4, "milestones": [5], "factor": 0.5})
    term = learners.term(at_length(made, 30).distill.terms[0])
    assert callable(term.weight)
    assert [term.weight(epoch) for epoch in (0, 29, 40)] == [0.0, 1.0, 1.0]
    assert [term.options["temperature"](epoch) for epoch in (14, 15)] == [4.0, 2.0]
    assert term.teacher_temperatures == (4.0, 2.0)
    assert check(made.model_dump(mode="json")) == made


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({"weight": {"name": "linear", "from": 0}}, "schedule linear lacks to, epochs"),
        ({"weight": {"name": "constant", "from": 1}, "ramp": 2}, "follows a schedule, and a ramp; leave one out"),
        ({"loss": "CRD", "samples": {"name": "constant", "from": 1}}, "only its weight can follow a schedule"),
        ({"temperature": {"name": "linear", "form": 4}}, "temperature of loss kd is"),
    ],
)
def test_a_wrong_term_is_refused(term: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        learners.term(recipe(**term).distill.terms[0])


def test_a_temperature_that_comes_to_nothing_is_refused_before_the_first_step(blobs: InMemory) -> None:
    term = Term(losses.kd, temperature=linear(4.0, 0.0, 100))
    with pytest.raises(RequestError, match="term kd"):
        fit(
            Distiller(nn.Linear(4, 3), [term]),
            make_loader(blobs, 16),
            teacher=nn.Linear(4, 3),
            epochs=1,
            optimizer=partial(torch.optim.SGD, lr=0.1),
            progress=False,
            hardware=Hardware("cpu"),
        )
