"""A tokenizer with fewer tokens, which cuts what it was reduced for as before."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from limbeck.data.text.tokenizers import FastTokenizer, Tokenizer, tokenizers_package
from limbeck.errors import RequestError
from limbeck.options import Width

Most = Width | Literal["used"]
"""How many tokens are kept; or "used": all that occur."""
_BYTE = "<0x{:02X}>"


def reduced(tokenizer: Tokenizer, texts: Sequence[str], most: Most = "used") -> FastTokenizer:
    """A tokenizer with the tokens of another one that are most frequent in some texts, in their order.

    Special and added tokens are kept, that for what is unknown, and single letters of all that occurs (of byte-level
    and byte-fallback ones all bytes), so that a text of others is taken apart to smaller pieces; of byte-pair encoding
    also the tokens that the kept ones are merged from. With "used" the texts have the same tokens as before: the
    longest match, the likeliest cut or the next merge of few choices is what it was among more.

    Args:
        tokenizer: WordPiece, Unigram, word-level or byte-pair encoding of the `tokenizers` package.
        texts: The texts, such as those of the training.
        most: How many tokens there are at most; or "used": all that occur.

    Returns:
        The tokenizer; its `kept` are the ids that its tokens had before.

    Raises:
        RequestError: A tokenizer of another kind, or too few tokens for those that are always kept.
    """
    if not isinstance(tokenizer, FastTokenizer):
        raise RequestError("a tokenizer of bytes is not reduced: it has 258 tokens; leave reduce (vocabulary) out")
    vocabulary = _Vocabulary(json.loads(tokenizers_package().Tokenizer.from_str(tokenizer.content).to_str()))
    counts = Counter(one for row in tokenizer.encode(texts) for one in row)
    kept = vocabulary.always(counts) | {tokenizer.pad, tokenizer.end}
    if isinstance(most, int) and len(kept) > most:
        raise RequestError(
            f"{most:,} tokens are fewer than the {len(kept):,} special ones and letters that are always kept; keep "
            "more, or those that are used"
        )
    for token in sorted(counts, key=lambda one: (-counts[one], one)):
        more = vocabulary.made_of(token) - kept
        if isinstance(most, int) and len(kept) + len(more) > most:
            break
        kept |= more
    ids = sorted(kept)
    made = FastTokenizer(json.dumps(vocabulary.of(ids), ensure_ascii=False), "that was reduced", kept=tuple(ids))
    if any(made.id_of(vocabulary.names[one]) != number for number, one in enumerate(ids)):
        raise RequestError("the tokenizer's added tokens do not keep their order; it cannot be reduced")
    return made


class _Vocabulary:
    """The tokens of a tokenizer as its file describes them.

    Args:
        described: The file, as the package writes it today.

    Attributes:
        names: Each id's token.
    """

    def __init__(self, described: Mapping[str, Any]) -> None:
        self._described, self._model = described, described["model"]
        self._added = {one["id"]: one["content"] for one in described["added_tokens"]}
        vocabulary, kind = self._model.get("vocab"), self._model["type"]
        if kind not in ("WordPiece", "WordLevel", "Unigram", "BPE"):
            raise RequestError(f"a tokenizer of the kind {kind} is not reduced; WordPiece, WordLevel, Unigram, BPE are")
        own = {name: number for number, (name, _) in enumerate(vocabulary)} if kind == "Unigram" else vocabulary
        self._ids: dict[str, int] = own
        self.names = {number: name for name, number in own.items()} | self._added
        self._parts: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._prefix = self._model.get("continuing_subword_prefix") or ""
        for pair in self._merges():
            self._parts[self._merged(pair)].append(pair)

    def always(self, used: Iterable[int]) -> set[int]:
        """The ids that are kept whatever is frequent, where these are used."""
        kept = set(self._added) | self._set_around()
        unknown = self._model.get("unk_id") if self._model["type"] == "Unigram" else self._model.get("unk_token")
        kept |= {self._ids[unknown]} if isinstance(unknown, str) and unknown in self._ids else set()
        kept |= {unknown} if isinstance(unknown, int) else set()
        if self._model["type"] == "WordLevel":
            return kept
        letters = {letter for one in used for letter in self.names[one].removeprefix(self._prefix)}
        if "ByteLevel" in json.dumps([self._described.get("pre_tokenizer"), self._described.get("decoder")]):
            letters |= {name for name in self._ids if len(name) == 1}
        if self._model.get("byte_fallback"):
            letters |= {_BYTE.format(byte) for byte in range(256)}
        ends = {"", self._model.get("end_of_word_suffix") or ""}
        names = {before + one + end for one in letters for before in {"", self._prefix} for end in ends}
        return kept | {self._ids[name] for name in names if name in self._ids}

    def _set_around(self) -> set[int]:
        """The ids that are set around a text."""
        found: set[int] = set()

        def noted(name: str, old: int) -> int:
            found.add(self._id(name, old))
            return old

        _around(self._described.get("post_processor"), noted)
        return found

    def made_of(self, token: int) -> set[int]:
        """A token, and all from which byte-pair encoding makes it."""
        found, names = {token}, [self.names[token]]
        while names:
            parts = {part for pair in self._parts.get(names.pop(), ()) for part in pair}
            new = {self._ids[part] for part in parts} - found
            found |= new
            names += [self.names[one] for one in new]
        return found

    def of(self, ids: Sequence[int]) -> dict[str, Any]:
        """The description of a tokenizer with some of the tokens."""
        number = {old: new for new, old in enumerate(ids)}
        model = dict(self._model)
        if model["type"] == "Unigram":
            model["vocab"] = [one for at, one in enumerate(model["vocab"]) if at in number]
            model["unk_id"] = number.get(model["unk_id"])
        else:
            model["vocab"] = {name: number[at] for name, at in self._ids.items() if at in number}
        if "merges" in model:
            there = model["vocab"]
            model["merges"] = [
                pair for pair in self._merges() if all(one in there for one in (*pair, self._merged(pair)))
            ]
        added = [{**one, "id": number[one["id"]]} for one in self._described["added_tokens"]]
        around = _around(self._described.get("post_processor"), lambda name, old: number[self._id(name, old)])
        padding = self._described.get("padding")
        if padding:
            padding = {**padding, "pad_id": number.get(padding["pad_id"], 0)}
        return {**self._described, "model": model, "added_tokens": added, "post_processor": around, "padding": padding}

    def _id(self, name: str, old: int) -> int:
        return next((at for at, one in self._added.items() if one == name), self._ids.get(name, old))

    def _merges(self) -> list[tuple[str, str]]:
        pairs = (one.split(" ") if isinstance(one, str) else one for one in self._model.get("merges") or ())
        return [(first, second) for first, second in pairs]

    def _merged(self, pair: tuple[str, str]) -> str:
        return pair[0] + pair[1].removeprefix(self._prefix)


def _around(processor: Any, number: Callable[[str, int], int]) -> Any:
    """What sets special tokens around a text, with the ids that these have now."""
    if not isinstance(processor, dict):
        return processor
    found = dict(processor)
    if "processors" in found:
        found["processors"] = [_around(one, number) for one in found["processors"]]
    if isinstance(found.get("special_tokens"), dict):
        found["special_tokens"] = {
            key: {**one, "ids": [number(name, old) for name, old in zip(one["tokens"], one["ids"], strict=True)]}
            for key, one in found["special_tokens"].items()
        }
    for key in ("sep", "cls"):
        if key in found:
            found[key] = [found[key][0], number(*found[key])]
    return found
