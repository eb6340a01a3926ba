"""The published systems: their networks, constants and variants, run on small made data in the real formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.compare import compare
from limbeck.data import load, make_loader
from limbeck.errors import RequestError
from limbeck.models import parameter_count
from limbeck.recipes.read import read, recorded_variants, variants
from limbeck.report import write_page
from limbeck.runs import components, teachers
from limbeck.runs.folder import student_folder
from limbeck.runs.machine import Machine
from limbeck.runs.stages import assemble

QUIET = Machine(accelerator="cpu", progress=False)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of small random images in ten classes, as `cifar10` is cut."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 2), ("test", 1)):
        for label in range(10):
            folder = tmp_path / "images" / part / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "images"


SMALL = ["data={name: image-folder, batch_size: 10}", "teacher.epochs=1", "epochs=1"]


def test_tutorial_has_the_published_sizes_and_one_start(images: Path) -> None:
    recipe = read("cifar10-tutorial", ["data.name=image-folder"])
    data = load("image-folder", images)
    assert parameter_count(components.model(recipe.teachers[0], data, 42)) == 1_186_986
    starts = [components.model(read(f"cifar10-tutorial{v}").student, data, 42) for v in ("", ":cosine", ":regressor")]
    assert {parameter_count(start) for start in starts} == {267_738}
    first = [next(start.parameters()) for start in starts]
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2])


def test_tutorial_variants_have_the_published_losses() -> None:
    assert variants("cifar10-tutorial") == ["cosine", "regressor", "best"]
    for name, loss in (("", "soft_cross_entropy"), (":cosine", "cosine"), (":regressor", "mse")):
        distill = read(f"cifar10-tutorial{name}").distill
        assert (distill.task_weight, distill.terms[0].weight, distill.terms[0].loss) == (0.75, 0.25, loss)
    assert read("cifar10-tutorial:cosine").name == "cifar10-tutorial:cosine"


def test_tutorial_variants_are_compared_by_name(images: Path, tmp_path: Path) -> None:
    choices = {name: read(f"cifar10-tutorial:{name}", SMALL) for name in variants("cifar10-tutorial")}
    recipe = read("cifar10-tutorial", SMALL)
    names = ["recipe", ":cosine", "regressor"]
    found = compare(recipe, names, [42], root=images, out=tmp_path / "cmp", variants=choices, machine=QUIET)
    assert list(found["methods"]) == ["baseline", *names]
    lines = [json.loads((tmp_path / "cmp" / student_folder(n, 42) / "metrics.jsonl").read_text()) for n in names]
    assert [set(line) & {"soft_cross_entropy", "cosine", "mse"} for line in lines] == [
        {"soft_cross_entropy"},
        {"cosine"},
        {"mse"},
    ]
    assert list(recorded_variants(tmp_path / "cmp" / "recipe.yaml")) == ["cosine", "regressor"]
    assert write_page(tmp_path / "cmp")
    longer = {"cosine": read("cifar10-tutorial:cosine", [*SMALL, "epochs=2"])}
    with pytest.raises(RequestError, match="variant :cosine changes epochs too"):
        compare(recipe, [":cosine"], [42], root=images, out=tmp_path / "no", variants=longer, machine=QUIET)


def test_unknown_variants_are_refused() -> None:
    with pytest.raises(RequestError, match="unknown variant of cifar10-tutorial 'cosin'; did you mean cosine"):
        read("cifar10-tutorial:cosin")
    with pytest.raises(RequestError, match="unknown variant of digits 'best'"):
        read("digits:best")


def test_mobilenet_learns_from_one_named_tensor(images: Path) -> None:
    recipe = read("cifar10-mobilenet", [*SMALL, "data.size=16"])
    data = components.data(recipe.data, images)
    (teacher,) = found = teachers.candidates(recipe, data)
    assert parameter_count(teacher.module) == 23_520_842
    _, scheme, online = assemble(recipe, components.model(recipe.student, data, 0), found, data)
    batch = next(iter(make_loader(data.train, 4)))
    said = online(batch)
    assert list(said.features) == ["stage4.2.branch.bn2"]
    scheme.prepare(batch, said)
    assert scheme(batch, said).parts["l2"] > 0


@pytest.mark.data
def test_mnist_cnn_has_kerass_sizes(data_root: Path) -> None:
    recipe = read("mnist-cnn")
    data = load("mnist", data_root)
    # 3·3·1·256+256, 3·3·256·512+512, 7·7·512·10+10; and the same with 16 and 32.
    assert parameter_count(components.model(recipe.teachers[0], data, 0)) == 2_560 + 1_180_160 + 250_890
    assert parameter_count(components.model(recipe.student, data, 0)) == 160 + 4_640 + 15_690
    assert (recipe.distill.task_weight, recipe.distill.terms[0].weight) == (0.1, 0.9)
    assert recipe.distill.terms[0].options == {"temperature": 10}
