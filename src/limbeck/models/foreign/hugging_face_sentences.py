"""Folders of sentence encoders, as sentence-transformers writes them: what stands behind the encoder, and its texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save_file
from torch import Tensor, nn

from limbeck.errors import RequestError, as_request
from limbeck.models.containers import read_content
from limbeck.models.foreign.hugging_face_embedder import POOLINGS, Embedder

CONFIG, MODULES, POOLING = "config.json", "modules.json", Path("1_Pooling") / "config.json"
TEXTS, PROMPTS = "sentence_bert_config.json", "config_sentence_transformers.json"
"""What says how texts become tokens: how many at most, and whether in lower case; and what is set before a text."""
_KEYS = {
    "mean": "pooling_mode_mean_tokens",
    "first": "pooling_mode_cls_token",
    "last": "pooling_mode_lasttoken",
    "max": "pooling_mode_max_tokens",
}
_PARTS = "sentence_transformers.models"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_BEHIND = ("Pooling", "Dense", "Normalize")
"""The parts that may follow the encoder, in this order; there may be several that are dense."""
_OTHER_NAMES = {"cls": "first", "lasttoken": "last"}


def sentence_encoder(encoder: nn.Module, folder: Path) -> Embedder:
    """An encoder with what its folder says that follows it: pooling, dense layers, normalization.

    Raises:
        RequestError: Something else follows, or in another order, or tokens are pooled in another way.
    """
    parts = _parts(folder)
    pooling = next((path for kind, path in parts if kind == "Pooling"), POOLING.parent.name)
    dense = [_dense(folder / path) for kind, path in parts if kind == "Dense"]
    return Embedder(encoder, _pooling(folder / pooling / CONFIG), ("Normalize", "") in parts, dense)


def said_of_texts(folder: Path) -> OfTexts:
    """What a sentence encoder's folder says of its texts; of one that says nothing, that they are taken as they are.

    Raises:
        RequestError: It is damaged.
    """
    said, prompts = dict(_read(folder / TEXTS) or {}), dict(_read(folder / PROMPTS) or {})
    most, named = said.get("max_seq_length"), dict(prompts.get("prompts") or {})
    prompt = named.get(prompts.get("default_prompt_name"), "")
    length = most if isinstance(most, int) and most > 0 else None
    return OfTexts(length, said.get("do_lower_case") is True, prompt if isinstance(prompt, str) else "")


class OfTexts(NamedTuple):
    """How a sentence encoder reads texts.

    Attributes:
        length: Tokens at most; None where that is not said.
        lower: Whether texts are brought to lower case.
        prompt: What is set before each text.
    """

    length: int | None
    lower: bool
    prompt: str

    def prepared(self, texts: Sequence[str]) -> list[str]:
        """Texts as its tokenizer gets them."""
        whole = [f"{self.prompt}{text}" for text in texts]
        return [text.lower() for text in whole] if self.lower else whole


def width_in(folder: Path) -> int | None:
    """How wide the embeddings of a sentence encoder's folder are; None where it does not say so."""
    parts = _parts(folder)
    said = dict(_read(folder / CONFIG) or {})
    width = said.get("hidden_size", said.get("dim", said.get("n_embd")))
    for kind, path in parts:
        if kind == "Dense":
            width = dict(_read(folder / path / CONFIG) or {}).get("out_features")
    return width if isinstance(width, int) and width > 0 else None


def files_behind(folder: Path) -> list[Path]:
    """The files that say what follows an encoder, with its weights; empty for a folder without any."""
    kinds = {file for file in (folder / MODULES, folder / POOLING) if file.is_file()}
    for kind, path in _parts(folder):
        if kind != "Normalize":
            kinds |= {file for name in (CONFIG, *_WEIGHTS) if (file := folder / path / name).is_file()}
    return sorted(kinds)


