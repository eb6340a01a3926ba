"""Test samples that are training samples too are counted, whatever the samples are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from limbeck.compare.comparison import compare
from limbeck.data import DataSet, InMemory, sets
from limbeck.data.overlap import overlap_note, shared
from limbeck.data.sets import load
from limbeck.recipes.read import read
from limbeck.runs.machine import Machine
from limbeck.runs.run import run


def split(inputs: Tensor | dict[str, Tensor]) -> InMemory:
    count = len(inputs) if isinstance(inputs, Tensor) else len(next(iter(inputs.values())))
    return InMemory(inputs, torch.arange(count) % 2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_samples_are_the_same_where_each_number_is(dtype: torch.dtype) -> None:
    images = torch.randint(0, 2, (40, 3, 5, 7), generator=torch.Generator().manual_seed(0)).to(dtype)
    changed = images[:4].clone()
    changed[:, 2, 4, 6] = 1 - changed[:, 2, 4, 6].float().to(dtype) if dtype != torch.bool else ~changed[:, 2, 4, 6]
    assert shared(split(images[:30]), split(torch.cat([images[25:], changed]))) == 5


def test_several_inputs_are_one_sample() -> None:
    ids, images = torch.arange(12).reshape(6, 2), torch.arange(12.0).reshape(6, 2)
    train = split({"ids": ids[:4], "images": images[:4]})
    assert shared(train, split({"ids": ids, "images": images})) == 4
    assert shared(train, split({"ids": ids, "images": images.flip(0)})) == 0
    assert shared(train, split({"ids": ids, "others": images})) == 0


def test_sequences_that_are_padded_to_other_lengths_are_found() -> None:
    long = torch.tensor([[5, 6, 7, 0, 0], [5, 6, 0, 0, 0], [1, 2, 3, 4, 5]])
    assert shared(split(long), split(torch.tensor([[5, 6, 0], [5, 7, 0]]))) == 1


def test_a_few_are_not_worth_a_line() -> None:
    numbers = torch.arange(400.0).reshape(400, 1, 1)
    train, test = split(numbers[:202]), split(numbers[200:])
    assert shared(train, test) == 2
    assert overlap_note(DataSet("a", train, split(numbers[199:]), 2, (1, 1))) != ""
    assert overlap_note(DataSet("a", train, split(numbers[201:]), 2, (1, 1))) == ""
    both = overlap_note(DataSet("a", train, test, 2, (1, 1), validation=train))
    assert "2 of 200 test samples are training samples too" in both
    assert "202 of 202 validation samples" in both


def test_a_file_of_texts_that_trains_and_tests_is_told(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\nfine and warm,a\nawful weather,b\n", encoding="utf-8")
    options = {"train": "train.csv", "test": "train.csv"}
    data = load("text-classes", tmp_path, options=options)
    assert "2 of 2 test samples are training samples too" in overlap_note(data)


@pytest.mark.parametrize("asked", [run, partial(compare, methods=["recipe"], seeds=[0])], ids=["run", "compare"])
def test_who_trains_on_the_test_set_is_told(
    asked: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = load("digits", tmp_path)
    same = replace(digits, test=digits.train.subset(torch.arange(40)))
    monkeypatch.setitem(sets.NAMES, "digits", lambda root, size: same)
    recipe = read("digits", ["teacher.epochs=1", "epochs=1"])
    asked(recipe, root=tmp_path, out=tmp_path / "out", machine=Machine(accelerator="cpu", progress=False))
    assert capsys.readouterr().err.count("40 of 40 test samples are training samples too") == 1
