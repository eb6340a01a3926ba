"""What a table of stored tensors holds, written beside its shards, and checked when it is read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from limbeck.teachers.coding import Coding

FORMAT, READ = 3, (2, 3)
"""What is written, and what is read. 1 had no digest of the description, and shards that could belong to another one;
2 knew no codecs, and of the likeliest classes indices of 32 bits."""
MOST_SHARDS = 10**7
"""Shards that a table may have; a description with more is no limbeck's."""


class OtherFormatError(ValueError):
    """A description that another version of limbeck wrote."""


@dataclass(frozen=True)
class Description:
    """What a table holds.

    Attributes:
        made_of: What the values are a function of, by name: fingerprints of teacher, data, views.
        samples: Number of samples.
        views: Number of views.
        rows: Samples of one shard; the last one may have fewer.
        tensors: For each tensor its dtype, as safetensors names it, and the shape of one sample.
        about: What one must know to read the values, such as the number of classes.
        words: What the values were made of in words, for who lists stores; nothing depends on it.
    """

    made_of: Mapping[str, str]
    samples: int
    views: int
    rows: int
    tensors: Mapping[str, tuple[str, list[int]]]
    about: Mapping[str, Any]
    words: Mapping[str, str]

    @property
    def shards(self) -> list[tuple[int, int]]:
        """(view, number) of every shard."""
        return [(view, n) for view in range(self.views) for n in range(-(-self.samples // self.rows))]

    def span(self, number: int) -> range:
        """The samples of the shards of this number."""
        return range(number * self.rows, min(self.samples, (number + 1) * self.rows))

    @property
    def identity(self) -> str:
        """A digest of all that a shard's values depend on; views can be added to a table, and leave it as it is."""
        return _digest([self.made_of, self.samples, self.rows, self.tensors, self.about])

    def as_json(self) -> str:
        """The file's text, which `from_json` reads back."""
        content = {"format": FORMAT, **asdict(self)}
        return json.dumps({**content, "digest": _digest(content)}, indent=2)

    @staticmethod
    def from_json(text: bytes) -> Description:
        """The description that `as_json` wrote.

        Raises:
            OtherFormatError: Another version of limbeck wrote it.
            ValueError: A byte has changed since, or it describes no table.
        """
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("it is no mapping")
        if content.get("format") not in READ:
            raise OtherFormatError(str(content.get("format")))
        if content.pop("digest", None) != _digest(content):
            raise ValueError("its digest does not fit")
        del content["format"]
        return _checked(content)


def _checked(content: dict[str, Any]) -> Description:
    """A description whose numbers can be those of a table: a digest proves no good will."""
    if set(content) != {field.name for field in fields(Description)}:
        raise ValueError("it has other keys")
    counts = [content[name] for name in ("samples", "views", "rows")]
    if not all(_is_count(value) and value for value in counts):
        raise ValueError("a count is no positive number")
    if content["views"] * math.ceil(content["samples"] / content["rows"]) > MOST_SHARDS:
        raise ValueError("it has too many shards")
    if not all(isinstance(content[name], dict) for name in ("made_of", "tensors", "about", "words")):
        raise ValueError("a part is no mapping")
    if not all(isinstance(value, str) for name in ("made_of", "words") for value in content[name].values()):
        raise ValueError("what it was made of is no text")
    about = content["about"]
    if not isinstance(about.get("dtype"), str) or not _is_count(about.get("sample_bytes")):
        raise ValueError("it does not say how its values are stored")
    if not all(name in about and (about[name] is None or _is_count(about[name])) for name in ("classes", "top_k")):
        raise ValueError("it does not say how its values are read")
    Coding.of(about)
    tensors = {}
    for name, value in content.pop("tensors").items():
        dtype, shape = value
        if not isinstance(dtype, str) or not all(map(_is_count, shape)):
            raise ValueError(f"{name} is no tensor")
        tensors[name] = (dtype, list(shape))
    return Description(tensors=tensors, **content)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _digest(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
