"""A student from its two files: NAME.json says how it is built, NAME.safetensors holds its weights."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, FiniteFloat, PositiveFloat, PositiveInt, ValidationError
from torch import Tensor, nn

from limbeck.errors import RequestError, shown
from limbeck.models.build import build_from
from limbeck.models.finite import check_finite
from limbeck.models.foreign.hugging_face import beside_json
from limbeck.models.foreign.hugging_face_lora import drop_adapters, has_adapters
from limbeck.models.logits import to_logits
from limbeck.models.preprocess import preprocess
from limbeck.models.weights import load_weights
from limbeck.seeds import seeded

QUANTISERS = "quantisers"
"""In a description: the weights are those of a network with quantisers, which `quantize` in a recipe trains."""


def load_model(path: str | Path) -> nn.Sequential:
    """A student that limbeck has written, ready to answer: it reads images as they are, on the scale 0–1.

    A JSON file that names a builder as "package.module:callable" has that module imported: trust it as you would code.

    Args:
        path: NAME.json of a run folder or an export; NAME.safetensors lies beside it.

    Returns:
        A model in eval mode from (B, *shape), the JSON's "input", to logits (B, classes); of a student of texts from
        ids and mask (B, L), in this order, by name, or as a dict. A text that is padded needs its mask, or padding
        counts as tokens. Its part `inputs` subtracts
        the mean and divides by the standard deviation; its part `network` is the plain network with the weights, of a
        model with a chosen output, and of Hugging Face's transformers, within `limbeck.models.logits.Logits`.

    Raises:
        RequestError: A file is missing or damaged, does not say how the model is built, or does not fit it.
    """
    about = read_description(path)
    mean, std = about["input"].get("mean"), about["input"].get("std")
    parts = {
        "inputs": preprocess(mean, std, None) or nn.Identity(),
        "network": to_logits(load_network(path), about.get("output")),
    }
    return Ready(OrderedDict(parts)).eval()


class Ready(nn.Sequential):
    """What prepares inputs, then a network: of one tensor, or of several in its order, by name or in a dict."""

    def forward(self, *inputs: Any, **by_name: Tensor) -> Tensor:
        named = isinstance(inputs[0], Mapping) if len(inputs) == 1 else False
        given: Mapping[str, Any] = {**inputs[0], **by_name} if named else by_name
        prepare, network = self
        logits: Tensor = network(*([] if named else map(prepare, inputs)), **(prepare(given) if given else {}))
        return logits


def load_network(path: str | Path) -> nn.Module:
    """The plain network of `load_model`, in eval mode; its input must be normalised as the JSON file says."""
    about = read_description(path)
    if QUANTISERS in about:
        raise RequestError(
            f"{path} describes a network in the middle of its way to int8: the int8 file is "
            f"{Path(path).with_suffix('.onnx').name} beside it, and student.json the student in fp32"
        )
    with seeded(0):  # the start is overwritten: it shall not move the caller's random numbers
        shape = tuple(about["input"]["shape"])
        network = build_from(about["model"], about["options"], input_shape=shape, classes=about["classes"])
    load_own(network, path)
    return network.eval()


def load_own(network: nn.Module, path: str | Path) -> None:
    """Load the weights that limbeck wrote beside a JSON file, after a look whether they still are what was written.

    Args:
        network: What they belong to; of one with LoRA, whose matrices are in those weights, they are taken away.
        path: NAME.json; NAME.safetensors lies beside it.

    Raises:
        RequestError: The weights are other ones than those that the JSON file describes, damaged or not finite.
    """
    weights = Path(path).with_suffix(".safetensors")
    written = _content(path).get("sha256")
    if written is not None and weights.is_file():
        with weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != written:
            raise RequestError(
                f"{weights} is not the file that {Path(path).with_suffix('.json')} describes: its SHA-256 begins with "
                f"{found[:8]}, and {str(written)[:8]} was written; bring back the file, or train again"
            )
    if has_adapters(network):
        drop_adapters(network)
    load_weights(network, weights)
    check_finite(network, weights)


def read_description(path: str | Path) -> dict[str, Any]:
    """What a student's JSON file says; a Hugging Face model that lies beside it is named by where it lies now.

    Raises:
        RequestError: It is missing or damaged, or does not say how the model is built.
    """
    path, about = Path(path).with_suffix(".json"), _content(path)
    missing = {"model", "options", "classes", "input"} - set(about)
    if missing:
        raise RequestError(
            f"{path} does not say how its model is built (it lacks {', '.join(sorted(missing))}); build the network "
            "yourself, and load the weights beside it with limbeck.models.load_weights"
        )
    try:
        _Description.model_validate(about)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise RequestError(f"{path} is damaged: {where} is {shown(fault['input'])}: {fault['msg']}") from error
    return {**about, "model": beside_json(about["model"], path)}


def _content(path: str | Path) -> dict[str, Any]:
    path = Path(path).with_suffix(".json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    return content if isinstance(content, dict) else {}


class _Input(BaseModel):
    shape: list[PositiveInt]
    mean: list[FiniteFloat] | None = None
    std: list[PositiveFloat] | None = None


class _Description(BaseModel):
    model: str
    options: dict[str, Any]
    classes: PositiveInt | None
    input: _Input
    output: str | int | None = None
