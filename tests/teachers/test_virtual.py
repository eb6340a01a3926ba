from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck import Batch, Distiller, Hardware, Teacher, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.errors import RequestError
from limbeck.teachers import VirtualTeacher


def batch(targets: Tensor) -> Batch:
    return Batch(torch.zeros(len(targets), 4), targets, torch.arange(len(targets)))


def test_labels_get_their_share_and_the_rest_is_uniform() -> None:
    teacher_output = VirtualTeacher(5)(batch(torch.tensor([3, 0])))
    expected = np.full((2, 5), 0.01 / 4)
    expected[0, 3] = expected[1, 0] = 0.99
    np.testing.assert_allclose(teacher_output.output.exp().numpy(), expected, rtol=1e-5)
    assert not teacher_output.features
    assert teacher_output.output.dtype == torch.float32


def test_the_loss_softens_its_logits() -> None:
    z = torch.randn(2, 4, dtype=torch.float64)
    teacher_output = VirtualTeacher(4, probability=0.97)(batch(torch.tensor([1, 2])))
    p = np.full((2, 4), 0.01)
    p[0, 1] = p[1, 2] = 0.97
    p = p ** (1 / 20)
    p /= p.sum(1, keepdims=True)
    q = np.exp(z.numpy() / 20)
    q /= q.sum(1, keepdims=True)
    expected = 400 * (p * np.log(p / q)).sum(1)
    np.testing.assert_allclose(
        losses.kd(z, teacher_output.output.double(), temperature=20).numpy(), expected, rtol=1e-4
    )


def test_mixed_labels_mix_the_distributions() -> None:
    teacher_output = VirtualTeacher(3)(batch(torch.tensor([[0.25, 0.75, 0.0]])))
    np.testing.assert_allclose(teacher_output.output.exp().numpy()[0, 2], 0.005, rtol=1e-4)
    np.testing.assert_allclose(teacher_output.output.exp().numpy()[0, 0], 0.25 * 0.99 + 0.75 * 0.005, rtol=1e-5)


def test_a_student_learns_from_it_alone(blobs: InMemory) -> None:
    guide = VirtualTeacher(3)
    assert isinstance(guide, Teacher)
    distiller = Distiller(nn.Linear(4, 3), [Term(losses.kd, temperature=20)], task_weight=0)
    run = fit(
        distiller,
        make_loader(blobs, 16, shuffle=True),
        teacher=guide,
        epochs=4,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        progress=False,
        hardware=Hardware("cpu"),
    )
    assert run.metrics[-1]["accuracy"] > 0.8


def test_fingerprint_names_classes_and_probability() -> None:
    prints = {
        VirtualTeacher(3).fingerprint,
        VirtualTeacher(4).fingerprint,
        VirtualTeacher(3, probability=0.9).fingerprint,
    }
    assert len(prints) == 3
    assert VirtualTeacher(3).fingerprint in prints


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (lambda: VirtualTeacher(1), "two classes or more, not 1"),
        (lambda: VirtualTeacher(4, probability=0.25), "between 1/4 and 1, not 0.25"),
        (lambda: VirtualTeacher(4, probability=1.0), "between 1/4 and 1, not 1.0"),
        (lambda: VirtualTeacher(3)(batch(torch.tensor([0, 3]))), "label 3 is out of range: there are 3 classes"),
        (
            lambda: VirtualTeacher(3)(batch(torch.rand(2, 4))),
            r"\(B, 3\) of probabilities, not \(2, 4\) of torch.float32",
        ),
        (lambda: VirtualTeacher(3)(batch(torch.zeros(2, 4, dtype=torch.long))), r"not \(2, 4\) of torch.int64"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(request_: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        request_()
    assert "\n" not in str(caught.value)
