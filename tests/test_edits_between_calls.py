"""Whatever is edited between two calls: the second gives the figures of a fresh start, or refuses."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from limbeck.compare import compare
from limbeck.errors import RequestError
from limbeck.models import mlp
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine

QUIET = Machine(accelerator="cpu", progress=False)
LOSS = "SCALE = 1.0\n\ndef loss(student, teacher):\n    return SCALE * (student - teacher).abs().mean(1)\n"
LOSS += "\n\ndef view(image, by):\n    return (image + by).clamp(0, 255)\n"
LOSS += "\n\ndef drawn(labels):\n    return 1.0 + labels.float()\n"


class Project:
    """A recipe, a module of one's own, a folder of images and a teacher's file, as a user edits them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data, self.teacher, self.module = folder / "图像 data", folder / "t.safetensors", folder / "edited_loss.py"
        for part, kind, value in ((p, k, v) for p in ("train", "test") for k, v in (("a", 30), ("b", 90), ("c", 200))):
            (self.data / part / kind).mkdir(parents=True)
            for i in range(4):
                self.image(self.data / part / kind / f"{i}.png", (value, 9 * i, 255 - value))
        self.weights(0)
        self.module.write_text(LOSS)
        self.recipe: dict[str, Any] = {
            "name": "edited",
            "data": {"name": "image-folder", "batch_size": 4},
            "teacher": {"model": "mlp", "hidden": [6], "weights": str(self.teacher)},
            "student": {"model": "mlp", "hidden": [5]},
            "distill": {"task_weight": 0.5, "terms": [{"loss": "edited_loss:loss"}, {"loss": "kd", "temperature": 3}]},
            "epochs": 2,
            "optimizer": {"lr": 0.02},
        }

    def image(self, path: Path, colour: tuple[int, int, int]) -> None:
        Image.new("RGB", (4, 4), colour).save(path)

    def weights(self, seed: int) -> None:
        torch.manual_seed(seed)
        network = mlp(input_shape=(3, 4, 4), classes=3, hidden=[6])
        save_file({name: value.clone() for name, value in network.state_dict().items()}, self.teacher)

    def figures(self, out: Path, **options: Any) -> dict[str, dict[str, float]]:
        """Every student's test figures, by its folder."""
        sys.modules.pop("edited_loss", None)
        compare(check(self.recipe), ["recipe"], [0], root=self.data, out=out, machine=QUIET, **options)
        found = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/result.json")}
        return {name: {k: v for k, v in one.items() if k.startswith("test_")} for name, one in found.items()}


Edit = Callable[[Project, random.Random], None]


def set_key(*path: str | int, values: list[Any]) -> Edit:
    def edit(project: Project, chance: random.Random) -> None:
        place: Any = project.recipe
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = chance.choice(values)

    return edit


def replace_image(project: Project, chance: random.Random) -> None:
    path = chance.choice(sorted(project.data.rglob("*.png")))
    project.image(path, (chance.randrange(256), 255, chance.randrange(256)))


def remove_image(project: Project, chance: random.Random) -> None:
    chance.choice(sorted(project.data.rglob("*.png"))).unlink()


def rename_class(project: Project, chance: random.Random) -> None:
    old, new = chance.choice([("a", "z"), ("b", "bb"), ("c", "0")])
    for part in ("train", "test"):
        (project.data / part / old).rename(project.data / part / new)


def scale_loss(project: Project, chance: random.Random) -> None:
    project.module.write_text(LOSS.replace("SCALE = 1.0", f"SCALE = {chance.choice([0.0, 4.0, -1.0])}"))


def move_teacher(project: Project, chance: random.Random) -> None:
    project.teacher = project.teacher.rename(project.folder / "moved.safetensors")
    project.recipe["teacher"]["weights"] = str(project.teacher)


def move_data(project: Project, chance: random.Random) -> None:
    shutil.copytree(project.data, project.folder / "copied", copy_function=shutil.copyfile)
    project.data = project.folder / "copied"


def touch(project: Project, chance: random.Random) -> None:
    for path in project.data.rglob("*.png"):
        os.utime(path, (chance.randrange(10**9), chance.randrange(10**9)))


def begin_trained(project: Project, chance: random.Random) -> None:
    torch.manual_seed(5)
    network = mlp(input_shape=(3, 4, 4), classes=3, hidden=[5])
    save_file(
        {name: value.clone() for name, value in network.state_dict().items()}, project.folder / "start.safetensors"
    )
    project.recipe["student"]["weights"] = str(project.folder / "start.safetensors")


def stop_early(project: Project, chance: random.Random) -> None:
    project.recipe["data"]["validation"] = 0.25
    project.recipe["early_stopping"] = {"patience": 1, "min_delta": 0.9}


