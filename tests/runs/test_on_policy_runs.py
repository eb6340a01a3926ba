"""Recipes whose student writes texts itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck import OnPolicyDistiller, OnPolicyTokenDistiller, TokenDistiller
from limbeck.data import DataSet
from limbeck.data.text.texts import IDS, Texts, following, mask_of
from limbeck.data.text.tokenizers import ByteTokenizer
from limbeck.errors import RequestError
from limbeck.recipes.read import check
from limbeck.runs import components, learners
from limbeck.runs.checks import dry_run
from limbeck.runs.outputs.beforehand import cache
from limbeck.runs.teachers import Candidate
from limbeck.runs.written_out import by_name
from limbeck.tasks import LanguageModelling
from limbeck.types import MASK

L = 8
NET = {"model": "transformer", "dim": 8, "depth": 1, "heads": 2}
OWN: dict[str, Any] = {
    "name": "own",
    "data": {"name": "python-docs", "batch_size": 4},
    "teacher": {**NET, "epochs": 1},
    "student": NET,
    "distill": {"scheme": "on-policy", "terms": [{"loss": "reverse_kl", "temperature": 1}]},
    "epochs": 1,
}


def changed(**changes: Any) -> dict[str, Any]:
    content = copy.deepcopy(OWN)
    for key, value in changes.items():
        content[key] |= value
    return content


def texts(answers: bool = False) -> DataSet:
    ids = torch.randint(97, 122, (8, L), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    counts = (torch.arange(L) >= 3).expand(8, L) if answers else torch.ones(8, L, dtype=torch.bool)
    inputs = {IDS: ids, **({MASK: mask_of(torch.full((8,), L), L)} if answers else {})}
    split = Texts(inputs, following(ids, counts), ByteTokenizer.digest)
    given: dict[str, Any] = {"name": "letters", "train": split, "test": split, "classes": 258, "input_shape": (L,)}
    return DataSet(**given, task=LanguageModelling(), tokenizer=ByteTokenizer())


def parts(content: dict[str, Any], data: DataSet) -> Any:
    recipe = check(content)
    student = components.model(recipe.student, data, 0)
    found = [Candidate(one, "teacher", components.model(one, data, 1)) for one in recipe.teachers]
    return recipe, student, found, data


def test_a_recipe_says_how_its_student_writes() -> None:
    data = texts()
    share = {"name": "linear", "from": 0, "to": 1, "epochs": 3}
    recipe, student, found, _ = parts(changed(distill={"options": {"share": share, "new_tokens": 2}}), data)
    scheme = learners.scheme(student, recipe, data)
    assert isinstance(scheme, OnPolicyDistiller)
    assert (scheme.prompt, scheme.new_tokens, scheme.task_weight) == (L // 2, 2, 0.0)
    assert (scheme.end, scheme.pad) == (data.tokenizer.end, data.tokenizer.pad)  # type: ignore[union-attr]
    assert [scheme.share(epoch) for epoch in range(4)] == [0, 0.5, 1, 1]  # type: ignore[operator]
    dry_run(recipe, student, found, data)
    assert learners.scheme(student, check(OWN | {"seed": 3}), texts(answers=True)).prompt is None


def test_a_recipe_says_that_its_student_s_logits_are_made_in_chunks() -> None:
    data = texts()
    recipe, student, found, _ = parts(changed(distill={"options": {"chunked": True, "chunk": 3, "share": 1.0}}), data)
    scheme = learners.scheme(student, recipe, data)
    assert isinstance(scheme, OnPolicyTokenDistiller)
    assert (scheme.chunk, scheme.share, scheme.prompt) == (3, 1.0, L // 2)
    assert isinstance(learners.alone(student, recipe, data), TokenDistiller)
    dry_run(recipe, student, found, data)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": {"store": "disk"}}, "no store knows; set teacher.store to never"),
        ({"distill": {"options": {"chunk": 3}}}, "chunk of the scheme on-policy go with chunked: true"),
        ({"distill": {"options": {"share": "half"}}}, "option share of scheme OnPolicyDistiller is 'half'"),
        ({"distill": {"options": {"prompt": 9}}}, "prompt 9 leaves nothing to write of samples of 8 tokens"),
        ({"distill": {"terms": [{"loss": "mse", "student": "norm", "teacher": "norm"}]}}, "terms on logits alone"),
    ],
)
def test_what_does_not_go_is_refused_before_anything_is_trained(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        dry_run(*parts(changed(**changes), texts()))


def test_nothing_is_stored_for_it(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nothing can be stored"):
        cache(check(OWN), root=tmp_path)
    offline = changed(teacher={"store": {"where": "disk", "top_k": 4}}) | {"distill": {"method": "kd"}}
    beside = by_name(check(offline), "on-policy")
    assert (beside.distill.scheme, beside.teachers[0].store.where) == ("on-policy", "never")
    assert by_name(check(offline), "dkd").teachers[0].store.where == "disk"
