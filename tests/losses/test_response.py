"""What holds for single losses of outputs, beyond what holds for all."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference as ref
import torch

from limbeck import losses
from limbeck.errors import RequestError
from limbeck.losses import TopK

DIVERGENCES = [losses.kd, losses.soft_cross_entropy, losses.reverse_kl, losses.jsd]
divergence = pytest.mark.parametrize("loss", DIVERGENCES, ids=lambda f: f.__name__)


def logits(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 3 * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher


@divergence
@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5), (2, 5, 3, 4)], ids=str)
@pytest.mark.parametrize("chunk", [1, 3, 5, 100])
def test_chunks_change_neither_value_nor_gradient(loss, shape, chunk):
    student, teacher = logits(*shape)
    weights = torch.arange(1.0, shape[0] + 1)
    whole, parts = loss(student, teacher), loss(student, teacher, chunk=chunk)
    torch.testing.assert_close(parts, whole)
    (g_whole,) = torch.autograd.grad((weights * whole).sum(), student)
    (g_parts,) = torch.autograd.grad((weights * parts).sum(), student)
    torch.testing.assert_close(g_parts, g_whole)
    assert g_parts.stride() == student.stride()


def test_chunks_reach_a_teacher_that_learns_too():
    student, teacher = logits(4, 3, 5)
    teacher.requires_grad_()
    whole = torch.autograd.grad(losses.jsd(student, teacher).sum(), (student, teacher))
    parts = torch.autograd.grad(losses.jsd(student, teacher, chunk=2).sum(), (student, teacher))
    torch.testing.assert_close(parts, whole)


def test_chunks_keep_the_gradient_in_the_dtype_of_the_logits():
    student, teacher = (x.detach().bfloat16() for x in logits(4, 3, 50))
    student.requires_grad_()
    exact = student.detach().double().requires_grad_()
    (gradient,) = torch.autograd.grad(losses.kd(student, teacher, chunk=5).mean(), student)
    (wanted,) = torch.autograd.grad(losses.kd(exact, teacher.double()).mean(), exact)
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(gradient.double(), wanted, rtol=2**-8, atol=1e-8)


@pytest.mark.parametrize("chunk", [0, -3])
def test_chunk_must_be_rows(chunk):
    with pytest.raises(RequestError, match="chunk"):
        losses.kd(*logits(2, 3), chunk=chunk)


@divergence
def test_ignored_positions_count_neither_in_value_nor_in_gradient(loss):
    student, teacher = logits(3, 4, 5)
    targets = torch.tensor([[1, 2, -100, 3], [-100] * 4, [0, 0, 0, 0]])
    got = loss(student, teacher, targets=targets, ignore_index=-100)
    one = loss(student[:, :1].squeeze(1), teacher[:, :1].squeeze(1))
    two, four = loss(student[:, 1], teacher[:, 1]), loss(student[:, 3], teacher[:, 3])
    torch.testing.assert_close(got[0], (one[0] + two[0] + four[0]) / 3)
    assert got[1] == 0
    torch.testing.assert_close(got[2], loss(student, teacher)[2])
    (gradient,) = torch.autograd.grad(got.sum(), student)
    assert gradient[0, 2].eq(0).all()
    assert gradient[1].eq(0).all()
    assert gradient[0, 0].ne(0).any()


def test_ignore_index_works_on_classifiers():
    student, teacher = logits(3, 5)
    got = losses.kd(student, teacher, targets=torch.tensor([1, 255, 2]), ignore_index=255)
    assert got[1] == 0
    torch.testing.assert_close(got[[0, 2]], losses.kd(student, teacher)[[0, 2]])


@pytest.mark.parametrize("targets", [None, torch.zeros(3, 5), torch.zeros(3, 4, 1)])
def test_ignore_index_needs_targets_of_the_positions(targets):
    with pytest.raises(RequestError, match=r"\(3, 4\)"):
        losses.kd(*logits(3, 4, 5), targets=targets, ignore_index=-100)


def test_positions_of_maps_are_those_of_rows():
    student, teacher = logits(2, 5, 3, 4)
    rows = [x.movedim(1, -1).reshape(2, 12, 5) for x in (student, teacher)]
    torch.testing.assert_close(losses.kd(student, teacher), losses.kd(*rows))


@pytest.mark.parametrize("rest", ["bucket", "spread"])
@divergence
def test_all_classes_named_is_a_dense_teacher(loss, rest):
    student, teacher = logits(4, 6)
    torch.testing.assert_close(loss(student, TopK.of(teacher, 6), rest=rest), loss(student, teacher))


def test_top_k_by_hand():
    """Teacher 0.6, 0.2 and 0.2 unknown; student 0.5, 0.25, 0.125, 0.125; T = 1."""
    student = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    teacher = TopK(torch.tensor([[0.6, 0.2]]).log(), torch.tensor([[0, 1]]))
    named = 0.6 * math.log(0.6 / 0.5) + 0.2 * math.log(0.2 / 0.25)
    bucket = losses.kd(student, teacher, temperature=1.0)
    spread = losses.kd(student, teacher, temperature=1.0, rest="spread")
    assert bucket.item() == pytest.approx(named + 0.2 * math.log(0.2 / 0.25), rel=1e-5)
    assert spread.item() == pytest.approx(named + 2 * 0.1 * math.log(0.1 / 0.125), rel=1e-5)


@pytest.mark.parametrize("rest", ["bucket", "spread"])
@divergence
def test_top_k_of_rounded_log_probabilities_stays_finite(loss, rest):
    student, teacher = (x.detach().float() for x in logits(5, 4, 9))
    student.requires_grad_()
    for stored in (torch.bfloat16, torch.float16):
        sparse = TopK.of(20 * teacher, 4)
        value = loss(student, sparse._replace(log_probs=sparse.log_probs.to(stored)), rest=rest)
        (gradient,) = torch.autograd.grad(value.sum(), student)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


def test_top_k_least_where_the_student_agrees_on_the_named():
    student, teacher = logits(4, 6)
    sparse = TopK.of(teacher, 3)
    assert losses.kd(teacher, sparse, temperature=1.0).abs().max() < 1e-12
    assert (losses.kd(student, sparse, temperature=1.0) > 1e-3).all()


@pytest.mark.parametrize("k", [0, 7])
def test_top_k_needs_a_possible_k(k):
    with pytest.raises(RequestError, match=r"\(4, 6\)"):
        TopK.of(logits(4, 6)[1], k)


@pytest.mark.parametrize(
    ("options", "word"),
    [({"standardize": True}, "standardize"), ({"rest": "drop"}, "rest"), ({"temperature": 0.0}, "temperature")],
)
def test_options_that_do_not_fit(options, word):
    student, teacher = logits(4, 6)
    with pytest.raises(RequestError, match=word):
        losses.kd(student, TopK.of(teacher, 3), **options)


@pytest.mark.parametrize("beta", [-0.1, 1.5])
def test_beta_is_a_share(beta):
    with pytest.raises(RequestError, match="beta"):
        losses.jsd(*logits(4, 6), beta=beta)


def test_soft_cross_entropy_has_the_gradient_of_kd():
    student, teacher = logits(4, 6)
    one, other = (
        torch.autograd.grad(loss(student, teacher).sum(), student)[0] for loss in (losses.kd, losses.soft_cross_entropy)
    )
    torch.testing.assert_close(one, other)


def test_kd_is_the_sum_of_what_dkd_parts():
    """KL = TCKD + (1 − p_t,y) · NCKD, at each sample."""
    student, teacher = logits(6, 5)
    targets = torch.arange(6) % 5
    whole = losses.kd(student, teacher, temperature=2.0)
    target, others = (
        losses.dkd(student, teacher, targets=targets, temperature=2.0, target_weight=a, nontarget_weight=b)
        for a, b in ((1.0, 0.0), (0.0, 1.0))
    )
    p_y = (teacher / 2).softmax(1)[torch.arange(6), targets]
    torch.testing.assert_close(whole, target + (1 - p_y) * others)


def test_nkd_is_least_at_the_teachers_other_classes():
    student, teacher = logits(6, 5)
    targets = torch.arange(6) % 5
    rows = torch.arange(6)
    with torch.no_grad():
        agreed = teacher.clone()
        # Same p_s,y as the student, the teacher's distribution over the rest.
        others = torch.ones(6, 5, dtype=torch.bool).scatter(1, targets[:, None], False)
        rest_s = student.masked_fill(~others, -torch.inf).logsumexp(1)
        rest_t = teacher.masked_fill(~others, -torch.inf).logsumexp(1)
        agreed[rows, targets] = student[rows, targets] - rest_s + rest_t
    assert (losses.nkd(agreed, teacher, targets=targets) < losses.nkd(student, teacher, targets=targets)).all()
    better = agreed.clone()
    better[rows, targets] += 1
    assert (losses.nkd(better, teacher, targets=targets) < losses.nkd(agreed, teacher, targets=targets)).all()


def test_hard_label_goes_to_zero_with_certainty():
    _, teacher = logits(6, 5)
    certain = 1e3 * torch.nn.functional.one_hot(teacher.argmax(1), 5)
    assert losses.hard_label(certain, teacher).max() < 1e-9
    assert losses.hard_label(-certain, teacher).min() > 100


def test_wsld_counts_a_sample_less_where_the_student_is_better():
    teacher = torch.tensor([[1.0, 0.0, 0.0]])
    better, worse = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[-4.0, 0.0, 0.0]])
    targets = torch.tensor([0])
    weights = [
        (losses.wsld(s, teacher, targets=targets) / losses.kd(s, teacher, temperature=2.0)).item()
        for s in (better, worse)
    ]
    assert weights[0] < 0.1
    assert weights[1] > 0.99


@pytest.mark.parametrize("loss", [losses.dkd, losses.nkd, losses.wsld], ids=lambda f: f.__name__)
@pytest.mark.parametrize("targets", [torch.zeros(3, dtype=torch.int64), torch.rand(4, 5), torch.rand(4)])
def test_targets_must_be_class_indices(loss, targets):
    with pytest.raises(RequestError, match="class indices"):
        loss(*logits(4, 5), targets=targets)


@pytest.mark.parametrize("loss", [losses.dkd, losses.nkd], ids=lambda f: f.__name__)
def test_one_class_has_no_others(loss):
    with pytest.raises(RequestError, match=r"\(4, 1\)"):
        loss(*logits(4, 1), targets=torch.zeros(4, dtype=torch.int64))


def test_dist_of_one_sample_has_no_intra_part():
    student, teacher = logits(1, 5)
    torch.testing.assert_close(
        losses.dist(student, teacher), losses.dist(student, teacher, intra_weight=0.0), rtol=0, atol=0
    )


def test_dist_is_blind_to_the_scale_of_centred_probabilities():
    """1 − ρ is 2, not 0, for the opposite: what a loss that adds ρ would get wrong."""
    student, teacher = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert losses.dist(student, teacher).item() == pytest.approx(4.0)
    assert losses.dist(student, -teacher).item() == pytest.approx(0.0, abs=1e-6)


def test_mlkd_needs_a_temperature():
    with pytest.raises(RequestError, match="temperature"):
        losses.mlkd(*logits(4, 5), temperatures=())


def test_standardize_agrees_with_numpy_and_ignores_scale_and_shift():
    x = logits(4, 5)[1]
    got = losses.standardize(x)
    np.testing.assert_allclose(got.numpy(), ref.standardized(x.numpy()), rtol=1e-9)
    torch.testing.assert_close(losses.standardize(7 * x + 3), got, rtol=1e-6, atol=1e-6)


def test_standardize_of_equal_logits_is_zero_without_a_gradient():
    x = torch.full((2, 5), 0.1, requires_grad=True)
    (gradient,) = torch.autograd.grad(losses.standardize(x)[:, 0].sum(), x)
    assert losses.standardize(x).eq(0).all()
    assert gradient.eq(0).all()
    with pytest.raises(RequestError, match=r"\(3, 1\)"):
        losses.standardize(torch.zeros(3, 1))


def test_dist_leaves_absent_classes_out():
    """Of sharp logits over 100 classes most are absent from a batch: compared up to scale, they would rule the sum."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(16) % 8
    student, teacher = (torch.randn(16, 100, generator=rng) for _ in range(2))
    student[torch.arange(16), labels] += 40
    teacher[torch.arange(16), labels] += 40
    present = torch.zeros(100, dtype=torch.bool)
    present[:8] = True
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(losses.dist(student, teacher), student)
    assert gradient[:, ~present].norm() < 1e-3
    (task,) = torch.autograd.grad(torch.nn.functional.cross_entropy(student, labels.roll(1)), student)
    assert gradient.norm() < task.norm()


