"""Losses through a head are those on all logits at once, in value and gradients, and keep no matrix of them."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck import RequestError, losses
from limbeck.losses import Sampled, TopK
from limbeck.losses.response.some_classes import log_probs_of, with_rest
from limbeck.losses.tokens import Head, Projected, through, token_cross_entropy, token_loss
from limbeck.losses.tokens.token_loss import Tokens

B, L, D, V = 3, 5, 4, 11
KINDS = {
    "kd": partial(losses.kd, temperature=2.0),
    "kd-1": partial(losses.kd, temperature=1.0),
    "reverse_kl": partial(losses.reverse_kl, temperature=1.0),
    "jsd": partial(losses.jsd, temperature=1.0, beta=0.3),
    "skewed_kl": losses.skewed_kl,
    "total_variation": losses.total_variation,
    "soft_cross_entropy": partial(losses.soft_cross_entropy, temperature=1.0),
}
HEADS = {"plain": (False, 1.0, None), "bias": (True, 1.0, None), "scaled and capped": (True, 0.5, 3.0)}
every = pytest.mark.parametrize("name", KINDS)
heads = pytest.mark.parametrize("form", HEADS)


def made(form: str = "plain", dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Head, Tensor, Tensor]:
    """Hidden states, a head, a teacher's logits, and labels of which some do not count."""
    generator = torch.Generator().manual_seed(seed)
    bias, scale, cap = HEADS[form]

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    hidden, weight, offset, teacher = draw(B, L, D), draw(V, D), draw(V), 2 * draw(B, L, V)
    targets = torch.randint(V, (B, L), generator=generator)
    targets[0, 2:], targets[2, 0] = -100, -100
    leaves = [x.requires_grad_() for x in (hidden, weight, offset)]
    return leaves[0], Head(leaves[1], leaves[2] if bias else None, scale, cap), teacher, targets


def of_head(hidden: Tensor, head: Head) -> Tensor:
    """Its logits, by hand."""
    z = hidden @ head.weight.T + (0 if head.bias is None else head.bias)
    z = z * head.scale
    return z if head.cap is None else head.cap * torch.tanh(z / head.cap)


def gradients(value: Tensor, hidden: Tensor, head: Head) -> list[Tensor]:
    return list(torch.autograd.grad(value, [x for x in (hidden, head.weight, head.bias) if x is not None]))


@every
@heads
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("chunk", [1, 4, None], ids=str)
def test_values_and_gradients_are_those_of_all_logits_at_once(name, form, dtype, chunk):
    hidden, head, teacher, targets = made(form, dtype)
    loss = KINDS[name]
    value = token_loss(loss, hidden, head, teacher, targets=targets, chunk=chunk)
    dense = loss(of_head(hidden, head), teacher, targets=targets, ignore_index=-100, average="positions").mean()
    torch.testing.assert_close(value, dense, rtol=1e-6, atol=1e-6)
    for got, wanted in zip(gradients(3 * value, hidden, head), gradients(3 * dense, hidden, head), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)


@heads
def test_cross_entropy_is_torchs_own(form):
    hidden, head, _, targets = made(form, torch.float32)
    value = token_cross_entropy(hidden, head, targets, chunk=4)
    dense = F.cross_entropy(of_head(hidden, head).flatten(0, 1), targets.flatten())
    torch.testing.assert_close(value, dense, rtol=1e-6, atol=1e-6)
    for got, wanted in zip(gradients(value, hidden, head), gradients(dense, hidden, head), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)


def test_a_teachers_hidden_states_are_as_good_as_its_logits():
    hidden, head, _, targets = made()
    states, own, *_ = made("scaled and capped", seed=1)
    wide = Projected(torch.cat([states, states], -1).detach(), Head(torch.cat([own.weight] * 2, 1), own.bias, 0.5, 3.0))
    logits = of_head(wide.hidden, wide.head).detach()
    found = [token_loss(losses.kd, hidden, head, teacher, targets=targets, chunk=3) for teacher in (wide, logits)]
    torch.testing.assert_close(*found)
    assert torch.autograd.grad(found[0], own.weight, allow_unused=True) == (None,)


@pytest.mark.parametrize("rest", ["bucket", "spread"])
def test_a_top_k_teacher_is_read_as_it_is(rest):
    hidden, head, teacher, targets = made()
    top = TopK.of(teacher, 3)
    value = token_loss(losses.kd, hidden, head, top, targets=targets, chunk=3, rest=rest)
    logits = of_head(hidden, head)
    dense = losses.kd(logits, top, targets=targets, ignore_index=-100, average="positions", rest=rest).mean()
    torch.testing.assert_close(value, dense)


