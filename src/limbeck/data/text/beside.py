"""The tokenizer by which a model reads its data, in the files that go with the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from limbeck.data.text.tokenizers import END, FILE, PAD, FastTokenizer, Tokenizer
from limbeck.models.foreign.hugging_face_files import TOKENIZER, VOCABULARY, Beside, without

_CONFIG = "tokenizer_config.json"


def give_tokenizer(model: nn.Module, tokenizer: Tokenizer) -> None:
    """Let a model of transformers be saved with the tokenizer by which it reads its texts, in place of its folder's.

    Args:
        model: A model that `limbeck.models.build` made of `hf:`; others stay as they are.
        tokenizer: What it reads its texts by; where that is its folder's own, nothing changes.
    """
    there: Beside | None = vars(model).get("beside")
    if there is None:
        return
    if not isinstance(tokenizer, FastTokenizer):
        vars(model)["beside"] = without(there, TOKENIZER)
    elif there.get(FILE) != tokenizer.content.encode():
        own = {FILE: tokenizer.content.encode()}
        if tokenizer.kept:
            kept = without(there, VOCABULARY)
            if _CONFIG in kept:
                own[_CONFIG] = _renumbered(kept[_CONFIG], tokenizer.kept)
        else:
            kept = without(there, TOKENIZER)
            own[_CONFIG] = _json(_said(tokenizer))
        vars(model)["beside"] = {**kept, **own}


def _renumbered(content: bytes, kept: tuple[int, ...]) -> bytes:
    """A configuration whose added tokens have the ids that they have in a tokenizer that was reduced."""
    said = json.loads(content)
    number = {str(old): str(new) for new, old in enumerate(kept)}
    added: Mapping[str, Any] = said.get("added_tokens_decoder") or {}
    if added:
        said["added_tokens_decoder"] = {number[old]: one for old, one in added.items() if old in number}
    return _json(said)


def _said(tokenizer: Tokenizer) -> dict[str, Any]:
    """What transformers needs to know of a tokenizer that was trained here, or read from its file alone."""
    named = {"pad_token": PAD, "eos_token": END}
    there = {key: name for key, name in named.items() if tokenizer.id_of(name) is not None}
    return {"tokenizer_class": "PreTrainedTokenizerFast", **there}


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
