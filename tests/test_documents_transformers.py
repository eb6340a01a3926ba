"""The document on models of Hugging Face says what is so: its recipes are recipes, its Python runs."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.models.foreign.hugging_face import load_hugging_face
from limbeck.models.foreign.hugging_face_heads import HEADS
from limbeck.options import fitting
from limbeck.recipes.read import check

DOCUMENT = (Path(__file__).parent.parent / "docs" / "transformers.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


def test_its_recipes_are_recipes() -> None:
    base = {"teacher": {"model": "hf:teacher"}, "distill": {"terms": [{"loss": "kd"}]}}
    recipes = [check({**base, **yaml.safe_load(code)}) for code in blocks("yaml")]
    assert len(recipes) == 3
    for recipe in recipes:
        for spec in (recipe.student, *recipe.teachers):
            fitting("hf", load_hugging_face, spec.options)
    assert recipes[1].student.model == "hf:teacher"


def test_its_options_are_those_that_there_are() -> None:
    named = re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    assert {*named} == inspect.signature(load_hugging_face).parameters.keys() - {"path", "classes"}
    row = next(line for line in DOCUMENT.splitlines() if line.startswith("| `head`"))
    assert re.findall(r"`([\w-]+)`", row)[1:] == list(HEADS)


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("transformers", reason="the extra transformers is not installed")
    monkeypatch.chdir(tmp_path)
    for code in blocks("python"):
        exec(compile(code, "docs/transformers.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] == "2"
