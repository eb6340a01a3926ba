"""Networks for text beside what is computed by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.models.build import build
from limbeck.models.networks.attention import Attention, turned


def built(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build(name, input_shape=(12,), **options).eval()


def ids(rows: int, length: int, vocab: int = 50) -> torch.Tensor:
    return torch.randint(vocab, (rows, length), generator=torch.Generator().manual_seed(3))


def test_attention_is_that_of_numpy() -> None:
    torch.manual_seed(0)
    attention, x = Attention(8, 2, rotary=False).double(), torch.randn(1, 5, 8).double()
    weight, bias = (p.detach().numpy() for p in attention.query_key_value.parameters())
    q, k, v = np.split(x[0].numpy() @ weight.T + bias, 3, axis=1)
    parts = []
    for head in (slice(0, 4), slice(4, 8)):
        scores = q[:, head] @ k[:, head].T / math.sqrt(4)
        scores[np.triu_indices(5, 1)] = -np.inf
        shares = np.exp(scores - scores.max(1, keepdims=True))
        parts.append(shares / shares.sum(1, keepdims=True) @ v[:, head])
    wanted = attention.output(torch.from_numpy(np.concatenate(parts, 1)))
    torch.testing.assert_close(attention(x, None, True)[0], wanted)


def test_rotary_positions_leave_products_a_function_of_the_distance() -> None:
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(1)).double()
    rows = [turned(one.expand(1, 1, 9, 8))[0, 0] for one in (q, k)]
    products = rows[0] @ rows[1].T
    for distance in range(-4, 5):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-6, rtol=1e-6)
    pair = complex(float(q[..., 1]), float(q[..., 5])) * np.exp(1j * 3 * 10_000 ** (-2 * 1 / 8))
    assert complex(float(rows[0][3, 1]), float(rows[0][3, 5])) == pytest.approx(pair, rel=1e-5)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_a_language_model_sees_the_past_alone(positions: str) -> None:
    network = built("transformer", classes=50, dim=16, positions=positions)
    x = ids(2, 10)
    changed = x.clone()
    changed[:, 6] = (x[:, 6] + 1) % 50
    one, other = network(x), network(changed)
    assert one.shape == (2, 10, 50)
    torch.testing.assert_close(one[:, :6], other[:, :6])
    assert (one[:, 6:] - other[:, 6:]).abs().amax((0, 2)).min() > 1e-6
    swapped = x[:, [1, 0, *range(2, 10)]]
    assert (network(swapped)[:, -1] - one[:, -1]).abs().max() > 1e-6, "the order of tokens plays a part"


@pytest.mark.parametrize(
    ("name", "of"), [("transformer", {"classes": 50}), ("text_encoder", {"classes": 4, "vocab": 50})]
)
def test_padding_changes_nothing(name: str, of: dict[str, int]) -> None:
    network, x = built(name, dim=16, **of), ids(1, 7)
    padded = torch.cat([x, torch.zeros(1, 5, dtype=torch.long)], 1)
    mask = torch.arange(12)[None] < 7
    alone, beside = network(x, torch.ones_like(x)), network(padded, mask.long())
    torch.testing.assert_close(beside[:, :7] if name == "transformer" else beside, alone)
    torch.testing.assert_close(network(x), alone)
    assert network(padded, torch.zeros_like(padded)).isfinite().all()


def test_a_bag_of_embeddings_is_linear_in_the_mean_of_its_tokens() -> None:
    network, x = built("bag_of_embeddings", classes=3, vocab=50, dim=5), ids(2, 4)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    vectors = network.tokens.weight[x]  # type: ignore[union-attr, index]
    means = torch.stack([vectors[0, :3].mean(0), vectors[1].mean(0)])
    torch.testing.assert_close(network(x, mask), network.classifier(means))  # type: ignore[operator]


def test_a_bag_weighs_its_tokens_counts_pairs_and_bends_their_mean() -> None:
    network: Any = built("bag_of_embeddings", classes=3, vocab=50, dim=5, weighted=True, bigrams=11, hidden=7)
    x, mask = ids(2, 4), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    plain = built("bag_of_embeddings", classes=3, vocab=50, dim=5)
    plain.load_state_dict(network.state_dict(), strict=False)
    nn.init.zeros_(network.hidden[-1].weight), nn.init.zeros_(network.hidden[-1].bias)
    torch.testing.assert_close(network(x, mask), plain(x, mask), msg="weights and pairs begin without effect")
    for one in network.parameters():
        nn.init.normal_(one, generator=torch.Generator().manual_seed(one.numel()))
    expected = []
    for row, size in zip(x.tolist(), (3, 4), strict=True):
        weights = torch.stack([network.weights.weight[n, 0].exp().log1p() for n in row[:size]])
        mean = sum(w * network.tokens.weight[n] for w, n in zip(weights, row, strict=False)) / weights.sum()
        pairs = [(a * 1_000_003 + b * 8_191) % 11 for a, b in pairwise(row[:size])]
        mean = mean + network.bigrams.weight[pairs].mean(0)
        expected.append(network.classifier(mean + network.hidden(mean)))
    torch.testing.assert_close(network(x, mask), torch.stack(expected))
    torch.testing.assert_close(network(x)[1], expected[1])
    assert network(x[:, :1]).isfinite().all(), "one token has no pair"


def test_what_cannot_be_built_is_named() -> None:
    with pytest.raises(RequestError, match="needs the size of its vocabulary"):
        built("text_encoder", classes=4)
    with pytest.raises(RequestError, match="does not divide into heads of an even width by 4 heads"):
        built("transformer", classes=4, dim=12)
    with pytest.raises(RequestError, match=r"ids of tokens, of input_shape \(L,\), not \(1, 8, 8\)"):
        build("transformer", input_shape=(1, 8, 8), classes=10)
    with pytest.raises(RequestError, match="13 tokens, and 12 positions were learned"):
        built("transformer", classes=50, dim=16, positions="learned")(ids(1, 13))
