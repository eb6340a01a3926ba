"""`limbeck new`: a recipe for one's own models and data that is whole, commented, and runs as it is."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from called import Limbeck
from PIL import Image
from torch import nn

from limbeck.errors import LINE
from limbeck.models.networks.mlp import mlp
from limbeck.recipes.keys import keys
from limbeck.recipes.read import read

OWN = """
import torch
from torch import nn


def big(input_shape, classes):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * 64, 16), nn.ReLU(), nn.Linear(16, classes))


def data():
    inputs = torch.arange(40 * 64).reshape(40, 1, 8, 8) % 7 / 7
    part = torch.utils.data.TensorDataset(inputs, torch.arange(40) % 4)
    return part, part


def numbers():
    part = torch.utils.data.TensorDataset(torch.arange(80.0).reshape(20, 4) / 80, torch.arange(20.0))
    return part, part
"""
TRIAL = ("--epochs", 1, "--limit-steps", 2, "--quiet", "--accelerator", "cpu")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def images(root: Path, *parts: str, several: bool = True, count: int = 20) -> None:
    """Dark and bright images, of several sizes or of one."""
    for part in parts:
        for bright, name in enumerate(("dark", "light")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                size = (8 + number % 3, 9) if several else (8, 8)
                grey = np.full(size, 40 + 150 * bright + number, np.uint8)
                Image.fromarray(grey).save(root / part / name / f"{number}.png")


def trial(limbeck: Limbeck, recipe: str) -> dict[str, object]:
    """The result of two steps by this recipe, which is not changed but for its length."""
    said = limbeck("run", recipe, *TRIAL, "--set", "teacher.epochs=1" if "trained first" in text(recipe) else "seed=0")
    assert said.status == 0, said.err
    return json.loads((Path("runs") / Path(recipe).stem / "result.json").read_text())  # type: ignore[no-any-return]


def text(recipe: str) -> str:
    return Path(recipe).read_text(encoding="utf-8")


def test_images_and_networks_of_limbeck(limbeck: Limbeck, tmp_path: Path) -> None:
    images(tmp_path / "my photos", "train", "val")
    (tmp_path / "recipes").mkdir()
    said = limbeck(
        "new", "recipes/mine.yaml", "--teacher", "{model: mlp, hidden: [8]}", "--student", "mlp", "--data", "my photos"
    )
    assert said.status == 0, said.err
    assert "limbeck run recipes/mine.yaml" in said.out
    content = yaml.safe_load(text("recipes/mine.yaml"))
    # The images' shortest side is 8 pixels; 10 % of 40 images are at least one of each of the two classes.
    want = {"name": "image-folder", "root": "../my photos", "size": 8, "batch_size": 64, "validation": 0.1}
    assert content["data"] == want
    assert content["teacher"]["epochs"] == 10
    result = trial(limbeck, "recipes/mine.yaml")
    assert result["data"] == "image-folder"
    assert "# " in text("recipes/mine.yaml").splitlines()[0]


def test_each_key_has_its_meaning_behind_it(limbeck: Limbeck) -> None:
    assert limbeck("new", "mine.yml", "--teacher", "cnn", "--student", "mlp", "--data", "digits").status == 0
    meanings = {key.path: key.meaning for key in keys()}
    lines = [line for line in text("mine.yml").splitlines() if not line.startswith("#")]
    shown = [line.partition("  # ")[2] for line in lines]
    assert meanings["teacher.epochs"] in shown
    assert set(shown) <= {*meanings.values(), "", *(f"{one}" for one in meanings.values())}
    assert shown.count("") == 0
    assert read("mine.yml").epochs == 10


def test_modules_of_ones_own(limbeck: Limbeck, tmp_path: Path) -> None:
    (tmp_path / "own_starter.py").write_text(OWN)
    torch.save(mlp(input_shape=(1, 8, 8), classes=4, hidden=[5]).state_dict(), "begun.pt")
    own = ("--teacher", "own_starter.py:big", "--data", "own_starter.py:data")
    student = ("--student", "{model: mlp, hidden: [5]}", "--student-weights", "begun.pt")
    assert limbeck("new", "own.yaml", *own, *student, "--epochs", 3).status == 0
    recipe = read("own.yaml")
    assert (recipe.teachers[0].model, recipe.data.name) == ("own_starter:big", "own_starter:data")
    assert (recipe.teachers[0].epochs, recipe.student.weights, recipe.epochs) == (None, "begun.pt", 3)
    assert "where own_starter can be imported" in text("own.yaml")
    assert "own_starter:big must give the teacher with trained weights" in text("own.yaml")
    assert "comes trained" not in text("own.yaml")
    trial(limbeck, "own.yaml")


def test_numbers_are_learned_by_their_own_losses(limbeck: Limbeck, tmp_path: Path) -> None:
    (tmp_path / "own_starter.py").write_text(OWN)
    own = ("--teacher", "mlp", "--student", "mlp", "--data", "own_starter:numbers", "--task", "regression")
    assert limbeck("new", "numbers.yaml", *own).status == 0
    assert "test_rmse" in json.dumps(trial(limbeck, "numbers.yaml"))


def test_a_trained_teacher_is_not_trained(limbeck: Limbeck, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with warnings.catch_warnings(action="ignore"):  # of TorchScript's future
        torch.jit.script(network).save("net.pt")
    torch.save(mlp(input_shape=(1, 8, 8), classes=10, hidden=[5]).state_dict(), "teacher.pt")
    on_digits = ("--student", "mlp", "--data", "digits")
    assert limbeck("new", "a.yaml", "--teacher", "torchscript:net.pt", *on_digits).status == 0
    named = ("--teacher", "{model: mlp, hidden: [5]}", "--teacher-weights", "teacher.pt")
    assert limbeck("new", "b.yaml", *named, *on_digits, "--method", "dkd").status == 0
    for name in ("a", "b"):
        assert read(f"{name}.yaml").teachers[0].epochs is None
        assert "comes trained" in text(f"{name}.yaml")
    assert read("b.yaml").distill.method == "dkd"
    trial(limbeck, "b.yaml")


def test_data_that_a_run_downloads_are_not_downloaded_to_check_a_recipe(
    limbeck: Limbeck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMBECK_DATA", str(tmp_path / "data"))
    pair = ("--teacher", "{model: mlp, hidden: [4]}", "--data", "cifar10")
    said = limbeck("new", "c.yaml", *pair, "--student", "{model: mlp, hidden: [2]}")
    assert said.status == 0, said.err
    assert limbeck("new", "d.yaml", *pair, "--student", "{model: mlp, hiden: [2]}").status == 2
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_parts_of_an_image_folder(limbeck: Limbeck, tmp_path: Path) -> None:
    images(tmp_path / "three", "train", "val", "test", several=False, count=2)
    images(tmp_path / "few", "train", "test", several=False, count=2)
    for name in ("three", "few"):  # one has its own validation set, the other too few images for a part
        pair = ("--teacher", "mlp", "--student", "mlp", "--data", tmp_path / name)
        assert limbeck("new", f"{name}.yaml", *pair).status == 0
        data = read(f"{name}.yaml").data
        assert (data.root, data.size, data.validation) == (str(tmp_path / name), None, 0)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"--teacher": "resnet57"}, "unknown model 'resnet57'; did you mean resnet56"),
        ({"--student": "torchvision:resnet1"}, "unknown torchvision model 'resnet1'"),
        ({"--teacher": "onnx:gone.onnx"}, "there is no file gone.onnx"),
        ({"--teacher": "teacher.pt"}, "teacher.pt holds weights, and does not say of which network: give --teacher"),
        ({"--teacher": "gone.py:big"}, "there is no file gone.py"),
        ({"--teacher": "../big.py:net"}, "cannot be imported from"),
        ({"--teacher": "own_starter.py"}, "name the function in it that gives the model, own_starter.py:NAME"),
        ({"--teacher": "own_starter:bgi"}, "did you mean big"),
        ({"--teacher": "{model: mlp"}, "a model is a name or a mapping"),
        ({"--data": "digit"}, "did you mean digits?; or give a folder of images"),
        ({"--data": "empty"}, "it needs train/, and test/ or val/"),
        ({"--data": "{name: digits, rot: x}"}, "unknown key 'data.rot'"),
        ({"--teacher-weights": "gone.pt"}, "--teacher-weights: there is no file gone.pt"),
        ({"--epochs": "0"}, "epochs: "),
        ({"--method": "kdd"}, "unknown method 'kdd'"),
        ({"--task": "embedding"}, "embedding has no labels to train a teacher with: give --teacher-weights FILE"),
        ({"--task": "regresion"}, "unknown task 'regresion'; did you mean regression"),
        ({"--task": "segmentation", "--teacher": "cnn"}, "this recipe would not run: "),
        ({"--task": "regression"}, "cannot be trained: regression targets of shape (2,) do not fit outputs (2, 10)"),
        ({"--task": "language-modelling"}, "this recipe would not run: "),
        ({"--teacher": "{model: mlp, hiden: [3]}"}, "did you mean hidden"),
    ],
)
def test_wrong_requests_are_one_line(changed: dict[str, str], told: str, limbeck: Limbeck, tmp_path: Path) -> None:
    (tmp_path / "own_starter.py").write_text(OWN)
    (tmp_path / "empty").mkdir()
    (tmp_path.parent / "big.py").write_text("net = None\n")
    given = {"--teacher": "mlp", "--student": "mlp", "--data": "digits"} | changed
    said = limbeck("new", "bad.yaml", *(word for pair in given.items() for word in pair))
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert told in said.err
    assert len(said.err) <= LINE + 1
    assert not Path("bad.yaml").exists()


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("there.yaml", "there.yaml exists, and is not overwritten; choose another name"),
        ("mine.txt", "a recipe is a file NAME.yaml, not 'mine.txt'"),
        ("nowhere/mine.yaml", "cannot write nowhere/mine.yaml: No such file or directory"),
        ("a:b.yaml", "a recipe is a file NAME.yaml, not 'a:b.yaml'"),
    ],
)
def test_where_it_cannot_be_written(file: str, told: str, limbeck: Limbeck) -> None:
    Path("there.yaml").write_text("kept")
    said = limbeck("new", file, "--teacher", "mlp", "--student", "mlp", "--data", "digits")
    assert (said.status, told in said.err) == (2, True)
    assert Path("there.yaml").read_text() == "kept"
    assert [path.name for path in Path().iterdir()] == ["there.yaml"]
