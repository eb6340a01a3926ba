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
from limbeck.data import DataSet, InMemory, make_loader
from limbeck.errors import RequestError
from limbeck.measure.evaluation import evaluate_teacher
from limbeck.models import load_weights
from limbeck.models.build import build
from limbeck.models.inspect import inspect
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.runs.teachers import as_one, candidates
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
    found = teacher(Batch(x, torch.zeros(6, dtype=torch.long), torch.arange(6))).output
    torch.testing.assert_close(found, network(x).detach())
    assert bool(teacher.notes) == (name == "four.pt2")


def test_the_modules_of_a_program_are_taps(network: Small, files: dict[str, Path]) -> None:
    model = build(name_of(files["any.pt2"]), input_shape=SHAPE, classes=10)
    x = torch.rand(3, *SHAPE)
    kinds = {tap.name: tap.kind for tap in trace(model, x)}
    assert (kinds["body.0"], kinds["body"], kinds["head"]) == ("Conv2d", "Sequential", "Linear")
    with torch.no_grad():
        _, tensors = Taps(model, ["body"]).run(x)
        torch.testing.assert_close(tensors["body"], network.body(x))
    found = inspect(name_of(files["four.pt2"]), SHAPE, 10)
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert found.multiply_adds == 4 * 27 * 36 + 4 * 10


@pytest.mark.parametrize("write", ["trace", "script", "export"])
def test_the_code_of_a_program_is_in_its_fingerprint(write: str) -> None:
    class Acts(nn.Module):
        def __init__(self, act: Callable[[torch.Tensor], torch.Tensor], factor: float) -> None:
            super().__init__()
            self.linear, self.act, self.factor = nn.Linear(4, 4), act, torch.tensor([factor])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(self.linear(x)) * self.factor

    def made(act: Callable[[torch.Tensor], torch.Tensor], factor: float = 2.0) -> str:
        torch.manual_seed(0)
        model, x = Acts(act, factor).eval(), torch.rand(3, 4)
        with warnings.catch_warnings(action="ignore"):  # of TorchScript's future
            writers = {
                "trace": lambda: torch.jit.trace(model, x),
                "script": lambda: torch.jit.script(model),
                "export": lambda: torch.export.export(model, (x,)).module(),
            }
            return ModuleTeacher(writers[write]()).fingerprint

    assert made(torch.relu) == made(torch.relu)
    assert made(torch.relu) != made(torch.tanh)
    if write != "script":  # which keeps it as an attribute, and not in its code
        assert made(torch.relu) != made(torch.relu, 3.0)


@pytest.mark.parametrize("name", ["traced.pt", "four.pt2"])
def test_a_recipe_sees_the_accuracy_of_the_network(
    network: Small, files: dict[str, Path], name: str, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(40, *SHAPE, generator=generator)
    with torch.no_grad():
        right = network(x).argmax(1)
    y = torch.where(torch.arange(40) % 4 == 0, (right + 1) % 10, right)  # a fourth is wrong
    split = InMemory(x, y)
    data = DataSet("made", split, split, 10, SHAPE)
    recipe = check(
        {
            "data": {"name": "made", "batch_size": 16},
            "teacher": {"model": name_of(files[name]), "dtype": "float32"},
            "student": {"model": "mlp", "hidden": [8]},
            "distill": {"method": "kd"},
            "epochs": 2,
        }
    )
    (one,) = candidates(recipe, data)
    assert evaluate_teacher(as_one([one]), make_loader(split, 7))["accuracy"] == pytest.approx(0.75)


def test_a_script_is_inspected_and_one_in_training_mode_is_said_before_its_outputs_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5)).train()
    with warnings.catch_warnings(action="ignore"):  # of TorchScript's future
        torch.jit.save(torch.jit.trace(network, torch.rand(4, 1, 8, 8), check_trace=False), tmp_path / "noisy.pt")
    name = f"torchscript:{tmp_path / 'noisy.pt'}"
    found = inspect(name, (1, 8, 8), 10)
    assert (found.parameters, found.multiply_adds) == (650, 640)
    assert [(tap.name, tap.kind, tap.parameters) for tap in found.taps] == [
        ("0", "Flatten", 0), ("1", "Linear", 650), ("2", "Dropout", 0),
    ]  # fmt: skip
    recipe = check(
        {
            "data": {"name": "digits", "batch_size": 256},
            "teacher": {"model": name, "store": "memory"},
            "student": {"model": "mlp", "hidden": [4]},
            "distill": {"method": "kd"},
            "epochs": 1,
        }
    )
    run(recipe, root=tmp_path, out=tmp_path / "out", machine=Machine(accelerator="cpu"), baseline=False)
    said = [line for line in capsys.readouterr().err.splitlines() if "gives other answers when asked again" in line]
    assert len(said) == 1


def test_a_program_cannot_be_a_student(files: dict[str, Path]) -> None:
    loaded = torch.export.load(files["any.pt2"]).module()
    named = build(name_of(files["any.pt2"]), input_shape=SHAPE, classes=10)
    for student in (loaded, nn.Sequential(nn.Identity(), loaded), named):
        with pytest.raises(RequestError, match=r"a program of torch\.export, which has no training mode"):
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


PROGRAM = ("model.json", "serialized_exported_program.json")
"""Where an archive says what is computed; the latter in older torch."""


def changed(old: str, new: str) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        return content.replace(old.encode(), new.encode()) if name.endswith(PROGRAM) else content

    return change


def with_pickle(name: str, content: bytes) -> bytes:
    """One weight is said to be pickled, or, in the archives of older torch, all of them are."""
    if name.endswith("weights_config.json"):
        config = json.loads(content)
        next(iter(config["config"].values()))["use_pickle"] = True
        return json.dumps(config).encode()
    return pickle.dumps(Harm()) if name.endswith(("weight_0", "serialized_state_dict.pt")) else content


def with_pickled_inputs(name: str, content: bytes) -> bytes:
    return pickle.dumps(Harm()) if "sample_inputs" in name or "example_inputs" in name else content


@pytest.mark.parametrize(
    ("change", "more", "said"),
    [
        (with_pickle, None, "cannot read the program"),
        (with_pickled_inputs, None, "cannot read the program"),
        (changed("torch.ops.aten.relu.default", "torch.os.mkdir"), None, "names 'torch.os.mkdir', which is none of"),
        (changed("torch.ops.aten.relu.default", "_operator.methodcaller"), None, "which is none of PyTorch's"),
        (changed("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default"), None, "which is none of"),
        (changed("Symbol('s", "__import__('os').mkdir('harmed') or Symbol('s"), None, "in place of a formula"),
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
