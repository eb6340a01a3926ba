"""`limbeck new`: a first recipe for the user's own models and data, which runs as it is and says what its keys mean."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from limbeck.data.image_folder import Images, part_folders, read_parts, square
from limbeck.data.sets import NAMES
from limbeck.errors import RequestError, counted, shown, unknown
from limbeck.imports import load_object
from limbeck.models.build import FILES, check_name
from limbeck.recipes.document import parse
from limbeck.recipes.read import check, model
from limbeck.recipes.schema import Recipe, Teacher
from limbeck.recipes.schema import check_name as check_recipe_name
from limbeck.runs.components import comes_trained
from limbeck.runs.shown import as_yaml
from limbeck.runs.starter.check import check_starter
from limbeck.runs.written_out import setting_of
from limbeck.tasks import TASKS

EPOCHS, BATCH, VALIDATION = 10, 64, 0.1
ENDINGS: Mapping[str, str] = {".onnx": "onnx", ".keras": "keras", ".pt2": "pt2"}
"""Files that hold a network, by the ends of their names."""
WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
"""Files that hold weights, and not the network that they belong to."""
TERMS: Mapping[str, dict[str, Any]] = {
    "classification": {"method": "kd"},
    "multi-label": {"task_weight": 0.5, "terms": [{"loss": "sigmoid_kd", "weight": 0.5}]},
    "regression": {"task_weight": 0.5, "terms": [{"loss": "mse", "weight": 0.5}]},
    "token-classification": {"method": "kd"},
    "segmentation": {"method": "kd"},
    "language-modelling": {"method": "kd"},
    "embedding": {"task_weight": 0.0, "terms": [{"loss": "mse", "weight": 1.0}]},
}
"""How a student learns from the teacher at first, by task."""


@dataclass(frozen=True)
class Wishes:
    """What a starter recipe is asked for.

    Attributes:
        teacher, student: Each a name of `limbeck list models`, FILE.py:function, a model's file or folder, or a
            mapping such as "{model: mlp, hidden: [64]}".
        data: A name of `limbeck list data`, a folder of images, FILE.py:function, or a mapping of keys of `data`.
        teacher_weights, student_weights: Files of weights; None for none.
        teacher_epochs: Epochs of the teacher's own training; None: some where it does not come trained.
        epochs: Epochs of the student.
        method: A method of `limbeck list methods`; None: as the task wants it.
        task: What is learned; None: as the data have it, else a class a sample.
    """

    teacher: str
    student: str
    data: str
    teacher_weights: str | None = None
    student_weights: str | None = None
    teacher_epochs: int | None = None
    epochs: int = EPOCHS
    method: str | None = None
    task: str | None = None


def write_starter(file: Path, wishes: Wishes) -> Recipe:
    """Write a starter recipe into a file that does not exist yet.

    Raises:
        RequestError: The file exists or cannot be written, nothing stands behind a name that is wished for, or the
            recipe would not run.
    """
    if file.suffix not in (".yaml", ".yml") or ":" in str(file):
        raise RequestError(f"a recipe is a file NAME.yaml, not {shown(str(file))}")
    if os.path.lexists(file):
        raise RequestError(f"{file} exists, and is not overwritten; choose another name")
    check_recipe_name(file.stem)
    recipe = starter(wishes, file.parent)
    if file.parent.is_dir():  # else opening the file says so
        check_starter(recipe, file.parent)
    text = f"{_head(file, recipe)}{as_yaml(recipe, defaults=False)}"
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise RequestError(f"cannot write {file}: {error.strerror or error}") from error
    return recipe


def starter(wishes: Wishes, folder: Path) -> Recipe:
    """The recipe; it has only the keys that matter at first.

    Args:
        wishes: What is asked for.
        folder: Where the recipe will lie.

    Raises:
        RequestError: Nothing stands behind a name that is wished for, or a key or value is wrong.
    """
    method = wishes.method
    if method:
        setting_of(method)
    if wishes.task and ":" not in wishes.task and wishes.task not in TASKS:
        raise unknown("task", wishes.task, [*TASKS, "package.module:Class"])
    teacher = {**_model(wishes.teacher, "teacher"), **_weights(wishes.teacher_weights, "teacher")}
    student = {**_model(wishes.student, "student"), **_weights(wishes.student_weights, "student")}
    epochs = wishes.teacher_epochs
    if epochs is None and "epochs" not in teacher and not comes_trained(_checked_teacher(teacher)):
        if wishes.task == "embedding":
            raise RequestError("embedding has no labels to train a teacher with: give --teacher-weights FILE")
        epochs = EPOCHS
    training = {"optimizer": {"name": "adam", "lr": 1e-3}, "schedule": {"name": "cosine"}}
    if epochs is not None:
        teacher = {**training, **teacher, "epochs": epochs}
    known = TERMS.get(wishes.task or "classification", TERMS["classification"])
    content = {
        "data": _data(wishes.data, folder),
        "teacher": teacher,
        **({"task": wishes.task} if wishes.task else {}),
        "student": student,
        "distill": {"method": method} if method else known,
        "epochs": wishes.epochs,
        **training,
        "seed": 0,
    }
    return check(content, "limbeck new")


def _checked_teacher(content: dict[str, Any]) -> Teacher:
    try:
        return Teacher.model_validate(content)
    except ValidationError:  # which `check` tells in words
        return check({"teacher": content, "student": content, "distill": {"method": "kd"}}, "limbeck new").teachers[0]


def _model(text: str, side: str) -> dict[str, Any]:
    """The keys of a network."""
    if text.startswith("{"):
        content = model(text).model_dump(mode="json", exclude_unset=True)
    else:
        content = {"model": _named(text, side)}
    check_name(content["model"])
    return content


def _named(text: str, side: str) -> str:
    """A network as recipes name it."""
    path = Path(text)
    if ":" in text:
        return _own(text) or text
    if path.suffix in WEIGHTS:
        raise RequestError(
            f"{text} holds weights, and does not say of which network: give --{side} the network, and "
            f"--{side}-weights {text}; a TorchScript file is torchscript:{text}"
        )
    if path.suffix in ENDINGS:
        return f"{ENDINGS[path.suffix]}:{text}"
    return f"hf:{text}" if (path / "config.json").is_file() else text


def _own(text: str) -> str | None:
    """FILE.py:name as module:name, which is found from the folder where limbeck starts; None for all other names."""
    path, _, name = text.rpartition(":")
    if not path.endswith(".py") or not name:
        return None
    if not Path(path).is_file():
        raise RequestError(f"there is no file {path}, which {shown(text)} names")
    inside = Path(os.path.relpath(path)).with_suffix("").parts
    if not all(part.isidentifier() for part in inside):
        raise RequestError(
            f"{path} cannot be imported from {Path.cwd()}: start limbeck in the folder that holds it, and give it a "
            "name of letters, digits and _"
        )
    return f"{'.'.join(inside)}:{name}"


def _weights(path: str | None, side: str) -> dict[str, Any]:
    if path is None:
        return {}
    if not Path(path).is_file():
        raise RequestError(f"--{side}-weights: there is no file {path}")
    return {"weights": path}


def _data(text: str, folder: Path) -> dict[str, Any]:
    """The keys of `data`."""
    cut = {"batch_size": BATCH}
    if text.startswith("{"):
        return {**cut, **parse(text, "--data")}
    if text in NAMES and text != "image-folder":
        return {"name": text, **cut, "validation": VALIDATION}
    own = _own(text) or (text if ":" in text else None)
    if own is not None:
        load_object(own, "data set")
        return {"name": own, **cut}
    if not Path(text).is_dir():
        reason = unknown("data set", text, [*NAMES, "package.module:callable"])
        raise RequestError(f"{reason}; or give a folder of images: there is none of this name")
    root = Path(text)
    return {
        "name": "image-folder",
        "root": text if root.is_absolute() else os.path.relpath(root, folder),
        **_images(root),
        **cut,
    }


def _images(root: Path) -> dict[str, Any]:
    """The size to which the images of a folder must be brought, and how much of the training set validates."""
    size = square(part_folders(root))
    parts = read_parts(root, size)
    validation = len(parts) < 3 and _divides(parts["train"])
    return {**({"size": size} if size else {}), **({"validation": VALIDATION} if validation else {})}


def _divides(train: Images) -> bool:
    """Whether a part for validation can have each class, and leave each class."""
    fewest, classes = min(Counter(train.targets).values()), len(train.classes)
    return fewest > 1 and VALIDATION * len(train.targets) >= classes


def _head(file: Path, recipe: Recipe) -> str:
    """What stands above the keys."""
    spec, name = recipe.teachers[0], shlex.quote(str(file))
    own_names = _modules(recipe)
    own = sorted({part.partition(":")[0] for part in own_names})
    length = counted(spec.epochs or 0, "epoch")
    trains = f"The teacher is trained first, for {length}; or give it weights: FILE, and no epochs."
    lines = [
        f"{recipe.student.model} learns from {spec.model}, on {recipe.data.name}.",
        f"  limbeck run {name} --limit-steps 2 --epochs 1    a trial",
        f"  limbeck run {name}                               the run",
        f"  limbeck show {name}                              all keys, with their defaults",
    ]
    if recipe.distill.method:
        other = "rkd" if recipe.distill.method == "dkd" else "dkd"
        lines.append(f"  limbeck compare {name} --methods recipe,{other}      other methods: limbeck list methods")
    lines += [trains] if spec.epochs else ["The teacher comes trained."]
    if not spec.epochs and not spec.weights and spec.model in own_names:
        lines[-1] = f"{spec.model} must give the teacher with trained weights; if it does not, give the teacher"
        lines.append("weights: FILE, or let it be trained: epochs: 10.")
    if own:
        lines.append(f"Start limbeck in this folder, where {' and '.join(own)} can be imported.")
    return "".join(f"# {line}\n" for line in lines)


def _modules(recipe: Recipe) -> list[str]:
    """The names of the user's own objects in a recipe."""
    kinds = {*FILES, "torchvision", "timm"}
    names = [recipe.teachers[0].model, recipe.student.model, recipe.data.name]
    return [name for name in names if ":" in name and name.partition(":")[0] not in kinds]
