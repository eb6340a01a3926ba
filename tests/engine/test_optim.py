from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from limbeck.engine.optimizers import named
from limbeck.errors import RequestError


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("sgd", {"momentum": 0.9, "nesterov": True}, torch.optim.SGD),
        ("adam", {"betas": (0.8, 0.9)}, torch.optim.Adam),
        ("adamw", {"weight_decay": 0.1}, torch.optim.AdamW),
    ],
)
def test_optimizers_by_name(name: str, options: dict[str, Any], kind: type) -> None:
    made = named.optimizer(name, lr=0.5, **options)([nn.Parameter(torch.zeros(2))])
    assert type(made) is kind
    group = made.param_groups[0]
    assert group["lr"] == 0.5
    assert {key: group[key] for key in options} == options
    assert group["fused"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamm", {}, "unknown optimizer 'adamm'; did you mean adam"),
        ("sgd", {"momentun": 0.9}, "unknown option of optimizer sgd 'momentun'; did you mean momentum"),
        ("adam", {"betas": (2.0, 0.9)}, "optimizer adam: Invalid beta"),
    ],
)
def test_wrong_optimizers_are_refused_before_there_are_parameters(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        named.optimizer(name, lr=0.1, **options)


def test_cosine_falls_from_one_to_its_floor() -> None:
    schedule = named.schedule("cosine", 10, floor=0.1)
    assert [schedule(t) for t in (0, 5, 10, 12)] == pytest.approx([1, 0.55, 0.1, 0.1])
    assert schedule(2.5) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)


def test_warmup_grows_to_what_follows() -> None:
    schedule = named.schedule("step", 10, warmup_epochs=4, milestones=[6])
    assert [schedule(t) for t in (0, 1, 4, 5.9, 6)] == pytest.approx([0, 0.25, 1, 1, 0.1])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosin", {}, "unknown schedule 'cosin'; did you mean cosine"),
        ("cosine", {"milestones": [1]}, "unknown option of schedule cosine 'milestones'"),
        ("step", {}, "milestones"),
    ],
)
def test_wrong_schedules_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        named.schedule(name, 10, **options)
