"""What `limbeck export` writes is what the run had: the same logits, in plain PyTorch and in ONNX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import limbeck
from limbeck.errors import RequestError, RunError
from limbeck.export import export_run
from limbeck.export import onnx as onnx_module
from limbeck.models import mlp, multiply_adds, parameter_count
from limbeck.models.load import load_network
from limbeck.models.networks.multi_exit import MultiExit
from limbeck.models.onnx_writer import exported
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.run import run

pytestmark = pytest.mark.usefixtures("few_digits")
QUIET = Machine(accelerator="cpu", progress=False)
SELF: dict[str, Any] = {
    "name": "self",
    "data": {"batch_size": 64, "drop_last": True},
    "student": {"model": "byot_small", "widths": [4, 6, 8], "mean": [0.3], "std": [0.4]},
    "distill": {"scheme": "self"},
    "epochs": 1,
    "optimizer": {"lr": 0.01},
}
KD = [{"loss": "kd", "weight": 0.5, "temperature": 2}]
PLAIN = SELF | {
    "student": {"model": "mlp", "hidden": [8]},
    "distill": {"scheme": "teacher-free", "terms": KD},
}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("self") / "run"
    return folder, run(check(SELF), root=folder, out=folder, machine=QUIET, baseline=False)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("plain") / "run"
    return folder, run(check(PLAIN), root=folder, out=folder, machine=QUIET, baseline=False)


@pytest.mark.parametrize("exit", [1, 2, 3])
def test_an_exit_gives_the_logits_of_the_exit_inside(
    several: tuple[Path, dict[str, Any]], exit: int, tmp_path: Path
) -> None:
    folder, result = several
    done = export_run(folder, exit=exit, out=tmp_path)
    whole = load_network(folder / "student.json")
    assert isinstance(whole, MultiExit)
    x = torch.rand(5, 1, 8, 8)
    model = limbeck.load_model(done["json"])
    with torch.no_grad():
        assert torch.equal(model(x), whole((x - 0.3) / 0.4).logits[3 - exit])
    assert not any(module.training for module in model.modules())
    about = json.loads((tmp_path / f"exit-{exit}.json").read_text())
    assert about["test_accuracy"] == result["distilled"][f"test_accuracy/exit {exit}/3"]
    assert about["parameters"] == parameter_count(model) == done["parameters"]
    assert about["multiply_adds"] == multiply_adds(model, torch.zeros(1, 1, 8, 8))
    weights = load_file(tmp_path / f"exit-{exit}.safetensors")
    assert sum(v.numel() for n, v in weights.items() if "running" not in n and "batches" not in n) == done["parameters"]


def test_an_exported_exit_can_be_named_in_a_recipe(several: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    export_run(several[0], exit=2, out=tmp_path)
    teacher = SELF["student"] | {"exit": 2, "weights": str(tmp_path / "exit-2.safetensors")}
    recipe = PLAIN | {"teacher": teacher, "distill": {"terms": KD}}
    result = run(check(recipe), root=tmp_path, out=tmp_path / "run", machine=QUIET, baseline=False)
    assert result["teacher"]["test_accuracy"] == several[1]["distilled"]["test_accuracy/exit 2/3"]


def test_an_ordinary_student_is_exported_whole(single: tuple[Path, dict[str, Any]]) -> None:
    folder, result = single
    done = export_run(folder, onnx=True)
    assert done["json"] == str(folder / "export" / "student.json")
    assert done["test_accuracy"] == result["distilled"]["test_accuracy"]
    plain = mlp(input_shape=(1, 8, 8), classes=10, hidden=[8])
    plain.load_state_dict(load_file(folder / "export" / "student.safetensors"))
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(limbeck.load_model(done["json"])(x), plain.eval()(x))
    # The run folder's own files are of the same form.
    assert torch.equal(limbeck.load_model(folder / "student.json")(x), plain(x))
    # 64 · 8 + 8 · 10 products.
    assert done["multiply_adds"] == 592


def test_onnx_takes_pixels_and_any_batch(several: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    done = export_run(several[0], exit=2, out=tmp_path, onnx=True)
    session = onnxruntime.InferenceSession(tmp_path / "exit-2.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 2, 7):
        x = torch.rand(batch, 1, 8, 8)
        (found,) = session.run(["logits"], {"input": x.numpy()})
        expected = limbeck.load_model(done["json"])(x).detach()
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-4)
    about = json.loads((tmp_path / "exit-2.json").read_text())["onnx"]
    assert about["file"] == "exit-2.onnx"
    assert about["input"] == {"name": "input", "shape": ["batch", 1, 8, 8], "range": [0, 1]}
    assert about["output"] == {"name": "logits", "shape": ["batch", 10]}
    assert 0 <= about["largest_difference"] < 1e-4
    # One file, that tells nothing of the machine on which it was made.
    assert {path.name for path in tmp_path.iterdir()} == {"exit-2.json", "exit-2.onnx", "exit-2.safetensors"}
    assert b".py" not in (tmp_path / "exit-2.onnx").read_bytes()


def test_onnx_that_gives_other_logits_is_not_written(
    single: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    converted = onnx_module.converted

    def altered(model: nn.Module, shape: tuple[int, ...], *more: Any) -> tuple[bytes, int]:
        with torch.no_grad():
            model.network[-1].bias += 0.01  # type: ignore[index, union-attr]
            found = converted(model, shape)
            model.network[-1].bias -= 0.01  # type: ignore[index, union-attr]
        return found

    monkeypatch.setattr(onnx_module, "converted", altered)
    with pytest.raises(RunError, match=r"would differ from the network by 0\.01; it was not written"):
        export_run(single[0], out=tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()


def test_without_the_extra_onnx_names_it(
    single: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install 'limbeck\[onnx\]'"):
        export_run(single[0], out=tmp_path, onnx=True)


def test_a_network_that_cannot_be_converted(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")

    class Counting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :2] if x.sum().item() > 0 else -x.flatten(1)[:, :2]

    with pytest.raises(RequestError, match="cannot be written as ONNX"):
        onnx_module.write_onnx(tmp_path / "no.onnx", Counting(), {"shape": [1, 2, 2]})
    assert list(tmp_path.iterdir()) == []


def test_an_exporter_that_the_newest_packages_do_not_fit_names_those_that_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise AttributeError("'tuple' object has no attribute 'dtype'")

    pytest.importorskip("onnxscript")
    monkeypatch.setattr("torch.onnx.export", fails)
    for version, ends in (("2.6.0+cu124", r"onnxscript==0\.5\.0 and onnx-ir==.*newer torch"), ("2.7.1", "'dtype'")):
        monkeypatch.setattr(torch, "__version__", version)
        with pytest.raises(RequestError, match=f"{ends}$"):
            onnx_module.write_onnx(tmp_path / "no.onnx", nn.Flatten(), {"shape": [1, 2, 2]})


def test_a_file_that_takes_one_size_of_batches_alone_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")

    def fixed(model: nn.Module, shape: tuple[int, ...], output: str, metadata: Any) -> tuple[bytes, int]:
        return exported(model, (torch.rand(2, *shape),), ["input"], output, (None,), metadata)

    monkeypatch.setattr(onnx_module, "converted", fixed)
    with pytest.raises(RequestError, match="the file, made from 2 samples, fails on 1: "):
        onnx_module.write_onnx(tmp_path / "no.onnx", nn.Flatten(), {"shape": [1, 2, 2]})
    assert list(tmp_path.iterdir()) == []


def test_which_exit_must_be_said(
    several: tuple[Path, dict[str, Any]], single: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=r"has 3 exits: choose one with --exit, 1 \(shallowest\) to 3 \(deepest\)"):
        export_run(several[0], out=tmp_path)
    with pytest.raises(RequestError, match="there is no exit 4"):
        export_run(several[0], exit=4, out=tmp_path)
    with pytest.raises(RequestError, match="mlp has a single exit; leave --exit out"):
        export_run(single[0], exit=1, out=tmp_path)
    with pytest.raises(RequestError, match="holds no finished run"):
        export_run(tmp_path, exit=1)
    assert list(tmp_path.iterdir()) == []