@pytest.mark.parametrize("loss", [losses.kd, losses.soft_cross_entropy])
@pytest.mark.parametrize("chunk", [4, None], ids=str)
def test_draws_and_labels_share_the_logits(loss, chunk):
    hidden, head, teacher, targets = made("scaled and capped")
    drawn = (
        teacher.softmax(-1).flatten(0, 1).multinomial(6, replacement=True, generator=torch.Generator()).view(B, L, 6)
    )
    sampled = Sampled(torch.full((B, L, 6), 1 / 6, dtype=torch.float64), drawn)
    tokens = Tokens(hidden, targets, -100)
    parts = [
        tokens.cross_entropy(V),
        tokens.part(loss, sampled, {"temperature": 1.0}),
        lambda z, at: z.square().sum(-1),
    ]
    total, _ = through.through_head(parts, [0.5, 2.0, 0.1], tokens.hidden, head, chunk)
    logits, kept = of_head(hidden, head), targets != -100
    by_draws = loss(logits, sampled, temperature=1.0, targets=targets, ignore_index=-100, average="positions").mean()
    dense = 0.5 * F.cross_entropy(logits[kept], targets[kept]) + 2 * by_draws
    dense = dense * kept.sum() + 0.1 * logits[kept].square().sum()
    torch.testing.assert_close(total, dense)
    torch.testing.assert_close(gradients(total, hidden, head), gradients(dense, hidden, head))
    half = token_loss(
        loss, hidden, head, sampled._replace(weights=sampled.weights.half()), targets=targets, temperature=1
    )
    torch.testing.assert_close(half, by_draws, rtol=1e-3, atol=1e-3)
    with pytest.raises(RequestError, match="drawn at temperature 1"):
        tokens.part(loss, sampled, {})
    with pytest.raises(RequestError, match=r"weights \(11, 6\) and indices \(11, 5\)"):
        tokens.part(loss, sampled._replace(indices=drawn[..., 1:]), {"temperature": 1.0})


def test_log_probabilities_of_some_classes_have_the_gradients_of_all():
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    classes = torch.tensor([[0, 0, 4], [1, 2, 3], [4, 4, 4]])
    torch.testing.assert_close(log_probs_of(logits, classes), logits.log_softmax(-1).gather(-1, classes))
    assert torch.autograd.gradcheck(lambda x: log_probs_of(x, classes), logits)
    assert torch.autograd.gradgradcheck(lambda x: log_probs_of(x, classes), logits)
    (wanted,) = torch.autograd.grad(logits.log_softmax(-1).gather(-1, classes).sum(), logits)
    torch.testing.assert_close(torch.func.grad(lambda x: log_probs_of(x, classes).sum())(logits), wanted)


def test_one_logit_stands_for_all_others():
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    classes = torch.tensor([[0, 4], [1, 2], [3, 1]])
    others = torch.ones(3, 5, dtype=torch.bool).scatter(1, classes, False)
    wanted = logits[others].view(3, 3).logsumexp(1)
    torch.testing.assert_close(with_rest(logits, classes), torch.cat([logits.gather(1, classes), wanted[:, None]], 1))
    assert torch.autograd.gradcheck(lambda x: with_rest(x, classes), logits)
    assert torch.autograd.gradgradcheck(lambda x: with_rest(x, classes), logits)
    masked = logits.detach().masked_fill(others, -math.inf).requires_grad_()
    found = with_rest(masked, classes)
    assert found[:, 2].eq(-math.inf).all()
    assert torch.autograd.grad(found[:, :2].sum(), masked)[0].equal((~others).double())


def test_two_batches_with_the_count_of_both_make_one_step():
    hidden, head, teacher, targets = made()
    whole = token_loss(losses.kd, hidden, head, teacher, targets=targets)
    count = int((targets != -100).sum())
    halves = [
        token_loss(losses.kd, hidden[at], head, teacher[at], targets=targets[at], count=count)
        for at in (slice(0, 1), slice(1, 3))
    ]
    torch.testing.assert_close(sum(halves), whole)
    torch.testing.assert_close(gradients(sum(halves), hidden, head), gradients(whole, hidden, head))


def test_a_loss_that_reads_labels_gets_those_of_its_tokens():
    hidden, head, teacher, targets = made()
    kept = targets != -100
    dense = losses.dkd(of_head(hidden, head)[kept], teacher[kept], targets=targets[kept]).mean()
    torch.testing.assert_close(token_loss(losses.dkd, hidden, head, teacher, targets=targets, chunk=2), dense)


def test_no_token_that_counts_gives_zero_and_no_gradient():
    hidden, head, teacher, targets = made()
    value = token_loss(losses.kd, hidden, head, teacher, targets=targets.fill_(-100))
    assert value.item() == 0
    assert all(gradient.eq(0).all() for gradient in gradients(value, hidden, head))


