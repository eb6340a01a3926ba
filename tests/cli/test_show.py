"""`limbeck show`: a recipe in full reads as the same recipe; every key is described."""

from __future__ import annotations

import re

import pytest
import typer
import yaml

from limbeck.cli.main import app
from limbeck.errors import RequestError
from limbeck.recipes.document import parse
from limbeck.recipes.keys import keys
from limbeck.recipes.read import check, names, read, variants
from limbeck.runs.shown import as_yaml


def command(*arguments: str) -> None:
    typer.main.get_command(app).main(list(arguments), standalone_mode=False)


RECIPES = [*names(), *(f"{name}:{variant}" for name in names() for variant in variants(name))]


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_shown_reads_as_the_same_recipe(name: str) -> None:
    recipe = read(name)
    assert check(parse(as_yaml(recipe), name)) == recipe


def test_defaults_are_marked_and_overrides_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    command("show", "digits", "--set", "data.batch_size=7", "--epochs", "3")
    lines = capsys.readouterr().out.splitlines()
    assert "  batch_size: 7  # Samples per training step." in lines
    assert "epochs: 3  # Epochs of the student's training." in lines
    assert "  view_seed: 0  # default. Seed of the views." in lines


def test_a_method_is_written_out_where_it_needs_no_networks() -> None:
    recipe = read("digits", ["distill={method: kd, task_weight: 0.25}"])
    head, *terms = [line[2:] for line in as_yaml(recipe).splitlines() if line.startswith("# ")]
    assert head == "The method kd stands for task_weight: 0.25 and the terms:"
    assert [term["loss"] for term in yaml.safe_load("\n".join(terms))] == ["kd"]
    recipe = read("digits", ["distill={method: at}"])
    assert as_yaml(recipe).splitlines()[-1].startswith("# The terms of the method at depend on the two networks")


def test_every_key_has_a_meaning() -> None:
    assert len(keys()) > 60
    assert [key.path for key in keys() if not key.meaning] == []


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("data.validation", "data.validation: number >= 0 < 1; default: 0.0"),
        ("distill.terms.0.loss", "distill.terms.N.loss: text; default: required"),
        ("keep", "keep: last | best; default: last"),
        ("teacher.epochs", "teacher.epochs: whole number > 0 <= 1000000, or null; default: null"),
    ],
)
def test_a_key_is_described(asked: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    command("show", "--keys", asked)
    first, meaning = capsys.readouterr().out.splitlines()
    assert first == shown
    assert re.fullmatch(r"    \S.+\.", meaning)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--keys", "data.batchsize"], "data.batch_size"),
        ([], "limbeck show digits"),
        (["--keys", "--epochs", "3"], "leave --set and --epochs out"),
    ],
)
def test_a_wrong_request_says_what_is_right(arguments: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=re.escape(said)):
        command("show", *arguments)
