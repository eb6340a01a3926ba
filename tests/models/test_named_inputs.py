"""Two models that read two inputs, and call them by different names."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from limbeck import Batch, Distiller, Hardware, ModuleTeacher, NamedInputs, Preprocess, Term, evaluate, fit, losses
from limbeck.errors import RequestError
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.taps import evaluating


class Teacher(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.of_image, self.of_text = nn.Linear(16, 12), nn.Linear(5, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        return self.head((self.of_image(image.flatten(1)) + self.of_text(text)).relu())


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(16, 12), nn.Linear(5, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, words: Tensor, pixels: Tensor) -> Tensor:
        return self.head((self.a(pixels.flatten(1)) + self.b(words)).relu())


class Blind(nn.Module):
    """Reads the words only."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(words)


class Both(Dataset[tuple[dict[str, Tensor], int]]):
    """An image, words and an unread weight; the label is which of three words is said."""

    def __init__(self, n: int = 48) -> None:
        generator = torch.Generator().manual_seed(2)
        self.targets = torch.arange(n) % 3
        self.x = torch.rand(n, 1, 4, 4, generator=generator)
        self.t = torch.eye(5)[self.targets] + 0.1 * torch.randn(n, 5, generator=generator)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[dict[str, Tensor], int]:
        return {"x": self.x[i], "t": self.t[i], "weight": torch.ones(1)}, int(self.targets[i])


def splits() -> tuple[Both, Both]:
    return Both(), Both(12)


FOR_TEACHER = {"image": "x", "text": "t"}
FOR_STUDENT = {"words": "t", "pixels": "x"}


def test_each_model_gets_its_own_names() -> None:
    inputs = {"x": torch.rand(2, 1, 4, 4), "t": torch.rand(2, 5), "weight": torch.ones(2)}
    batch = Batch(inputs, torch.tensor([0, 1]), torch.arange(2))
    teacher, student = Teacher(), Student()
    said = ModuleTeacher(teacher, ["add"], inputs=NamedInputs(FOR_TEACHER))(batch)
    torch.testing.assert_close(said.output, teacher(image=inputs["x"], text=inputs["t"]).detach())
    assert said.features["add"].shape == (2, 12)
    distiller = Distiller(student, [Term(losses.kd)], inputs=NamedInputs(FOR_STUDENT))
    torch.testing.assert_close(distiller(batch, said).output, student(inputs["t"], inputs["x"]))
    blind = Blind()
    torch.testing.assert_close(
        Distiller(blind, inputs=NamedInputs({"words": "t"}))(batch).output, blind.head(inputs["t"])
    )


def test_fit_distils_one_into_the_other() -> None:
    loader = DataLoader(Both(), batch_size=16, shuffle=True)
    adam = partial(torch.optim.Adam, lr=0.02)
    learning = Distiller(Teacher(), inputs=NamedInputs(FOR_TEACHER))
    trained = fit(learning, loader, epochs=15, optimizer=adam, progress=False, hardware=Hardware("cpu")).student
    teacher = ModuleTeacher(trained, ["add"], inputs=NamedInputs(FOR_TEACHER))
    terms = [Term(losses.kd, weight=0.9), Term(losses.mse, student="add", teacher="add")]
    distiller = Distiller(Student(), terms, task_weight=0.0, inputs=NamedInputs(FOR_STUDENT))
    fit(distiller, loader, teacher=teacher, epochs=15, optimizer=adam, progress=False, hardware=Hardware("cpu"))
    with evaluating(distiller):
        assert evaluate(distiller.predict, loader, teacher=teacher)["agreement"] > 0.9


def test_only_images_are_prepared() -> None:
    prepare = nn.Sequential(NamedInputs({"image": "x", "text": "t"}), Preprocess(mean=[0.5], std=[0.25], size=2))
    made = prepare({"x": torch.full((2, 1, 4, 4), 0.75), "t": torch.ones(2, 5)})
    torch.testing.assert_close(made["image"], torch.ones(2, 1, 2, 2))
    torch.testing.assert_close(made["text"], torch.ones(2, 5))


def test_the_names_belong_to_a_teachers_fingerprint() -> None:
    module = Teacher()
    prints = {
        ModuleTeacher(module, inputs=NamedInputs(names)).fingerprint
        for names in (FOR_TEACHER, {"image": "t", "text": "x"})
    }
    assert len(prints) == 2


def test_wrong_names_are_refused() -> None:
    with pytest.raises(RequestError, match="unknown input of the batch 'txt'; valid: t, x"):
        NamedInputs({"text": "txt"})({"x": torch.ones(1), "t": torch.ones(1)})
    with pytest.raises(RequestError, match="the batch has one input without a name"):
        NamedInputs(["text"])(torch.ones(1))
    with pytest.raises(RequestError, match="at least one input"):
        NamedInputs({})
    with pytest.raises(RequestError, match="none of the inputs t is an image"):
        Preprocess(mean=[0.5])({"t": torch.ones(2, 5)})


def test_a_recipe_names_the_inputs(tmp_path: Path) -> None:
    here = "test_named_inputs"
    fast = {"name": "adam", "lr": 0.02}
    recipe = {
        "data": {"name": f"{here}:splits", "batch_size": 16},
        "teacher": {"model": f"{here}:Teacher", "inputs": FOR_TEACHER, "epochs": 10, "mean": [0.5], "optimizer": fast},
        "student": {"model": f"{here}:Student", "inputs": FOR_STUDENT},
        "distill": {"terms": [{"loss": "kd"}, {"loss": "mse", "student": "add", "teacher": "add"}]},
        "epochs": 10,
        "optimizer": fast,
    }
    result = run(check(recipe), root=tmp_path, out=tmp_path / "run", machine=Machine(accelerator="cpu", progress=False))
    assert result["distilled"]["test_accuracy"] > 0.7
    recipe["student"]["inputs"] = {"words": "t", "pixels": "y"}
    with pytest.raises(RequestError, match="unknown input of the batch 'y'"):
        run(check(recipe), root=tmp_path, out=tmp_path / "bad", machine=Machine(accelerator="cpu", progress=False))
