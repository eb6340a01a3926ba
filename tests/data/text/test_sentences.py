"""Sentences for embeddings, and texts that teacher and student read in tokens of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from limbeck.data import load, make_loader
from limbeck.data.text.sentences import sentences
from limbeck.data.text.texts import IDS
from limbeck.errors import RequestError
from limbeck.types import MASK, TEACHER

WORDS = ["[PAD]", "[CLS]", "[SEP]", "ask", "the", "cat", "sat", "here", "now", "?", "."]


def tokenizer(folder: Path, **said: Any) -> Path:
    """A folder with a tokenizer of whole words, framed as BERT does, and what a sentence encoder says of its texts."""
    folder.mkdir()
    own = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[PAD]"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    own.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    own.save(str(folder / "tokenizer.json"))
    (folder / "sentence_bert_config.json").write_text(json.dumps(said))
    return folder


def test_a_batch_holds_the_same_texts_in_the_tokens_of_both(tmp_path: Path) -> None:
    folder = tokenizer(tmp_path / "encoder", max_seq_length=5, do_lower_case=True)
    prompt = {"prompts": {"ask": "ask "}, "default_prompt_name": "ask"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompt))
    (tmp_path / "t.tsv").write_text("0\tThe cat\n1\tHere\n0\tthe cat sat here\n")
    options = {"train": "t.tsv", "test": "t.tsv", "columns": ["label", "text"], "tokenizer": "bytes", "length": 12}
    data = load("text-classes", tmp_path, options={**options, "teacher_tokenizer": str(folder), "buckets": False})
    batch = next(iter(make_loader(data.train, 2)))
    assert batch.inputs[IDS].tolist() == [[*b"The cat", 257], [*b"Here", 257, 256, 256, 256]]
    theirs = batch.inputs[TEACHER]
    assert theirs[IDS].tolist() == [[1, 3, 4, 5, 2], [1, 3, 7, 2, 0]], "a prompt, in lower case, framed"
    assert theirs[MASK].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert theirs[IDS].dtype == torch.int64
    last = next(iter(make_loader(data.train.subset(torch.tensor([1])), 1)))
    assert (last.inputs[IDS].shape, last.inputs[TEACHER][IDS].shape) == ((1, 5), (1, 4)), "each cut to its longest"
    assert data.note == "2 texts longer than 12 tokens are cut; 2 texts longer than 5 tokens are cut for the teacher"

    plain = load("text-classes", tmp_path, options=options)
    again = load("text-classes", tmp_path, options={**options, "teacher_tokenizer": str(folder), "teacher_length": 9})
    assert len({one.train.fingerprint for one in (data, plain, again)}) == 3


def test_plain_text_is_taken_apart_and_records_are_not() -> None:
    text = 'First Citizen:\nBefore we go\nany further, hear me. Speak now!\n\n("We are here.") Is it so?\n\n* * 2\n'
    assert sentences(text) == [
        "First Citizen: Before we go any further, hear me.",
        '("We are here.',
        "Is it so?",
        "* * 2",
    ]


def test_no_sentence_is_in_two_parts_nor_twice(tmp_path: Path) -> None:
    rows = [{"text": f"Number {n % 40} is here. Or not."} for n in range(60)]
    (tmp_path / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "two.txt").write_text("Number 3 is here. Or not. So it is said.")
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": "Number 3 is here. Or not."}) + "\n")
    options: dict[str, Any] = {"train": ["one.jsonl", "two.txt"], "test": "test.jsonl", "tokenizer": "bytes"}
    data = load("text-sentences", tmp_path, options={**options, "width": 6, "length": 40})
    assert data.validation is not None
    texts = {name: [bytes(row[row < 256].tolist()).decode() for row in part.inputs[IDS]] for name, part in data.parts}
    assert {name: len(some) for name, some in texts.items()} == {"train": 36, "validation": 5, "test": 1}
    everything = [one for some in texts.values() for one in some]
    assert len(set(everything)) == 42
    assert {"Number 3 is here.", "So it is said."} <= set(everything), "the sentences of plain text"
    assert (data.classes, data.task.name) == (6, "embedding")  # type: ignore[union-attr]


def test_words_and_pieces_of_sentences_are_added_to_the_training_alone(tmp_path: Path) -> None:
    rows = [f"The {word} cat's coat is {word} and warm, No. {n}" for n in range(3) for word in ("red", "grey")]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    (tmp_path / "v.jsonl").write_text(json.dumps({"text": "grey"}) + "\n")
    options = {"train": "t.jsonl", "validation": "v.jsonl", "test": "v.jsonl", "tokenizer": "bytes", "width": 4}
    (tmp_path / "w.jsonl").write_text(json.dumps({"text": "A dog"}) + "\n")
    data = load("text-sentences", tmp_path, options={**options, "validation": "w.jsonl", "pieces": True})
    texts = [bytes(row[row < 256].tolist()).decode() for row in data.train.inputs[IDS]]  # type: ignore[index, union-attr]
    assert texts == sorted(texts, key=len)
    words = {one for one in texts if one.islower() and " " not in one}
    assert words == {"the", "red", "cat's", "coat", "is", "and", "warm", "no"}, "grey is tested"
    spans = {*texts} - {*rows} - words
    assert 1 < len(spans) <= 6
    assert {*rows} <= {*texts}
    assert all(2 <= len(one.split()) <= 8 and any(one in row for row in rows) for one in spans)
    again = load("text-sentences", tmp_path, options={**options, "validation": "w.jsonl", "pieces": True})
    assert again.train.fingerprint == data.train.fingerprint


def test_the_documentation_of_python_needs_no_files(tmp_path: Path) -> None:
    data = load("text-sentences", tmp_path, options={"docs": True, "tokenizer": "bytes", "width": 4, "length": 8})
    sizes = {name: len(part) for name, part in data.parts}
    assert sizes["train"] > 2000
    assert min(sizes.values()) > 100
    assert "python" in data.origin


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"docs": True}, "needs the width of the teacher's embeddings; give data.options.width"),
        (
            {"width": 4},
            "there is no sentence for train, validation, test; give data.options.train files, or docs: true",
        ),
        ({"width": 4, "docs": True, "validation": 0.95}, "below 1 together"),
        ({"docs": True, "teacher_tokenizer": "nowhere", "width": 4}, "there is no tokenizer nowhere"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, options: dict[str, Any], cause: str) -> None:
    with pytest.raises(RequestError, match=cause):
        load("text-sentences", tmp_path, options={"tokenizer": "bytes", "length": 8, **options})