def drawn(seed: int = 0) -> tuple[torch.Tensor, losses.Sampled]:
    """Two positions of two samples over five classes, four draws each, some of them twice."""
    student = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    indices = torch.tensor([[[0, 0, 3, 4], [1, 2, 2, 2]], [[4, 4, 4, 4], [0, 1, 2, 3]]])
    return student.requires_grad_(), losses.Sampled(torch.full(indices.shape, 0.25, dtype=torch.float64), indices)


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("loss", [losses.kd, losses.soft_cross_entropy])
def test_a_sampled_teacher_is_the_distribution_of_its_counts(loss, chunk):
    student, teacher = drawn()
    counts = torch.nn.functional.one_hot(teacher.indices, 5).double().mean(2)
    value = loss(student, teacher, temperature=1.0, chunk=chunk)
    wanted = loss(student, counts.log(), temperature=1.0)
    torch.testing.assert_close(value, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(value.sum(), student), torch.autograd.grad(wanted.sum(), student), rtol=1e-9, atol=1e-9
    )


def test_weights_of_draws_need_not_sum_to_one():
    student, teacher = drawn()
    weights = torch.rand(2, 2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value = losses.soft_cross_entropy(student, teacher._replace(weights=weights), temperature=1.0)
    log_p = student.detach().log_softmax(-1).gather(-1, teacher.indices)
    torch.testing.assert_close(value.detach(), -(weights * log_p).sum(-1).mean(1))


def test_what_draws_cannot_give_is_refused():
    student, teacher = drawn()
    with pytest.raises(RequestError, match="drawn at temperature 1"):
        losses.kd(student, teacher)
    for loss in (losses.reverse_kl, losses.jsd, losses.skewed_kl, losses.total_variation):
        with pytest.raises(RequestError, match="kd and soft_cross_entropy alone"):
            loss(student, teacher, temperature=1.0)
