"""A smaller model cut out of a larger one of Hugging Face's transformers: some of its layers, and all else."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from limbeck.errors import RequestError
from limbeck.models.foreign.hugging_face_embedder import PLAIN, POOLER, Embedder
from limbeck.seeds import seeded


def cut(model: nn.Module, layers: Sequence[int]) -> nn.Module:
    """A model of the same class with copies of some of its layers; embeddings, norms and head are copied too.

    Args:
        model: A model of transformers with one stack of equal layers, such as BERT, DistilBERT, GPT-2, Llama or ViT; it
            stays as it is.
        layers: Numbers of the layers that are copied, counted from 0, in the order that they shall have.

    Returns:
        A model of its own, in training mode; its configuration counts the layers that it has.

    Raises:
        RequestError: The model shows no such stack, or lacks one of the layers.

    Source: Sanh et al.: DistilBERT, arXiv:1910.01108, section 3, begins a student so, with every other layer.
    """
    if isinstance(model, Embedder):
        return model.around(cut(model.encoder, layers))
    count = _checked(model, layers)
    settings: Any = copy.deepcopy(model.config)
    settings.num_hidden_layers = len(layers)
    for name, value in settings.to_dict().items():
        if "layer" in name and isinstance(value, list) and len(value) == count:  # what each layer is, as layer_types
            setattr(settings, name, [value[layer] for layer in layers])
    with seeded(0):  # the start is overwritten: it shall not move the caller's random numbers
        smaller = _like(model, settings)
    copy_layers(model, smaller, layers)
    like = next(model.parameters())
    return smaller.to(like.device, like.dtype).train()


def copy_layers(model: nn.Module, smaller: nn.Module, layers: Sequence[int]) -> None:
    """Give a model that `cut` made of another one that one's weights anew.

    Raises:
        RequestError: The layers are not alike, or the weights do not fit.
    """
    if isinstance(model, Embedder) and isinstance(smaller, Embedder):
        smaller.dense.load_state_dict(model.dense.state_dict())
        model, smaller = model.encoder, smaller.encoder
    stack, weights = stack_of(model), model.state_dict()
    if len(_list(smaller, stack)) != len(layers):
        raise _unlike(model, layers)
    moved = {}
    for name in smaller.state_dict():
        number, _, rest = name.removeprefix(f"{stack}.").partition(".")
        own = f"{stack}.{layers[int(number)]}.{rest}" if name.startswith(f"{stack}.") else name
        if own in weights:
            moved[name] = weights[own]
    try:
        smaller.load_state_dict(moved)
    except RuntimeError as error:
        raise _unlike(model, layers) from error


def stack_of(model: nn.Module) -> str:
    """Path of the one list of layers of a model of transformers.

    Raises:
        RequestError: It has none, or several, as an encoder with a decoder has.
    """
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    lists = [name for name, one in model.named_modules() if isinstance(one, nn.ModuleList) and len(one) == count]
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if len(outer) != 1:
        there = f"has {len(outer)} ({', '.join(outer)})" if outer else "shows none"
        raise RequestError(
            f"layers are cut out of a model with one stack of layers, such as BERT, GPT-2, Llama or ViT, and "
            f"{type(model).__name__} {there}"
        )
    return str(outer[0])


def _unlike(model: nn.Module, layers: Sequence[int]) -> RequestError:
    return RequestError(f"{type(model).__name__} cannot be cut to the layers {list(layers)}: its layers are not alike")


def _list(model: nn.Module, stack: str) -> nn.ModuleList:
    found = model.get_submodule(stack)
    assert isinstance(found, nn.ModuleList)
    return found


def _like(model: nn.Module, settings: Any) -> nn.Module:
    maker: Any = type(model)
    bare = getattr(model, POOLER, True) is None and PLAIN.keys() <= inspect.signature(maker).parameters.keys()
    made: nn.Module = maker(settings, **(PLAIN if bare else {}))
    return made


def _checked(model: nn.Module, layers: Sequence[int]) -> int:
    """How many layers the model has, where it has those that are asked for."""
    count = len(_list(model, stack_of(model)))
    wrong = [layer for layer in layers if type(layer) is not int or not 0 <= layer < count]
    if wrong or not layers or len(set(layers)) < len(layers):
        raise RequestError(
            f"layers are different numbers from 0 to {count - 1}, such as [0, {count - 1}], not {list(layers)}"
        )
    return count