def write_sentence_encoder(folder: Path, model: Embedder) -> None:
    """Say what follows the encoder, in the files by which sentence-transformers knows it."""
    parts = [("", "Transformer"), (POOLING.parent.name, "Pooling")]
    parts += [(f"{2 + number}_Dense", "Dense") for number in range(len(model.dense))]
    parts += [(f"{len(parts)}_Normalize", "Normalize")] if model.normalize else []
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"{_PARTS}.{kind}"}
        for number, (path, kind) in enumerate(parts)
    ]
    for path, _ in parts[1:]:
        (folder / path).mkdir(parents=True, exist_ok=True)
    width = int(model.config.hidden_size)
    said = {"word_embedding_dimension": width, **{key: name == model.pooling for name, key in _KEYS.items()}}
    _write(folder / POOLING, said)
    _write(folder / MODULES, modules)
    for layer, (path, _) in zip(model.dense, parts[2:], strict=False):
        assert isinstance(layer, Dense)
        _write(folder / path / CONFIG, layer.said)
        save_file(
            {name: one.detach().contiguous() for name, one in layer.state_dict().items()}, folder / path / _WEIGHTS[0]
        )


class Dense(nn.Module):
    """A linear layer (B, D) → (B, D') and what bends it, such as tanh.

    Args:
        linear: The layer.
        bends: A module of `torch.nn` without weights.
    """

    def __init__(self, linear: nn.Linear, bends: nn.Module) -> None:
        super().__init__()
        self.linear, self.bends = linear, bends

    def forward(self, vectors: Tensor) -> Tensor:
        found: Tensor = self.bends(self.linear(vectors))
        return found

    @property
    def said(self) -> dict[str, Any]:
        """What its configuration says."""
        kind = type(self.bends)
        sizes = {"in_features": self.linear.in_features, "out_features": self.linear.out_features}
        bends = f"{kind.__module__}.{kind.__qualname__}"
        return {**sizes, "bias": self.linear.bias is not None, "activation_function": bends}


def _dense(folder: Path) -> Dense:
    """A dense layer from its folder; of what it names torch's own modules alone are built."""
    said = _read(folder / CONFIG) or {}
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), folder / _WEIGHTS[0])
    with as_request(lambda reason: f"cannot read the dense layer {folder}: {reason}"):
        place, _, name = said.get("activation_function", "torch.nn.modules.linear.Identity").rpartition(".")
        kind = getattr(nn, name, None) if place.startswith("torch.nn.") else None
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise RequestError(f"{folder / 'config.json'} names {place}.{name}, and is read with modules of torch.nn")
        linear = nn.Linear(said["in_features"], said["out_features"], bias=said.get("bias", True))
        layer = Dense(linear, kind())
        layer.load_state_dict(read_content(weights))
    return layer


def _parts(folder: Path) -> list[tuple[str, str]]:
    """The kinds of the parts that follow the encoder, and their folders; those that compute nothing are left out."""
    said = _read(folder / MODULES) or []
    with as_request(lambda reason: f"{folder / MODULES} is no list of parts: {reason}"):
        found = [(str(part["type"]).rpartition(".")[2], str(part.get("path", ""))) for part in said]
    found = [(kind, "" if kind == "Normalize" else path) for kind, path in found]
    parts = [one for one in found if one[0] not in ("Transformer", "Dropout")]
    order = [_BEHIND.index(kind) if kind in _BEHIND else -1 for kind, _ in parts]
    if -1 in order or order != sorted(order) or any(order.count(one) > 1 for one in (0, 2)):
        kinds = ", ".join(kind for kind, _ in found)
        raise RequestError(
            f"{folder / MODULES} has the parts {kinds}; after the encoder are read {', '.join(_BEHIND)}, in this "
            f"order; pooling: {' or '.join(POOLINGS)} takes the encoder without them"
        )
    return parts


def _pooling(file: Path) -> str:
    """How tokens are pooled, "mean" where nothing is said.

    Raises:
        RequestError: In a way that is not known.
    """
    said = dict(_read(file) or {})
    chosen = [name for name, on in said.items() if name.startswith("pooling_mode_") and on is True]
    known = {key: name for name, key in _KEYS.items()}
    mode = said.get("pooling_mode")
    if isinstance(mode, str):
        chosen, known = [mode], {**{name: name for name in POOLINGS}, **_OTHER_NAMES}
    if len(chosen) > 1 or any(name not in known for name in chosen):
        raise RequestError(f"{file} pools by {', '.join(chosen)}; give pooling: {' or '.join(POOLINGS)} to read it so")
    return known[chosen[0]] if chosen else "mean"


def _read(file: Path) -> Any:
    """What a JSON file holds; None where there is none."""
    if not file.is_file():
        return None
    with as_request(lambda reason: f"{file} is damaged: {reason}"):
        return json.loads(file.read_text(encoding="utf-8"))


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
