"""Recipes over a base, values of the environment, and what --set adds and removes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from limbeck.errors import RequestError
from limbeck.recipes.read import dump, read, read_variants

BASE = {
    "name": "the base",
    "teacher": {"model": "mlp", "epochs": 2, "optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9}},
    "student": {"model": "mlp", "hidden": [5, 5]},
    "distill": {"terms": [{"loss": "kd", "temperature": 4}, {"loss": "dist"}]},
    "variants": {"cold": {"distill": {"terms": [{"loss": "kd", "temperature": 1}]}}},
}


def saved(path: Path, content: object) -> str:
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved(tmp_path / "base.yaml", BASE)
    return tmp_path


def test_mappings_are_merged_and_lists_replaced(folder: Path) -> None:
    own = {"base": "base.yaml", "teacher": {"optimizer": {"lr": 0.1}}, "student": {"hidden": [3]}, "epochs": 7}
    recipe = read(saved(folder / "own.yaml", own))
    assert (recipe.name, recipe.epochs, recipe.teachers[0].epochs) == ("own", 7, 2)
    assert (recipe.teachers[0].optimizer.lr, recipe.teachers[0].optimizer.options) == (0.1, {"momentum": 0.9})
    assert recipe.student.options == {"hidden": [3]}
    assert [term.loss for term in recipe.distill.terms] == ["kd", "dist"]
    assert read(f"{folder / 'own.yaml'}:cold").distill.terms[0].options == {"temperature": 1}


def test_a_key_with_a_minus_is_removed_and_a_packaged_recipe_is_a_base(folder: Path) -> None:
    own = {"base": "base.yaml", "teacher": {"optimizer": {"name": "adam", "momentum-": None}}}
    assert read(saved(folder / "own.yaml", own)).teachers[0].optimizer.options == {}
    assert read(saved(folder / "d.yaml", {"base": "digits", "epochs": 3})).student == read("digits").student
    deeper = saved(folder / "deeper.yaml", {"base": "own.yaml", "seed": 4})
    assert (read(deeper).seed, read(deeper).teachers[0].optimizer.name) == (4, "adam")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"base": "own.yaml"}, r"own\.yaml is its own base .*leave one base out"),
        ({"base": "nothing.yaml"}, r"cannot read the recipe .*nothing\.yaml"),
        ({"base": ["base.yaml"]}, "base is the name of a recipe or the path of a YAML file, not"),
        ({"base": "base.yaml", "epoch-": None}, "the key 'epoch-' removes what is not there"),
        ({"base": "base.yaml", "teacher": None}, "the key 'teacher' is missing"),
    ],
)
def test_a_wrong_base_is_refused(own: dict[str, object], message: str, folder: Path) -> None:
    with pytest.raises(RequestError, match=message):
        read(saved(folder / "own.yaml", own))


def test_bases_in_a_circle_are_refused(folder: Path) -> None:
    saved(folder / "a.yaml", {"base": "b.yaml"})
    saved(folder / "b.yaml", {"base": "a.yaml"})
    with pytest.raises(RequestError, match=r"is its own base .*a\.yaml → .*b\.yaml → .*a\.yaml"):
        read(str(folder / "a.yaml"))


def test_values_of_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIDTHS", "[7, 8]")
    monkeypatch.setenv("WHO", "me")
    monkeypatch.delenv("ABSENT", raising=False)
    own = {
        "base": "base.yaml",
        "name": "run of ${env:WHO}",
        "epochs": "${env:ABSENT,5}",
        "student": {"hidden": "${env:WIDTHS}"},
    }
    recipe = read(saved(folder / "own.yaml", own), ["seed=${env:ABSENT,3}"])
    assert (recipe.name, recipe.epochs, recipe.student.options["hidden"], recipe.seed) == ("run of me", 5, [7, 8], 3)
    assert "${" not in dump(recipe)  # what is recorded is what was run
    for value, message in (
        ("${env:ABSENT}", "no variable ABSENT.*set it, or give a default"),
        ("${ABSENT}", "env:NAME"),
    ):
        with pytest.raises(RequestError, match=message):
            read(saved(folder / "own.yaml", own | {"epochs": value}))


def test_set_adds_to_lists_and_removes(folder: Path) -> None:
    path = str(folder / "base.yaml")
    recipe = read(path, ["distill.terms+={loss: rkd, weight: 2}", "distill.terms.1-", "teacher.optimizer.momentum-"])
    assert [(term.loss, term.weight) for term in recipe.distill.terms] == [("kd", 1.0), ("rkd", 2.0)]
    assert recipe.teachers[0].optimizer.options == {}
    assert read(path, ["data.augment+=flip", "data.augment+=[crop, {cutout: 2}]"]).data.augment == [
        "flip",
        "crop",
        {"cutout": 2},
    ]
    assert read_variants(path, ["cold"], ["student.hidden+=9"])["cold"].student.options == {"hidden": [5, 5, 9]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher.optimizer.momentun-", "removes what is not there: unknown key 'momentun'; did you mean momentum"),
        ("distill.terms.5-", "'5' is no element of a list of 2"),
        ("student.model+=x", "'model' holds no list to add to; write student.model=VALUE"),
        ("-", "--set takes key.path=value, key.path.=value to add to a list, or key.path- to remove"),
    ],
)
def test_what_cannot_be_added_or_removed(override: str, message: str, folder: Path) -> None:
    with pytest.raises(RequestError, match=message):
        read(str(folder / "base.yaml"), [override])
