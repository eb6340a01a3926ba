"""A compiled student learns what a plain one learns, and is handed over plain."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from limbeck import Distiller, RequestError, Term, fit, losses
from limbeck.data import InMemory, make_loader


def train(compile: str | None, *terms: Term) -> nn.Module:
    torch.manual_seed(0)
    split = InMemory(torch.randn(48, 6), torch.arange(48) % 3)
    student = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    scheme = Distiller(student, terms or [Term(losses.kd, weight=0.5)])
    optimizer = partial(torch.optim.SGD, lr=0.1)
    loader = make_loader(split, 16, shuffle=True)
    options = {"epochs": 2, "optimizer": optimizer, "progress": False}
    return fit(scheme, loader, teacher=nn.Linear(6, 3), compile=compile, **options).student


def test_the_student_is_handed_over_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    compile = torch.compile

    def eager(function: object, **options: object) -> object:
        compiled.append(options)
        return compile(function, backend="eager")

    monkeypatch.setattr(torch, "compile", eager)
    fast, plain = train("reduce-overhead"), train(None)
    assert compiled == [{"mode": "reduce-overhead"}]
    assert fast._compiled_call_impl is None
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_what_cannot_be_compiled_is_said() -> None:
    with pytest.raises(RequestError, match="shows no hidden tensors"):
        train("default", Term(losses.mse, student="0", teacher="logits", adapter="auto"))
    with pytest.raises(RequestError, match="unknown mode of compile 'fast'"):
        train("fast")
