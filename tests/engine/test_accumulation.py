"""Which losses are one step on all samples when batches are accumulated, and which are said not to be."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import Distiller, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.distillers import ClassWise, Scheme


def own(student: Tensor, teacher: Tensor) -> Tensor:
    """A loss of a user's that returns its mean, and couples nothing."""
    return (student - teacher).square().mean()


@torch.no_grad()
def off(loss: Any, samples: InMemory, teacher: nn.Module) -> float:
    """How far the mean over the halves of the first 16 samples lies from the loss over them all."""
    s, t = (net(samples.inputs[:16]) for net in (nn.Linear(4, 3), teacher))
    whole, halves = loss(s, t), [loss(s[at], t[at]) for at in (slice(8), slice(8, 16))]
    return float(abs((halves[0].mean() + halves[1].mean()) / 2 / whole.mean() - 1))


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ([losses.kd, losses.logit_mse, own], []),
        ([losses.dist], ["dist"]),
        ([losses.mlkd, losses.kd], ["mlkd"]),
        ([losses.rkd, losses.similarity], ["rkd", "similarity"]),
        ([], []),
    ],
)
def test_losses_that_couple_a_batch_are_named_once(
    blobs: InMemory, capsys: pytest.CaptureFixture[str], terms: list[Any], said: list[str]
) -> None:
    torch.manual_seed(0)
    teacher = nn.Linear(4, 3)
    scheme = Distiller(nn.Linear(4, 3), [Term(loss) for loss in terms])
    err = trained(scheme, blobs, capsys, teacher if terms else None)
    assert err.count("2 accumulated batches are not one step") == bool(said)
    assert all((f" {loss.__name__} (" in err) == (loss.__name__ in said) for loss in terms)
    assert all((off(loss, blobs, teacher) > 0.01) == (loss.__name__ in said) for loss in terms)


def test_a_scheme_that_couples_a_batch_is_named_too(blobs: InMemory, capsys: pytest.CaptureFixture[str]) -> None:
    assert " class-wise (" in trained(ClassWise(nn.Linear(4, 3)), blobs, capsys, None)


def test_one_batch_a_step_is_said_nothing_of(blobs: InMemory, capsys: pytest.CaptureFixture[str]) -> None:
    scheme = Distiller(nn.Linear(4, 3), [Term(losses.dist)])
    assert "accumulated" not in trained(scheme, blobs, capsys, nn.Linear(4, 3), accumulate_steps=1)


def trained(
    scheme: Scheme,
    samples: InMemory,
    capsys: pytest.CaptureFixture[str],
    teacher: nn.Module | None,
    accumulate_steps: int = 2,
) -> str:
    fit(
        scheme,
        make_loader(samples, 16),
        teacher=teacher,
        epochs=1,
        optimizer=partial(torch.optim.SGD, lr=0.01),
        accumulate_steps=accumulate_steps,
        progress=False,
        measure_balance=False,
    )
    return capsys.readouterr().err