def test_under_autocast_products_are_in_half_precision_and_losses_in_fp32():
    hidden, head, teacher, targets = made(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        value = token_loss(losses.kd, hidden, head, teacher, targets=targets, chunk=4)
        half = F.linear(hidden, head.weight)
    assert half.dtype == torch.bfloat16
    dense = losses.kd(half, teacher, targets=targets, ignore_index=-100, average="positions").mean()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, dense, rtol=1e-6, atol=1e-6)
    for got, wanted in zip(gradients(value, hidden, head), gradients(dense, hidden, head), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, wanted, rtol=2e-2, atol=2e-2)


def test_parameters_in_bf16_get_gradients_in_bf16_that_were_added_up_in_fp32():
    hidden, head, teacher, _ = made(dtype=torch.bfloat16)
    value = token_loss(losses.kd, hidden, head, teacher.float(), chunk=1)
    exact = [x.detach().double().requires_grad_() for x in (hidden, head.weight)]
    dense = losses.kd(of_head(exact[0], Head(exact[1])), teacher.double(), average="positions").mean()
    for got, wanted in zip(gradients(value, hidden, head), torch.autograd.grad(dense, exact), strict=True):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.double(), wanted, rtol=3e-2, atol=3e-2)


def test_losses_that_share_the_logits_are_weighted_and_told_apart():
    hidden, head, *_ = made()
    flat = hidden.flatten(0, 1)
    parts = [lambda z, at: z.sum(-1), lambda z, at: z.square().sum(-1) * torch.arange(B * L)[at]]
    total, sums = through.through_head(parts, [0.5, 2.0], flat, head, chunk=4)
    z = of_head(flat, head)
    each = torch.stack([z.sum(), (z.square().sum(-1) * torch.arange(B * L)).sum()])
    torch.testing.assert_close(sums, each)
    assert not sums.requires_grad
    wanted = 0.5 * each[0] + 2 * each[1]
    torch.testing.assert_close(gradients(total, hidden, head), gradients(wanted, hidden, head))


def test_only_a_few_rows_of_logits_are_there_at_once(monkeypatch):
    hidden, head, teacher, _ = made()
    seen: list[int] = []

    def watched(student: Tensor, teacher: Tensor) -> Tensor:
        seen.append(len(student))
        return losses.kd(student, teacher)

    monkeypatch.setattr(through, "NUMBERS", 2 * V)
    token_loss(watched, hidden, head, teacher)
    assert seen == [2] * 7 + [1]


def test_without_gradients_it_is_a_value_alone():
    hidden, head, teacher, _ = made()
    with torch.no_grad():
        value = token_loss(losses.kd, hidden, head, teacher)
    assert not value.requires_grad
    frozen = Head(head.weight.detach())
    value = token_loss(losses.kd, hidden, frozen, teacher)
    dense = losses.kd(of_head(hidden, frozen), teacher, average="positions").mean()
    torch.testing.assert_close(torch.autograd.grad(value, hidden), torch.autograd.grad(dense, hidden))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden": torch.zeros(B, D)}, "hidden states are"),
        ({"hidden": torch.zeros(B, L, D + 1)}, "do not fit"),
        ({"teacher": torch.zeros(B, L + 1, V)}, r"\(3, 6, 11\) do not lie over \(3, 5\) tokens"),
        ({"teacher": torch.zeros(B, L, V + 1)}, "must know the same classes"),
        ({"targets": torch.zeros(B, L + 1)}, "targets"),
        ({"chunk": 0}, "chunk"),
        ({"loss": losses.similarity}, "one value a token"),
        ({"head": Head(torch.zeros(V, D), torch.zeros(V + 1))}, "bias"),
        ({"head": Head(torch.zeros(V, D), cap=-1.0)}, "cap must be above 0"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_what_does_not_fit_is_said(change: dict[str, Any], words: str):
    hidden, head, teacher, _ = made(dtype=torch.float32)
    given = {"loss": losses.kd, "hidden": hidden, "head": head, "teacher": teacher} | change
    with pytest.raises(RequestError, match=words):
        token_loss(**given)


def test_a_soft_cap_is_never_passed():
    head = Head(torch.full((1, 1), 1e3), cap=30.0)
    assert head(torch.tensor([[1e3], [-1e3]])).squeeze(1).tolist() == [30.0, -30.0]
    assert head(torch.tensor([[1e-3]])).item() == pytest.approx(30 * math.tanh(1 / 30))


def test_the_documents_example_runs():
    document = Path(__file__).parents[2] / "docs" / "tokens.md"
    code = document.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    scope: dict[str, Any] = {}
    exec(compile(code, "docs/tokens.md", "exec"), scope)
    assert scope["loss"].item() > 0
    assert scope["hidden"].grad.abs().sum() > 0
