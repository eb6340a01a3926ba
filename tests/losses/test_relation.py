"""What holds for single losses of relations, beyond what holds for all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from limbeck import losses
from limbeck.errors import RequestError

PAIRS = [losses.similarity, losses.rkd, losses.pkt, losses.correlation, losses.in_batch_similarity]


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("loss", PAIRS, ids=lambda f: f.__name__)
def test_turning_all_samples_together_changes_no_relation(loss):
    f = vectors(5, 4)
    turn, _ = torch.linalg.qr(vectors(4, 4, seed=1))
    assert loss(f @ turn, f).abs().item() < 1e-12
    assert loss(vectors(5, 4, seed=2), f).item() > 1e-6


def test_rkd_ignores_scale_and_place():
    f, other = vectors(5, 4), vectors(5, 3, seed=1)
    assert losses.rkd(3 * f + 100, f).item() < 1e-12
    torch.testing.assert_close(losses.rkd(3 * f + 100, other), losses.rkd(f, other))


def test_rkd_of_a_triangle_by_hand():
    """Sides 3, 4, 5 against an equilateral triangle: angles are cos = 0.8, 0.6, 0 against ½ each."""
    student = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]], dtype=torch.float64)
    distances = 2 * sum((d / 4 - 1) ** 2 / 2 for d in (3, 4, 5)) / 9
    angles = 2 * sum((c - 0.5) ** 2 / 2 for c in (0.8, 0.6, 0.0)) / 27
    assert losses.rkd(student, teacher).item() == pytest.approx(25 * distances + 50 * angles, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rkd_of_samples_that_coincide_is_finite(dtype):
    f = vectors(4, 3).to(dtype)
    student = (torch.cat([f, f]) + 10).requires_grad_()
    value = losses.rkd(student, vectors(8, 3, seed=1).to(dtype))
    (gradient,) = torch.autograd.grad(value, student)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1e3


def test_rkd_of_samples_apart_by_less_than_rounding_takes_them_as_one():
    f, teacher = vectors(4, 64), vectors(8, 3, seed=1)
    exact = losses.rkd(torch.cat([f, f]), teacher)
    near = torch.cat([f, f + 1e-6 * vectors(4, 64, seed=2)]).float()
    torch.testing.assert_close(losses.rkd(near, teacher.float()).double(), exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("loss", PAIRS, ids=lambda f: f.__name__)
def test_a_batch_of_one_has_no_relations_and_a_gradient_of_zero(loss):
    student = vectors(1, 4).requires_grad_()
    value = loss(student, vectors(1, 3, seed=1))
    assert value.item() == pytest.approx(0, abs=1e-12)
    (gradient,) = torch.autograd.grad(value, student)
    assert gradient.abs().max() < 1e-9


def test_channel_correlation_ignores_where_in_the_map():
    f = vectors(2, 3, 2, 2)
    moved = f.flatten(2)[:, :, [3, 1, 0, 2]].unflatten(2, (2, 2))
    assert losses.channel_correlation(moved, f).abs().max() < 1e-12


def test_margins_by_hand_ignore_the_level_of_scores():
    """Margins 2 and 3 against 1 and 5: (1 + 4) / 2."""
    student = torch.tensor([[4.0, 2.0, 1.0], [9.0, 9.0, 9.0]])
    teacher = torch.tensor([[10.0, 9.0, 5.0], [-1.0, -1.0, -1.0]])
    assert losses.margin_mse(student, teacher).tolist() == [2.5, 0.0]


def test_margins_of_vectors_are_those_of_their_products_beside_scores_or_vectors():
    student, teacher = vectors(4, 3, 5).unbind(), vectors(3, 3, 7, seed=1).unbind()
    scores = vectors(3, 3, seed=2)
    found = losses.margin_mse(student, scores)
    for row in range(3):
        query, *texts = (one[row].numpy() for one in student)
        given = scores[row].numpy()
        margins = [(query @ texts[0] - query @ texts[k]) - (given[0] - given[k]) for k in (1, 2)]
        assert found[row].item() == pytest.approx(np.mean(np.square(margins)))
    one = losses.margin_mse(student[:3], teacher)
    assert one.tolist() == pytest.approx(losses.margin_mse(student[:3], _products(teacher)).tolist())
    wide = tuple(x.clone().requires_grad_() for x in student)
    assert torch.autograd.gradcheck(lambda *s: losses.margin_mse(s, scores), wide)
    assert losses.margin_mse(tuple(x.bfloat16() for x in student), scores.float()).dtype == torch.float32
    for wrong in (student[:2], (*student[:3], vectors(3, 4))):
        with pytest.raises(RequestError, match=r"must both be scores \(B, K\) of two texts or more, or vectors"):
            losses.margin_mse(wrong, scores)


def _products(given: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.stack([(given[0] * text).sum(1) for text in given[1:]], 1)


def test_margins_of_vectors_that_follow_one_another_are_those_of_tuples():
    student, teacher = vectors(8, 5), vectors(8, 7, seed=1)
    apart = losses.margin_mse(*(one.view(2, 4, -1).unbind(1) for one in (student, teacher)))
    for targets in (None, torch.full((8,), -100), torch.tensor([4, 5, 6, 7, 20, 21, 22, 23])):
        assert losses.margin_mse(student, teacher, texts=4, targets=targets).item() == pytest.approx(
            apart.mean().item()
        )
    numbers = torch.arange(2, 10)  # the end of a group, a whole one, and the beginning of another
    alone = losses.margin_mse(*(one[2:6].view(1, 4, -1).unbind(1) for one in (student, teacher)))
    assert losses.margin_mse(student, teacher, texts=4, targets=numbers).item() == pytest.approx(alone.item())
    student.requires_grad_()
    assert losses.margin_mse(student[:4], teacher[:4], texts=4, targets=numbers[:4]).item() == 0
    for wrong, texts in ((student[:3], 4), (student, 2), (student.unbind(), 4)):
        with pytest.raises(RequestError, match=f"texts: {texts} are a query, a text that fits and others"):
            losses.margin_mse(wrong, teacher, texts=texts)
