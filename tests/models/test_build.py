from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from limbeck.errors import RequestError
from limbeck.models import multiply_adds, parameter_count
from limbeck.models.build import build


def test_own_and_torchvisions_models_know_the_number_of_classes() -> None:
    assert parameter_count(build("mlp", input_shape=(1, 28, 28), classes=7, hidden=(20,))) == 784 * 20 + 20 + 20 * 7 + 7
    # torchvision documents 11,689,512 with 1,000 classes of 512 weights and a bias.
    resnet = build("torchvision:resnet18", input_shape=(3, 32, 32), classes=10)
    assert parameter_count(resnet) == 11_689_512 - 990 * 513


def test_timms_models_know_channels_too() -> None:
    pytest.importorskip("timm")
    model = build("timm:resnet10t", input_shape=(1, 32, 32), classes=5)
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    assert (first.in_channels, last.out_features) == (1, 5)


def test_pretrained_keeps_torchvisions_own_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def builder(**options: Any) -> nn.Module:
        seen.update(options)
        return nn.Identity()

    monkeypatch.setattr("torchvision.models.get_model_builder", lambda name: builder)
    build("torchvision:resnet18", input_shape=(3, 32, 32), classes=10, pretrained=True)
    assert seen == {"weights": "DEFAULT"}


def test_a_builder_that_fails_or_gives_no_module_is_named() -> None:
    with pytest.raises(RequestError, match="option hidden of model mlp is 'many'"):
        build("mlp", input_shape=(1, 8, 8), classes=10, hidden="many")
    with pytest.raises(RequestError, match=r"gave Fraction instead of a torch\.nn\.Module"):
        build("fractions:Fraction", input_shape=(1, 8, 8), classes=10, numerator=3)


def test_multiply_adds_of_one_sample() -> None:
    import torch

    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))
    assert multiply_adds(model, torch.zeros(1, 3, 4, 4)) == 8 * 3 * 9 * 16 + 8 * 16 * 5
