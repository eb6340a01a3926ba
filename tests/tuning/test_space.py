"""Spaces: how they are written, what is the default, and how a value reaches the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import RequestError
from limbeck.recipes.document import parse
from limbeck.recipes.read import check, names, read
from limbeck.tuning.defaults import default_space
from limbeck.tuning.files import space_in
from limbeck.tuning.settings import own_settings, with_settings
from limbeck.tuning.space import Choices, Range, as_content, check_keys, read_space

SMALL: dict[str, Any] = {
    "name": "small",
    "teacher": {"model": "mlp", "epochs": 1},
    "student": {"model": "mlp", "hidden": [4]},
    "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.9, "temperature": 3}]},
    "optimizer": {"name": "adam", "lr": 0.003},
    "schedule": {"name": "cosine"},
    "epochs": 20,
}


def test_the_default_space_lies_around_the_recipes_own() -> None:
    recipe = check(SMALL)
    baseline, kd = default_space(recipe, taught=False), default_space(recipe, taught=True)
    assert baseline["optimizer.lr"] == Range(0.0003, 0.03, log=True)
    assert baseline["optimizer.weight_decay"] == Choices((0.0, 1e-5, 1e-4, 5e-4, 1e-3, 1e-2))
    assert baseline["schedule"].ends == [
        {"name": "cosine", "warmup_epochs": 0.0},
        {"name": "constant", "warmup_epochs": 0.0},
        {"name": "cosine", "warmup_epochs": 2.0},
    ]
    assert list(baseline) == ["optimizer.lr", "optimizer.weight_decay", "schedule"]
    assert {key: kd[key] for key in kd if key not in baseline} == {
        "distill.task_weight": Range(0.0, 1.0),
        "distill.terms.0.weight": Range(0.09, 9.0, log=True),
        "distill.terms.0.temperature": Range(1.0, 8.0, log=True),
    }


def test_the_first_settings_are_the_recipes_own() -> None:
    recipe = check(SMALL)
    own = own_settings(recipe, default_space(recipe, taught=True))
    assert own == {
        "optimizer.lr": 0.003,
        "optimizer.weight_decay": 0.0,
        "schedule": {"name": "cosine", "warmup_epochs": 0.0},
        "distill.task_weight": 0.5,
        "distill.terms.0.weight": 0.9,
        "distill.terms.0.temperature": 3,
    }
    changed = with_settings(recipe, own)
    assert changed.model_copy(update={"optimizer": recipe.optimizer}) == check(recipe.model_dump())
    assert changed.optimizer.options == {"weight_decay": 0.0}


def test_what_a_recipe_leaves_out_counts_as_the_default_of_the_thing() -> None:
    adamw = check(SMALL | {"optimizer": {"name": "adamw", "lr": 0.01}})
    assert own_settings(adamw, default_space(adamw, taught=False))["optimizer.weight_decay"] == 0.01
    term = check(SMALL | {"distill": {"terms": [{"loss": "kd"}]}})
    space = {"distill.terms.0.temperature": Range(1, 8)}
    default = own_settings(term, space)["distill.terms.0.temperature"]
    import inspect

    from limbeck.losses import kd

    assert default == inspect.signature(kd).parameters["temperature"].default


def test_a_star_stands_for_all_elements() -> None:
    terms = [{"loss": "attention", "weight": 10.0, "student": name, "teacher": name} for name in ("stage1", "stage2")]
    recipe = check(SMALL | {"distill": {"terms": terms}})
    assert default_space(recipe, taught=True)["distill.terms.*.weight"] == Range(1.0, 100.0, log=True)
    changed = with_settings(recipe, {"distill.terms.*.weight": 3.0})
    assert [term.weight for term in changed.distill.terms] == [3.0, 3.0]
    assert own_settings(recipe, {"distill.terms.*.weight": Range(1, 100)}) == {"distill.terms.*.weight": 10.0}


def test_a_file_replaces_adds_and_takes_out(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "optimizer.lr: {low: 1e-3, high: 0.1, log: true}\n"
        "optimizer.weight_decay: null\n"
        "data.batch_size: {low: 16, high: 64, step: 16}\n"
        "distill.terms.0.temperature: {choices: [1, 4]}\n"
        "kd: {schedule: {choices: [{name: constant}]}}\n"
    )
    given = space_in(path, ["baseline", "kd"])
    recipe = check(SMALL)
    baseline = given.over(default_space(recipe, False), "baseline", taught=False)
    kd = given.over(default_space(recipe, True), "kd", taught=True)
    assert list(baseline) == ["optimizer.lr", "schedule", "data.batch_size"]
    assert baseline["optimizer.lr"] == Range(0.001, 0.1, log=True)
    assert kd["schedule"] == Choices(({"name": "constant"},))
    assert kd["distill.terms.0.temperature"] == Choices((1, 4))
    again = read_space(parse(str(as_content({"baseline": baseline, "kd": kd})), "it"), "it", ["baseline", "kd"])
    assert again.own == {"baseline": baseline, "kd": kd}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimiser.lr: {low: 1, high: 2}", "unknown key 'optimiser.lr'; did you mean optimizer.lr"),
        ("optimizer.lr: {low: 2, high: 1}", "low 2 above high 1"),
        ("optimizer.lr: {low: 1, high: 1}", "the range of optimizer.lr is empty"),
        ("optimizer.lr: {low: 0, high: 1, log: true}", "low 0, which has no logarithm"),
        ("optimizer.lr: {low: a, high: 1}", "low of optimizer.lr is a number, not 'a'"),
        ("optimizer.lr: {low: 0, high: .inf}", "high of optimizer.lr is a number"),
        ("optimizer.lr: {low: 0, hi: 1}", r"takes \{low, high\}.*not low, hi"),
        ("optimizer.lr: {low: 0, high: 1, step: 2}", "step of optimizer.lr is above 0, at most high"),
        ("optimizer.lr: {choices: []}", "has no choices"),
        ("optimizer.lr: {choices: [1, 1.0]}", "has a choice twice"),
        ("optimizer.lr: 3", r"takes \{low, high\}"),
        ("epochs: {choices: [1, 2]}", "epochs is the same for all trials"),
        ("teacher.seed: {choices: [1, 2]}", "teacher.seed is the same for all trials"),
        ("data.name: {choices: [mnist]}", "data.name is the same for all trials"),
        ("student.weights: {choices: [a]}", "student.weights is the same for all trials"),
        ("[1, 2]", "must map keys"),
        ("kd: 3", "under kd stand its keys"),
        ("a: [", "not valid YAML"),
    ],
)
def test_wrong_spaces_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(RequestError, match=message):
        space_in(path, ["baseline", "kd"])
    with pytest.raises(RequestError, match=r"cannot read the space .*: No such file"):
        space_in(tmp_path / "none.yaml", ["baseline", "kd"])


def test_two_keys_for_one_thing_are_refused() -> None:
    with pytest.raises(RequestError, match=r"schedule.name lies within schedule"):
        check_keys({"schedule": Choices(({},)), "schedule.name": Choices(("cosine",))}, "kd")
    with pytest.raises(RequestError, match="lies within"):
        check_keys({"distill.terms.*.weight": Range(0, 1), "distill.terms.0.weight": Range(0, 1)}, "kd")


@pytest.mark.parametrize("name", names())
def test_every_recipe_has_a_default_space_that_its_own_setting_lies_in(name: str) -> None:
    recipe = read(name)
    for taught in (False, True):
        space = default_space(recipe, taught)
        check_keys(space, name)
        assert own_settings(recipe, space).keys() == space.keys()
        for key, domain in space.items():
            for value in domain.ends:
                with_settings(recipe, {key: value})
