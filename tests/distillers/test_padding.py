"""Terms on hidden tensors of texts: what a batch is padded with counts in no mean and in no gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.distillers import Distiller, Term
from limbeck.types import MASK, Batch, TeacherOutput

SIZES = torch.tensor([3, 2, 1, 3])
IDS = torch.tensor([[3, 1, 4], [1, 5, 7], [2, 7, 7], [6, 5, 3]])
WIDTH, HEADS = 5, 2


class Student(nn.Module):
    """Hidden states (B, L, D), and attention maps (B, H, L, L) whose padding is not zero."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(8, WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.attention = nn.Identity()
        self.classifier = nn.Linear(WIDTH, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.hidden(self.tokens(input_ids))
        self.attention(torch.stack([x @ x.mT] * HEADS, 1))
        return self.classifier(x[:, 0])


def batch_of(length: int) -> Batch:
    """The same texts padded to some length with id 7."""
    ids = torch.full((len(IDS), length), 7)
    ids[:, :3] = IDS
    mask = torch.arange(length) < SIZES[:, None]
    return Batch({"input_ids": ids, MASK: mask.long()}, torch.zeros(len(IDS), dtype=torch.long), torch.arange(len(IDS)))


def teacher_of(length: int, width: int = WIDTH) -> TeacherOutput:
    """Features of the tokens, the same at every length, with other noise where there is padding."""
    generator = torch.Generator().manual_seed(1)
    real = torch.randn(len(IDS), 3, width, generator=generator)
    maps = torch.randn(len(IDS), HEADS, 3, 3, generator=generator)
    hidden = torch.randn(len(IDS), length, width, generator=torch.Generator().manual_seed(length))
    attention = torch.randn(len(IDS), HEADS, length, length, generator=generator)
    for row, size in enumerate(SIZES):
        hidden[row, :size] = real[row, :size]
        attention[row, :, :size, :size] = maps[row, :, :size, :size]
    vector = torch.randn(len(IDS), 3, generator=torch.Generator().manual_seed(2))
    return TeacherOutput(None, {"hidden": hidden, "attention": attention, "vector": vector})


def computed(term: Term, length: int, width: int = WIDTH) -> tuple[float, Tensor]:
    """The term's value on texts padded to some length, and its gradient at the embeddings."""
    torch.manual_seed(0)
    student = Student()
    distiller = Distiller(student, [term], task_weight=0)
    batch, teacher = batch_of(length), teacher_of(length, width)
    torch.manual_seed(0)
    distiller.prepare(batch, teacher)
    step = distiller(batch, teacher)
    step.loss.backward()
    assert student.tokens.weight.grad is not None
    return step.loss.item(), student.tokens.weight.grad


CASES: dict[str, tuple[dict[str, Any], int]] = {
    **{
        name: ({"loss": getattr(losses, name), "student": "hidden", "teacher": "hidden"}, WIDTH)
        for name in ("mse", "l1", "smooth_l1", "cosine", "activation_boundary", "similarity", "rkd", "pkt")
    },
    "correlation": ({"loss": losses.correlation, "student": "hidden", "teacher": "hidden"}, 7),
    "adapted tokens": ({"loss": losses.mse, "student": "hidden", "teacher": "hidden", "adapter": "auto"}, 7),
    "adapted to vectors": ({"loss": losses.mse, "student": "hidden", "teacher": "vector", "adapter": "auto"}, WIDTH),
    "attention maps": ({"loss": losses.mse, "student": "attention", "teacher": "attention"}, WIDTH),
}


@pytest.mark.parametrize("name", CASES)
def test_a_batch_that_is_padded_further_gives_the_same_loss_and_gradient(name: str) -> None:
    options, width = CASES[name]
    value, gradient = computed(Term(**options), 3, width)
    further, same = computed(Term(**options), 6, width)
    assert value == pytest.approx(further, rel=1e-5)
    assert value > 0
    assert torch.allclose(gradient, same, rtol=1e-4, atol=1e-6 * float(gradient.abs().max()) + 1e-9)
    assert not gradient[7].any(), "the id of the padding learns nothing"


def test_means_are_over_tokens_by_hand() -> None:
    torch.manual_seed(0)
    student = Student()
    batch, teacher = batch_of(5), teacher_of(5)
    x = student.hidden(student.tokens(batch.inputs["input_ids"])).detach().numpy()
    y = teacher.features["hidden"].numpy()
    each = [np.mean((x[row, :size] - y[row, :size]) ** 2) for row, size in enumerate(SIZES.tolist())]
    term = Term(losses.mse, student="hidden", teacher="hidden")
    assert Distiller(student, [term], task_weight=0)(batch, teacher).loss.item() == pytest.approx(np.mean(each))

    maps = np.einsum("bld,bmd->blm", x, x)[:, None].repeat(HEADS, 1)
    other = teacher.features["attention"].numpy()
    each = [np.mean((maps[r, :, :n, :n] - other[r, :, :n, :n]) ** 2) for r, n in enumerate(SIZES.tolist())]
    term = Term(losses.mse, student="attention", teacher="attention")
    assert Distiller(student, [term], task_weight=0)(batch, teacher).loss.item() == pytest.approx(np.mean(each))


def test_a_loss_of_one_s_own_gets_zeros_and_where_the_tokens_are() -> None:
    def mine(student: Tensor, teacher: Tensor, *, tokens: Tensor) -> Tensor:
        assert not student[1, 2:].any()
        assert not teacher[1, 2:].any()
        assert tokens[..., 0].sum(1).tolist() == SIZES.tolist()
        return student.sum() * 0

    computed(Term(mine, student="hidden", teacher="hidden"), 4)


@pytest.mark.parametrize("sparse", [losses.Sampled, losses.TopK])
def test_a_sparse_teacher_of_padded_texts_is_one_tensor_of_logits(sparse: Any) -> None:
    torch.manual_seed(0)
    student, batch = Student(), batch_of(5)
    values, which = torch.tensor([[0.25, 0.75]] * 4), torch.tensor([[0, 1]] * 4)
    teacher = TeacherOutput(sparse(values.log() if sparse is losses.TopK else values, which))
    distiller = Distiller(student, [Term(losses.kd, temperature=1.0)], task_weight=0)
    distiller.prepare(batch, teacher)
    p, q = values.numpy(), student(**batch.inputs).softmax(-1).detach().numpy()
    assert distiller(batch, teacher).loss.item() == pytest.approx(np.mean((p * np.log(p / q)).sum(1)), rel=1e-5)


def test_beside_inputs_that_are_no_texts_nothing_is_left_out() -> None:
    batch = batch_of(4)
    assert batch.mask is not None
    assert batch._replace(inputs={**batch.inputs, "image": torch.zeros(4, 3, 8, 8)}).mask is None
    assert batch._replace(inputs=batch.inputs["input_ids"]).mask is None
    assert batch._replace(inputs={"input_ids": batch.inputs["input_ids"]}).mask is None


def test_a_teacher_with_tokens_of_its_own_has_their_mask() -> None:
    batch, own = batch_of(4), batch_of(6)
    both = batch._replace(inputs={**batch.inputs, "teacher": own.inputs})
    assert torch.equal(both.mask, batch.mask)  # type: ignore[arg-type]
    assert torch.equal(both.teacher_mask, own.mask)  # type: ignore[arg-type]
    assert torch.equal(batch.teacher_mask, batch.mask)  # type: ignore[arg-type]
