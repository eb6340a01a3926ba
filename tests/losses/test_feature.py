"""What holds for single losses of hidden tensors, beyond what holds for all."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref
import torch
from torch import nn

from limbeck import Batch, Distiller, TeacherOutput, Term, losses
from limbeck.errors import RequestError


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", [(3, 2), (2, 1)], ids=["channel products", "position products"])
def test_nst_takes_the_channels_in_any_order(size):
    f, other = maps(2, 4, *size), maps(2, 4, *size, seed=1)
    shuffled = f[:, [2, 0, 3, 1]]
    assert losses.nst(shuffled, f).abs().max() < 1e-12
    assert (losses.nst(other, f) > 1e-3).all()


def test_nst_by_either_product_is_the_same():
    """Six channels over five positions; a seventh, empty position makes it seven, and the other product."""
    s, t = maps(2, 6, 1, 5), maps(2, 6, 1, 5, seed=1)
    padded = [torch.cat([f, f.new_zeros(2, 6, 1, 4)], 3) for f in (s, t)]
    torch.testing.assert_close(losses.nst(*padded), losses.nst(s, t))


def test_activation_boundary_is_zero_beyond_the_margin():
    teacher = maps(3, 4, 2, 2)
    side = torch.where(teacher > 0, 1.0, -1.0)
    assert losses.activation_boundary(1.5 * side, teacher).eq(0).all()
    torch.testing.assert_close(losses.activation_boundary(0 * side, teacher), torch.ones(3).double())
    torch.testing.assert_close(losses.activation_boundary(-side, teacher, margin=2.0), torch.full((3,), 9.0).double())


def test_margin_relu_lets_the_student_be_below_a_silent_teacher():
    teacher = torch.tensor([[[[-0.2]], [[-5.0]], [[2.0]]]])
    below, above = torch.tensor([[[[-9.0]], [[-9.0]], [[2.0]]]]), torch.tensor([[[[1.0]], [[1.0]], [[2.0]]]])
    margin = torch.tensor([-1.0, -1.0, -1.0])
    assert losses.margin_relu(below, teacher, margin=margin).item() == 0
    wanted = ((1 + 0.2) ** 2 + (1 + 1) ** 2) / 3
    assert losses.margin_relu(above, teacher, margin=margin).item() == pytest.approx(wanted)
    with pytest.raises(RequestError, match=r"\(2,\).*\(1, 3, 1, 1\)"):
        losses.margin_relu(below, teacher, margin=margin[:2])


def test_negative_mean_is_the_mean_of_the_negative_half():
    mean, std = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64), torch.tensor([1.0, -0.5, 0.3])
    x = np.linspace(-15, 0, 200_001)
    for m, s, got in zip(mean.tolist(), std.tolist(), losses.negative_mean(mean, std).tolist(), strict=True):
        density = np.exp(-(((x - m) / s) ** 2) / 2)
        assert got == pytest.approx((x * density).sum() / density.sum(), rel=1e-3)
    with pytest.raises(RequestError, match=r"\(3,\).*\(2,\)"):
        losses.negative_mean(mean, std[:2])


def test_negative_mean_holds_far_out_in_fp32():
    """−σ(1/z − 2/z³ + 10/z⁵ …) for large z = μ/σ; a γ of 0 leaves nothing negative, or all."""
    z = np.array([8.0, 20.0, 60.0, 100.0, 1e4, 1e6])
    series = -(1 / z - 2 / z**3 + 10 / z**5 - 74 / z**7 + 706 / z**9)
    got = losses.negative_mean(torch.tensor(z, dtype=torch.float32), torch.ones(6))
    np.testing.assert_allclose(got[1:], series[1:], rtol=1e-6)
    assert got[0].item() == pytest.approx(series[0], rel=1e-4)
    flat = losses.negative_mean(torch.tensor([0.5, 0.0, -0.5]), torch.zeros(3))
    assert flat.isfinite().all()
    assert (flat < 0).all()
    assert flat[2].item() == -0.5
    assert losses.negative_mean(torch.tensor([-300.0]), torch.ones(1)).item() == -300


def test_cosine_and_factor_see_directions_only():
    f = maps(3, 4, 2, 2)
    assert losses.cosine(3 * f, f).abs().max() < 1e-12
    assert losses.factor(3 * f, f).abs().max() < 1e-12
    torch.testing.assert_close(losses.cosine(-f, f), torch.full((3,), 2.0, dtype=torch.float64))


def test_pearson_ignores_scale_and_shift_of_each_channel():
    f = maps(3, 4, 2, 2)
    scale, shift = maps(1, 4, 1, 1, seed=1).abs() + 0.1, maps(1, 4, 1, 1, seed=2)
    assert losses.pearson(scale * f + shift, f).item() == pytest.approx(0, abs=1e-12)
    assert losses.pearson(-f, f).item() == pytest.approx(2)


def test_channel_ignores_a_constant_added_to_a_channel():
    f, other = maps(3, 4, 2, 2), maps(3, 4, 2, 2, seed=1)
    torch.testing.assert_close(losses.channel(f + maps(3, 4, 1, 1), other), losses.channel(f, other))


@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_smooth_l1_needs_a_threshold(threshold):
    with pytest.raises(RequestError, match="threshold"):
        losses.smooth_l1(maps(2, 3), maps(2, 3), threshold=threshold)


def test_fsp_needs_two_layers_each():
    f = maps(2, 3, 4, 4)
    with pytest.raises(RequestError, match="two taps"):
        losses.fsp(f, (f, f))
    with pytest.raises(RequestError, match=r"\(2, 3, 4, 4\).*\(2, 2, 4, 4\)"):
        losses.fsp((f, f), (f, f[:, :2]))


def test_srrl_leaves_the_classifier_of_the_teacher_its_own():
    classifier = nn.Linear(3, 5).double().requires_grad_(False)
    student, teacher = maps(2, 3, 4, 4).requires_grad_(), maps(2, 3, 4, 4, seed=1)
    losses.srrl(student, teacher, classifier=classifier).sum().backward()
    assert classifier.weight.grad is None
    assert student.grad.abs().sum() > 0


def test_vid_is_least_where_the_mean_is_right():
    vid = losses.VID.for_shapes((2, 3, 4, 4), (2, 5, 4, 4), variance=2.0).double()
    student = maps(2, 3, 4, 4)
    right = vid.mean(student).detach()
    floor = torch.full((2,), np.log(2.0) / 2, dtype=torch.float64)
    torch.testing.assert_close(vid(student, right), floor, rtol=1e-6, atol=0)
    assert (vid(student, right + 0.1) > floor).all()


def test_mgd_masks_positions_in_training_only():
    mgd = losses.MGD.for_shapes((8, 3, 16, 16), (8, 5, 16, 16), masked=0.65).double()
    seen = []
    mgd.generate.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    f, t = maps(8, 3, 16, 16), maps(8, 5, 16, 16)
    torch.manual_seed(0)
    first, second = mgd(f, t), mgd(f, t)
    hidden = seen[0].eq(0).all(1)
    assert torch.equal(hidden, seen[0].eq(0).any(1))
    assert hidden.double().mean().item() == pytest.approx(0.65, abs=0.03)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(mgd(f, t), first)
    mgd.eval()
    mgd(f, t)
    assert not seen[-1].eq(0).any()
    with torch.no_grad():
        right = mgd.generate(mgd.align(f))
    assert mgd(f, right).abs().max() < 1e-20


def test_mgd_can_mask_whole_channels():
    mgd = losses.MGD.for_shapes((64, 3, 4, 4), (64, 20, 4, 4), masked=0.15, mask="channels").double()
    seen = []
    mgd.generate.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    mgd(maps(64, 3, 4, 4), maps(64, 20, 4, 4))
    hidden = seen[0].eq(0).all((2, 3))
    assert torch.equal(hidden, seen[0].eq(0).any(3).any(2))
    assert hidden.double().mean().item() == pytest.approx(0.15, abs=0.03)
    with pytest.raises(RequestError, match="mask"):
        losses.MGD(3, 4, mask="pixels")


def test_factor_transfer_teaches_the_paraphraser_by_reconstruction_only():
    loss = losses.FactorTransfer.for_shapes((2, 3, 4, 4), (2, 6, 4, 4), reconstruction_weight=0.0).double()
    loss(maps(2, 3, 4, 4), maps(2, 6, 4, 4)).sum().backward()
    assert all(p.grad is None or p.grad.eq(0).all() for p in loss.paraphraser.parameters())
    assert any(p.grad.ne(0).any() for p in loss.translator.parameters())
    with pytest.raises(RequestError, match="rate"):
        losses.FactorTransfer(3, 6, rate=0.1)


def test_the_paraphraser_learns_to_reconstruct():
    torch.manual_seed(0)
    loss = losses.Paraphraser.for_shapes((), (8, 4, 4, 4), rate=1.0)
    teacher = maps(8, 4, 4, 4).float().abs()
    optimizer = torch.optim.Adam(loss.parameters(), 0.01)
    values = []
    for _ in range(30):
        value = loss((), teacher).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0]


def test_a_trained_paraphraser_stays_as_it_is():
    torch.manual_seed(0)
    paraphraser = losses.Paraphraser(6).double()
    transfer = losses.FactorTransfer.for_shapes((2, 3, 4, 4), (2, 6, 4, 4), paraphraser=paraphraser).double()
    student, teacher = maps(2, 3, 4, 4), maps(2, 6, 4, 4)
    value = transfer(student, teacher)
    value.sum().backward()
    torch.testing.assert_close(value, losses.factor(transfer.translator(student), paraphraser.encode(teacher)))
    assert not any(p.requires_grad for p in transfer.paraphraser.parameters())
    assert all(p.requires_grad for p in paraphraser.parameters())
    state = {"paraphraser." + name: x.detach().numpy() for name, x in paraphraser.state_dict().items()}
    said = ref.l1(
        ref.convolutions(ref.convolutions(teacher.numpy(), state, "paraphraser.encode"), state, "paraphraser.decode"),
        teacher.numpy(),
    )
    np.testing.assert_allclose(paraphraser((), teacher).detach(), said)


@pytest.mark.parametrize("weight", [1.0, 500.0])
def test_the_paraphraser_learns_at_its_own_weight_whatever_the_terms_is(weight):
    """A term's weight multiplies what the student is to match, and not the reconstruction."""
    torch.manual_seed(0)
    term = Term(losses.FactorTransfer, weight=weight, student="0", teacher="map")
    student = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(64, 2)).double()
    distiller = Distiller(student, [term])
    batch = Batch(maps(2, 3, 4, 4), torch.tensor([0, 1]), torch.arange(2))
    teacher_output = TeacherOutput(None, {"map": 10 * maps(2, 6, 4, 4, seed=1)})
    distiller.prepare(batch, teacher_output)
    transfer = distiller.terms["FactorTransfer"].loss.double()
    distiller(batch, teacher_output).loss.backward()
    got = [p.grad for p in transfer.paraphraser.parameters()]
    alone = transfer.paraphraser((), teacher_output.features["map"]).mean()
    for g, wanted in zip(got, torch.autograd.grad(alone, list(transfer.paraphraser.parameters())), strict=True):
        torch.testing.assert_close(g, wanted)


