from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.errors import RequestError
from limbeck.recipes.read import dump, names, read, variants

WHOLE = {
    "teacher": {"model": "mlp", "epochs": 1},
    "student": {"model": "mlp"},
    "distill": {"terms": [{"loss": "kd", "weight": 0.5}]},
}


def write(path: Path, **changes: Any) -> str:
    path.write_text(yaml.safe_dump(WHOLE | changes))
    return str(path)


def test_packaged_recipes_are_short_and_valid() -> None:
    assert {"digits", "mnist-mlp"} <= set(names())
    from importlib.resources import files

    for name in names():
        text = (files("limbeck.recipes") / f"{name}.yaml").read_text()
        assert len(text.splitlines()) <= 30, name
        assert text.startswith("# "), name
        assert read(name).name == name
        variants = yaml.safe_load(text).get("variants", {})
        assert {read(f"{name}:{one}").data.name for one in variants} <= {read(name).data.name}


def test_mnist_mlp_has_the_published_constants() -> None:
    recipe = read("mnist-mlp")
    assert recipe.data.batch_size == 32
    assert recipe.teachers[0].options == {"hidden": [1200, 1200], "dropout": 0.5}
    assert recipe.student.options == {"hidden": [20, 20], "dropout": 0.5}
    assert (recipe.teachers[0].epochs, recipe.epochs) == (6, 20)
    assert recipe.optimizer.lr == recipe.teachers[0].optimizer.lr == 1e-4
    assert recipe.distill.task_weight == 0.3
    assert recipe.distill.terms[0].options == {"temperature": 7, "scale": False}


def test_overrides_reach_any_key(tmp_path: Path) -> None:
    path = write(tmp_path / "own.yaml")
    recipe = read(
        path, ["epochs=3", "optimizer.lr=1e-2", "distill.terms.0.weight=2", "data.name=mnist", "max_grad_norm=null"]
    )
    assert (recipe.name, recipe.epochs, recipe.optimizer.lr, recipe.data.name) == ("own", 3, 0.01, "mnist")
    assert recipe.distill.terms[0].weight == 2


def test_folders_and_files_may_have_a_colon_in_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "digits:best"
    folder.mkdir()
    path = write(folder / "a:b.yaml", variants={"x": {"seed": 4}})
    assert (read(path).seed, read(f"{path}:x").seed) == (0, 4)
    assert variants(path) == ["x"]


def test_a_resolved_recipe_reads_back_the_same(tmp_path: Path) -> None:
    recipe = read("mnist-mlp", ["seed=3"])
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert read(str(tmp_path / "recipe.yaml")) == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, "unknown key 'epoch'; did you mean epochs"),
        ({"data": {"nam": "mnist"}}, "unknown key 'data.nam'; did you mean name"),
        ({"distill": {"terms": [{"loss": "kd"}], "task_wieght": 1}}, "'distill.task_wieght'; did you mean task_weight"),
        ({"epochs": "many"}, "epochs: .*and it is 'many'"),
        ({"epochs": -1}, "epochs: .*greater than 0, and it is -1"),
        ({"distill": {"terms": []}}, "distill: give a method or at least one term"),
        ({"student": {"hidden": [3]}}, "the key 'student.model' is missing"),
        ({"teacher": {"model": "mlp", "optimizer": {"lr": 0}}}, "teacher.optimizer.lr: .*greater than 0"),
        ({"distill": {"terms": [{"loss": "kd", "weight": float("nan")}]}}, "distill.terms.0.weight: .*finite"),
        ({"teacher": [{"model": "mlp", "epochs": -1}]}, "teacher.*epochs: .*greater than 0"),
        ({"schedule": "cosine"}, r"schedule: write a mapping, such as \{name: cosine\}, and it is 'cosine'$"),
        ({"optimizer": "sgd"}, r"optimizer: write a mapping, such as \{name: sgd, lr: 0\.1\}, and it is 'sgd'$"),
        ({"teacher": "mlp"}, r"teacher: write a mapping, such as \{model: mlp, epochs: 5\}, and it is 'mlp'$"),
        ({"epochs": {"start": 1}}, "epochs: write a whole number$"),
        ({"teacher": None}, r"recipe: the key 'teacher' is missing, .* needs one; write teacher: .*born-again$"),
        ({"ensemble": "beast"}, "ensemble: .*'probabilities' or 'logits', and it is 'beast'"),
    ],
)  # fmt: skip
def test_faults_are_named_with_their_place(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        read(write(tmp_path / "own.yaml", **changes))


@pytest.mark.parametrize(
    ("source", "overrides", "message"),
    [
        ("mnist-mpl", [], "unknown recipe 'mnist-mpl'; did you mean mnist-mlp"),
        ("nowhere.yaml", [], r"cannot read the recipe nowhere\.yaml"),
        ("digits", ["epochs"], r"--set takes key\.path=value"),
        ("digits", ["epochs.deep=3"], "'epochs' holds a value"),
        ("digits", ["distill.terms.7.weight=1"], "'7' is no element of a list of 1"),
        ("digits", ["seed=[1"], "not valid YAML"),
    ],
)
def test_wrong_requests(source: str, overrides: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read(source, overrides)


def test_numbers_as_everyone_writes_them(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "teacher: {model: mlp, epochs: 1}\nstudent: {model: mlp}\ndistill: {terms: [{loss: kd}]}\n"
        "optimizer: {lr: 1e-3, weight_decay: 1e-4}\n"
    )
    recipe = read(str(tmp_path / "own.yaml"))
    assert (recipe.optimizer.lr, recipe.optimizer.options["weight_decay"]) == (1e-3, 1e-4)


def test_what_is_no_recipe_is_said(tmp_path: Path) -> None:
    for text, message in (("a: [1", "not valid YAML"), ("- 1", "must be a mapping")):
        (tmp_path / "own.yaml").write_text(text)
        with pytest.raises(RequestError, match=message):
            read(str(tmp_path / "own.yaml"))
