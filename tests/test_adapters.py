from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck import adapters, losses
from limbeck.distillers.term import BoundTerm, Term
from limbeck.errors import RequestError
from limbeck.types import Batch


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


def paired(kind: str, student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, nn.Module]:
    """Both tensors as a term compares them, and the student's adapter."""
    of_teacher = adapters.of_teacher(kind, tuple(student.shape), tuple(teacher.shape))
    seen = of_teacher(teacher)
    adapter = adapters.make(kind, tuple(student.shape), tuple(seen.shape))
    return adapter(student), seen, adapter


@pytest.mark.parametrize(
    ("student", "teacher", "compared", "parameters"),
    [
        ((2, 8, 4, 4), (2, 17, 16), (2, 16, 4, 4), 8 * 16 + 16),  # a ViT teaches a CNN
        ((2, 8, 4, 4), (2, 16, 8), (2, 8, 4, 4), 0),
        ((2, 8, 8, 6), (2, 13, 16), (2, 16, 4, 3), None),  # no square and no map of the student's size: refused
        ((2, 8, 4, 3), (2, 13, 16), (2, 16, 4, 3), 8 * 16 + 16),
        ((2, 17, 8), (2, 16, 7, 7), (2, 16, 7, 7), 8 * 16 + 16),  # a CNN teaches a ViT
        ((2, 5, 8), (2, 17, 16), (2, 16, 4, 4), 8 * 16 + 16),  # two ViTs of other patches
        ((2, 18, 8), (2, 16, 8), (2, 8, 4, 4), 0),
        ((2, 17, 8), (2, 16), (2, 16), 8 * 16 + 16),
        ((2, 8), (2, 17, 16), (2, 16), 8 * 16 + 16),
        ((2, 8), (2, 8, 4, 4), (2, 8), 0),
    ],
)
def test_tokens_maps_and_vectors_meet(
    student: tuple[int, ...], teacher: tuple[int, ...], compared: tuple[int, ...], parameters: int | None
) -> None:
    if parameters is None:
        with pytest.raises(RequestError, match="no adapter brings"):
            paired("auto", torch.randn(student), torch.randn(teacher))
        return
    s, t, adapter = paired("auto", torch.randn(student), torch.randn(teacher))
    assert s.shape == t.shape == compared
    assert sum(p.numel() for p in adapter.parameters()) == parameters


def test_tokens_lie_row_by_row_and_the_class_token_is_left_out_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    tokens = torch.tensor([[[9.0, 9.0], [1.0, 5.0], [2.0, 6.0], [3.0, 7.0], [4.0, 8.0]]])
    as_map = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]])
    maps = torch.zeros(1, 2, 2, 2)
    _, teacher, _ = paired("auto", maps, tokens)
    assert torch.equal(teacher, as_map)
    assert "of tokens (1, 5, 2) the class token is left out; the others are a map of 2×2" in capsys.readouterr().err
    student, _, _ = paired("auto", tokens, maps)
    assert torch.equal(student, as_map)
    assert paired("auto", tokens, torch.zeros(1, 2))[0].tolist() == [[2.5, 6.5]]
    assert paired("auto", torch.zeros(1, 2), tokens)[1].tolist() == [[2.5, 6.5]]
    assert paired("auto", torch.zeros(1, 2), as_map)[1].tolist() == [[2.5, 6.5]]
    capsys.readouterr()
    paired("auto", tokens, torch.zeros(1, 5, 2))  # of one length they are compared as they are
    assert paired("auto", tokens[:, 1:], torch.zeros(1, 2))[0].tolist() == [[2.5, 6.5]]
    assert capsys.readouterr().err == ""


def test_named_connectors_take_a_vits_tokens_too() -> None:
    s, t, _ = paired("conv1x1_bn", torch.randn(2, 8, 8, 8), torch.randn(2, 17, 16))
    assert s.shape == t.shape == (2, 16, 4, 4)


def test_an_adapter_of_ones_own_gets_the_teachers_tensor_as_it_is() -> None:
    own = adapters.of_teacher(lambda s, t: nn.Identity(), (2, 8, 4, 4), (2, 17, 16))
    assert isinstance(own, nn.Identity)


def test_a_term_compares_a_vits_tokens_with_a_cnns_map() -> None:
    tokens, maps = torch.randn(2, 5, 3), torch.randn(2, 3, 2, 2)
    bound = BoundTerm(Term(losses.mse, student="stage1", teacher="blocks.0", adapter="auto"))
    bound.build({"stage1": maps}, {"blocks.0": tokens})
    batch = Batch(maps, torch.zeros(2), torch.arange(2))
    expected = (maps - tokens[:, 1:].transpose(1, 2).reshape(2, 3, 2, 2)).square().mean()
    torch.testing.assert_close(bound({"stage1": maps}, {"blocks.0": tokens}, batch), expected)
