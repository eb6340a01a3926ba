"""Recipes whose teacher is nothing but its stored outputs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.compare import compare
from limbeck.data.text.texts import IDS
from limbeck.errors import RequestError
from limbeck.recipes.read import check, dump
from limbeck.recipes.schema import Recipe
from limbeck.runs import components
from limbeck.runs.cost.estimate import plan
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.beforehand import cache
from limbeck.runs.outputs.from_server import cache_logprobs
from limbeck.runs.outputs.given_teacher import given_teacher
from limbeck.runs.run import run
from limbeck.runs.shown import as_yaml

QUIET = Machine(accelerator="cpu", progress=False)
NET = {"model": "transformer", "dim": 8, "depth": 1, "heads": 2}
LANGUAGE: dict[str, Any] = {
    "name": "given",
    "data": {
        "name": "python-docs",
        "batch_size": 16,
        "options": {"tokenizer": "bytes", "length": 8, "part": 0.003, "sources": False},
    },
    "teacher": {**NET, "dim": 16, "epochs": 1},
    "student": NET,
    "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5, "temperature": 1}]},
    "epochs": 1,
}


def given(place: Path, **changes: Any) -> Recipe:
    content = copy.deepcopy(LANGUAGE) | {"teacher": {"store": str(place)}}
    for key, value in changes.items():
        content[key] = content[key] | value if isinstance(content.get(key), dict) else value
    return check(content)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a teacher, and the run in whose course they were stored."""
    root = tmp_path_factory.mktemp("stored")
    content = copy.deepcopy(LANGUAGE)
    content["teacher"]["store"] = {"where": str(root / "said"), "top_k": 8}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LIMBECK_CACHE", str(root / "cache"))
        run(check(content), root=root, out=root / "run", machine=QUIET)
    return root


def test_a_student_of_stored_outputs_alone_is_that_of_the_run_that_stored_them(stored: Path, tmp_path: Path) -> None:
    recipe = given(stored / "said")
    found = run(recipe, root=tmp_path, out=tmp_path / "run", machine=QUIET)
    for file in ("student.safetensors", "baseline.safetensors"):
        assert (tmp_path / "run" / file).read_bytes() == (stored / "run" / file).read_bytes(), file
    before = json.loads((stored / "run" / "result.json").read_text())
    assert found["distilled"]["test_perplexity"] == before["distilled"]["test_perplexity"]
    assert found["teacher"] == []
    (outputs,) = found["teacher_outputs"]
    assert outputs["found"]
    assert outputs["top_k"] == 8
    assert "transformer" in outputs["reason"]
    made = json.loads((tmp_path / "run" / "identity.json").read_text())
    assert made["weights"]["teacher"].startswith("stored-")
    assert str(stored) not in json.dumps(made["recipe"])

    assert check(json.loads(json.dumps(recipe.model_dump(mode="json")))) == recipe
    assert f"store: {stored / 'said'}" in dump(recipe)
    assert "store:" in as_yaml(recipe)
    planned = plan(recipe, root=tmp_path)
    assert planned["teachers"] == []
    assert planned["online"] > 0
    assert "store" not in planned


def test_a_comparison_has_stored_outputs_as_its_teacher(stored: Path, tmp_path: Path) -> None:
    found = compare(given(stored / "said"), ["recipe", "kd"], [0], root=tmp_path, out=tmp_path / "cmp", machine=QUIET)
    assert list(found["methods"]) == ["baseline", "recipe", "kd"]
    before = json.loads((stored / "run" / "result.json").read_text())
    assert found["methods"]["recipe"]["scores"] == [before["distilled"]["test_perplexity"]]
    assert found["methods"]["baseline"]["scores"] == [before["baseline"]["test_perplexity"]]
    assert found["methods"]["kd"]["scores"] != found["methods"]["recipe"]["scores"]
    assert found["teacher"] == []
    with pytest.raises(RequestError, match="on-policy needs a teacher, and of that of the recipe given outputs"):
        compare(given(stored / "said"), ["on-policy"], [0], root=tmp_path, out=tmp_path / "cmp2", machine=QUIET)


def test_what_a_server_said_teaches_a_recipe_of_the_same_texts(tmp_path: Path) -> None:
    place, file = tmp_path / "said", tmp_path / "said.jsonl"
    recipe = given(place)
    ids = components.data(recipe.data, tmp_path).train.inputs[IDS]  # type: ignore[attr-defined]
    lines = [
        {"tokens": row, "top_logprobs": [None, *({f"token_id:{token}": -0.1} for token in row[1:])]}
        for row in ids.tolist()
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    cache_logprobs(recipe, file, str(place), root=tmp_path)
    found = run(recipe, root=tmp_path, out=tmp_path / "run", baseline=False, machine=QUIET)
    assert found["distilled"]["test_perplexity"] < 258
    assert "said.jsonl" in found["teacher_outputs"][0]["reason"]
    longer = LANGUAGE["data"] | {"options": LANGUAGE["data"]["options"] | {"length": 9}}
    with pytest.raises(RequestError, match=r"made with another data .* instead of"):
        run(given(place, data=longer), root=tmp_path, out=tmp_path / "longer", machine=QUIET)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"distill": {"terms": [{"loss": "logit_mse"}]}}, "logit_mse compares all logits"),
        ({"distill": {"terms": [{"loss": "mse", "student": "norm", "teacher": "norm"}]}}, "unknown teacher tap 'norm'"),
    ],
)
def test_what_stored_outputs_cannot_teach_is_refused(
    stored: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        run(given(stored / "said", **changes), root=tmp_path, out=tmp_path / "run", machine=QUIET)
    assert not (tmp_path / "run").exists()


def test_a_place_that_is_none_and_schemes_that_ask_are_refused(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no teacher outputs are stored in"):
        run(given(tmp_path / "nothing"), root=tmp_path, out=tmp_path / "run", machine=QUIET)
    with pytest.raises(RequestError, match=r"a place with a slash, such as \./outputs, and it is 'said'"):
        given(Path("said"))
    stages = given(stored / "said", distill={"terms": [], "method": "ab"})
    with pytest.raises(RequestError, match="ab trains in stages, for which stored outputs do not do"):
        given_teacher(stages, components.data(stages.data, tmp_path))
    with pytest.raises(RequestError, match="for the scheme offline, and not on-policy"):
        given(stored / "said", distill={"scheme": "on-policy"})
    with pytest.raises(RequestError, match=r"is what is stored in .* already"):
        cache(given(stored / "said"), root=tmp_path)
