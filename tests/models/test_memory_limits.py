"""Networks that the machine cannot hold are refused before their memory is asked for."""

from __future__ import annotations

import time

import pytest
import torch

from limbeck.errors import RequestError
from limbeck.models import NETWORKS, memory
from limbeck.models.build import build, build_from
from limbeck.seeds import seeded


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mlp", {"hidden": [10**9] * 3}, r"needs [\d,.]+ GB for weights, and this machine has .* GB of memory"),
        ("cnn", {"channels": [10**6, 10**6]}, r"needs [\d,.]+ GB for weights"),
        ("mobilenet_v1", {"width": 1e4}, r"needs [\d,.]+ GB for weights"),
        ("byot_small", {"depth": 10**9}, "more than 300 tensors of weights"),
        ("mlp", {"hidden": [10**30]}, "GB for weights"),
    ],
)
def test_what_no_machine_holds(
    name: str, options: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "memory_bytes", lambda: 2**33)
    monkeypatch.setattr(memory, "TENSORS", 300)
    began = time.process_time()
    with pytest.raises(RequestError, match=message):
        build(name, input_shape=(1, 16, 16), classes=10, **options)
    assert time.process_time() - began < 10


def test_the_limit_is_the_machines_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = 4 * (64 * 100 + 100 + 100 * 10 + 10)
    make = {"input_shape": (1, 8, 8), "classes": 10}
    monkeypatch.setattr(memory, "memory_bytes", lambda: 3 * weights)
    build("mlp", **make, hidden=[100])
    build_from("mlp", {"hidden": [100]}, **make, copies=3)
    with pytest.raises(RequestError, match="needs"):
        build_from("mlp", {"hidden": [100]}, **make, copies=4)
    with pytest.raises(RequestError, match="needs"):
        build("mlp", **make, hidden=[301])
    monkeypatch.setattr(memory, "memory_bytes", lambda: None)
    build("mlp", **make, hidden=[301])


def test_this_machine_has_memory() -> None:
    known = memory.memory_bytes()
    assert known is None or known > 2**28


@pytest.mark.parametrize("name", ["mlp", "cnn", "keras_cnn", "resnet8", "mobilenet_v2", "byot_small"])
def test_weighing_leaves_the_start_as_it_is(name: str) -> None:
    make = {"input_shape": (1, 16, 16), "classes": 3}
    with seeded(5):
        built = build(name, **make)
    with seeded(5):
        plain = NETWORKS[name](**make)
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in built.state_dict().items())
    assert not any(parameter.is_meta for parameter in built.parameters())
