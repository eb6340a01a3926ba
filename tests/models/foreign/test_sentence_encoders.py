"""Folders of sentence encoders, as sentence-transformers writes them: what follows the encoder counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from limbeck import load_model
from limbeck.engine.saving.checkpoint import save_student
from limbeck.errors import RequestError
from limbeck.models.build import build
from limbeck.models.foreign.hugging_face_files import digest_of_folder
from limbeck.models.foreign.hugging_face_layers import copy_cut

transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")
SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
IDS = torch.tensor([[2, 5, 7, 3], [2, 9, 3, 0], [2, 3, 0, 0]])
MASK = (IDS != 0).long()
SHAPE: dict[str, Any] = {"input_shape": (4,), "classes": None}
TANH = "torch.nn.modules.activation.Tanh"


def folder_of(folder: Path, *parts: str, pooling: dict[str, Any] | None = None) -> Path:
    """A tiny encoder in that layout, with the parts that are named."""
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(vocab_size=12, **SIZES)).save_pretrained(folder)
    listed = [{"idx": n, "name": str(n), "path": path_of(n, part), "type": f"sentence_transformers.models.{part}"}
              for n, part in enumerate(parts)]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(listed))
    for n, part in enumerate(parts):
        place = folder / path_of(n, part)
        place.mkdir(exist_ok=True)
        if part == "Pooling":
            (place / "config.json").write_text(json.dumps(pooling or {"pooling_mode_mean_tokens": True}))
        if part == "Dense":
            said = {"in_features": 8, "out_features": 5, "bias": True, "activation_function": TANH}
            (place / "config.json").write_text(json.dumps(said))
            save_file({"linear.weight": W, "linear.bias": B}, place / "model.safetensors")
    return folder


def path_of(number: int, part: str) -> str:
    return "" if part == "Transformer" else f"{number}_{part}"


W = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
B = np.random.default_rng(1).normal(size=5).astype(np.float32)


def tokens_of(folder: Path) -> Any:
    """The encoder's last tokens by transformers alone, (3, 4, 8) in float64."""
    with torch.no_grad():
        theirs = transformers.BertModel.from_pretrained(folder).eval()
        return theirs(input_ids=IDS, attention_mask=MASK).last_hidden_state.double().numpy()


def by_hand(tokens: Any, pooling: str) -> Any:
    rows = [one[: int(count)] for one, count in zip(tokens, MASK.sum(1), strict=True)]
    how = {"mean": lambda r: r.mean(0), "max": lambda r: r.max(0), "last": lambda r: r[-1], "first": lambda r: r[0]}
    return np.stack([how[pooling](row) for row in rows])


def unit(x: Any) -> Any:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def told(folder: Path, **options: Any) -> Any:
    model = build(f"hf:{folder}", **SHAPE, **options).eval()
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=MASK).double().numpy()


@pytest.mark.parametrize(
    ("said", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
        ({"pooling_mode": "cls"}, "first"),
    ],
)
def test_tokens_are_pooled_and_normalized_as_the_folder_says(
    tmp_path: Path, said: dict[str, Any], pooling: str
) -> None:
    folder = folder_of(tmp_path, "Transformer", "Pooling", "Normalize", pooling=said)
    expected = by_hand(tokens_of(folder), pooling)
    np.testing.assert_allclose(told(folder), unit(expected), atol=1e-5)
    np.testing.assert_allclose(told(folder, pooling=pooling), expected, atol=1e-5)


def test_dense_layers_stand_between_pooling_and_norm_and_are_kept(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "theirs", "Transformer", "Pooling", "Dense", "Normalize")
    expected = unit(np.tanh(by_hand(tokens_of(folder), "mean") @ W.T + B))
    np.testing.assert_allclose(told(folder), expected, atol=1e-5)

    model = build(f"hf:{folder}", **SHAPE, layers=[0, 1]).eval()
    about = {"model": f"hf:{folder}", "options": {}, "classes": 1, "input": {"shape": [4]}}
    save_student(tmp_path / "run", "student", model, about)
    again = load_model(tmp_path / "run" / "student.json")
    with torch.no_grad():
        np.testing.assert_allclose(again(input_ids=IDS, attention_mask=MASK).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(told(tmp_path / "run" / "student"), expected, atol=1e-5)

    teacher = build(f"hf:{folder}", **SHAPE)
    with torch.no_grad():
        teacher.dense[0].linear.bias.fill_(3.0)
    copy_cut(teacher, model)
    assert torch.equal(model.dense[0].linear.bias, torch.full((5,), 3.0))


def test_a_folder_is_known_by_what_follows_too(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "Transformer", "Pooling", "Dense")
    before = digest_of_folder(folder)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    pooled = digest_of_folder(folder)
    save_file({"linear.weight": 2 * W, "linear.bias": B}, folder / "2_Dense" / "model.safetensors")
    assert len({before, pooled, digest_of_folder(folder)}) == 3


@pytest.mark.parametrize(
    ("parts", "change", "cause"),
    [
        (("Transformer", "Pooling", "LayerNorm"), {}, "has the parts Transformer, Pooling, LayerNorm"),
        (("Transformer", "Pooling", "Normalize", "Dense"), {}, "Pooling, Dense, Normalize, in this order"),
        (("Transformer", "Pooling", "Dense"), {"activation_function": "os.system"}, "is read with modules of torch.nn"),
        (("Transformer", "Pooling", "Dense"), {"in_features": 7}, "cannot read the dense layer .*2_Dense"),
    ],
)
def test_what_else_follows_is_refused(
    tmp_path: Path, parts: tuple[str, ...], change: dict[str, Any], cause: str
) -> None:
    folder = folder_of(tmp_path, *parts)
    if change:
        file = folder / "2_Dense" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(RequestError, match=cause):
        build(f"hf:{folder}", **SHAPE)
