from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limbeck.data import DataSet, InMemory
from limbeck.errors import RequestError
from limbeck.models import multiply_adds, parameter_count
from limbeck.models.build import build
from limbeck.recipes import schema
from limbeck.runs import components as build_recipe


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


def test_an_encoder_of_timms_that_takes_no_classifier_is_refused() -> None:
    timm = pytest.importorskip("timm")
    name = "gemma4_vit_167m_enc"
    if not timm.is_model(name):
        pytest.skip("a timm without it")
    with torch.device("meta"), pytest.raises(RequestError, match=r"is an encoder, and takes no classifier.*10 classes"):
        build(f"timm:{name}", input_shape=(3, 192, 192), classes=10)


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
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))
    assert multiply_adds(model, torch.zeros(1, 3, 4, 4)) == 8 * 3 * 9 * 16 + 8 * 16 * 5


def test_a_pretrained_teacher_keeps_its_head(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    original = timm.create_model("test_resnet", num_classes=12).eval()
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    options = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(tmp_path / "weights.pth"), "num_classes": 12}}
    spec = schema.Teacher(model="timm:test_resnet", **options)
    x = torch.rand(20, 3, 16, 16)
    data = DataSet("made", InMemory(x, torch.arange(20) % 10), InMemory(x, torch.arange(20) % 10), 10, (3, 16, 16))
    made = build_recipe.model(spec, data, 0).eval()
    torch.testing.assert_close(made(x), original(x))  # with its own 12 classes, and not 10 untrained ones
    with pytest.raises(RequestError, match="was trained on 12 classes, and with 10 its head is new and untrained"):
        build_recipe.model(schema.Teacher(model="timm:test_resnet", **options, num_classes=10), data, 0)
    student = build_recipe.model(schema.Model(model="timm:test_resnet", **options), data, 0)
    assert student(x).shape == (20, 10)  # a student learns its new head
