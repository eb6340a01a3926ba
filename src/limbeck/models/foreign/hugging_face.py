"""Models of Hugging Face's transformers: out of a local folder or a configuration, and back into a folder."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck.errors import RequestError, some, unknown
from limbeck.models.foreign.hugging_face_attention import Heads
from limbeck.models.foreign.hugging_face_embedder import Embedder
from limbeck.models.foreign.hugging_face_files import (
    CONFIG,
    VOCABULARY,
    beside,
    has_weights,
    is_there,
    pixels_of,
    without,
)
from limbeck.models.foreign.hugging_face_heads import encoder_options, kind_of
from limbeck.models.foreign.hugging_face_layers import cut
from limbeck.models.foreign.hugging_face_lora import with_lora
from limbeck.models.foreign.hugging_face_sentences import sentence_encoder, write_sentence_encoder
from limbeck.models.measure import parameter_count
from limbeck.notices import tell
from limbeck.taps.wrappers import unwrapped

KIND = "hf"
"""The prefix by which these models are named, as in "hf:FOLDER"."""
_AROUND = ("reused_classifier", "exit")
"""Options of what stands around a model, which its own folder does not say."""


def load_hugging_face(
    path: str | Path,
    *,
    classes: int | None = None,
    head: str | None = None,
    config: Mapping[str, Any] | None = None,
    replace_head: bool = False,
    layers: Sequence[int] | None = None,
    heads: Heads | None = None,
    tokens: Sequence[int] | None = None,
    lora: Mapping[str, Any] | None = None,
    pooling: str | None = None,
) -> nn.Module:
    """A model from a folder with config.json, with its weights where it holds some; or from a configuration alone.

    Nothing is downloaded, and no code from the folder is run. The model computes in fp32 and starts in training mode.

    Args:
        path: The folder, as `save_pretrained` writes it; or a configuration's file, for a model with new weights.
        classes: Number of logits; None keeps that of the folder. Of a language model, the tokens that there are.
        head: What it ends in: "classification", "token-classification", "language-model", "causal-lm", "masked-lm" or
            "embedding"; None: what the configuration's `architectures` say.
        config: Settings of the configuration to change, such as {"num_hidden_layers": 2}; with fewer layers the first
            ones keep their weights.
        replace_head: Weights that the folder lacks, or has in another shape, start new; which ones is said.
        layers: Numbers, from 0, of the layers that are kept; None keeps all.
        heads: Numbers, from 0, of the attention heads that each layer keeps, or how many (`hugging_face_layers.cut`);
            None keeps all.
        tokens: Ids of the tokens that are kept, in their new order; the folder's tokenizer does not go with the model
            then. None keeps all.
        lora: Train low-rank matrices beside frozen weights; options of peft's LoraConfig (extra `lora`).
        pooling: Of an embedding: "mean" of the tokens that count, their "max", "first" or "last"; None: all that the
            folder of a sentence encoder says follows (`hugging_face_sentences`), else "mean".

    Raises:
        RequestError: No such folder, an unknown setting, no such head, weights for another number of classes, or that
            the folder lacks; an extra that is not installed.
    """
    folder = Path(path)
    transformers = _transformers()
    if not is_there(folder):
        raise RequestError(f"{folder} is no folder of a Hugging Face model: it has no config.json")
    with quiet(transformers):
        settings = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _change(settings, config or {}, folder)
        kind, end = kind_of(settings, head, str(folder))
        trained, new = has_weights(folder), list[str]()
        _set_outputs(settings, end, classes, folder, trained, replace_head)
        plain = encoder_options(settings) if end == "Model" else {}
        if trained:
            model, new = _trained(kind, folder, settings, replace_head, plain)
        else:
            model = kind.from_config(settings, trust_remote_code=False, **plain).float().train()
    if end == "Model":
        model = sentence_encoder(model, folder) if pooling is None else Embedder(model, pooling)
        new = [f"encoder.{name}" for name in new]
    if any(one is not None for one in (layers, heads, tokens)):
        model = _cut(model, layers, heads, tokens, str(path))
    if lora is not None:
        with_lora(model, lora, also=new)
    vars(model)["pixels"] = pixels_of(folder) if trained else None
    vars(model)["beside"] = beside(folder) if tokens is None else without(beside(folder), VOCABULARY)
    return model


def save_hugging_face(folder: Path, name: str, model: nn.Module, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write a model of transformers into folder/name, so that `from_pretrained` reads it, with its tokenizer.

    Of one that stands inside another network, its configuration alone.

    Args:
        folder: Where the model's other files lie.
        name: What it is called there.
        model: A plain model.
        about: What is said of how it is built.

    Returns:
        What to say of how it is built instead: from this folder, whose name stands for it beside the JSON file. {} for
        a model that is none of transformers.
    """
    model = unwrapped(model)
    own: Any = model.encoder if isinstance(model, Embedder) else model
    inside = [one for one in own.modules() if returns_records(one)]
    whole = bool(inside) and inside[0] is own
    if not inside or not (whole or str(about.get("model")).startswith(f"{KIND}:")):
        return {}
    with quiet(_transformers()):
        (own if whole else inside[0].config).save_pretrained(folder / name)
    if isinstance(model, Embedder):
        write_sentence_encoder(folder / name, model)
    for file, content in vars(model).get("beside", {}).items():
        (folder / name / file).write_bytes(content)
    around = {key: value for key, value in about.get("options", {}).items() if key in _AROUND}
    return {"model": f"{KIND}:{name}", "options": around}


