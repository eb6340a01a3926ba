"""A logit of −∞ masks its class: in the divergences, for teacher and student, in value and gradient."""

from __future__ import annotations

import math

import pytest
import torch

from limbeck import losses

EVERY = [
    losses.kd,
    losses.reverse_kl,
    losses.soft_cross_entropy,
    losses.jsd,
    pytest.param(lambda s, t, **o: losses.jsd(s, t, beta=0.1, **o), id="jsd-0.1"),
    losses.skewed_kl,
    pytest.param(lambda s, t, **o: losses.skewed_kl(s, t, alpha=0, reverse=True, **o), id="skewed-0"),
    losses.total_variation,
]
every = pytest.mark.parametrize("loss", EVERY, ids=lambda f: f.__name__)
MASKED = [1, 4]
SHOWN = [0, 2, 3, 5]


def logits(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    student, teacher = 3 * torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return student, teacher


def masked(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    return x.index_fill(axis, torch.tensor(MASKED), -math.inf).requires_grad_()


@every
@pytest.mark.parametrize("options", [{}, {"chunk": 2}, {"temperature": 0.5}], ids=str)
@pytest.mark.parametrize("axis", [1, 2], ids=["classifier or segmentation", "language model"])
def test_a_class_masked_on_both_sides_is_as_if_it_were_not_there(loss, options, axis):
    shape = {1: (3, 6, 2, 2), 2: (3, 4, 6)}[axis]
    student, teacher = logits(*shape)
    fewer = student.index_select(axis, torch.tensor(SHOWN)).requires_grad_()
    whole = masked(student, axis)
    value = loss(whole, masked(teacher, axis).detach(), **options)
    wanted = loss(fewer, teacher.index_select(axis, torch.tensor(SHOWN)), **options)
    torch.testing.assert_close(value, wanted)
    (gradient,) = torch.autograd.grad(value.sum(), whole)
    (expected,) = torch.autograd.grad(wanted.sum(), fewer)
    torch.testing.assert_close(gradient.index_select(axis, torch.tensor(SHOWN)), expected)
    assert gradient.index_select(axis, torch.tensor(MASKED)).eq(0).all()


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_masks_in_any_precision_give_numbers(loss, dtype):
    student, teacher = (masked(x.to(dtype)) for x in logits(4, 6))
    value = loss(student, teacher)
    gradients = torch.autograd.grad(value.sum(), (student, teacher))
    assert value.isfinite().all()
    assert all(g.isfinite().all() for g in gradients)


def test_a_teacher_that_excludes_a_class_gives_it_probability_zero():
    """p_t = (½, ½, 0), p_s = (½, ¼, ¼)."""
    student = torch.tensor([[0.5, 0.25, 0.25]]).log().requires_grad_()
    teacher = torch.tensor([[0.0, 0.0, -math.inf]])
    value = losses.kd(student, teacher, temperature=1.0)
    assert value.item() == pytest.approx(0.5 * math.log(2), rel=1e-6)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, -0.25, 0.25]]))
    assert losses.soft_cross_entropy(student, teacher, temperature=1.0).item() == pytest.approx(1.5 * math.log(2))
    to_teacher = 0.5 * math.log(0.5 / 0.375)
    to_student = 0.25 * math.log(0.25 / 0.375) + 0.25 * math.log(0.25 / 0.125)
    mixed = losses.jsd(student, teacher, temperature=1.0)
    assert mixed.item() == pytest.approx((to_teacher + to_student) / 2, rel=1e-6)


def test_what_one_side_excludes_and_the_other_needs_costs_infinitely_much():
    open_, closed = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, -math.inf]])
    assert losses.kd(closed, open_).item() == math.inf
    assert losses.soft_cross_entropy(closed, open_).item() == math.inf
    assert losses.reverse_kl(open_, closed).item() == math.inf
    assert losses.reverse_kl(closed, open_, temperature=1.0).item() == pytest.approx(math.log(1.5), rel=1e-6)


def test_dkd_counts_a_class_masked_on_both_sides_as_not_there():
    student, teacher = logits(3, 6)
    targets = torch.tensor([0, 2, 3])
    whole = losses.dkd(masked(student), masked(teacher).detach(), targets=torch.tensor(SHOWN)[targets])
    fewer = losses.dkd(student[:, SHOWN], teacher[:, SHOWN], targets=targets)
    torch.testing.assert_close(whole, fewer)


def test_a_student_that_is_no_number_still_shows():
    student = torch.tensor([[math.nan, 0.0, 1.0]])
    assert losses.kd(student, torch.tensor([[0.0, -math.inf, 1.0]])).isnan().all()


@pytest.mark.parametrize("loss", [losses.nkd, losses.mlkd, losses.dist], ids=lambda f: f.__name__)
def test_other_losses_on_logits_give_numbers_for_a_class_masked_on_both_sides(loss):
    student, teacher = (masked(x) for x in logits(4, 6))
    options = {"targets": torch.tensor([0, 2, 3, 5])} if loss is losses.nkd else {}
    value = loss(student, teacher, **options)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
