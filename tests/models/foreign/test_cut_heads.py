"""Attention heads that are cut out of a model of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.models.build import build
from limbeck.models.foreign.hugging_face_layers import copy_cut, cut

transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 8}
TEXT = {"vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def model_of(kind: str, **more: Any) -> Any:
    """A tiny model with four heads, of which two share a key in those that share keys."""
    torch.manual_seed(0)
    shared: dict[str, Any] = {"num_key_value_heads": 2, **TEXT, **SIZES, **more}
    match kind:
        case "ViT":
            config = transformers.ViTConfig(image_size=8, patch_size=4, num_channels=1, **SIZES, **more)
            return transformers.ViTForImageClassification(config).eval()
        case "DistilBert":
            sizes = {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 8}
            return transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig(**sizes, **TEXT))
        case "GPT2":
            sizes = {"n_positions": 8, "n_embd": 16, "n_layer": 2, "n_head": 4}
            return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **TEXT))
        case "Bert":
            return transformers.BertForSequenceClassification(transformers.BertConfig(**TEXT, **SIZES))
    return getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**shared)).eval()


def inputs_of(kind: str) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(2, 1, 8, 8) if kind == "ViT" else torch.randint(3, 20, (2, 6))


def silence(model: nn.Module, kept: list[int], width: int) -> None:
    """Take from the heads that are not kept all that they give to the stream."""
    for name, one in model.named_modules():
        if name.endswith("o_proj"):
            assert isinstance(one, nn.Linear)
            others = [head for head in range(4) if head not in kept]
            with torch.no_grad():
                one.weight.view(16, 4, width)[:, others] = 0


@pytest.mark.parametrize(
    ("kind", "kept", "keys", "more"),
    [
        ("Llama", [2, 3], 1, {}),
        ("Llama", [3, 1], 2, {"attention_bias": True}),
        ("Llama", [2], 1, {"num_key_value_heads": 4}),
        ("Qwen3", [0, 3], 2, {"head_dim": 8}),
        ("ViT", [0, 1, 3], 3, {}),
    ],
)
def test_heads_that_give_nothing_are_left_out(
    tmp_path: Path, kind: str, kept: list[int], keys: int, more: dict[str, Any]
) -> None:
    teacher, width = model_of(kind, **more), more.get("head_dim", 4)
    silence(teacher, kept, width)
    by_number = [len(kept)] if len(kept) % keys == 0 and kept != [2, 3] else []  # of each key the strongest
    for heads in (kept, *by_number):
        student = cut(teacher, heads=heads).eval()
        sizes = {name: tuple(one.shape) for name, one in student.named_parameters() if ".0." in name}
        found = {size for name, size in sizes.items() if name.endswith(("q_proj.weight", "k_proj.weight"))}
        assert found == {(len(kept) * width, 16), (keys * width, 16)}
        with torch.no_grad():
            torch.testing.assert_close(student(inputs_of(kind)).logits, teacher(inputs_of(kind)).logits)
    student.save_pretrained(tmp_path)
    back = type(teacher).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(back(inputs_of(kind)).logits, teacher(inputs_of(kind)).logits)


def test_the_strongest_heads_are_chosen_in_each_layer_and_anew_of_a_teacher_that_learned() -> None:
    teacher = model_of("Llama", num_key_value_heads=4)
    outputs = [layer.self_attn.o_proj.weight for layer in teacher.model.layers]
    with torch.no_grad():
        for weight, strong in zip(outputs, ([1, 2], [0, 3]), strict=True):
            weight.view(16, 4, 4)[:, strong] *= 10
    student = cut(teacher, layers=[1], heads=2)
    queries = teacher.model.layers[1].self_attn.q_proj.weight.view(4, 4, 16)
    assert torch.equal(student.model.layers[0].self_attn.q_proj.weight, queries[[0, 3]].reshape(8, 16))
    with torch.no_grad():
        outputs[1].view(16, 4, 4)[:, 2] *= 1000
    copy_cut(teacher, student)
    norms = [outputs[1].detach()[:, 4 * head : 4 * head + 4].norm().item() for head in range(4)]
    two = sorted((2, max((0, 1, 3), key=norms.__getitem__)))
    assert torch.equal(student.model.layers[0].self_attn.q_proj.weight, queries[two].reshape(8, 16))


def test_a_folder_is_read_with_fewer_heads(tmp_path: Path, capsys: Any) -> None:
    model_of("Llama").save_pretrained(tmp_path)
    student: Any = build(f"hf:{tmp_path}", input_shape=(6,), classes=None, layers=[0], heads=[0, 2])
    assert (student.config.num_attention_heads, student.config.num_key_value_heads) == (2, 2)
    assert "layers 0 and heads 0, 2 are kept" in capsys.readouterr().err
    build(f"hf:{tmp_path}", input_shape=(6,), classes=None, heads=2)
    assert "2 heads are kept" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["Bert", "DistilBert", "GPT2"])
@pytest.mark.parametrize("heads", [[0, 1], 3])
def test_heads_whose_width_no_configuration_says_are_refused(kind: str, heads: Any) -> None:
    with pytest.raises(RequestError, match=f"{kind}.* has no head_dim.* fewer heads would be wider"):
        cut(model_of(kind), heads=heads)
    assert cut(model_of(kind), heads=4).config.num_attention_heads == 4


def test_heads_that_cannot_be_kept_are_said() -> None:
    llama = model_of("Llama")
    for heads in ([4], [0, 0], [], [-1], [True], 0, 5, True, 1.5):
        with pytest.raises(RequestError, match=r"heads are different numbers from 0 to 3, .* or how many, 1 to 4, not"):
            cut(llama, heads=heads)  # type: ignore[arg-type]
    for heads in ([0, 1, 2], 3):
        with pytest.raises(RequestError, match="2 heads share a key each, and of each that is kept as many must stay"):
            cut(llama, heads=heads)
    phi = {"num_key_value_heads": 2, **TEXT, **SIZES}
    with pytest.raises(RequestError, match=r"Phi3ForCausalLM.*qkv_proj"):
        cut(transformers.Phi3ForCausalLM(transformers.Phi3Config(**phi)), heads=2)
    olmo = transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**phi, head_dim=4))
    with pytest.raises(RequestError, match=r"Olmo2ForCausalLM.*q_norm"):
        cut(olmo, heads=2)
