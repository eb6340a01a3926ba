"""What must hold for every loss; a new one is covered by its line in cases.py."""

from __future__ import annotations

import copy
import inspect
import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from cases import CASES, SEED, Case, Inputs, Size, tensors
from torch import nn

from limbeck import losses
from limbeck.errors import RequestError
from limbeck.losses import TopK

NO_LOSS = {"Paraphraser", "Sampled", "TopK", "negative_mean", "own_precision", "standardize"}
DRAWN = 12
"""Shapes, dtypes and magnitudes that are drawn for each loss; the first shape is the smallest."""
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
logit = pytest.mark.parametrize("case", [c for c in CASES if c.kind == "logit"], ids=lambda case: case.name)
trained = pytest.mark.parametrize("case", [c for c in CASES if c.trains], ids=lambda case: case.name)


def made(case: Case, size: Size | None = None, seed: int = 0) -> Inputs:
    return case.make(np.random.default_rng(seed), size or Size())


def value(loss, inputs: Inputs, dtype=torch.float64, student=None):
    torch.default_generator.manual_seed(SEED)
    student = tensors(inputs.student, dtype) if student is None else student
    return loss(student, tensors(inputs.teacher, dtype), **tensors(inputs.options, dtype))


def expected(case: Case, loss, inputs: Inputs):
    state = {}
    if case.trains:
        state = {"state": {k: v.detach().numpy() for k, v in loss.state_dict().items()}}
    return case.reference(inputs.student, inputs.teacher, **case.options, **inputs.options, **state)


def leaves(student, dtype=torch.float64):
    """The student as tensors that want a gradient, in a tuple, and how it was packed."""
    packed = isinstance(student, tuple)
    found = tensors(student if packed else (student,), dtype)
    return tuple(t.requires_grad_() for t in found), (lambda x: tuple(x)) if packed else (lambda x: x[0])


def value_and_gradient(loss, inputs: Inputs, dtype):
    students, pack = leaves(inputs.student, dtype)
    out = value(loss, inputs, dtype, pack(students))
    return out, torch.autograd.grad(out.sum(), students)


def tensors_in(x):
    if isinstance(x, torch.Tensor):
        return [x]
    return (
        [t for v in (x.values() if isinstance(x, dict) else x) for t in tensors_in(v)]
        if isinstance(x, tuple | dict)
        else []
    )


def test_the_table_has_every_loss():
    covered = {case.name.split("-")[0] for case in CASES}
    assert covered == set(losses.__all__) - NO_LOSS


@every
def test_value_is_that_of_an_independent_computation(case):
    for seed in range(3):
        inputs = made(case, seed=seed)
        loss = case.build(inputs)
        got = value(loss, inputs).detach().numpy()
        np.testing.assert_allclose(got, expected(case, loss, inputs), rtol=1e-7, atol=1e-9)
        assert got.shape in ((), (Size().b,))


@every
def test_gradient_is_the_derivative_of_the_value(case):
    inputs = made(case, Size(3, 3, 2, 2))
    loss = case.build(inputs)
    if case.frozen is None:
        students, pack = leaves(inputs.student)
        assert torch.autograd.gradcheck(lambda *s: value(loss, inputs, student=pack(s)), students)
        return
    (gradient,) = value_and_gradient(loss, inputs, torch.float64)[1]
    surrogate = case.frozen(inputs.student, inputs.teacher, **inputs.options)
    for at in np.ndindex(inputs.student.shape):
        step = np.zeros_like(inputs.student)
        step[at] = 1e-6
        slope = (surrogate(inputs.student + step) - surrogate(inputs.student - step)).sum() / 2e-6
        assert gradient[at].item() == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("case", [c for c in CASES if c.floor is not None], ids=lambda case: case.name)
def test_least_where_the_student_equals_the_teacher(case):
    inputs = made(case)
    loss = case.build(inputs)
    known = case.floor(inputs.student, inputs.teacher, **case.options, **inputs.options)
    same = value(loss, inputs._replace(student=inputs.teacher))
    np.testing.assert_allclose(same.numpy(), np.broadcast_to(known, same.shape), atol=1e-12)
    above = value(loss, inputs).numpy() - known
    ignored = case.make.__name__ == "tokens"
    assert (above[1:] > 1e-6).all() if ignored else (above > 1e-6).all()