@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_factor_transfer_stays_finite_at_its_published_weight(rate):
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(16, 4))
    distiller = Distiller(student, [Term(losses.FactorTransfer, weight=500.0, student="1", teacher="map")])
    inputs, teacher = maps(32, 3, 8, 8).float(), 3 * maps(32, 64, 8, 8, seed=1).float().relu()
    batch = Batch(inputs, torch.arange(32) % 4, torch.arange(32))
    distiller.prepare(batch, TeacherOutput(None, {"map": teacher}))
    optimizer = torch.optim.SGD(distiller.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    for _ in range(30):
        step = distiller(batch, TeacherOutput(None, {"map": teacher}))
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        assert step.loss.isfinite()


def test_review_refuses_what_batch_norm_cannot_do():
    shapes = ((1, 3, 4, 4), (1, 5))
    review = losses.ReviewKD.for_shapes(shapes, shapes, width=4).double()
    one = (maps(1, 3, 4, 4), maps(1, 5))
    with pytest.raises(RequestError, match="batch of one"):
        review(one, one)
    assert review.eval()(one, one).isfinite().all()


@pytest.mark.parametrize(
    ("name", "student", "teacher"),
    [
        ("VID", ((2, 3), (2, 4)), (2, 3)),
        ("MGD", (4,), (2, 3)),
        ("FactorTransfer", (2, 3, 4, 4), ((2, 3, 4, 4),)),
        ("ReviewKD", (2, 3, 4, 4), (2, 3, 4, 4)),
        ("ReviewKD", ((2, 3, 4, 4),), ((2, 3, 4, 4), (2, 5, 2, 2))),
        ("CRD", (4,), (4,)),
    ],
)
def test_for_shapes_names_shapes_that_no_layer_fits(name, student, teacher):
    options = {"samples": 10} if name == "CRD" else {}
    with pytest.raises(RequestError) as error:
        getattr(losses, name).for_shapes(student, teacher, **options)
    assert str(tuple(student)) in str(error.value)
    assert str(tuple(teacher)) in str(error.value)


def test_made_of_torch_sizes_and_of_tuples_alike():
    s, t = maps(2, 3, 4, 4), maps(2, 5, 2, 2)
    for name in ("VID", "MGD", "FactorTransfer"):
        made = getattr(losses, name).for_shapes
        assert shapes_of(made(s.shape, t.shape)) == shapes_of(made(tuple(s.shape), list(t.shape)))
    assert shapes_of(losses.ReviewKD.for_shapes([s.shape], [t.shape]))


def shapes_of(module: nn.Module) -> list[torch.Size]:
    return [p.shape for p in module.parameters()]


def test_cosine_can_pool_a_longer_teacher():
    student, teacher = torch.randn(3, 4), torch.randn(3, 2, 4)
    pooled = teacher.reshape(3, 4, 2).mean(-1)
    expected = 1 - torch.nn.functional.cosine_similarity(student, pooled)
    torch.testing.assert_close(losses.cosine(student, teacher, pool=True), expected)
    with pytest.raises(RequestError, match="same shape"):
        losses.cosine(student, teacher)
    with pytest.raises(RequestError, match="same shape"):
        losses.cosine(student, torch.randn(3, 7), pool=True)
