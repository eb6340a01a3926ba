"""Files for devices' own runtimes: each gives torch's outputs when it is loaded back; skipped without its packages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.errors import RequestError, RunError
from limbeck.shipping import OwnModel, devices, formats, latency, memory, ship

NEEDS = {"openvino": ["openvino"], "executorch": ["executorch.exir"], "litert": ["litert_torch", "ai_edge_litert"]}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 5)
    ).eval()


def test_openvino_has_a_row_of_its_own(network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(latency, "ROUNDS", 8)
    x = torch.rand(24, 1, 8, 8)
    with torch.no_grad():
        labels = network(x).argmax(1)
    own = OwnModel(network, test=[(x, labels)])
    found = ship(own, out=tmp_path / "out", formats=["openvino"], int8=False, batch=[1, 4], progress=False)
    (row,) = (one for one in found["rows"] if one["runtime"] == "openvino")
    assert row["score"] == 1.0
    assert row["precision"] == "fp32"
    assert row["peak_memory_bytes"] > 10**7
    assert row["peak_memory_missing"] is None
    assert all(row["latency"][size]["p50_ms"] > 0 for size in ("1", "4"))
    files = [tmp_path / "out" / f"distilled.{ending}" for ending in ("xml", "bin")]
    assert row["bytes"] == sum(file.stat().st_size for file in files) > network[4].weight.numel() * 4  # type: ignore


@pytest.mark.parametrize(
    "name", ["openvino", *(pytest.param(name, marks=pytest.mark.slow) for name in ("executorch", "litert"))]
)
def test_a_device_file_gives_torch_s_outputs(name: str, network: nn.Module, tmp_path: Path) -> None:
    for package in NEEDS[name]:
        pytest.importorskip(package)
    path = tmp_path / f"network{formats.FORMS[name].ending}"
    x = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    run = devices.write(name, network, (1, 8, 8), path, threads=1)
    with torch.no_grad():
        expected = network(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run(x), expected, atol=1e-4)
    np.testing.assert_allclose(run(x[:1]), expected[:1], atol=1e-4)
    assert path.stat().st_size > 0
    found = memory.peak(path, name, {"input": torch.from_numpy(x[:1])}, threads=1)
    assert found.missing is None
    assert (found.bytes or 0) > 10**7, "a process with Python and the runtime in it"


def test_a_device_file_of_other_outputs_is_not_kept(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(devices.WRITERS, "openvino", lambda *given: lambda x: np.zeros((len(x), 5), np.float32))
    monkeypatch.setattr(formats, "check", lambda names: None)
    own = OwnModel(network, test=[(torch.rand(4, 1, 8, 8), torch.arange(4))])
    with pytest.raises(RunError, match=r"distilled\.xml would differ from the network"):
        ship(own, out=tmp_path / "out", formats=["openvino"], int8=False, memory=False, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", devices.WRITERS)
def test_a_missing_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(RequestError, match=rf"format {name} needs .*; or leave it out with --formats") as error:
        formats.check((name,))
    assert "\n" not in str(error.value)
