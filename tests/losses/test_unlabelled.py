"""A sample whose class index is -100 has no label: label losses are 0 for it, and other losses count it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import (
    Batch,
    ClassWise,
    Distiller,
    Hardware,
    MeanTeacher,
    MutualDistiller,
    RequestError,
    SelfDistiller,
    TeacherOutput,
    Term,
    VirtualTeacher,
    fit,
    losses,
)
from limbeck.distillers import Scheme
from limbeck.distillers.class_wise import partners
from limbeck.models.networks.multi_exit import Exits
from limbeck.tasks import Classification

TARGETS = torch.tensor([2, -100, 0, -100, 3])
KNOWN = TARGETS >= 0
OF_LABELS: dict[str, Callable[..., Tensor]] = {
    "dkd": losses.dkd,
    "dkd standardised": partial(losses.dkd, standardize=True),
    "nkd": losses.nkd,
    "wsld": losses.wsld,
}


@pytest.mark.parametrize("name", OF_LABELS)
def test_label_losses_leave_such_samples_out(name: str) -> None:
    student, teacher = 3 * torch.randn(5, 4), 3 * torch.randn(5, 4)
    alone, whole = student[KNOWN].requires_grad_(), student.clone().requires_grad_()
    expected = OF_LABELS[name](alone, teacher[KNOWN], targets=TARGETS[KNOWN])
    got = OF_LABELS[name](whole, teacher, targets=TARGETS)
    assert torch.equal(got[~KNOWN], torch.zeros(2))
    torch.testing.assert_close(got[KNOWN], expected)
    expected.sum().backward()
    got.sum().backward()
    torch.testing.assert_close(whole.grad[KNOWN], alone.grad)
    assert torch.equal(whole.grad[~KNOWN], torch.zeros(2, 4))


@pytest.mark.parametrize("name", ["dkd", "nkd", "wsld"])
def test_a_masked_class_does_them_no_harm(name: str) -> None:
    student, teacher = (torch.cat([torch.full((5, 1), -torch.inf), torch.randn(5, 3)], 1) for _ in range(2))
    student.requires_grad_()
    targets = torch.tensor([1, -100, 2, -100, 3])
    OF_LABELS[name](student, teacher, targets=targets).sum().backward()
    assert torch.isfinite(student.grad).all()
    assert torch.equal(student.grad[~KNOWN], torch.zeros(2, 4))


@pytest.mark.parametrize("wrong", [4, -1], ids=["too large", "below 0"])
@pytest.mark.parametrize("name", OF_LABELS)
def test_a_label_that_no_class_has_is_named(name: str, wrong: int) -> None:
    targets = torch.tensor([2, -100, wrong])
    with pytest.raises(RequestError, match=f"label {wrong} is out of range: the student has 4 classes"):
        OF_LABELS[name](torch.randn(3, 4), torch.randn(3, 4), targets=targets)


@pytest.mark.parametrize("name", OF_LABELS)
def test_labels_of_one_byte_are_labels(name: str) -> None:
    student, teacher = torch.randn(3, 200), torch.randn(3, 200)
    wide = torch.tensor([156, 7, 199])  # -100 is 156 in uint8
    got = OF_LABELS[name](student, teacher, targets=wide.to(torch.uint8))
    torch.testing.assert_close(got, OF_LABELS[name](student, teacher, targets=wide))


def test_crd_remembers_them_but_does_not_learn_from_them() -> None:
    crd = losses.CRD(6, 7, samples=20, negatives=30)
    student, teacher = torch.randn(5, 6, requires_grad=True), torch.randn(5, 7)
    before = crd.memory_s.clone()
    value = crd(student, teacher, targets=TARGETS, index=torch.arange(5))
    assert torch.equal(value == 0, ~KNOWN)
    value.sum().backward()
    assert torch.equal((student.grad == 0).all(1), ~KNOWN)
    assert torch.equal((crd.memory_s != before).any(1), torch.arange(20) < 5)
    assert crd.labels[:5].tolist() == [2, -100, 0, -100, 3]


def test_a_term_counts_them_as_samples_and_the_task_loss_does_not() -> None:
    student, teacher = nn.Linear(3, 4), torch.randn(5, 4)
    batch = Batch(torch.randn(5, 3), TARGETS, torch.arange(5))
    parts = Distiller(student, [Term(losses.dkd), Term(losses.kd)])(batch, TeacherOutput(teacher)).parts
    z = student(batch.inputs).detach()
    expected = losses.dkd(z[KNOWN], teacher[KNOWN], targets=TARGETS[KNOWN]).sum() / 5
    torch.testing.assert_close(parts["dkd"], expected)
    torch.testing.assert_close(parts["kd"], losses.kd(z, teacher).mean())
    torch.testing.assert_close(parts["task"], F.cross_entropy(z[KNOWN], TARGETS[KNOWN]))


def test_a_virtual_teacher_knows_nothing_of_them() -> None:
    batch = Batch(torch.zeros(5, 1), TARGETS, torch.arange(5))
    teacher = VirtualTeacher(4, probability=0.7)
    p = teacher(batch).output.exp()
    torch.testing.assert_close(p[~KNOWN], torch.full((2, 4), 0.25))
    torch.testing.assert_close(p[0], torch.tensor([0.1, 0.1, 0.7, 0.1]))
    student = torch.randn(5, 4, requires_grad=True)
    losses.kd(student, teacher(batch).output, targets=TARGETS, ignore_index=-100).sum().backward()
    assert torch.equal((student.grad == 0).all(1), ~KNOWN)


def test_they_are_nobodys_partners() -> None:
    assert partners(torch.tensor([7, -100, 7, -100, 5, -100])).tolist() == [2, 1, 0, 3, 4, 5]


class TwoExits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.early, self.late = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Exits:
        h = self.body(x)
        return Exits((self.late(h), self.early(h)), (h, h))


NONE = Batch(torch.randn(5, 3), torch.full((5,), -100), torch.arange(5))
ALONE: dict[str, Callable[..., Scheme]] = {
    "offline": lambda **o: Distiller(nn.Linear(3, 4), **o),
    "class-wise": lambda **o: ClassWise(nn.Linear(3, 4), weight=0, **o),
    "mutual": lambda **o: MutualDistiller([nn.Linear(3, 4), nn.Linear(3, 4)], weight=0, **o),
    "mean-teacher": lambda **o: MeanTeacher(nn.Linear(3, 4), [Term(losses.kd, weight=0)], **o),
    "self": lambda **o: SelfDistiller(TwoExits(), soft_weight=0, hint_weight=0, **o),
}


def unguarded(z: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy whose mean over no label is NaN in value and in gradient."""
    mask = (y != -100).float()
    return (F.cross_entropy(z, y.clamp(min=0), reduction="none") * mask).sum() / mask.sum()


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize(
    "task",
    [F.cross_entropy, nn.CrossEntropyLoss(label_smoothing=0.1), unguarded],
    ids=["cross-entropy", "a module", "unguarded"],
)
def test_a_batch_without_labels_is_worth_nothing(name: str, task: Any) -> None:
    scheme = ALONE[name](task=Classification(loss=task))
    step = scheme(NONE)
    assert step.loss.item() == 0
    step.loss.backward()
    for key, parameter in scheme.student.named_parameters():
        assert parameter.grad is not None, key
        assert torch.equal(parameter.grad, torch.zeros_like(parameter)), key


