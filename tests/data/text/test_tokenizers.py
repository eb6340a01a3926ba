"""Tokenizers: there and back, trained once, and read again from their files."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
import transformers

from limbeck.data.text import tokenizers as ours
from limbeck.data.text.tokenizers import FILE, ByteTokenizer, FastTokenizer, made_tokenizer, read_tokenizer, trained_bpe
from limbeck.errors import RequestError

TEXTS = ["the cat sat on the mat\n", "the dog sat on the log — déjà vu ☃\n"] * 3


def test_bytes_are_utf8() -> None:
    tokenizer = ByteTokenizer()
    (ids,) = tokenizer.encode(["é☃"])
    assert bytes(ids) == "é☃".encode()
    assert tokenizer.decode([*ids, tokenizer.end, tokenizer.pad]) == "é☃"
    assert tokenizer.token_bytes()[ids].sum() == 5
    assert len(tokenizer.token_bytes()) == tokenizer.size


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_tokenizer_is_trained_once_on_the_same_texts(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trained_bpe(TEXTS, 270)
    assert (one.size, one.pad, one.end) == (270, 0, 1)
    ids = one.encode(TEXTS)
    assert [one.decode(row) for row in ids] == TEXTS
    assert [int(one.token_bytes()[row].sum()) for row in ids] == [len(text.encode()) for text in TEXTS]
    assert sum(map(len, ids)) < sum(len(text.encode()) for text in TEXTS)
    monkeypatch.setattr(ours, "_train", lambda *_: pytest.fail("trained again"))
    assert trained_bpe(TEXTS, 270).digest == one.digest
    with pytest.raises(pytest.fail.Exception):
        trained_bpe(TEXTS[:1], 270)


def test_an_uncased_one_is_blind_to_capitals_and_to_where_a_word_stands(cache: Path) -> None:
    one = trained_bpe(TEXTS, 270, uncased=True)
    (plain, loud, after) = one.encode(["the cat", "THE Cat", "dog the cat"])
    assert plain == loud == after[-len(plain) :]
    assert one.digest != trained_bpe(TEXTS, 270).digest
    assert made_tokenizer("bpe-uncased", 270, TEXTS).digest == one.digest


def test_special_tokens_that_a_text_writes_out_are_text(cache: Path) -> None:
    one = trained_bpe(TEXTS, 270)
    text = "a<|end|>b<|pad|>"
    (ids,) = one.encode([text])
    assert not {one.end, one.pad} & set(ids)
    assert one.decode(ids) == text
    assert one.framed([text], 99) == ([[*ids, one.end]], 0)
    assert one.encode([text], special=True) == [[*one.encode(["a"])[0], one.end, *one.encode(["b"])[0], one.pad]]
    assert one.encode([text]) == [ids], "as before"


def test_a_text_s_own_frame_is_not_read_as_one() -> None:
    vocabulary = {"[UNK]": 0, "[SEP]": 1, "[PAD]": 2, "[CLS]": 3, "cat": 4, "[": 5, "]": 6, "SEP": 7}
    own = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    own.add_special_tokens(["[SEP]", "[CLS]", "[PAD]"])
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    own.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 1), ("[CLS]", 3))
    one = FastTokenizer(own.to_str(), "here")
    assert one.framed(["cat [SEP] cat"], 9) == ([[3, 4, 5, 7, 6, 4, 1]], 0)


def test_half_a_character_is_read_as_one_that_is_unknown(cache: Path) -> None:
    half, whole = "a \ud83d b", "a \ufffd b"
    made = trained_bpe([half], 300)
    assert made.encode([half]) == made.encode([whole])
    assert made.framed([half], 16) == made.framed([whole], 16)
    assert made.decode(made.encode([half])[0]) == whole


def test_a_length_that_holds_no_text_is_refused(cache: Path) -> None:
    for one in (ByteTokenizer(), trained_bpe(["a"], 258)):
        with pytest.raises(RequestError, match="sets 1 token around a text, so that length 1 holds none"):
            one.framed(["a"], 1)


def test_files_give_the_same_tokenizer(cache: Path, tmp_path: Path) -> None:
    for one in (trained_bpe(TEXTS, 270), ByteTokenizer()):
        folder = tmp_path / type(one).__name__
        folder.mkdir()
        one.save(folder)
        for path in (folder, folder / FILE):
            again = made_tokenizer(str(path), 0, [])
            assert (again.digest, again.encode(TEXTS)) == (one.digest, one.encode(TEXTS))


def test_tokenizers_of_others_are_read_without_their_special_tokens_and_limits(tmp_path: Path) -> None:
    own = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "[SEP]": 1, "[PAD]": 2, "cat": 3}, "[UNK]"))
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    own.post_processor = tokenizers.processors.TemplateProcessing("$A [SEP]", special_tokens=[("[SEP]", 1)])
    own.enable_truncation(2)
    own.enable_padding(length=5, pad_id=2)
    own.save(str(tmp_path / FILE))
    read = read_tokenizer(tmp_path)
    assert (read.size, read.pad, read.end) == (4, 2, 1)
    assert read.encode(["cat cat dog"]) == [[3, 3, 0]]
    assert read.token_bytes() is None


def test_texts_of_classifiers_are_framed_as_transformers_frames_them() -> None:
    vocabulary = {"[UNK]": 0, "[SEP]": 1, "[PAD]": 2, "[CLS]": 3, "cat": 4, "dog": 5}
    own = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    own.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 1), ("[CLS]", 3))
    texts = ["cat dog", "cat cat cat dog", "cat cat dog", ""]
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=own)(texts, truncation=True, max_length=5)
    one = FastTokenizer(own.to_str(), "here")
    assert one.framed(texts, 5) == (theirs["input_ids"], 1)
    assert one.encode(texts[1:2]) == [[4, 4, 4, 5]], "without a limit again"
    with pytest.raises(RequestError, match="sets 2 tokens around a text, so that length 2 holds none"):
        one.framed(texts, 2)
    assert ByteTokenizer().framed(["abc", "ab", ""], 3) == ([[97, 98, 257], [97, 98, 257], [257]], 1)


def test_added_tokens_that_are_text_have_bytes_and_special_ones_none(cache: Path) -> None:
    own = tokenizers.Tokenizer.from_str(trained_bpe(TEXTS, 270).content)
    own.add_tokens(["déjà"])
    own.add_special_tokens(["<|end_of_text|>"])
    one = FastTokenizer(own.to_str(), "here")
    (row,) = one.encode(["a déjà vu"])
    assert 270 in row
    assert int(one.token_bytes()[row].sum()) == len("a déjà vu".encode())
    assert int(one.token_bytes()[one.id_of("<|end_of_text|>")]) == 0
    assert one.id_of("no such token") is None


@pytest.mark.parametrize(
    ("content", "said"), [(None, "there is no tokenizer"), ("{", "cannot read"), ('{"a": 1}', "cannot read")]
)
def test_what_is_no_tokenizer_is_named(content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / FILE).write_text(content)
    with pytest.raises(RequestError, match=said):
        read_tokenizer(tmp_path)


def test_too_few_tokens_for_the_bytes() -> None:
    with pytest.raises(RequestError, match="vocab is 100, and a tokenizer over bytes needs 258"):
        trained_bpe(TEXTS, 100)


def test_a_tokenizer_without_an_end_is_refused() -> None:
    own = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, "a"))
    with pytest.raises(RequestError, match="no token for the end of a text"):
        FastTokenizer(own.to_str(), "here")