@logit
def test_a_constant_added_to_all_logits_of_a_row_changes_nothing(case):
    inputs = made(case)
    axis = 1 if inputs.student.ndim == 4 else -1
    rng = np.random.default_rng(1)

    def shifted(x):
        return x if isinstance(x, TopK) else x + 5 * rng.normal(size=x.take([0], axis).shape)

    moved = inputs._replace(student=shifted(inputs.student), teacher=shifted(inputs.teacher))
    loss = case.build(inputs)
    torch.testing.assert_close(value(loss, moved), value(loss, inputs), rtol=1e-9, atol=1e-9)


@logit
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_finite_on_saturated_logits(case, dtype):
    inputs = made(case)
    axis = 1 if inputs.student.ndim == 4 else -1
    peaks = [1e4 * np.sign(inputs.student), np.where(inputs.student == inputs.student.max(axis, keepdims=True), 1e4, 0)]
    if isinstance(inputs.teacher, TopK):
        certain = np.full_like(inputs.teacher.log_probs, -1e4)
        certain.take([0], axis)[...] = 0
        teachers = [inputs.teacher, inputs.teacher._replace(log_probs=certain)]
    else:
        teachers = [1e4 * np.sign(inputs.teacher), -peaks[1], 1e4 * np.sign(-inputs.student)]
    for student in peaks:
        for teacher in teachers:
            extreme = inputs._replace(student=student, teacher=teacher)
            out, gradients = value_and_gradient(case.build(inputs), extreme, dtype)
            assert out.isfinite().all()
            assert all(g.isfinite().all() and g.dtype == dtype for g in gradients)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_finite_on_large_constant_and_empty_features(case, dtype):
    inputs = made(case)
    loss = case.build(inputs, torch.float32)
    size = 100 if dtype == torch.float16 else 1e4

    def each(x, change):
        return tuple(change(v) for v in x) if isinstance(x, tuple) else change(x)

    changes = [lambda x: size * np.sign(x), np.zeros_like, lambda x: np.full_like(x, 0.1), lambda x: x]
    for student, teacher in [*zip(changes, changes, strict=True), *pairwise(changes), *pairwise(changes[::-1])]:
        changed = inputs._replace(student=each(inputs.student, student))
        if not isinstance(inputs.teacher, TopK):
            changed = changed._replace(teacher=each(inputs.teacher, teacher))
        out, gradients = value_and_gradient(loss, changed, dtype)
        assert out.isfinite().all()
        assert all(g.isfinite().all() for g in gradients)


@every
def test_half_precision_inputs_are_computed_in_fp32(case):
    inputs = made(case)
    loss = case.build(inputs, torch.float32)
    half = value(loss, inputs, torch.bfloat16)
    rounded = [tensors(x, torch.bfloat16) for x in inputs]
    wide = Inputs(*(as_fp32(r) for r in rounded))
    torch.default_generator.manual_seed(SEED)
    full = loss(wide.student, wide.teacher, **wide.options)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=1e-6, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        torch.default_generator.manual_seed(SEED)
        cast = loss(wide.student, wide.teacher, **wide.options)
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, full, rtol=1e-6, atol=1e-6)


def as_fp32(x):
    if isinstance(x, torch.Tensor):
        return x.float() if x.is_floating_point() else x
    if isinstance(x, TopK):
        return TopK(*(as_fp32(v) for v in x))
    if isinstance(x, tuple):
        return tuple(as_fp32(v) for v in x)
    return {k: as_fp32(v) for k, v in x.items()} if isinstance(x, dict) else x


@every
def test_inputs_are_left_as_they_were(case):
    inputs = made(case)
    loss = case.build(inputs)
    if case.trains:
        loss.train()
    given = (tensors(inputs.student), tensors(inputs.teacher), tensors(inputs.options))
    before = copy.deepcopy(given)
    loss(given[0], given[1], **given[2])
    for now, then in zip(tensors_in(given), tensors_in(before), strict=True):
        assert now._version == 0
        assert torch.equal(now, then)


