"""Several teachers as one: what is averaged, and at which temperature, against NumPy in float64."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from limbeck import Batch, Distiller, EnsembleTeacher, ModuleTeacher, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.errors import RequestError
from limbeck.recipes import schema
from limbeck.runs import components, teachers
from limbeck.runs.diagnose import temperature
from limbeck.runs.stages import assemble
from limbeck.teachers import CachedTeacher, StoredTeacher
from limbeck.teachers.coding import Coding
from limbeck.teachers.stored import store


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def batch(n: int = 6) -> Batch:
    inputs = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    return Batch(inputs, torch.zeros(n, dtype=torch.long), torch.arange(n))


def members() -> list[nn.Module]:
    torch.manual_seed(0)
    made = [nn.Linear(4, 3), nn.Linear(4, 3)]
    with torch.no_grad():
        made[0].weight.mul_(20)
    return made


def logits(data: Batch) -> list[np.ndarray]:
    return [one(data.inputs).detach().double().numpy() for one in members()]


def mean(data: Batch, weights: tuple[float, float], t: float) -> np.ndarray:
    first, second = (softmax(z / t) for z in logits(data))
    return weights[0] * first + weights[1] * second


@pytest.mark.parametrize("t", [1.0, 4.0])
def test_probabilities_are_averaged_at_the_temperature(t: float) -> None:
    data = batch()
    guide = EnsembleTeacher([ModuleTeacher(one) for one in members()], [3.0, 1.0], temperature=t)
    softened = (guide(data).output / t).softmax(-1)
    np.testing.assert_allclose(softened, mean(data, (0.75, 0.25), t), rtol=1e-5)


def test_logits_can_be_averaged_instead() -> None:
    data = batch()
    guide = EnsembleTeacher([ModuleTeacher(one) for one in members()], [3.0, 1.0], mix="logits")
    first, second = logits(data)
    np.testing.assert_allclose(guide(data).output, 0.75 * first + 0.25 * second, rtol=1e-5)


def test_mix_and_temperature_are_checked_and_tell_ensembles_apart() -> None:
    one = ModuleTeacher(nn.Linear(4, 3))
    with pytest.raises(RequestError, match="unknown mix of an ensemble 'logit'; did you mean logits"):
        EnsembleTeacher([one], mix="logit")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="temperature must be above 0 and finite, not 0"):
        EnsembleTeacher([one], temperature=0)
    made = [EnsembleTeacher([one]), EnsembleTeacher([one], temperature=4), EnsembleTeacher([one], mix="logits")]
    assert len({guide.fingerprint for guide in made}) == 3
    assert EnsembleTeacher([one], mix="logits", temperature=4).fingerprint == made[2].fingerprint


RECIPE: dict[str, Any] = {
    "data": {"name": "digits", "batch_size": 32},
    "teacher": [{"model": "mlp", "hidden": [16], "epochs": 1}, {"model": "mlp", "hidden": [8], "epochs": 1}],
    "student": {"model": "mlp", "hidden": [8]},
    "epochs": 1,
}


def recipe(**changes: Any) -> schema.Recipe:
    return schema.Recipe.model_validate(RECIPE | changes)


@pytest.mark.parametrize("distill", [{"method": "kd"}, {"terms": [{"loss": "kd"}]}, {"method": "dkd"}])
def test_a_recipes_teachers_are_averaged_at_its_terms_temperature(distill: dict[str, Any], tmp_path: Path) -> None:
    """What a term at T 4 reads, online, cached and stored, is the mean of the members at T 4."""
    one = recipe(distill=distill)
    data = components.data(one.data, tmp_path)
    found = teachers.candidates(one, data)
    resolved, _, online = assemble(one, components.model(one.student, data, 0), found, data)
    assert online is not None
    assert temperature(resolved) == 4
    split = InMemory(data.train.inputs[:40], data.train.targets[:40])
    loader = make_loader(split, 20)
    cached = CachedTeacher(online, [loader], 40)
    store(
        online,
        lambda view, first, end: [next(iter(loader)).first(end - first)] if end - first < 20 else loader,
        tmp_path / "outputs",
        samples=40,
        views=1,
        batch_size=20,
        made_of={},
        coding=Coding("float32"),
    )
    with torch.no_grad():
        for some in loader:
            own = [(candidate.module(some.inputs) / 4).softmax(-1) for candidate in found]
            for guide in (online, cached, StoredTeacher(tmp_path / "outputs")):
                softened = (guide(some).output / 4).softmax(-1)
                torch.testing.assert_close(softened, (own[0] + own[1]) / 2, rtol=1e-4, atol=1e-6)


def test_a_recipe_can_average_logits(tmp_path: Path) -> None:
    one = recipe(distill={"method": "kd"}, ensemble="logits")
    data = components.data(one.data, tmp_path)
    found = teachers.candidates(one, data)
    _, _, online = assemble(one, components.model(one.student, data, 0), found, data)
    assert isinstance(online, EnsembleTeacher)
    assert online.mix == "logits"


@pytest.mark.parametrize(
    ("t", "mix", "said"), [(1.0, "probabilities", True), (4.0, "probabilities", False), (1.0, "logits", False)]
)
def test_it_is_said_where_terms_read_another_temperature(
    blobs: InMemory, capsys: pytest.CaptureFixture[str], t: float, mix: Any, said: bool
) -> None:
    guide = EnsembleTeacher([ModuleTeacher(one) for one in members()], mix=mix, temperature=t)
    distiller = Distiller(nn.Linear(4, 3), [Term(losses.kd)])
    optimizer = partial(torch.optim.SGD, lr=0.1)
    fit(distiller, make_loader(blobs, 16), teacher=guide, epochs=1, optimizer=optimizer, progress=False)
    told = "averaged ensemble mixes probabilities at temperature 1, and terms read them at 4" in capsys.readouterr().err
    assert told == said


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (Term(losses.kd), (4.0,)),
        (Term(losses.kd, temperature=1.0, teacher_temperature=20.0), (20.0,)),
        (Term(losses.mlkd, temperatures=[2, 3]), (2.0, 3.0)),
        (Term(losses.logit_mse), (1.0,)),
        (Term(losses.kd, teacher="0.logits"), ()),
        (Term(nn.MSELoss()), (1.0,)),
    ],
)
def test_a_term_tells_by_what_it_softens_the_teachers_logits(term: Term, expected: tuple[float, ...]) -> None:
    assert term.teacher_temperatures == expected
