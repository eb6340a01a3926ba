"""TorchScript and programs of torch.export as models by name: read as their networks, and never as pickles."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limbeck import Distiller, ModuleTeacher
from limbeck.errors import RequestError
from limbeck.models import load_weights
from limbeck.models.build import build
from limbeck.models.inspect import inspect
from limbeck.taps import Taps, trace
from limbeck.types import Batch

SHAPE = (3, 8, 8)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


@pytest.fixture(scope="module")
def network() -> Small:
    torch.manual_seed(0)
    model = Small()
    model(torch.rand(32, *SHAPE))
    return model.eval()


@pytest.fixture(scope="module")
def files(network: Small, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programs")
    x = torch.rand(4, *SHAPE)
    found = {name: folder / name for name in ("traced.pt", "scripted.pt", "any.pt2", "four.pt2")}
    with warnings.catch_warnings(action="ignore"):  # of TorchScript's future
        torch.jit.save(torch.jit.trace(network, x), found["traced.pt"])
        torch.jit.save(torch.jit.script(network), found["scripted.pt"])
    free = {0: torch.export.Dim("batch", min=1, max=64), 2: torch.export.Dim("height", min=4, max=64)}
    torch.export.save(torch.export.export(network, (x,), dynamic_shapes=(free,)), found["any.pt2"])
    torch.export.save(torch.export.export(network, (x,)), found["four.pt2"])
    return found


def name_of(path: Path) -> str:
    return f"{'pt2' if path.suffix == '.pt2' else 'torchscript'}:{path}"


@pytest.mark.parametrize("name", ["traced.pt", "scripted.pt", "any.pt2", "four.pt2"])
def test_a_file_by_name_teaches_as_its_network(network: Small, files: dict[str, Path], name: str) -> None:
    model = build(name_of(files[name]), input_shape=SHAPE, classes=10)
    x = torch.rand(6, *SHAPE)
    teacher = ModuleTeacher(model)
    found = teacher(Batch(x, torch.zeros(6, dtype=torch.long), torch.arange(6))).logits
    torch.testing.assert_close(found, network(x).detach())
    assert bool(teacher.notes) == (name == "four.pt2")


def test_the_modules_of_a_program_are_taps(network: Small, files: dict[str, Path]) -> None:
    model = build(name_of(files["any.pt2"]), input_shape=SHAPE, classes=10)
    x = torch.rand(3, *SHAPE)
    assert {"body.0", "body", "head"} <= {tap.name for tap in trace(model, x)}
    with torch.no_grad():
        _, tensors = Taps(model, ["body"]).run(x)
        torch.testing.assert_close(tensors["body"], network.body(x))
    found = inspect(name_of(files["four.pt2"]), SHAPE, 10)
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert found.multiply_adds == 4 * 27 * 36 + 4 * 10


def test_a_program_cannot_be_a_student(files: dict[str, Path]) -> None:
    loaded = torch.export.load(files["any.pt2"]).module()
    for student in (loaded, nn.Sequential(nn.Identity(), loaded)):
        with pytest.raises(RequestError, match=r"a program of torch\.export, which has no train\(\)"):
            Distiller(student)
    assert Distiller(torch.fx.symbolic_trace(Small())).train().training  # another graph of torch.fx may be one


def rewritten(
    source: Path, path: Path, change: Callable[[str, bytes], bytes], more: dict[str, bytes] | None = None
) -> str:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry.filename)))
        for name, content in (more or {}).items():
            new.writestr(f"{source.stem}/{name}", content)
    return name_of(path)


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harmed",)


def changed(old: str, new: str) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        return content.replace(old.encode(), new.encode()) if name.endswith("model.json") else content

    return change


def with_pickle(name: str, content: bytes) -> bytes:
    """One weight is said to be pickled."""
    if name.endswith("weights_config.json"):
        config = json.loads(content)
        next(iter(config["config"].values()))["use_pickle"] = True
        return json.dumps(config).encode()
    return pickle.dumps(Harm()) if name.endswith("weight_0") else content


def with_pickled_inputs(name: str, content: bytes) -> bytes:
    return pickle.dumps(Harm()) if "sample_inputs" in name else content


@pytest.mark.parametrize(
    ("change", "more", "said"),
    [
        (with_pickle, None, "cannot read the program"),
        (with_pickled_inputs, None, "cannot read the program"),
        (changed("torch.ops.aten.relu.default", "torch.os.mkdir"), None, "names 'torch.os.mkdir', which is none of"),
        (changed("torch.ops.aten.relu.default", "_operator.methodcaller"), None, "which is none of PyTorch's"),
        (changed("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default"), None, "which is none of"),
        (changed("Symbol('s77'", "__import__('os').mkdir('harmed') or Symbol('s77'"), None, "in place of a formula"),
        (changed('"x"', "\"x=__import__('os').mkdir('harmed')\""), None, "in place of a name"),
        (lambda _, content: content, {"data/constants/opaque_obj_0": pickle.dumps(Harm())}, "which is never run"),
        (lambda _, content: content, {"data/aotinductor/model/model.so": b""}, "compiled code"),
    ],
)
def test_a_program_that_holds_more_than_operations_and_tensors_is_refused(
    change: Callable[[str, bytes], bytes], more: dict[str, bytes] | None, said: str,
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    name = rewritten(files["any.pt2"], tmp_path / "hostile.pt2", change, more)
    assert Path(files["any.pt2"]).read_bytes() != Path("hostile.pt2").read_bytes()
    with pytest.raises(RequestError, match=said):
        build(name, input_shape=SHAPE, classes=10)
    assert not Path("harmed").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_files_of_other_kinds_are_named(network: Small, files: dict[str, Path], tmp_path: Path) -> None:
    torch.save(Harm(), tmp_path / "pickle.pt")
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("x")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Harm()))
    shutil.copy(files["traced.pt"], tmp_path / "script.pt2")
    shutil.copy(files["any.pt2"], tmp_path / "program.pt")
    for name, kind in (
        ("torchscript:pickle.pt", "is no TorchScript"),
        ("torchscript:weights.pt", "is no TorchScript; weights alone are given as weights: FILE"),
        ("torchscript:text.pt", "no archive"),
        ("torchscript:old.pt", "no archive"),
        ("torchscript:program.pt", "is no TorchScript"),
        ("torchscript:missing.pt", "there is no file"),
        ("pt2:script.pt2", r"is no program of torch\.export"),
        ("pt2:weights.pt", r"is no program of torch\.export"),
    ):
        source, _, file = name.partition(":")
        with pytest.raises(RequestError, match=kind):
            build(f"{source}:{tmp_path / file}", input_shape=SHAPE, classes=10)
    assert not Path("harmed").exists()
    with pytest.raises(RequestError, match=r"torchscript:FILE"):
        load_weights(network, files["traced.pt"])
    with pytest.raises(RequestError, match=r"pt2:FILE"):
        load_weights(network, files["any.pt2"])
