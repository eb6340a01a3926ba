"""Conversations, of which a language model learns the answers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from limbeck.data.splits import DataSet
from limbeck.data.text.files import Files, column, located, records
from limbeck.data.text.language import language_set
from limbeck.data.text.shares import files_of
from limbeck.data.text.texts import IDS, Padding, Texts, following, mask_of, padded
from limbeck.data.text.tokenizers import Tokenizer, made_tokenizer
from limbeck.errors import RequestError, counted
from limbeck.options import Width
from limbeck.types import MASK

TEMPLATE = "<|{role}|>\n{content}\n"
"""How a message becomes text where nothing else is said."""
CONTENT = "{content}"
Message = Mapping[str, Any]


def text_chat(
    root: Path,
    *,
    train: Files,
    test: Files,
    validation: Files | float | None = None,
    messages: str = "messages",
    template: str = TEMPLATE,
    answers: str = "assistant",
    tokenizer: str = "bpe",
    vocab: Width = 4096,
    length: Width = 256,
    padding: Padding = "length",
    buckets: bool = True,
) -> DataSet:
    """Conversations out of JSON lines in the data root, a list of {"role", "content"} each; the loss is on answers.

    Args:
        root: The data root.
        train: File or files, also patterns: .jsonl, .parquet, or a folder of Hugging Face's datasets.
        test: Likewise.
        validation: Likewise, or a share of the training conversations.
        messages: The column of the messages.
        template: The text of a message; an answer is what stands from {content} on, and the end token behind it.
        answers: The role whose messages are learned.
        tokenizer: "bpe", trained on the training conversations, "bytes", or a file or folder.
        vocab: Tokens of the one that is trained.
        length: Tokens of a conversation at most; longer ones are cut, and those left without an answer are left out.
        padding: Up to what a batch is padded: "length", which stored teacher outputs need, or "batch", its longest one.
        buckets: Whether shuffled batches hold conversations of like length.

    Raises:
        RequestError: A file or column is not there, a message is none, or a template lacks {content}.
    """
    if CONTENT not in template:
        raise RequestError(f"the chat template has no {CONTENT}: {template!r}")
    given = {"train": train, "test": test, "validation": validation}
    parts = {name: _conversations(located(root, files), messages) for name, files in files_of(given).items()}
    plain = ["".join(a + b + c for a, b, c, _ in pieces(one, template, answers)) for one in parts["train"]]
    made = made_tokenizer(tokenizer, vocab, plain)
    splits = {
        name: packed([pieces(one, template, answers) for one in some], made, length, padding=padding, buckets=buckets)
        for name, some in parts.items()
    }
    left = sum(len(some) - len(splits[name]) for name, some in parts.items())
    note = f"{counted(left, 'conversation')} without an answer within {length} tokens are left out" if left else ""
    found = replace(language_set("text-chat", splits, made, length), note=note)
    return found.with_validation(validation) if isinstance(validation, int | float) else found


def pieces(conversation: Sequence[Message], template: str, answers: str) -> list[tuple[str, str, str, bool]]:
    """Of each message what stands before its content, the content, what follows it, and whether it is learned."""
    before, _, after = template.partition(CONTENT)
    return [
        (
            before.replace("{role}", message["role"]),
            message["content"],
            after.replace("{role}", message["role"]),
            message["role"] == answers,
        )
        for message in conversation
    ]


def packed(
    conversations: Sequence[Sequence[tuple[str, str, str, bool]]], tokenizer: Tokenizer, length: int, **options: Any
) -> Texts:
    """Conversations as rows of tokens, a target where an answer's token follows.

    Special tokens that the template writes out are read as such; in the contents they are text as any other.

    Raises:
        RequestError: No answer is left within `length`.
    """
    flat = [message for one in conversations for message in one]
    behind = [_behind(after, tokenizer.specials) for _, _, after, _ in flat]
    befores = iter(tokenizer.encode([before for before, _, _, _ in flat], special=True))
    contents = iter(tokenizer.encode([one + text for (_, one, _, _), (text, _) in zip(flat, behind, strict=True)]))
    afters = iter(tokenizer.encode([rest for _, rest in behind], special=True))
    rows, learned = [], []
    for conversation in conversations:
        row: list[int] = []
        counts: list[bool] = []
        for *_, answer in conversation:
            before, content = next(befores), [*next(contents), *next(afters)] + [tokenizer.end] * answer
            row += [*before, *content]
            counts += [False] * len(before) + [answer] * len(content)
        if any(counts[1:length]):
            rows.append(row[:length])
            learned.append(counts[:length])
    if not rows:
        raise RequestError(f"no conversation has an answer within {length} tokens; give a larger length")
    sizes = torch.tensor([len(row) for row in rows])
    ids = padded(rows, length, tokenizer.pad)
    targets = following(ids, padded(learned, length, 0).bool())
    return Texts({IDS: ids, MASK: mask_of(sizes, length)}, targets, tokenizer.digest, sizes, **options)


def _behind(after: str, specials: Sequence[str]) -> tuple[str, str]:
    """What follows a content, as the text that is encoded with it, and the rest from its first special token on."""
    at = min((place for one in specials if (place := after.find(one)) >= 0), default=len(after))
    return after[:at], after[at:]


def _conversations(paths: Sequence[Path], name: str) -> list[Sequence[Message]]:
    found = [one for path in paths for one in column(records(path), name, path)]
    for number, one in enumerate(found, start=1):
        right = isinstance(one, list) and all(
            isinstance(message, dict) and all(isinstance(message.get(name), str) for name in ("role", "content"))
            for message in one
        )
        if not right:
            raise RequestError(
                f"conversation {number} is no list of messages {{role, content}}, texts both: {str(one)[:80]}"
            )
    return found
