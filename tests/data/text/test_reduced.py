"""Tokenizers with fewer tokens cut the texts that they were reduced for as before."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from limbeck.data.text.reduced import reduced
from limbeck.data.text.tokenizers import ByteTokenizer, FastTokenizer, read_tokenizer
from limbeck.errors import RequestError

SOME = ["the unhappy cat sat, unseen, on the mat", "happiness: the cats were seated on mats"]
MORE = [*SOME, "a dog ran beyond hills and fields, running further than dogs run", "zebras, oxen & yaks — déjà vu"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def made(kind: str) -> FastTokenizer:
    """A tokenizer that was trained on more texts; its special tokens stand before all others but in one kind."""
    unknown = {"WordPiece": {"unk_token": "[UNK]"}, "WordLevel": {"unk_token": "[UNK]"}}.get(kind, {})
    own = tokenizers.Tokenizer(getattr(models, kind)(**unknown))
    options: dict[str, Any] = {"vocab_size": 330, "show_progress": False}
    if kind == "Unigram":
        own.pre_tokenizer, own.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        options |= {"unk_token": "[UNK]", "special_tokens": SPECIAL}
    elif kind == "BPE":  # with special tokens behind all others
        own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
        options["initial_alphabet"] = sorted(pre_tokenizers.ByteLevel.alphabet())
    else:
        own.normalizer, own.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
        options["special_tokens"] = SPECIAL
    own.train_from_iterator(MORE * 3, getattr(trainers, {"BPE": "Bpe"}.get(kind, kind) + "Trainer")(**options))
    own.add_special_tokens(SPECIAL)
    ends = [(name, own.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    if kind == "WordPiece":
        own.post_processor = processors.BertProcessing(ends[1], ends[0])
    else:
        own.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    return FastTokenizer(own.to_str(), kind)


@pytest.mark.parametrize("kind", ["WordPiece", "WordLevel", "Unigram", "BPE"])
def test_what_a_tokenizer_was_reduced_for_has_the_same_tokens(tmp_path: Path, kind: str) -> None:
    whole = made(kind)
    fewer = reduced(whole, SOME)
    assert fewer.size == len(fewer.kept) < whole.size
    assert list(fewer.kept) == sorted(fewer.kept)
    for before, after in zip(whole.framed(SOME, 99)[0], fewer.framed(SOME, 99)[0], strict=True):
        assert [fewer.kept[one] for one in after] == before
    assert {fewer.kept[one] for one in (fewer.pad, fewer.end)} == {whole.pad, whole.end}
    assert all(fewer.id_of(one) is not None for one in SPECIAL)
    fewer.save(tmp_path)
    again = read_tokenizer(tmp_path)
    assert (again.size, again.digest) == (fewer.size, fewer.digest)
    assert again.encode(MORE) == fewer.encode(MORE)
    unknown = fewer.id_of("[UNK]")
    others = ["tunes", "then", "mass"]  # letters that were there, in words that were not
    assert [unknown in row for row in fewer.encode(others)] == [kind == "WordLevel"] * 3
    if kind == "BPE":
        assert fewer.decode(fewer.encode([MORE[-1]])[0]).strip() == MORE[-1]


def test_the_most_frequent_tokens_are_kept_of_a_number() -> None:
    whole = made("WordPiece")
    names = {number: name for name, number in tokenizers.Tokenizer.from_str(whole.content).get_vocab().items()}
    counts = Counter(one for row in whole.encode(SOME) for one in row)
    longer = [one for one in counts if len(names[one].removeprefix("##")) > 1 and names[one] not in SPECIAL]
    assert len(longer) > 5
    rarest = sorted(longer, key=lambda one: (-counts[one], one))[-4:]
    used = reduced(whole, SOME)
    fewer = reduced(whole, SOME, used.size - 4)
    assert sorted({*used.kept} - {*fewer.kept}) == sorted(rarest)
    bpe = made("BPE")
    some = reduced(bpe, SOME, 290)
    assert 270 < some.size <= 290 < reduced(bpe, SOME).size
    assert [some.decode(row) for row in some.encode(SOME)] == [bpe.decode(row) for row in bpe.encode(SOME)]


def test_what_cannot_be_reduced_is_said() -> None:
    with pytest.raises(RequestError, match=r"9 tokens are fewer than the \d+ special ones and letters"):
        reduced(made("WordPiece"), SOME, 9)
    with pytest.raises(RequestError, match="a tokenizer of bytes is not reduced"):
        reduced(ByteTokenizer(), SOME)
