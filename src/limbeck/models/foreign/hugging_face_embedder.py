"""An encoder as a model of embeddings: one vector a text or image, pooled over its tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError, as_request, unknown

POOLINGS = ("mean", "first")
POOLER, PLAIN = "pooler", {"add_pooling_layer": False}
"""An encoder's own trained layer behind the class token, which nothing here reads, and how it is left out."""
_POOLING = Path("1_Pooling") / "config.json"
_KEYS = {"mean": "pooling_mode_mean_tokens", "first": "pooling_mode_cls_token"}
_PARTS = "sentence_transformers.models"


class Embedder(nn.Module):
    """(B, D): the mean of an encoder's last tokens (B, L, D) over those that its mask counts, or the first token.

    Args:
        encoder: A model of transformers that gives `last_hidden_state`.
        pooling: "mean", or "first" for the class token.
        normalize: Whether vectors have length 1.
    """

    def __init__(self, encoder: nn.Module, pooling: str = "mean", normalize: bool = False) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise unknown("pooling", pooling, POOLINGS)
        self.encoder, self.pooling, self.normalize = encoder, pooling, normalize

    def forward(self, inputs: Tensor | None = None, *, attention_mask: Tensor | None = None, **named: Tensor) -> Tensor:
        if inputs is not None:
            named[self.main_input_name] = inputs
        if attention_mask is not None:
            named["attention_mask"] = attention_mask
        found = self.encoder(**named).last_hidden_state
        tokens = found.flatten(2).transpose(1, 2) if found.dim() == 4 else found
        if self.pooling == "first":
            pooled = tokens[:, 0]
        elif attention_mask is None:
            pooled = tokens.mean(1)
        else:
            counts = attention_mask.to(tokens.dtype)[..., None]
            pooled = (tokens * counts).sum(1) / counts.sum(1).clamp(min=1)
        return F.normalize(pooled, dim=-1) if self.normalize else pooled

    @property
    def main_input_name(self) -> str:
        """What the encoder calls its inputs."""
        return str(self.encoder.main_input_name)

    @property
    def config(self) -> Any:
        """The encoder's configuration."""
        return self.encoder.config

    def extra_repr(self) -> str:
        return f"pooling={self.pooling}, normalize={self.normalize}"


def pooling_in(folder: Path) -> tuple[str, bool]:
    """How the folder of a sentence encoder says that its tokens are pooled, and whether vectors are normalized.

    Raises:
        RequestError: In another way than by their mean or the first one.
    """
    said = dict(_read(folder / _POOLING) or {})
    chosen = [name for name, on in said.items() if name.startswith("pooling_mode_") and on is True]
    known = {key: name for name, key in _KEYS.items()}
    if len(chosen) > 1 or any(name not in known for name in chosen):
        raise RequestError(
            f"{folder / _POOLING} pools by {', '.join(chosen)}; give pooling: {' or '.join(POOLINGS)} to read it so"
        )
    parts = _read(folder / "modules.json") or []
    normalized = any(str(part.get("type", "")).endswith(".Normalize") for part in parts if isinstance(part, dict))
    return known[chosen[0]] if chosen else "mean", normalized


def _read(file: Path) -> Any:
    """What a JSON file holds; None where there is none."""
    if not file.is_file():
        return None
    with as_request(lambda reason: f"{file} is damaged: {reason}"):
        return json.loads(file.read_text(encoding="utf-8"))


def write_pooling(folder: Path, model: Embedder) -> None:
    """Say how its tokens are pooled, in the files by which sentence-transformers knows it."""
    parts = [
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
        *([("2_Normalize", "Normalize")] if model.normalize else []),
    ]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"{_PARTS}.{kind}"}
        for number, (path, kind) in enumerate(parts)
    ]
    width = int(model.config.hidden_size)
    said = {"word_embedding_dimension": width, **{key: name == model.pooling for name, key in _KEYS.items()}}
    for path, _ in parts[1:]:
        (folder / path).mkdir(parents=True, exist_ok=True)
    (folder / _POOLING).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")


def reads_ids(model: nn.Module) -> bool:
    """Whether a model reads numbers of tokens, which are whole, and not pixels."""
    return getattr(model, "main_input_name", None) == "input_ids"


def first_inputs(model: nn.Module, shape: tuple[int, ...], samples: int = 1) -> Tensor:
    """Zeros of the shape and the type that a model reads."""
    return torch.zeros(samples, *shape, dtype=torch.long if reads_ids(model) else torch.float32)