def returns_records(model: nn.Module) -> bool:
    """Whether a model is one of transformers, which returns its logits among other things."""
    transformers = sys.modules.get("transformers")
    return transformers is not None and isinstance(model, transformers.PreTrainedModel)


def beside_json(model: str, file: Path) -> str:
    """A model's name in a JSON file of limbeck, with the folder of a Hugging Face model that lies beside that file."""
    kind, _, name = model.partition(":")
    near = file.parent / name
    return f"{kind}:{near}" if kind == KIND and name and (near / CONFIG).is_file() else model


def is_gone(model: str) -> bool:
    """Whether a model is named by a folder of a Hugging Face model that is not there any more."""
    kind, _, name = model.partition(":")
    return kind == KIND and not is_there(name)


def _set_outputs(settings: Any, end: str, classes: int | None, folder: Path, trained: bool, replace_head: bool) -> None:
    """Set how many logits it gives, or refuse what its weights cannot."""
    if classes is None or end == "Model":
        return
    words = end in ("ForCausalLM", "LMHeadModel", "ForMaskedLM")
    there = settings.vocab_size if words else settings.num_labels
    if words and trained:
        if there < classes:
            raise RequestError(f"the model in {folder} knows {there:,} tokens, and the data have {classes:,}")
        return
    if trained and classes != there and not replace_head:
        raise RequestError(
            f"the weights in {folder} are for {there:,} classes, and {classes:,} are wanted; "
            "replace_head: true starts a new head"
        )
    setattr(settings, "vocab_size" if words else "num_labels", classes)


def _cut(
    model: nn.Module, layers: Sequence[int] | None, heads: Heads | None, tokens: Sequence[int] | None, where: str
) -> nn.Module:
    smaller = cut(model, layers, heads=heads, tokens=tokens)
    before, after = parameter_count(model), parameter_count(smaller)
    parts = [] if layers is None else [f"layers {', '.join(map(str, layers))}"]
    if heads is not None:
        parts.append(f"{heads} heads" if isinstance(heads, int) else f"heads {', '.join(map(str, heads))}")
    if tokens is not None:
        parts.append(f"{len(tokens):,} tokens")
    tell(f"{where}: {' and '.join(parts)} are kept, {after:,} of {before:,} parameters")
    return smaller


def _trained(
    kind: Any, folder: Path, settings: Any, replace_head: bool, options: Mapping[str, Any]
) -> tuple[nn.Module, list[str]]:
    """The model with its weights, and the names of those that are new."""
    given = {"local_files_only": True, "trust_remote_code": False, "dtype": torch.float32, **options}
    model, found = kind.from_pretrained(
        folder, config=settings, ignore_mismatched_sizes=replace_head, output_loading_info=True, **given
    )
    other = [one if isinstance(one, str) else one[0] for one in found["mismatched_keys"]]
    new = sorted({*found["missing_keys"], *other})
    if new and not replace_head:
        raise RequestError(f"the weights in {folder} lack {some(new)}; replace_head: true starts them new")
    if new:
        tell(f"{folder}: new in the network: {some(new)}")
    return model.float().train(), new


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError:
        raise RequestError("hf: models need the extra: pip install 'limbeck[transformers]'") from None


def _change(settings: Any, changes: Mapping[str, Any], folder: Path) -> None:
    known = settings.to_dict()
    for name, value in changes.items():
        if name not in known and name not in settings.attribute_map:
            raise unknown(f"setting of {folder / CONFIG}", name, known)
        setattr(settings, name, value)


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Inside, transformers says nothing but errors, and draws no bars."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