RISING = {"name": "linear", "from": 0.5, "to": 6, "epochs": 2}
CHANGING: dict[str, Edit] = {
    "temperature": set_key("distill", "terms", 1, "temperature", values=[1, 8]),
    "term's weight": set_key("distill", "terms", 0, "weight", values=[0.0, 3.0]),
    "task_weight": set_key("distill", "task_weight", values=[0.0, 2.0]),
    "method": set_key("distill", values=[{"method": "dist"}, {"scheme": "mutual"}]),
    "epochs": set_key("epochs", values=[1, 3]),
    "lr": set_key("optimizer", "lr", values=[0.2, 0.001]),
    "momentum": set_key("optimizer", values=[{"name": "sgd", "lr": 0.02}]),
    "schedule": set_key("schedule", values=[{"name": "cosine"}, {"name": "constant", "warmup_epochs": 1}]),
    "student": set_key("student", "hidden", values=[[4], [5, 5]]),
    "mean": set_key("student", "mean", values=[[0.5, 0.5, 0.5]]),
    "batch_size": set_key("data", "batch_size", values=[3, 6]),
    "augment": set_key("data", "augment", values=[["flip"], ["crop"]]),
    "weight by epoch": set_key("distill", "terms", 1, "weight", values=[RISING]),
    "temperature by epoch": set_key("distill", "terms", 1, "temperature", values=[RISING]),
    "freeze": set_key("student", "freeze", values=[["1"]]),
    "student's start": begin_trained,
    "groups": set_key("optimizer", "groups", values=[[{"match": "*.weight", "lr": 0.3}]]),
    "no_decay": set_key("optimizer", values=[{"lr": 0.02, "weight_decay": 0.5, "no_decay": ["biases"]}]),
    "task": set_key("task", values=[{"name": "classification", "label_smoothing": 0.3}]),
    "class weights": set_key("task", values=[{"name": "classification", "class_weights": [1, 5, 1]}]),
    "sampling": set_key("data", "sampling", values=["balanced", "edited_loss:drawn"]),
    "torchvision's transform": set_key("data", "augment", values=[[{"torchvision:RandomRotation": 90}]]),
    "own transform": set_key("data", "augment", values=[[{"edited_loss:view": {"by": 40}}]]),
    "limit_samples": set_key("data", "limit_samples", values=[6]),
    "limit_steps": set_key("data", "limit_steps", values=[1]),
    "early_stopping": stop_early,
    "validation": set_key("data", "validation", values=[0.25]),
    "size": set_key("data", "size", values=[4]),
    "image": replace_image,
    "image gone": remove_image,
    "class renamed": rename_class,
    "own loss": scale_loss,
    "teacher's weights": lambda project, chance: project.weights(chance.randrange(1, 9)),
}
HARMLESS: dict[str, Edit] = {
    "nothing": lambda project, chance: None,
    "teacher's file moved": move_teacher,
    "data folder copied": move_data,
    "times of files": touch,
    "workers": set_key("data", "workers", values=[1]),
    "name": set_key("name", values=["another"]),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project, and a finished comparison in its folder."""
    project = Project(tmp_path_factory.mktemp("begun"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(project.folder))
        project.figures(project.folder / "out")
    return project


@pytest.fixture
def project(begun: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    own = copy.deepcopy(begun)
    shutil.copytree(begun.folder, tmp_path / "own")
    own.folder, own.data = tmp_path / "own", tmp_path / "own" / begun.data.name
    own.teacher, own.module = own.folder / begun.teacher.name, own.folder / begun.module.name
    own.recipe["teacher"]["weights"] = str(own.teacher)
    monkeypatch.syspath_prepend(str(own.folder))
    return own


ELSEWHERE = ["image", "image gone", "class renamed", "own loss", "teacher's weights"]
DRAWN = [
    *random.Random(16).sample(sorted(CHANGING.keys() - ELSEWHERE), 3),
    *ELSEWHERE,
    *random.Random(16).sample(sorted(HARMLESS), 3),
]
"""As many as the suite has time for; any name stands the test."""


@pytest.mark.parametrize("name", DRAWN)
def test_an_edit_gives_the_fresh_figures_or_is_refused(name: str, project: Project) -> None:
    out, chance = project.folder / "out", random.Random(name)
    (CHANGING | HARMLESS)[name](project, chance)
    if chance.random() < 0.5:
        HARMLESS[chance.choice(sorted(HARMLESS))](project, chance)
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    fresh = project.figures(project.folder / "fresh")
    if name in HARMLESS:
        assert project.figures(out, resume=True) == fresh
        return
    with pytest.raises(RequestError, match="made of something else"):
        project.figures(out, resume=True)
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    assert project.figures(out, redo=True) == fresh
