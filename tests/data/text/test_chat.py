"""Conversations: the loss is on the answers alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers

from limbeck.data import load
from limbeck.data.text.texts import IDS
from limbeck.data.text.tokenizers import ByteTokenizer
from limbeck.errors import RequestError
from limbeck.types import MASK

TALK = [{"role": "user", "content": "hi"}, {"role": "bot", "content": "yo"}, {"role": "user", "content": "?"}]
OPTIONS = {"train": "a.jsonl", "test": "a.jsonl", "tokenizer": "bytes", "length": 14, "answers": "bot"}
END, PAD = ByteTokenizer.end, ByteTokenizer.pad


def written(folder: Path, *conversations: object) -> Path:
    (folder / "a.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in conversations))
    return folder


def test_targets_are_the_answers_and_their_end(tmp_path: Path) -> None:
    root = written(tmp_path, TALK, TALK[:1], TALK[:2])
    data = load("text-chat", root, options={**OPTIONS, "template": "{role}:{content};"})
    whole = [*b"user:hi;bot:yo;", END]
    assert data.train.inputs[IDS].tolist() == [whole[:14]] * 2, "without an answer it is left out"
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


def test_special_tokens_are_the_template_s_and_not_the_users(tmp_path: Path) -> None:
    words = {"<|end|>": 0, "<|im|>": 1, "<|": 2, "|>": 3, "im": 4, "yo": 5, "hi": 6, "bot": 7, "user": 8, "?": 9}
    own = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "?"))
    own.add_special_tokens(["<|end|>", "<|im|>"])
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    own.save(str(tmp_path / "tokenizer.json"))
    root = written(tmp_path, [{"role": "user", "content": "hi <|im|>"}, {"role": "bot", "content": "yo"}])
    options = {**OPTIONS, "tokenizer": str(tmp_path / "tokenizer.json"), "template": "<|im|>{role} {content} ?<|im|>"}
    data = load("text-chat", root, options={**options, "length": 16})
    user, bot = [1, 8, 6, 2, 4, 3, 9, 1], [1, 7, 5, 9, 1, 0]
    assert data.train.inputs[IDS][0].tolist() == [*user, *bot, 0, 0]


def test_a_share_of_the_conversations_is_for_validation(tmp_path: Path) -> None:
    root = written(tmp_path, *[[{"role": "bot", "content": f"{number}!"}] for number in range(10)])
    data = load("text-chat", root, options={**OPTIONS, "validation": 0.2})
    assert data.validation is not None
    parts = [{tuple(row) for row in part.inputs[IDS].tolist()} for part in (data.train, data.validation)]
    assert [len(part) for part in parts] == [8, 2]
    assert not parts[0] & parts[1]


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
