"""Texts in memory: blocks, targets, batches, and what they are known by."""

from __future__ import annotations

import math
import platform
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from limbeck.data import load, make_loader
from limbeck.data.order import Order
from limbeck.data.splits import DataSet
from limbeck.data.text.blocks import blocks
from limbeck.data.text.python_docs import documents
from limbeck.data.text.texts import IDS, Texts, mask_of, padded
from limbeck.data.text.tokenizers import ByteTokenizer
from limbeck.errors import RequestError
from limbeck.runs.identity import data_differences
from limbeck.types import MASK, TEACHER

TOKENIZER = ByteTokenizer()
PAD, END = TOKENIZER.pad, TOKENIZER.end


def texts(count: int = 40, length: int = 16, **options: object) -> Texts:
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, length + 1, (count,), generator=generator)
    ids = padded([[number] * int(size) for number, size in enumerate(sizes)], length, PAD)
    return Texts({IDS: ids, MASK: mask_of(sizes, length)}, torch.arange(count), "bytes", sizes, **options)  # type: ignore[arg-type]


def test_blocks_hold_documents_one_after_the_other_and_no_target_crosses_a_border() -> None:
    split = blocks(["abc", "de", "fghi"], TOKENIZER, 4)
    a, b, c, d, e, f, g, h, i = range(ord("a"), ord("a") + 9)
    assert split.inputs[IDS].tolist() == [[a, b, c, END], [d, e, END, f], [g, h, i, END]]
    assert split.targets.tolist() == [[b, c, END, -100], [e, END, -100, -100], [h, i, END, -100]]
    padded_out = blocks(["abcde"], TOKENIZER, 4)
    assert padded_out.inputs[IDS].tolist() == [[a, b, c, d], [e, END, PAD, PAD]]
    assert padded_out.targets.tolist() == [[b, c, d, -100], [END, -100, -100, -100]]
    for documents_, length in (([], 4), (["", ""], 4), (["abc"], 1)):
        with pytest.raises(RequestError, match="hold nothing to predict"):
            blocks(documents_, TOKENIZER, length)


def test_a_batch_is_cut_to_its_longest_text_or_not() -> None:
    split = texts(padding="batch")
    for batch in make_loader(split, 4, shuffle=True):
        ids, mask = batch.inputs[IDS], batch.inputs[MASK]
        assert ids.dtype == mask.dtype == batch.targets.dtype == torch.int64
        assert ids.shape == mask.shape == (4, int(split.sizes[batch.index].max()))
        assert torch.equal(batch.index, batch.targets)
        assert torch.equal(ids, torch.where(mask.bool(), batch.index[:, None], PAD))
    assert {batch.inputs[IDS].shape for batch in make_loader(texts(), 4)} == {(4, 16)}


@pytest.mark.parametrize("padding", ["batch", "length"])
def test_a_teacher_s_own_tokens_are_padded_as_the_student_s_are(padding: str) -> None:
    split = texts(padding=padding)
    both = replace(split, inputs={**split.inputs, TEACHER: split.inputs}, teacher_sizes=split.sizes)
    for batch in make_loader(both, 4):
        assert torch.equal(batch.inputs[TEACHER][IDS], batch.inputs[IDS])


def test_buckets_put_texts_of_like_length_together_and_lose_none() -> None:
    split = texts(count=203, padding="batch", buckets=True)
    orders = []
    for seed in (0, 0, 1):
        loader = make_loader(split, 10, shuffle=True, seed=seed)
        found = [batch.index for batch in loader]
        assert sorted(torch.cat(found).tolist()) == list(range(203))
        assert len(found[-1]) == 3
        orders.append(torch.cat(found).tolist())
    assert orders[0] == orders[1] != orders[2]
    batches = torch.tensor(orders[0][:200]).view(-1, 10)
    spread = [int(split.sizes[some].max() - split.sizes[some].min()) for some in batches]
    assert max(spread) <= 2
    assert spread != sorted(spread)
    plain = [batch.index[0].item() for batch in make_loader(split, 10)]
    assert plain == list(range(0, 203, 10)), "not shuffled: as it is"
    shares = [Order(203, 10, True, True, 0, rank, 2, lengths=split.lengths).index() for rank in (0, 1)]
    assert torch.equal(torch.stack(shares, 1).flatten(), torch.tensor(orders[0][:200]))


def test_an_order_of_fewer_samples_than_a_batch_stays() -> None:
    split = texts(count=5, buckets=True)
    (batch,) = make_loader(split, 10, shuffle=True)
    assert sorted(batch.index.tolist()) == list(range(5))


def test_the_tokenizer_is_a_part_of_the_fingerprint_and_named_where_it_differs() -> None:
    one, other = texts(), texts()
    assert one.fingerprint == other.fingerprint
    object.__setattr__(other, "tokenizer", "another")
    assert one.fingerprint != other.fingerprint
    assert one.subset(torch.tensor([3, 1])).sizes.tolist() == one.sizes[[3, 1]].tolist()
    same = {"classes": 4, "root": None, "splits": {}}
    before, now = ({**same, "origin": {"tokenizer": digest}} for digest in ("aa", "bb"))
    assert data_differences(before, now) == ["the data's tokenizer was 'aa' and is 'bb'"]


@pytest.fixture(scope="module")
def docs() -> DataSet:
    return load("python-docs", Path("/nowhere"), options={"tokenizer": "bytes", "length": 32, "part": 0.05})


def test_pythons_own_documents_are_split_by_document(docs: DataSet) -> None:
    assert (docs.classes, docs.input_shape, docs.task.name) == (258, (32,), "language-modelling")
    assert docs.origin["python"] == platform.python_version()
    ends = {name: int((split.inputs[IDS] == END).sum()) for name, split in docs.parts}
    read = [text[: math.ceil(0.05 * len(text))] for text in documents()]
    tested = sum(len(text.encode()) + 1 for text in read[9::10])
    assert len(docs.test) == math.ceil(tested / 32)
    assert ends == {"train": 80, "validation": 10, "test": 10}
    again = load("python-docs", Path("/"), options={"tokenizer": "bytes", "length": 32, "part": 0.05})
    assert docs.train.fingerprint == again.train.fingerprint
    with pytest.raises(RequestError, match="unknown option of data set python-docs 'lenght'; did you mean length"):
        load("python-docs", Path("/"), options={"lenght": 4})
