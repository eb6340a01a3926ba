"""A run is evaluated, exported and resumed as what it is: with its own data, weights and teacher, or not at all."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import limbeck
from limbeck.cli.names import names
from limbeck.compare import compare
from limbeck.errors import RequestError
from limbeck.export import export_run
from limbeck.models.build import FILES
from limbeck.recipes.read import check, read
from limbeck.runs import train
from limbeck.runs.finished.exits import weigh_exits
from limbeck.runs.finished.read import evaluate_run
from limbeck.runs.machine import Machine
from limbeck.runs.run import run

QUIET = Machine(accelerator="cpu", progress=False)
KINDS = ("猫 cats", "dogs")
SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"name": "image-folder", "batch_size": 4},
    "teacher": {"model": "mlp", "hidden": [8], "epochs": 20, "optimizer": {"lr": 0.01}, "store": "never"},
    "student": {"model": "mlp", "hidden": [8]},
    "distill": {"terms": [{"loss": "kd"}]},
    "epochs": 3,
    "optimizer": {"lr": 0.01},
}


def images(root: Path, kinds: tuple[str, ...] = KINDS, red: tuple[int, int] = (40, 200), count: int = 6) -> Path:
    """Two kinds of images that differ in how red, and how blue, they are."""
    for part in ("train", "test"):
        for kind, value in zip(kinds, red, strict=True):
            (root / part / kind).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (4, 4), (value + 3 * i, 120, 240 - value)).save(root / part / kind / f"{i}.png")
    return root


def go(content: dict[str, Any], out: Path, root: Path, **options: Any) -> dict[str, Any]:
    return run(check(SMALL | content), root=root, out=out, machine=QUIET, baseline=False, **options)


def test_evaluate_finds_the_data_that_the_run_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = go({}, Path("out 目录"), images(tmp_path / "my 数据").relative_to(tmp_path))
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("LIMBECK_DATA", str(tmp_path / "nowhere"))
    figures = evaluate_run(tmp_path / "out 目录")
    assert figures["accuracy"] == result["distilled"]["test_accuracy"]
    assert figures["agreement"] == result["distilled"]["test"]["agreement"]
    about = json.loads((tmp_path / "out 目录" / "student.json").read_text(encoding="utf-8"))
    assert about["class_names"] == sorted(KINDS)


def test_other_classes_are_refused_and_a_finished_result_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, root = tmp_path / "out", images(tmp_path / "one")
    learns = {"epochs": 30, "optimizer": {"lr": 0.02}}
    first = go(learns, out, root)
    assert first["distilled"]["test_accuracy"] == 1.0
    written = (out / "result.json").read_bytes()
    # The same images in the folders' other order: figures would be 0.
    swapped = images(tmp_path / "swapped", ("a dogs", "b cats"), (200, 40))
    for look in (lambda: evaluate_run(out, swapped), lambda: go(learns, out, swapped, resume=True)):
        with pytest.raises(RequestError, match=r"the data had the classes dogs, 猫 cats \(2\) and have a dogs"):
            look()
    more = images(tmp_path / "more", count=7)
    with pytest.raises(RequestError, match="there were 12 training samples and are 14; there were 12 test samples and"):
        go(learns, out, more, resume=True)
    capsys.readouterr()
    assert evaluate_run(out, more)["samples"] == 14
    assert f"these are not the figures of {out}: there were 12 test samples and are 14 in" in capsys.readouterr().err
    again = go(learns, out, root, resume=True)
    assert "is finished: its result is given as it is" in capsys.readouterr().err
    assert again == first
    assert (out / "result.json").read_bytes() == written


def test_weights_that_were_swapped_or_are_not_finite(tmp_path: Path) -> None:
    root = images(tmp_path / "data")
    for seed in (0, 1):
        go({"seed": seed}, tmp_path / f"run{seed}", root)
    shutil.copytree(tmp_path / "run0", tmp_path / "swapped")
    shutil.copy(tmp_path / "run1" / "student.safetensors", tmp_path / "swapped")
    looks = (evaluate_run, export_run, weigh_exits, lambda folder: limbeck.load_model(folder / "student.json"))
    for look in looks:
        with pytest.raises(RequestError, match=r"student\.safetensors is not the file that .*student\.json describes"):
            look(tmp_path / "swapped")
    weights = load_file(tmp_path / "run0" / "student.safetensors")
    name = next(iter(weights))
    weights[name][0] = float("nan")
    save_file(weights, tmp_path / "nan.safetensors")
    wrong = weights[name][0].numel()
    given = {"teacher": None, "student": SMALL["student"] | {"weights": str(tmp_path / "nan.safetensors")}}
    with pytest.raises(RequestError, match=rf"not usable: {name} holds {wrong} values that are no finite numbers"):
        go(given | {"distill": {"scheme": "mutual"}}, tmp_path / "no", root)
    about = json.loads((tmp_path / "run0" / "student.json").read_text())
    shutil.copy(tmp_path / "nan.safetensors", tmp_path / "run0" / "student.safetensors")
    (tmp_path / "run0" / "student.json").write_text(json.dumps({k: v for k, v in about.items() if k != "sha256"}))
    for look in looks:
        with pytest.raises(RequestError, match="values that are no finite numbers"):
            look(tmp_path / "run0")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("distill", [SMALL["distill"], {"method": "kd"}], ids=["terms", "method"])
def test_a_run_that_was_moved_without_its_teachers_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], distill: dict[str, Any]
) -> None:
    root = images(tmp_path / "here")
    trained = go({}, tmp_path / "first", root)["teacher"]["weights"]
    shutil.copy(trained, tmp_path / "teacher.safetensors")
    spec = {"model": "mlp", "hidden": [8], "weights": str(tmp_path / "teacher.safetensors")}
    result = go({"teacher": spec, "distill": distill}, tmp_path / "run", root)
    moved = tmp_path / "there" / "moved"
    shutil.copytree(tmp_path / "run", moved)
    shutil.copytree(root, tmp_path / "there" / "data", copy_function=shutil.copyfile)
    shutil.rmtree(root)
    (tmp_path / "teacher.safetensors").unlink()
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "there" / "cache"))
    capsys.readouterr()
    figures = evaluate_run(moved, tmp_path / "there" / "data")
    said = capsys.readouterr().err
    assert (figures["accuracy"], "agreement" in figures) == (result["distilled"]["test_accuracy"], False)
    assert "agreement with the teacher is left out: there is no weights file" in said
    assert export_run(moved)["test_accuracy"] == result["distilled"]["test_accuracy"]
    before = (moved / "result.json").read_bytes()
    again = run(read(str(moved / "recipe.yaml")), root=tmp_path / "there" / "data", out=moved, resume=True,
                machine=QUIET)  # fmt: skip
    assert again["distilled"] == result["distilled"]
    assert (moved / "result.json").read_bytes() == before
    # Other weights in the teacher's place are not the run's teacher.
    other = go({"teacher": SMALL["teacher"] | {"seed": 5}}, tmp_path / "other", tmp_path / "there" / "data")
    shutil.copy(other["teacher"]["weights"], tmp_path / "teacher.safetensors")
    assert evaluate_run(moved, tmp_path / "there" / "data").get("agreement") is None
    assert "is left out: the teacher has other weights than in the run" in capsys.readouterr().err


def test_an_interrupted_run_goes_on_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, fit = images(tmp_path / "here"), train.fit

    def stopped(*given: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    whole = go({}, tmp_path / "whole", root)
    monkeypatch.setattr(train, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        go({}, tmp_path / "run", root)
    monkeypatch.setattr(train, "fit", fit)
    shutil.move(root, tmp_path / "there")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert (
        go({}, tmp_path / "moved", tmp_path / "there", resume=True)["distilled"]["test"]["loss"]
        == (whole["distilled"]["test"]["loss"])
    )


def test_the_result_of_a_run_whose_own_code_changed_is_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    root = images(tmp_path / "data")
    own = {"distill": {"terms": [{"loss": "own_run_loss:loss"}]}}
    for number, text in enumerate(("student - teacher", "teacher - 2 * student")):
        (tmp_path / "own_run_loss.py").write_text(f"def loss(student, teacher): return ({text}).square().mean(1)\n")
        sys.modules.pop("own_run_loss", None)
        if number == 0:
            go(own, tmp_path / "out", root)
    with pytest.raises(RequestError, match=r"holds another run \(the code of own_run_loss changed\); choose another"):
        go(own, tmp_path / "out", root, resume=True)


def test_the_data_folder_is_only_read(tmp_path: Path) -> None:
    root = images(tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    torch.manual_seed(0)
    go({}, tmp_path / "out", root)
    evaluate_run(tmp_path / "out", root)
    assert {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))} == before


def script(path: Path, factor: float) -> Path:
    """A TorchScript file with always the same weights, whose code multiplies its logits by a factor."""

    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.layers(x) * factor
            return logits

    with warnings.catch_warnings(action="ignore"):  # of TorchScript's own future
        traced = torch.jit.trace(Scaled().eval(), torch.zeros(2, 3, 4, 4))  # type: ignore[no-untyped-call]
        traced.save(str(path))
    return path


def test_every_kind_of_file_is_listed_and_may_be_moved(tmp_path: Path) -> None:
    listed = names("models")["models"]
    assert {name.partition(":")[0] for name in listed if name.endswith((":FILE", ":FOLDER"))} == FILES
    root, file = images(tmp_path / "data"), script(tmp_path / "net.pt", 1.0)
    given: dict[str, Any] = {"teacher": {"model": f"torchscript:{file}"}}
    first = go(given, tmp_path / "run", root)
    (tmp_path / "moved").mkdir()
    given = {"teacher": {"model": f"torchscript:{shutil.move(file, tmp_path / 'moved' / 'net.pt')}"}}
    assert go(given, tmp_path / "run", root, resume=True) == first


def test_an_edited_teacher_file_with_equal_weights_is_another_teacher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, file = images(tmp_path / "data"), script(tmp_path / "net.pt", 1.0)
    recipe = check(SMALL | {"teacher": {"model": f"torchscript:{file}"}})
    given: dict[str, Any] = {"root": root, "out": tmp_path / "cmp", "machine": QUIET}
    compare(recipe, ["kd"], [0], **given)
    go({"teacher": {"model": f"torchscript:{file}"}}, tmp_path / "run", root)
    script(file, -3.0)
    with pytest.raises(RequestError, match="the teacher has other weights"):
        compare(recipe, ["kd"], [0, 1], resume=True, **given)
    capsys.readouterr()
    assert evaluate_run(tmp_path / "run", root).get("agreement") is None
    assert "is left out: the teacher has other weights than in the run" in capsys.readouterr().err
