"""Weights out of the files that people have: old checkpoints, checkpoints of other tools, averages, wrapped names."""

from __future__ import annotations

import argparse
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from limbeck.errors import RequestError
from limbeck.models import load_weights, read_weights


def network() -> nn.Sequential:
    parts = OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), head=nn.Linear(4, 5))
    return nn.Sequential(parts)


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def old(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if "num_batches_tracked" not in name}


def trained() -> dict[str, Tensor]:
    """A state dict that differs from a fresh network's in every value."""
    torch.manual_seed(7)
    state = dict(network().state_dict())
    return {name: torch.rand_like(v) + 2 if v.is_floating_point() else v + 9 for name, v in state.items()}


def check(content: Any, path: Path, expected: dict[str, Tensor]) -> nn.Module:
    torch.save(content, path)
    model = network()
    load_weights(model, path)
    for name, value in expected.items():
        assert torch.equal(model.state_dict()[name], value), name
    return model


class Settings:
    """Of the user's own; it is not there any more when the file is read."""

    def __init__(self) -> None:
        self.lr = 0.1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda w: w, ""),
        (lambda w: {"state_dict": under("module.", w), "best_prec1": 93.6, "epoch": 200}, "'module.' of 'state_dict'"),
        (lambda w: {"model_state_dict": w, "optimizer_state_dict": {}, "loss": 0.1}, "'model_state_dict'"),
        (lambda w: {"net": under("module.", w), "acc": 93.2}, "'module.' of 'net'"),
        (lambda w: {"model": {"ckpt": under("module._orig_mod.", w)}}, "'module._orig_mod.' of 'model/ckpt'"),
        (lambda w: {"state_dict": under("net.", w), "pytorch-lightning_version": "2.5.0"}, "'net.' of 'state_dict'"),
        (lambda w: {"state_dict": {**under("model.", w), "loss.weight": torch.ones(9)}}, "'model.' of 'state_dict'"),
        (lambda w: {"state_dict": w, "best": np.float64(93.1), "confusion": np.eye(3)}, "'state_dict'"),
        (lambda w: {"state_dict": w, "args": argparse.Namespace(lr=0.1)}, "'state_dict'"),
        (lambda w: {"state_dict": w, "config": SimpleNamespace(lr=1), "out": Path("runs")}, "'state_dict'"),
        (lambda w: {"state_dict": w, "config": Settings()}, "'state_dict'"),
        (lambda w: {"state_dict": defaultdict(None, w)}, "'state_dict'"),
        (lambda w: {"state_dict": w, "moments": {"mean": torch.zeros(3), "std": torch.ones(3)}}, "'state_dict'"),
        (lambda w: {"state_dict": w, "copy": dict(w)}, "'state_dict'"),
    ],
)  # fmt: skip
def test_the_one_part_that_fits_is_found_and_named(
    make: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = trained()
    check(make(weights), tmp_path / "checkpoint.pt", weights)
    line = capsys.readouterr().err
    assert line.count("\n") == bool(said)
    assert said in line


def test_an_old_checkpoint_loads_as_torch_itself_loads_it(tmp_path: Path) -> None:
    weights = trained()
    own = check({"state_dict": under("module.", old(weights))}, tmp_path / "old.pt", old(weights))
    expected = network()
    expected.load_state_dict(old(weights), strict=True)
    assert torch.equal(own.norm.num_batches_tracked, expected.norm.num_batches_tracked)
    torch.save(old(weights), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    load_weights(own, tmp_path / "legacy.pt")
    save_file(under("module.", old(weights)), tmp_path / "old.safetensors")
    load_weights(own, tmp_path / "old.safetensors")
    used = OrderedDict(weights)
    del used["norm.running_mean"]
    torch.save(used, tmp_path / "used.pt")
    with pytest.raises(RequestError, match=r"do not fit Sequential: missing norm\.running_mean"):
        load_weights(network(), tmp_path / "used.pt")


@pytest.mark.parametrize(
    "make",
    [
        lambda last, ema: {"state_dict": last, "state_dict_ema": ema, "metric": 71.3},
        lambda last, ema: {"model": last, "model_ema": {**under("module.", ema), "n_averaged": torch.tensor(5)}},
        lambda last, ema: {"state_dict": {**under("model.", last), **under("ema_model.", ema)}},
    ],
)
def test_of_weights_and_their_average_the_average_is_taken_and_said(
    make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    average = trained()
    check(make(dict(network().state_dict()), average), tmp_path / "checkpoint.pt", average)
    assert ", and not " in capsys.readouterr().err


def test_averaged_models_of_torch_and_wrapped_parts(tmp_path: Path) -> None:
    weights = trained()
    source = network()
    source.load_state_dict(weights)
    check(AveragedModel(source).state_dict(), tmp_path / "averaged.pt", weights)
    body = {name.replace("conv.", "conv.module.").replace("head.", "head._orig_mod."): v for name, v in weights.items()}
    check({"state_dict": under("model.", body)}, tmp_path / "parts.pt", weights)
    data_parallel = network()
    data_parallel.conv = nn.DataParallel(data_parallel.conv)
    torch.save(weights, tmp_path / "plain.pt")
    load_weights(nn.DataParallel(data_parallel), tmp_path / "plain.pt")
    assert torch.equal(data_parallel.conv.module.weight, weights["conv.weight"])


def test_what_is_not_clear_is_refused_with_the_choices(tmp_path: Path) -> None:
    weights, other = trained(), dict(network().state_dict())
    path = tmp_path / "both.pt"
    torch.save({"state_dict": {**under("student.", weights), **under("teacher.", other)}}, path)
    before = network()
    start = {name: value.clone() for name, value in before.state_dict().items()}
    with pytest.raises(RequestError, match=r"'student\.' of 'state_dict'; .*'teacher\.' of 'state_dict'; save one"):
        load_weights(before, path)
    assert all(torch.equal(value, start[name]) for name, value in before.state_dict().items())
    torch.save({"generator": weights, "discriminator": other}, path)
    with pytest.raises(RequestError, match="'generator'; 'discriminator'"):
        load_weights(network(), path)
    with pytest.raises(RequestError, match="'generator'; 'discriminator'"):
        read_weights(path)


def test_what_does_not_fit_is_named_and_the_model_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    model = network()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save({"state_dict": {**trained(), "head.weight": torch.rand(6, 4)}, "epoch": 1}, path)
    with pytest.raises(
        RequestError, match=r"\('state_dict'\) do not fit Sequential: of another shape head\.weight \(6, 4\)"
    ):
        load_weights(model, path)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())
    torch.save({"optimizer": torch.optim.Adam(model.parameters()).state_dict(), "epoch": 1}, path)
    with pytest.raises(RequestError, match="holds no state dict"):
        load_weights(model, path)
    torch.save({"state_dict": trained(), "epoch": 1}, path)
    with pytest.raises(RequestError, match="do not fit Linear: missing bias, weight; unexpected"):
        load_weights(nn.Linear(5, 5), path)


class Renamed(nn.Module):
    """A network that brings its old names up to date as it loads, as torchvision's DenseNet and others do."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("weight", "bias"):
            if f"{prefix}classifier.{name}" in state:
                state[f"{prefix}head.{name}"] = state.pop(f"{prefix}classifier.{name}")
        super()._load_from_state_dict(state, prefix, *rest)


def test_a_network_may_rename_what_it_loads(tmp_path: Path) -> None:
    torch.save({"model": {"classifier.weight": torch.ones(2, 2), "classifier.bias": torch.ones(2)}}, tmp_path / "w.pt")
    model = Renamed()
    load_weights(model, tmp_path / "w.pt")
    assert torch.equal(model.head.weight, torch.ones(2, 2))


class Bomb:
    def __init__(self, call: Any, *args: Any) -> None:
        self.call = (call, args)

    def __reduce__(self) -> Any:
        return self.call


def test_no_pickle_is_run(tmp_path: Path) -> None:
    import os
    import subprocess

    mark = tmp_path / "went off"
    for bomb in (
        Bomb(os.system, f"touch '{mark}'"),
        Bomb(open, str(mark), "w"),
        Bomb(exec, f"open({str(mark)!r}, 'w')"),
        Bomb(subprocess.getoutput, f"touch '{mark}'"),
    ):
        torch.save({"state_dict": trained(), "beside": bomb}, tmp_path / "bomb.pt")
        with pytest.raises(RequestError, match=r"holds more than tensors \(.*, which is never run\)"):
            load_weights(network(), tmp_path / "bomb.pt")
        (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(bomb))
        with pytest.raises(RequestError, match="cannot read the weights file"):
            load_weights(network(), tmp_path / "bomb.pkl")
    assert not mark.exists()


def test_a_pickled_network_and_damage_are_told_apart(tmp_path: Path) -> None:
    torch.save(Renamed(), tmp_path / "whole.pt")
    with pytest.raises(RequestError, match=r"holds a pickled network, .*save its state_dict\(\) instead"):
        load_weights(network(), tmp_path / "whole.pt")
    torch.save(trained(), tmp_path / "cut.pt")
    content = (tmp_path / "cut.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(RequestError, match="it is damaged"):
        load_weights(network(), tmp_path / "cut.pt")
    (tmp_path / "text.pt").write_text("no weights at all")
    with pytest.raises(RequestError, match="it is damaged"):
        load_weights(network(), tmp_path / "text.pt")


def test_reading_without_a_model(tmp_path: Path) -> None:
    weights = trained()
    torch.save({"state_dict": under("module.", weights), "best_prec1": 93.6}, tmp_path / "old.pt")
    found = read_weights(tmp_path / "old.pt")
    assert list(found) == list(weights)
    moments = {"mean": torch.zeros(3), "std": torch.ones(3)}
    torch.save({"moments": moments, "state_dict": weights, "best_prec1": 93.6}, tmp_path / "more.pt")
    assert list(read_weights(tmp_path / "more.pt")) == list(weights)
    assert all(torch.equal(found[name], value) for name, value in weights.items())


@pytest.mark.data
def test_a_real_checkpoint_of_2018(data_root: Path) -> None:
    found = read_weights(data_root / "teachers" / "resnet56-cifar10.pt")
    assert found["conv1.weight"].shape == (16, 3, 3, 3)
    assert found["linear.weight"].shape == (10, 64)
    assert not any(name.startswith("module.") for name in found)


def test_arrays_in_place_of_tensors_are_named(tmp_path: Path) -> None:
    torch.save({name: value.numpy() for name, value in trained().items()}, tmp_path / "arrays.pt")
    with pytest.raises(RequestError, match=r"such as NumPy's arrays; save \{name: torch\.from_numpy"):
        load_weights(network(), tmp_path / "arrays.pt")


def test_a_module_that_asks_for_its_version_gets_it(tmp_path: Path) -> None:
    """As torchvision's MNASNet does, which refuses to load a plain mapping."""

    class Versioned(nn.Linear):
        _version = 3

        def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
            assert metadata.get("version") == 3
            super()._load_from_state_dict(state, prefix, metadata, *rest)

    first, second = nn.Sequential(Versioned(2, 2)), nn.Sequential(Versioned(2, 2))
    save_file(dict(first.state_dict()), tmp_path / "weights.safetensors")
    load_weights(second, tmp_path / "weights.safetensors")
    assert torch.equal(second[0].weight, first[0].weight)
