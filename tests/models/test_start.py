"""Frozen parts and new heads."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from limbeck import Distiller, Hardware, fit
from limbeck.data import InMemory, make_loader
from limbeck.errors import RequestError
from limbeck.models.start import freeze, load_without_head


class Net(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.head = nn.Linear(6, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.features(x))
        return out


def test_frozen_parts_and_their_statistics_stay(blobs: InMemory) -> None:
    network = Net(3)
    freeze(network, ["features"])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    make = partial(torch.optim.SGD, lr=0.1)
    fit(
        Distiller(network),
        make_loader(blobs, 16),
        val=make_loader(blobs, 32),
        epochs=2,
        optimizer=make,
        progress=False,
        hardware=Hardware("cpu"),
    )
    after = network.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["feature"], "unknown part to freeze 'feature'; did you mean features"),
        (["features", "head"], "freeze leaves nothing of Net to train"),
    ],
)
def test_what_cannot_be_frozen(parts: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        freeze(Net(3), parts)


def test_a_head_of_other_classes_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, network = Net(7), Net(3)
    save_file(given.state_dict(), tmp_path / "given.safetensors")
    head = network.head.weight.clone()
    load_without_head(network, tmp_path / "given.safetensors")
    assert torch.equal(network.features[0].weight, given.features[0].weight)  # type: ignore[arg-type]
    assert torch.equal(network.head.weight, head)
    said = capsys.readouterr().err
    assert "left out, and new in the network: head.weight (7, 6) for (3, 6), head.bias (7,) for (3,)" in said
    with pytest.raises(RequestError, match="do not fit Linear: missing bias, weight; unexpected"):
        load_without_head(nn.Linear(4, 3), tmp_path / "given.safetensors")
