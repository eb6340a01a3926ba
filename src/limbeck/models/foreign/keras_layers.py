"""The layers of a Keras model as nodes of a PyTorch module: under names that stay the same, with their weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from limbeck.models.foreign.nodes import Node, add_node

_PASSED = ("Normalization", "BatchNormalization", "Rescaling", "LayerNormalization")
"""Layers with numbers of their own that only scale what they get."""


def hang(parent: nn.Module, layer: Any, seen: dict[int, Node]) -> Iterator[tuple[Any, Node]]:
    """Hang a node with its weights under `parent` for each layer inside `layer`; a shared one is hung once."""
    inner = [one for one in _inside(layer) if id(one) not in seen]
    for one, name in zip(inner, _names(inner), strict=True):
        seen[id(one)] = shown = add_node(parent, name, type(one).__name__)
        yield one, shown
        yield from hang(shown, one, seen)
    hung = {id(weight) for one in _inside(layer) for weight in one.weights}
    for weight in layer.weights:
        if id(weight) not in hung:
            # Keras changes a weight in place, and PyTorch moves a parameter in place: the two stay one.
            parent.register_parameter(_own_name(weight, layer), weight.value)


def is_weighted(layer: Any) -> bool:
    """Whether a layer multiplies what it gets by weights that were trained, and has no layers inside."""
    return bool(layer.weights) and not _inside(layer) and type(layer).__name__ not in _PASSED


def settings_of(layer: Any) -> list[Any]:
    """A layer's kind and settings; of one that cannot say them, its plain attributes."""
    try:
        return [type(layer).__name__, layer.get_config()]
    except Exception:  # a layer of one's own, without them
        plain = {name: value for name, value in vars(layer).items() if isinstance(value, int | float | str | bool)}
        return [type(layer).__name__, plain]


def renamed(content: Any, names: Mapping[str, str]) -> Any:
    """Settings with other names for the layers: those that Keras counts through the whole process say nothing."""
    if isinstance(content, Mapping):
        return {renamed(str(key), names): renamed(value, names) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [renamed(value, names) for value in content]
    if not isinstance(content, str):
        return content
    return names.get(content, re.sub(r"^(keras_tensor|input_layer)_\d+$", r"\1", content))


def _inside(layer: Any) -> list[Any]:
    layers = layer._flatten_layers(include_self=False, recursive=False)
    return [one for one in layers if type(one).__name__ != "InputLayer"]


def _own_name(weight: Any, layer: Any) -> str:
    """The weight's name within its layer: "kernel"; "query_kernel" where the layer has parts that Keras hides."""
    path: str = weight.path.rpartition(f"{layer.name}/")[2]
    return path.replace("/", "_").replace(".", "_")


def _names(layers: list[Any]) -> list[str]:
    """The layers' names; those that Keras counted through the whole process are counted among these."""
    counts: Counter[str] = Counter()
    names = []
    for layer in layers:
        stem = re.sub(r"_\d+$", "", layer.name)
        if stem.replace("_", "") == type(layer).__name__.lower():
            names.append(f"{stem}_{counts[stem]}" if counts[stem] else stem)
            counts[stem] += 1
        else:
            names.append(layer.name)
    return names
