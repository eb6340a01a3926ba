"""Recipes for large vocabularies: losses in chunks, and the forms in which outputs are stored."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck import Distiller, RequestError, TokenDistiller
from limbeck.data import DataSet
from limbeck.data.text.texts import IDS, Texts
from limbeck.data.text.tokenizers import ByteTokenizer
from limbeck.recipes.read import check, read
from limbeck.recipes.schema import Store
from limbeck.runs import components, learners
from limbeck.runs.checks import dry_run
from limbeck.runs.outputs.asking import form_of
from limbeck.runs.outputs.beforehand import as_cached
from limbeck.runs.teachers import Candidate
from limbeck.tasks import LanguageModelling
from limbeck.teachers.coding import Coding

L = 8
CHUNKED = "distill.options={chunked: true, chunk: 3}"
DRAWS = "teacher.store={where: disk, draws: 5}"


@pytest.fixture
def data() -> DataSet:
    ids = torch.randint(97, 122, (8, L), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    targets = torch.cat([ids[:, 1:], torch.full((8, 1), -100)], 1)
    texts = Texts({IDS: ids}, targets, ByteTokenizer.digest)
    given: dict[str, Any] = {"name": "letters", "train": texts, "validation": None, "test": texts, "classes": 258}
    return DataSet(**given, input_shape=(L,), task=LanguageModelling(), tokenizer=ByteTokenizer())


def made(data: DataSet, *changes: str) -> Any:
    recipe = read("lm-tiny", ["student.dim=8", "teacher.dim=8", "teacher.depth=1", *changes])
    student = components.model(recipe.student, data, 0)
    return recipe, student, [Candidate(recipe.teachers[0], "teacher", components.model(recipe.teachers[0], data, 1))]


def test_a_recipe_says_that_logits_are_made_in_chunks(data: DataSet) -> None:
    recipe, student, found = made(data, CHUNKED)
    scheme = learners.scheme(student, recipe, data)
    assert isinstance(scheme, TokenDistiller)
    assert scheme.chunk == 3
    assert isinstance(learners.alone(student, recipe, data), TokenDistiller)
    dry_run(recipe, student, found, data)
    plain = learners.scheme(student, made(data)[0], data)
    assert isinstance(plain, Distiller)
    assert not isinstance(plain, TokenDistiller)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("distill.options={chunk: 3}", "chunk of the scheme offline go with chunked: true"),
        ("distill.options={chunked: 3}", "chunked is true or false, not 3"),
        ("distill.options={chunked: true, haed: x}", "did you mean head"),
        ("distill.options={chunked: true, head: blocks}", "plain Linear"),
    ],
)
def test_wrong_options_of_chunks_are_refused(data: DataSet, change: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        dry_run(*made(data, change), data)


@pytest.mark.parametrize(
    ("store", "coding"),
    [
        ({"top_k": 4}, Coding(top_k=4)),
        ({"codec": "topk", "top_k": 4, "bits": 8}, Coding(top_k=4, bits=8)),
        ({"codec": "sampled", "draws": 9, "power": 0.5}, Coding(draws=9, power=0.5)),
        ({"codec": "dense"}, Coding()),
    ],
)
def test_the_store_of_a_recipe_is_the_coding_that_it_means(store: dict[str, Any], coding: Coding) -> None:
    content = read("lm-tiny").model_dump() | {}
    content["teacher"]["store"] = {"where": "disk", **store}
    assert Coding(**form_of(check(content).teachers[0].store)) == coding


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ({"top_k": 4, "draws": 4}, "either top_k or draws"),
        ({"codec": "sampled"}, "codec sampled goes with draws: 25"),
        ({"codec": "dense", "top_k": 4}, "neither top_k nor draws"),
        ({"bits": 8}, "bits and power are of stored top_k or draws"),
        ({"top_k": 4, "bits": 20}, "8 to 16, or 32"),
        ({"top_k": 4, "power": 0.5}, "power is of draws"),
    ],
)
def test_a_store_of_no_form_is_refused(store: dict[str, Any], words: str) -> None:
    content = read("lm-tiny").model_dump()
    content["teacher"]["store"] = store
    with pytest.raises(RequestError, match=words):
        check(content)


def test_terms_that_draws_cannot_teach_are_refused_before_anything_is_trained(data: DataSet) -> None:
    dry_run(*made(data, DRAWS), data)  # kd at temperature 1
    for terms in ("[{loss: kd, temperature: 2}]", "[{loss: kd}]", "[{loss: reverse_kl, temperature: 1}]"):
        with pytest.raises(RequestError, match=r"kd and soft_cross_entropy at temperature: 1 alone"):
            dry_run(*made(data, DRAWS, f"distill.terms={terms}"), data)


def test_the_command_line_changes_the_form() -> None:
    recipe = read("lm-tiny", ["teacher.store=auto"])
    store = as_cached(recipe, draws=5).teachers[0].store
    assert (store.where, store.draws, store.top_k) == ("disk", 5, None)
    assert as_cached(recipe) == recipe
    for store, change, meant in (
        ("top_k: 8, bits: 8", {"draws": 5}, {"draws": 5}),
        ("draws: 5, power: 0.5", {"top_k": 8}, {"top_k": 8}),
        ("top_k: 8, bits: 8", {"top_k": 4}, {"top_k": 4, "bits": 8}),
    ):
        made_so = as_cached(read("lm-tiny", [f"teacher.store={{where: disk, {store}}}"]), **change)
        assert made_so.teachers[0].store == Store(where="disk", **meant)
    with pytest.raises(RequestError, match="either top_k or draws"):
        as_cached(recipe, draws=5, top_k=4)
