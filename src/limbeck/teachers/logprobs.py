"""Log-probabilities that a server gave for texts, as a teacher's outputs: from JSON lines or Parquet to a `TopK`.

A line, or a row, is a sample: its tokens, and for each token the likeliest tokens in its place with their
log-probabilities, as OpenAI-compatible servers return them (tokens, top_logprobs), by themselves or inside of
choices[0].logprobs. Logits of position p predict token p + 1, so that what stands beside token p + 1 is position p's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.errors import RequestError, shown
from limbeck.losses import TopK
from limbeck.teachers.coding import Coding
from limbeck.teachers.description import Description
from limbeck.teachers.shards import Shards
from limbeck.teachers.stored import SHARD_BYTES
from limbeck.types import IGNORED

Ids = Callable[[str], int | None]
"""From a token as a server writes it to its id."""
_TOPS = "top_logprobs"
_BY_ID = "token_id:"
"""How servers write ids in place of tokens (vLLM's return_tokens_as_token_ids)."""
_LEAST = -1e4
"""The log-probability of places that are not filled."""


def read_logprobs(path: Path, ids: Tensor, targets: Tensor, classes: int, id_of: Ids | None = None) -> TopK:
    """The likeliest tokens at each position of some samples.

    Args:
        path: JSON lines, or Parquet (".parquet") with the columns input_ids, top_indices and top_logprobs.
        ids: (N, L) the samples' tokens; each line must have just these, but for padding behind its end.
        targets: (N, L), −100 where a position predicts nothing; others must have log-probabilities.
        classes: V, the size of the vocabulary.
        id_of: From a token's text to its id; None takes ids alone.

    Returns:
        (N, L, k), k the most that any position has; places that are not filled hold other classes at log-probability
        −10,000, and a position that predicts nothing is uniform over its k.

    Raises:
        RequestError: The file cannot be read, or does not belong to these samples; it names the line.
    """
    rows = list(_parquet(path) if path.suffix == ".parquet" else _lines(path))
    if len(rows) != len(ids):
        raise RequestError(f"{path} holds {len(rows):,} samples, and the data have {len(ids):,}: one a line, in order")
    found = [_sample(_Place(path, number), row, ids[number], targets[number], classes, id_of)
             for number, row in enumerate(rows)]  # fmt: skip
    most = max((len(one) for sample in found for one in sample), default=0)
    if not most:
        raise RequestError(f"{path} holds no log-probabilities")
    values, indices = torch.full((*ids.shape, most), _LEAST), torch.zeros(*ids.shape, most, dtype=torch.int64)
    for number, sample in enumerate(found):
        for position, given in enumerate(sample):
            values[number, position], indices[number, position] = _filled(given, most, classes)
    return TopK(values, indices)


class _Place:
    """A line of a file, for errors."""

    def __init__(self, path: Path, number: int) -> None:
        self._words = f"{path}, sample {number + 1}"

    def wrong(self, reason: str) -> RequestError:
        return RequestError(f"{self._words}: {reason}")


def _sample(
    place: _Place, row: Any, ids: Tensor, targets: Tensor, classes: int, id_of: Ids | None
) -> list[dict[int, float]]:
    """Log-probabilities by class, for each position of a sample."""
    tokens, tops = _fields(place, row)
    wanted = ids.tolist()
    got = [_id(place, token, classes, id_of) for token in tokens]
    if got != wanted[: len(got)]:
        at = next(i for i, (a, b) in enumerate(zip(got, [*wanted, None], strict=False)) if a != b)
        raise place.wrong(
            f"token {at + 1} is {shown(tokens[at])}, and the data have the id "
            f"{wanted[at] if at < len(wanted) else 'none'} there: the file is of other data, or another tokenizer"
        )
    found: list[dict[int, float]] = []
    for position in range(len(wanted)):
        given = tops[position + 1] if position + 1 < len(tops) else None
        if not given and int(targets[position]) != IGNORED:
            raise place.wrong(f"token {position + 2} has no log-probabilities; ask the server for those of the prompt")
        found.append(_distribution(place, given or {}, classes, id_of))
    return found


def _fields(place: _Place, row: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """The tokens of a line, and what stands beside each."""
    if isinstance(row, Mapping) and isinstance(row.get("choices"), list) and row["choices"]:
        row = row["choices"][0]
    row = row.get("logprobs", row) if isinstance(row, Mapping) else row
    if isinstance(row, Mapping) and isinstance(row.get("content"), list):  # as chats have it
        content = [one if isinstance(one, Mapping) else {} for one in row["content"]]
        row = {
            "tokens": [one.get("token") for one in content],
            "top_logprobs": [one.get("top_logprobs") for one in content],
        }
    tokens = row.get("tokens", row.get("input_ids")) if isinstance(row, Mapping) else None
    tops = row.get(_TOPS) if isinstance(row, Mapping) else None
    if not isinstance(tokens, list) or not isinstance(tops, list) or len(tokens) != len(tops):
        raise place.wrong("a line has tokens and top_logprobs, one entry a token")
    return tokens, tops


def _distribution(place: _Place, given: Any, classes: int, id_of: Ids | None) -> dict[int, float]:
    pairs = given.items() if isinstance(given, Mapping) else _pairs(place, given)
    found = {}
    for token, value in pairs:
        if value == -math.inf:  # never: as if it was not named
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not value <= 1e-4:
            raise place.wrong(f"{shown(value)} is no log-probability: these are numbers of 0 or less")
        found[_id(place, token, classes, id_of)] = min(float(value), 0.0)
    if given and not found:
        raise place.wrong("the probabilities of one token are all 0")
    if math.fsum(map(math.exp, found.values())) > 1.01:
        raise place.wrong("the probabilities of one token sum to more than 1")
    return found


def _pairs(place: _Place, given: Any) -> Iterator[tuple[Any, Any]]:
    for one in given if isinstance(given, list) else [None]:
        if not isinstance(one, Mapping):
            raise place.wrong(
                "top_logprobs of a token is a mapping from tokens to numbers, or a list of {token, logprob}"
            )
        yield one.get("token"), one.get("logprob")


def _id(place: _Place, token: Any, classes: int, id_of: Ids | None) -> int:
    found: int | None = token if isinstance(token, int) and not isinstance(token, bool) else None
    if isinstance(token, str) and token.removeprefix(_BY_ID).isdecimal() and (id_of is None or _BY_ID in token):
        found = int(token.removeprefix(_BY_ID))
    elif isinstance(token, str) and id_of is not None:
        found = id_of(token)
    if found is None or not 0 <= found < classes:
        raise place.wrong(f"{shown(token)} is no token of the vocabulary of {classes:,}: give its id, or its tokenizer")
    return found


def _filled(given: Mapping[int, float], most: int, classes: int) -> tuple[Tensor, Tensor]:
    """(most,) log-probabilities and indices, the likeliest first; each class once."""
    best = sorted(given.items(), key=lambda pair: (-pair[1], pair[0]))
    others = (one for one in range(classes) if one not in given)
    rest = [next(others) for _ in range(most - len(best))]
    level = _LEAST if best else -math.log(max(most, 1))
    values = [value for _, value in best] + [level] * len(rest)
    return torch.tensor(values), torch.tensor([token for token, _ in best] + rest)


def _lines(path: Path) -> Iterator[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would cut at more, such as U+2028
        if line.strip():
            try:
                yield json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise RequestError(f"{path}, line {number} is no JSON: {error}") from error


def _parquet(path: Path) -> Iterator[Any]:
    """Rows of input_ids, top_indices and top_logprobs: at each position of the ids what predicts the next one."""
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError:
        raise RequestError("Parquet needs the extra: pip install 'limbeck[text]'") from None
    columns = ["input_ids", "top_indices", "top_logprobs"]
    try:
        rows = parquet.read_table(path, columns=columns).to_pylist()
    except (OSError, ArrowException, KeyError) as error:
        raise RequestError(f"cannot read {path} with the columns {', '.join(columns)}: {error}") from error
    for number, row in enumerate(rows):
        try:
            pairs = zip(row["top_indices"], row["top_logprobs"], strict=True)
            beside = [dict(zip(which or (), values or (), strict=True)) for which, values in pairs]
        except (TypeError, ValueError):
            raise _Place(path, number).wrong("each of top_indices has its own of top_logprobs, and here not") from None
        # There each position has what follows it, so that it stands beside the next token.
        yield {"tokens": row["input_ids"], "top_logprobs": [None, *beside][: len(row["input_ids"])]}


def store_likeliest(
    top: TopK, place: str | Path, *, classes: int, made_of: Mapping[str, str], coding: Coding, words: Mapping[str, str]
) -> Description:
    """Store the likeliest classes of all samples where a `StoredTeacher` finds them.

    Args:
        top: (N, L, k), the samples in order.
        place: A folder or an fsspec address.
        classes: V.
        made_of: What they are a function of, by name.
        coding: In which form, with `top_k` k.
        words: What they are made of, for who lists stores.

    Raises:
        RequestError: The place holds other teacher outputs.
        RunError: It cannot be written.
    """
    shards, samples = Shards(place), len(top.indices)
    coded = coding.encode_top(top, classes)
    sample_bytes = sum(one[0].numel() * one.element_size() for one in coded.values())
    tensors = {name: (str(one.dtype).removeprefix("torch."), list(one.shape[1:])) for name, one in coded.items()}
    about = {"classes": classes, **coding.about, "sample_bytes": sample_bytes}
    rows = min(samples, max(1, SHARD_BYTES // sample_bytes))
    described = Description(dict(made_of), samples, 1, rows, tensors, about, dict(words))
    found = shards.description()
    if found is not None and found.identity != described.identity:
        raise RequestError(f"{place} holds other teacher outputs; choose another place, or delete them")
    shards.describe(described)
    for view, number in described.shards:
        span = described.span(number)
        shards.write(described, view, number, {name: one[span.start : span.stop] for name, one in coded.items()})
    return described
