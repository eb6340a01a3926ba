"""Gradient checkpointing: the same gradients, less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from limbeck.errors import RequestError
from limbeck.models.networks.mlp import mlp
from limbeck.models.networks.transformer import text_encoder, transformer
from limbeck.models.peak import peak_bytes
from limbeck.models.recomputed import recompute_blocks, recomputes
from limbeck.taps import Taps

L, V = 48, 11


def decoder() -> nn.Module:
    return transformer(input_shape=(L,), classes=V, dim=16, depth=6, heads=2, dropout=0.1)


def encoder() -> nn.Module:
    return text_encoder(input_shape=(L,), classes=3, vocab=V, dim=16, depth=6, heads=2, dropout=0.1)


def gpt2() -> nn.Module:
    sizes = {"vocab_size": V, "n_positions": L, "n_embd": 16, "n_layer": 6, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None))


def bert() -> nn.Module:
    sizes = {"hidden_size": 16, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForSequenceClassification(BertConfig(vocab_size=V, max_position_embeddings=L, **sizes))


def step(model: nn.Module, ids: Tensor) -> None:
    torch.manual_seed(1)  # of dropout
    output = model(ids)
    logits = output if isinstance(output, Tensor) else output.logits
    logits.square().mean().backward()


@pytest.mark.parametrize("make", [decoder, encoder, gpt2, bert])
def test_gradients_are_the_same_and_memory_is_less(make: Any) -> None:
    torch.manual_seed(0)
    plain = make()
    torch.manual_seed(0)
    other = make()
    recompute_blocks(other)
    assert recomputes(other)
    assert not recomputes(plain)
    ids = torch.randint(V, (4, L))
    peaks = [peak_bytes(lambda: step(one, ids)) for one in (plain, other)]  # noqa: B023
    for (name, one), two in zip(plain.named_parameters(), other.parameters(), strict=True):
        if one.grad is None:
            assert two.grad is None, name
        else:
            torch.testing.assert_close(two.grad, one.grad, rtol=1e-6, atol=1e-8, msg=name)
    assert peaks[1] < 0.6 * peaks[0], peaks
    with torch.no_grad():
        torch.manual_seed(2)
        first = other.eval()(ids)
        assert type(first) is type(plain.eval()(ids))


def test_a_hidden_tensor_that_a_term_reads_has_the_same_gradient() -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = decoder()
        if recompute:
            recompute_blocks(model)
        torch.manual_seed(1)
        _, read = Taps(model, ["blocks.2", "blocks.4.perceptron"]).run(torch.arange(L)[None] % V)
        (read["blocks.2"].square().mean() + read["blocks.4.perceptron"].square().mean()).backward()
        gradients.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, one in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], one, rtol=1e-6, atol=1e-8)


def test_the_peak_is_that_of_tensors_that_live_at_once() -> None:
    def run() -> None:
        a = torch.zeros(1000)
        b = a + 1  # 8,000 bytes live
        del a
        c = b * 2  # 8,000
        view = c[:500]
        del b
        view.add_(1)

    assert peak_bytes(run) == 8000
    held = torch.zeros(1000)
    assert peak_bytes(lambda: held + 1) == 4000, "what was there before does not count"


def test_other_networks_are_refused() -> None:
    with pytest.raises(RequestError, match="for transformer, text_encoder and models of Hugging Face"):
        recompute_blocks(mlp(input_shape=(4,), classes=2))