@every
def test_shapes_that_do_not_fit_are_named(case):
    inputs = made(case)
    loss = case.build(inputs)

    def more(x):
        return tuple(more(v) for v in x) if isinstance(x, tuple) else np.concatenate([x, x[:1]])

    def flat(x):
        return tuple(flat(v) for v in x) if isinstance(x, tuple) else x.reshape(-1)

    changes = [more, flat]
    if case.kind == "logit":
        changes.append(lambda x: np.concatenate([x, x], axis=1 if x.ndim == 4 else -1)[..., :])
    for change in changes:
        student = change(inputs.student)
        if case.kind == "logit" and isinstance(inputs.teacher, TopK) and len(student) == len(inputs.student):
            continue
        with pytest.raises(RequestError) as error:
            value(loss, inputs._replace(student=student))
        named = [*named_shapes(student), *named_shapes(inputs.teacher)]
        assert all(shape in str(error.value) for shape in named)


def named_shapes(x):
    """As the message has them; a loss that flattens its features names them flat."""
    if isinstance(x, TopK):
        return [str(x.log_probs.shape)]
    return [s for v in x for s in named_shapes(v)] if isinstance(x, tuple) else [str(x.shape)]


@trained
def test_what_is_trained_is_seen_moved_and_restored(case):
    inputs = made(case)
    loss = case.build(inputs, torch.float32)
    assert isinstance(loss, nn.Module)
    loss.train()
    value(loss, inputs, torch.float32).sum().backward()
    parameters = dict(loss.named_parameters())
    assert parameters
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters.values())
    assert any(p.grad.abs().sum() > 0 for p in parameters.values())

    other = type(loss).__name__, case.build(inputs, torch.float32)
    with torch.no_grad():
        for p in other[1].parameters():
            p.add_(1.0)
    assert not torch.equal(value(other[1], inputs, torch.float32), value(loss.eval(), inputs, torch.float32))
    other[1].load_state_dict(loss.state_dict())
    restored = value(other[1].eval(), inputs, torch.float32)
    torch.testing.assert_close(restored, value(loss, inputs, torch.float32), rtol=0, atol=0)

    assert all(t.is_meta for t in copy.deepcopy(loss).to("meta").state_dict().values())
    doubled = loss.to(torch.float64)
    assert all(t.dtype in (torch.float64, torch.int64) for t in doubled.state_dict().values())
    torch.testing.assert_close(value(doubled, inputs).float(), restored, rtol=1e-4, atol=1e-4)


@trained
def test_layers_in_bf16_still_give_a_loss_in_fp32(case):
    inputs = made(case)
    loss = case.build(inputs, torch.bfloat16)
    out, gradients = value_and_gradient(loss.train(), inputs, torch.bfloat16)
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert all(g.isfinite().all() for g in gradients)
    exact = value(case.build(inputs), inputs)
    torch.testing.assert_close(value(case.build(inputs, torch.bfloat16), inputs).double(), exact, rtol=0.1, atol=0.1)


@every
def test_any_shape_and_dtype_gives_a_finite_value_or_a_clear_error(case):
    draw = random.Random(case.name)
    for number in range(DRAWN):
        size = Size(*(draw.randint(1, most) if number else 1 for most in (3, 4, 4, 3)))
        dtype = draw.choice([torch.float64, torch.float32, torch.bfloat16, torch.float16])
        magnitude, training = draw.choice([0.0, 1e-3, 1.0, 30.0]), draw.random() < 0.5
        check_finite(case, size, dtype, magnitude, training, seed=draw.randint(0, 1000))


def check_finite(case: Case, size: Size, dtype: torch.dtype, magnitude: float, training: bool, seed: int) -> None:
    inputs = made(case, size, seed)

    def scaled(x):
        return tuple(scaled(v) for v in x) if isinstance(x, tuple) else magnitude * x

    inputs = inputs._replace(student=scaled(inputs.student))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    try:
        loss = case.build(inputs, wide)
        if case.trains:
            loss.train(training)
        out, gradients = value_and_gradient(loss, inputs, dtype)
    except RequestError:
        return
    what = f"{size}, {dtype}, times {magnitude}, training {training}, seed {seed}"
    assert out.shape in ((), (size.b,)), what
    assert out.isfinite().all(), what
    assert all(g.isfinite().all() for g in gradients), what


@pytest.mark.parametrize("name", sorted(losses.__all__))
def test_the_docstring_says_where_it_is_from(name):
    text = inspect.getdoc(getattr(losses, name))
    assert text is not None
    if name in ("Sampled", "TopK", "own_precision"):
        return
    assert "Source:" in text
    assert "Args:" in text
