"""Queries with texts that fit them and others, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.data import load, make_loader
from limbeck.data.text.texts import IDS
from limbeck.errors import RequestError

OPTIONS = {"tokenizer": "bytes", "width": 4, "length": 24}


def written(root: Path, count: int = 20) -> Path:
    rows = [
        {"query": f"q{n // 2}", "positive": f"fits {n}", "negative": f"no {n}", "more": f"nor {n}"}
        for n in range(count)
    ]
    (root / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "t.tsv").write_text("".join("\t".join(row.values()) + "\n" for row in rows))
    return root


def texts_of(batch: Any) -> list[str]:
    assert isinstance(batch.inputs, Mapping)
    return [bytes(one for one in row.tolist() if one < 256).decode() for row in batch.inputs[IDS]]


def test_the_texts_of_a_triple_follow_one_another_in_every_batch(tmp_path: Path) -> None:
    data = load("text-triples", written(tmp_path), options={"train": "t.jsonl", **OPTIONS})
    assert (data.classes, data.task and data.task.loss_options) == (4, {"texts": 3})
    seen, order = set(), []
    for batch in make_loader(data.train, 6, shuffle=True):
        texts = texts_of(batch)
        for at in range(0, len(texts), 3):
            number = int(texts[at + 1].split()[1])
            assert texts[at : at + 3] == [f"q{number // 2}", f"fits {number}", f"no {number}"]
            order.append(number)
        seen |= set(batch.targets.tolist())
    assert seen == set(range(3 * len(order)))
    parts = [
        {text for batch in make_loader(part, 6) for text in texts_of(batch) if text.startswith("q")}
        for part in (data.train, data.validation, data.test)
        if part is not None
    ]
    assert [len(part) for part in parts] == [8, 1, 1], "all triples of a query are in one part"
    assert len(set().union(*parts)) == 10
    fewer = data.limited(7).train
    assert len(fewer) == 6
    assert texts_of(next(iter(make_loader(fewer, 3))))[0].startswith("q")
    assert data.train.subset(torch.arange(3)).fingerprint != data.train.fingerprint


def test_columns_are_named_and_there_may_be_several_others(tmp_path: Path) -> None:
    names = {"columns": ["a", "b", "c", "d"], "query": "a", "positive": "b", "negative": ["d", "c"]}
    files = {"train": "t.tsv", "test": "t.tsv", "validation": "t.tsv"}
    data = load("text-triples", written(tmp_path, 2), options={**files, **names, **OPTIONS})
    assert texts_of(next(iter(make_loader(data.test, 4)))) == ["q0", "fits 0", "nor 0", "no 0"]
    assert data.task is not None
    assert data.task.loss_options == {"texts": 4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": None}, "text-triples needs the width"),
        ({"negative": "positive"}, "from different columns"),
        ({"query": "quary"}, r"unknown column of .*t\.jsonl 'quary'; did you mean query"),
        ({"test": 0.6, "validation": 0.5}, "below 1 together"),
        ({"test": 0.9, "validation": 0.05}, "there is no triple for train"),
    ],
)
def test_what_makes_no_triples_is_said(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        load("text-triples", written(tmp_path), options={"train": "t.jsonl", **OPTIONS, **options})


def test_records_without_a_text_and_shares_of_single_samples_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(
        '{"query": "a", "positive": "b", "negative": "c"}\n{"query": "a", "negative": "c"}\n'
    )
    with pytest.raises(RequestError, match="record 2, has no text for positive"):
        load("text-triples", tmp_path, options={"train": "bad.jsonl", **OPTIONS})
    data = load("text-triples", written(tmp_path), options={"train": "t.jsonl", **OPTIONS})
    with pytest.raises(RequestError, match=r"those of text-triples stay together; give a share as"):
        replace(data, validation=None).with_validation(0.5)
