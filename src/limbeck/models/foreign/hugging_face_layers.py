"""A smaller model cut out of a larger one of Hugging Face's transformers: some layers, heads and tokens, all else."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.models.foreign.hugging_face_attention import Attention, Heads, is_output, set_heads, wider
from limbeck.models.foreign.hugging_face_embedder import PLAIN, POOLER, Embedder
from limbeck.models.foreign.hugging_face_vocabulary import rows_of, set_tokens
from limbeck.seeds import seeded


@dataclass(frozen=True)
class Kept:
    """What a model has of the one that it was cut out of.

    Attributes:
        layers: Numbers of the layers, from 0.
        heads: The attention heads of each layer; None: all.
        tokens: Ids of the tokens; None: all.
    """

    layers: Sequence[int]
    heads: Heads | None
    tokens: Sequence[int] | None


def cut(
    model: nn.Module,
    layers: Sequence[int] | None = None,
    *,
    heads: Heads | None = None,
    tokens: Sequence[int] | None = None,
) -> nn.Module:
    """A model of the same class with copies of some of its layers; embeddings, norms and head are copied too.

    Args:
        model: A model of transformers with one stack of equal layers, such as BERT, DistilBERT, GPT-2, Llama or ViT; it
            stays as it is.
        layers: Numbers of the layers that are copied, counted from 0, in the order that they shall have; None: all.
        heads: Numbers of the attention heads that each of these layers keeps, counted from 0; or how many, which are
            then the heads whose output projection has the largest Frobenius norm in their layer. A head keeps its
            width, so this is for models whose configuration says it (`head_dim`), such as Llama, Mistral, Qwen, Gemma
            and ViT. Where several heads share a key, each key that stays keeps as many of them: of a number as many
            heads of each key, or, where that does not work out, all heads of some keys. None: all.
        tokens: Ids of the tokens that it keeps, in the order of their new ids: rows of the embedding, and of a language
            model's head. A tokenizer with these alone is made by `limbeck.data.text.reduced`. None: all.

    Returns:
        A model of its own, in training mode; its configuration counts the layers and heads that it has.

    Raises:
        RequestError: The model shows no such stack, or lacks one of the layers, heads or tokens, or cannot
            be cut by heads.

    Source: Sanh et al.: DistilBERT, arXiv:1910.01108, section 3, begins a student so, with every other layer; Michel et
        al., NeurIPS 2019, arXiv:1905.10650, leave heads out.
    """
    if isinstance(model, Embedder):
        return model.around(cut(model.encoder, layers, heads=heads, tokens=tokens))
    count = len(_list(model, stack_of(model)))
    kept = Kept(list(range(count)) if layers is None else layers, heads, tokens)
    _check_layers(kept.layers, count)
    settings = copy.deepcopy(_settings(model))
    settings.num_hidden_layers = len(kept.layers)
    for name, value in settings.to_dict().items():
        if "layer" in name and isinstance(value, list) and len(value) == count:  # what each layer is, as layer_types
            setattr(settings, name, [value[layer] for layer in kept.layers])
    if tokens is not None:
        set_tokens(model, settings, tokens)
    smaller = _like(model, settings) if heads is None else _with_heads(model, settings, heads)
    vars(smaller)[_KEPT] = kept
    copy_cut(model, smaller)
    like = next(model.parameters())
    return smaller.to(like.device, like.dtype).train()


_KEPT = "kept_of_larger"
"""Where a model that was cut out of another one says what it has of that one."""


def copy_cut(model: nn.Module, smaller: nn.Module) -> None:
    """Give a model that `cut` made of another one that one's weights anew.

    Heads of which the number alone was given are chosen anew too.

    Raises:
        RequestError: The layers are not alike, or the weights do not fit.
    """
    if isinstance(model, Embedder) and isinstance(smaller, Embedder):
        smaller.dense.load_state_dict(model.dense.state_dict())
        model, smaller = model.encoder, smaller.encoder
    kept: Kept = vars(smaller)[_KEPT]
    stack, weights = stack_of(model), model.state_dict()
    if len(_list(smaller, stack)) != len(kept.layers):
        raise _unlike(model, kept.layers)
    heads = _heads(model, weights, stack, kept)
    moved = {}
    for name, value in smaller.state_dict().items():
        number, _, rest = name.removeprefix(f"{stack}.").partition(".")
        inside = name.startswith(f"{stack}.")
        layer = kept.layers[int(number)] if inside else None
        own = f"{stack}.{layer}.{rest}" if inside else name
        if own in weights:
            moved[name] = weights[own]
            if kept.tokens is not None:
                moved[name] = rows_of(kept.tokens, weights[own], value, _settings(model).vocab_size)
            if layer in heads and value.shape != weights[own].shape:
                moved[name] = _part(model, own, weights[own], value, heads[layer])
    try:
        smaller.load_state_dict(moved)
    except RuntimeError as error:
        raise _unlike(model, kept.layers) from error


def _heads(model: nn.Module, weights: dict[str, Tensor], stack: str, kept: Kept) -> dict[int | None, list[int]]:
    """The heads of each layer that stay; {} where all do."""
    if kept.heads is None:
        return {}
    attention = Attention.of(model)
    outputs = {layer: _output(weights, f"{stack}.{layer}.") for layer in kept.layers}
    return {layer: attention.kept(kept.heads, output) for layer, output in outputs.items()}


def _output(weights: dict[str, Tensor], layer: str) -> Tensor | None:
    return next((value for name, value in weights.items() if name.startswith(layer) and is_output(name)), None)


def _part(model: nn.Module, name: str, larger: Tensor, smaller: Tensor, heads: Sequence[int]) -> Tensor:
    found = Attention.of(model).part(name, larger, heads)
    if found is None or found.shape != smaller.shape:
        raise RequestError(
            f"heads are not cut out of {type(model).__name__}: what of its {name} {tuple(larger.shape)} belongs to a "
            "head is not known; it is of the projections q_proj, k_proj, v_proj and o_proj"
        )
    return found


def _with_heads(model: nn.Module, settings: Any, heads: Heads) -> nn.Module:
    """A model of these settings with fewer heads of the same width.

    Raises:
        RequestError: There are no such heads, or fewer would be wider.
    """
    attention = Attention.of(model)
    fewer = attention.of_kept(attention.kept(heads, None))
    if fewer == attention:
        return _like(model, settings)
    set_heads(settings, fewer)
    try:
        smaller = _like(model, settings)
    except ValueError as error:
        raise wider(model) from error
    layers = [_list(one, stack_of(one))[0] for one in (model, smaller)]
    if len({tuple(one.shape for one in layer.parameters()) for layer in layers}) == 1:
        raise wider(model)
    return smaller


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


def _settings(model: nn.Module) -> Any:
    return model.config


def _list(model: nn.Module, stack: str) -> nn.ModuleList:
    found = model.get_submodule(stack)
    assert isinstance(found, nn.ModuleList)
    return found


def _like(model: nn.Module, settings: Any) -> nn.Module:
    maker: Any = type(model)
    bare = getattr(model, POOLER, True) is None and PLAIN.keys() <= inspect.signature(maker).parameters.keys()
    with seeded(0):  # the start is overwritten: it shall not move the caller's random numbers
        made: nn.Module = maker(settings, **(PLAIN if bare else {}))
    return made


def _check_layers(layers: Sequence[int], count: int) -> None:
    wrong = [layer for layer in layers if type(layer) is not int or not 0 <= layer < count]
    if wrong or not layers or len(set(layers)) < len(layers):
        raise RequestError(
            f"layers are different numbers from 0 to {count - 1}, such as [0, {count - 1}], not {list(layers)}"
        )
