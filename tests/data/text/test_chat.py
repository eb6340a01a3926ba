"""Conversations: the loss is on the answers alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from limbeck.data import load
from limbeck.data.text.texts import IDS, MASK
from limbeck.data.text.tokenizers import ByteTokenizer
from limbeck.errors import RequestError

TALK = [{"role": "user", "content": "hi"}, {"role": "bot", "content": "yo"}, {"role": "user", "content": "?"}]
OPTIONS = {"train": "a.jsonl", "test": "a.jsonl", "tokenizer": "bytes", "length": 14, "answers": "bot"}
END, PAD = ByteTokenizer.end, ByteTokenizer.pad


def written(folder: Path, *conversations: object) -> Path:
    (folder / "a.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in conversations))
    return folder


def test_targets_are_the_answers_and_their_end(tmp_path: Path) -> None:
    root = written(tmp_path, TALK, TALK[:1], TALK[:2])
    data = load("text-chat", root, options={**OPTIONS, "template": "{role}:{content};"})
    row = [*b"user:hibot:yo;"][:14]
    whole = [*b"user:hi;bot:yo;", END]
    assert data.train.inputs[IDS].tolist() == [whole[:14]] * 2, "without an answer it is left out"
    assert len(row) == 14
    assert data.note == "2 conversations without an answer within 14 tokens are left out", "of train and test one each"
    targets = data.train.targets[0].tolist()
    assert targets[:11] == [-100] * 11
    assert targets[11:] == [ord("y"), ord("o"), -100]
    short = load("text-chat", root, options={**OPTIONS, "template": "{content} ", "length": 12})
    ids = [*b"hi yo ", END]
    assert short.train.inputs[IDS][1].tolist() == [*ids, *[PAD] * 5]
    assert short.train.inputs[MASK][1].tolist() == [True] * 7 + [False] * 5
    assert short.train.targets[1].tolist() == [-100, -100, ord("y"), ord("o"), ord(" "), END, *[-100] * 6]
    assert short.train.inputs[IDS][0].tolist() == [*ids, *b"? ", *[PAD] * 3]


def test_what_is_no_conversation_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="conversation 2 is no list of messages"):
        load("text-chat", written(tmp_path, TALK, [{"role": "user"}]), options=OPTIONS)
    for content in (None, [{"type": "text"}]):
        with pytest.raises(RequestError, match=r"conversation 1 is no list of messages .*, texts both"):
            load("text-chat", written(tmp_path, [{"role": "bot", "content": content}]), options=OPTIONS)
    with pytest.raises(RequestError, match=r"has no \{content\}"):
        load("text-chat", tmp_path, options={**OPTIONS, "template": "{role}"})
    with pytest.raises(RequestError, match="no conversation has an answer within 5 tokens"):
        load("text-chat", written(tmp_path, TALK), options={**OPTIONS, "length": 5})
