from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck import adapters
from limbeck.errors import RequestError


@pytest.mark.parametrize(
    ("student", "teacher", "parameters"),
    [
        ((2, 8), (2, 8), 0),
        ((2, 8), (2, 16), 8 * 16 + 16),
        ((2, 5, 8), (2, 5, 16), 8 * 16 + 16),
        ((2, 8, 4, 4), (2, 16, 4, 4), 8 * 16 + 16),
        ((2, 8, 8, 8), (2, 8, 4, 4), 0),
        ((2, 8, 8, 8), (2, 16, 3, 3), 8 * 16 + 16),
        ((2, 8, 4, 4), (2, 16, 7, 9), 8 * 16 + 16),
        ((2, 8, 8, 2), (2, 8, 4, 4), 0),
        ((2, 8, 4, 4), (2, 16), 8 * 16 + 16),
    ],
)
def test_auto_brings_the_student_to_the_teachers_shape(
    student: tuple[int, ...], teacher: tuple[int, ...], parameters: int
) -> None:
    adapter = adapters.make("auto", student, teacher)
    assert adapter(torch.randn(student)).shape == teacher
    assert sum(p.numel() for p in adapter.parameters()) == parameters


def test_teacher_outputs_are_adapted_where_that_is_asked_for() -> None:
    adapter = adapters.make("conv1x1", (2, 3, 8), (2, 5, 4))
    x = torch.randn(2, 3, 8)
    convolution = next(m for m in adapter.modules() if isinstance(m, nn.Conv1d))
    mixed = torch.einsum("oc,bcl->bol", convolution.weight[:, :, 0], x) + convolution.bias[:, None]
    torch.testing.assert_close(adapter(x), (mixed[..., 0::2] + mixed[..., 1::2]) / 2)
    line = torch.tensor([[[0.0, 2.0]]])  # linear between the middles of its parts, and level beyond them
    assert adapters.make("conv1x1", (1, 1, 2), (1, 1, 4))(line).flatten().tolist() == [0.0, 0.5, 1.5, 2.0]
    norms = [m for m in adapters.make("conv3x3_bn", (2, 3, 8), (2, 5, 8)).modules() if isinstance(m, nn.BatchNorm1d)]
    assert [norm.num_features for norm in norms] == [5]


def test_equal_sizes_are_pooled_by_the_mean() -> None:
    adapter = adapters.make("auto", (1, 1, 4, 4), (1, 1, 2, 2))
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert adapter(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


@pytest.mark.parametrize(("kind", "kernel", "norms"), [("conv1x1", 1, 0), ("conv3x3", 3, 0), ("conv3x3_bn", 3, 1)])
def test_explicit_convolutions(kind: str, kernel: int, norms: int) -> None:
    adapter = adapters.make(kind, (2, 8, 4, 4), (2, 16, 4, 4))
    convolutions = [m for m in adapter.modules() if isinstance(m, nn.Conv2d)]
    assert [c.kernel_size for c in convolutions] == [(kernel, kernel)]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in adapter.modules()) == norms
    assert adapter(torch.randn(2, 8, 4, 4)).shape == (2, 16, 4, 4)


@pytest.mark.parametrize(
    ("kind", "student", "teacher"),
    [
        ("auto", (2, 8), (2, 8, 4, 4)),
        ("auto", (2, 5, 8), (2, 7, 8)),
        ("linear", (2, 8, 4, 4), (2, 8)),
        ("conv3x3", (2, 8), (2, 16)),
    ],
)
def test_shapes_that_cannot_be_adapted_name_both(kind: str, student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    with pytest.raises(RequestError) as error:
        adapters.make(kind, student, teacher)
    assert str(student) in str(error.value)
    assert str(teacher) in str(error.value)


def test_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(RequestError, match="unknown adapter 'conv3x33'; did you mean conv3x3"):
        adapters.check("conv3x33")


def test_a_given_module_is_copied_and_a_function_is_called() -> None:
    own = nn.Linear(8, 16)
    copied = adapters.make(own, (2, 8), (2, 16))
    assert copied is not own
    torch.testing.assert_close(copied.weight, own.weight)
    assert isinstance(adapters.make(lambda s, t: nn.Linear(s[1], t[1]), (2, 8), (2, 16)), nn.Linear)