def test_on_another_device_no_value_is_looked_at() -> None:
    """What an accelerator does, with tensors that would refuse a look."""
    with torch.device("meta"):
        student = nn.Linear(3, 4)
        batch = Batch(torch.empty(5, 3), torch.empty(5, dtype=torch.int64), torch.arange(5))
        step = Distiller(student, [Term(losses.dkd)])(batch, TeacherOutput(torch.empty(5, 4)))
    assert step.loss.device.type == "meta"


class Everywhere(torch.Tensor):
    """A tensor on the CPU that says it is elsewhere."""

    is_cpu = False


@pytest.mark.parametrize("targets", [NONE.targets, TARGETS])
def test_what_an_accelerator_does_gives_the_same(targets: Tensor) -> None:
    from limbeck.distillers.task import task_value

    z = torch.randn(5, 4, requires_grad=True)
    plain = task_value(Classification(), z, targets)
    (wanted,) = torch.autograd.grad(plain, z)
    elsewhere = task_value(Classification(loss=unguarded), z, targets.as_subclass(Everywhere)).as_subclass(Tensor)
    torch.testing.assert_close(elsewhere, plain)
    torch.testing.assert_close(torch.autograd.grad(elsewhere, z)[0].as_subclass(Tensor), wanted)


def test_a_run_goes_through_batches_without_labels() -> None:
    x = torch.cat([torch.randn(32, 2) + 4, torch.randn(32, 2) - 4])
    y = torch.cat([torch.zeros(32, dtype=torch.int64), torch.ones(32, dtype=torch.int64)])
    hidden = y.clone()
    hidden[::4], hidden[16:32] = -100, -100  # a batch without any, and a quarter of each other
    batches = [(x[at : at + 16], hidden[at : at + 16]) for at in range(0, 64, 16)]
    run = fit(
        Distiller(nn.Linear(2, 2), [Term(losses.dkd, weight=0.1)]),
        batches,
        teacher=nn.Linear(2, 2),
        val=[(x, torch.where(torch.arange(64) % 2 == 0, y, -100))],
        epochs=3,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        progress=False,
        hardware=Hardware("cpu"),
    )
    assert run.metrics[-1]["accuracy"] == 1
    assert run.metrics[-1]["val_accuracy"] == 1


@pytest.mark.parametrize(
    ("give", "said"),
    [(lambda z, y: 1.0, "gives float instead of one value"), (lambda z, y: z.sum(1), r"gives a tensor \(5,\) instead")],
)
def test_a_task_loss_that_is_no_value_is_named(give: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Distiller(nn.Linear(3, 4), task=Classification(loss=give))(NONE)
