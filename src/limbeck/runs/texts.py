"""Students of texts: what their files say of their inputs, and the tokenizer beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data import DataSet, make_loader
from limbeck.data.text.texts import IDS, TEXT, Texts, named
from limbeck.data.text.tokenizers import FILE, Tokenizer, read_tokenizer
from limbeck.errors import RequestError, as_request
from limbeck.recipes import schema
from limbeck.recipes.schema.own_tokens import TEACHERS
from limbeck.taps import call, evaluating
from limbeck.types import TEACHER, Inputs, flat


def of_texts(about: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a student's description says of its texts; None for a student of something else."""
    sample = about["input"].get("sample") or {}
    return dict(sample) if sample.get("dtype") == TEXT else None


def in_own_tokens(spec: schema.Model, data: DataSet) -> dict[str, Any]:
    """What a description says of the input of a network that reads the texts in tokens of its own; {} of any other."""
    if data.tokenizer is None or not isinstance(data.train, Texts) or not isinstance(spec.inputs, Mapping):
        return {}
    held = flat(named(data.train.inputs))
    given = {parameter: held[name] for parameter, name in spec.inputs.items() if name in held}
    ids = next(iter(given.values()))
    sample = {"shape": [ids.shape[1]], "dtype": TEXT, "inputs": list(given), "vocab": int(ids.max()) + 1}
    return {"shape": [ids.shape[1]], "sample": sample}


def asked_about(teachers: Sequence[schema.Teacher], data: DataSet) -> str:
    """What the outputs of teachers are a function of in the data: all of it, or their own tokens of its texts alone."""
    own = bool(teachers) and all(one.inputs == TEACHERS for one in teachers)
    return data.train.taught if own and isinstance(data.train, Texts) else data.train.fingerprint


def check_reads(role: str, spec: schema.Model, network: nn.Module, inputs: nn.Module | None, data: DataSet) -> None:
    """Raise RequestError for a network that cannot read the longest texts of its data, or the last of their ids."""
    if data.tokenizer is None or not isinstance(data.train, Texts):
        return
    length, last = data.input_shape[0], data.tokenizer.size - 1
    batch = next(iter(make_loader(data.train, 1))).inputs
    given: dict[str, Inputs] = {}
    for name in batch:
        given[name] = _longest(data.train) if name == TEACHER else _filled(name, length, last)
    with (
        as_request(
            lambda reason: (
                f"{role} {spec.model} cannot read texts of {length} tokens with the ids 0 to {last} ({reason}); "
                "give it a vocabulary and positions for these, or the data its tokenizer and a smaller length"
            )
        ),
        evaluating(network),
        torch.no_grad(),
    ):
        call(network, inputs(given) if inputs else given)


def _longest(texts: Texts) -> Inputs:
    """The longest text in a teacher's own tokens, each of them the last id that occurs."""
    theirs = named(named(texts.inputs)[TEACHER])
    ids = theirs[IDS]
    assert isinstance(ids, Tensor)
    return {name: _filled(name, ids.shape[1], int(ids.max())) for name in theirs}


def _filled(name: str, length: int, last: int) -> Tensor:
    ids = torch.full((1, length), last)
    return ids if name == IDS else torch.ones_like(ids)


def tokenizer_of(source: Path) -> Tokenizer:
    """The tokenizer of a run, of one student of a comparison, or of an export.

    Raises:
        RequestError: There is none in the folder, nor in the comparison's.
    """
    folder = source if source.is_dir() else source.parent
    place = next((one for one in (folder, folder.parent) if (one / FILE).is_file()), None)
    if place is None:
        raise RequestError(f"{folder} holds no {FILE}, by which its student reads texts; bring it back from the run")
    return read_tokenizer(place)
