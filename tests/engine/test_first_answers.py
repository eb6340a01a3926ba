"""A teacher's first answers: order, chance, steadiness and endings are said; a healthy teacher gives nothing to say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Distiller, FunctionTeacher, Hardware, RequestError, Saving, Term, fit, losses
from limbeck.engine.first.answers import check_answers
from limbeck.tasks import Classification
from limbeck.tasks.class_order import _at_most
from limbeck.types import Batch


def said(answers: Tensor, labels: Tensor, *, labelled: bool = True) -> list[str]:
    """The lines for a teacher that gives these answers to samples with these labels."""
    batch = Batch(torch.arange(len(labels)), labels, torch.arange(len(labels)))
    teacher = FunctionTeacher(lambda x: answers[x])
    return check_answers(teacher, batch, teacher(batch), Classification(), labelled=labelled)


def logits(choices: Tensor, classes: int) -> Tensor:
    return 8 * F.one_hot(choices, classes) - 2.0


def some(classes: int, samples: int) -> Tensor:
    return torch.randint(classes, (samples,), generator=torch.Generator().manual_seed(3))


def test_the_tail_is_that_of_the_binomial_distribution() -> None:
    for hits, samples, chance in ((0, 9, 0.1), (4, 16, 2 / 3), (30, 64, 0.5), (511, 512, 0.999), (7, 7, 0.2)):
        assert _at_most(hits, samples, chance) == pytest.approx(stats.binom.cdf(hits, samples, chance), rel=1e-9)
    assert _at_most(-1, 5, 0.5) == 0
    assert (_at_most(2, 5, 0.0), _at_most(2, 5, 1.0)) == (1, 0)


@pytest.mark.parametrize(("classes", "samples"), [(2, 16), (10, 32), (100, 64), (1000, 256)])
@pytest.mark.parametrize("accuracy", [1.0, 0.75])
def test_of_a_good_teacher_nothing_is_said(classes: int, samples: int, accuracy: float) -> None:
    labels = some(classes, samples)
    wrong = torch.arange(samples) % 100 >= 100 * accuracy
    assert said(logits(torch.where(wrong, (labels + some(7, samples) + 1) % classes, labels), classes), labels) == []


@pytest.mark.parametrize(("classes", "samples"), [(10, 32), (100, 64), (2, 256)])
def test_a_teacher_at_chance_is_named_with_its_figures(classes: int, samples: int) -> None:
    labels = some(classes, samples)
    guesses = torch.randint(classes, (samples,), generator=torch.Generator().manual_seed(8))
    (line,) = said(logits(guesses, classes), labels)
    assert line.startswith(f"the teacher is right on {int((guesses == labels).sum())} of the first {samples} samples")
    assert said(logits(guesses, classes), labels, labelled=False) == []  # then labels may be any


def test_always_the_frequent_class_is_chance_too() -> None:
    labels = torch.tensor([0] * 200 + [1] * 56)
    (line,) = said(logits(torch.zeros(256, dtype=torch.long), 2), labels)
    assert "right on 200 of the first 256 samples, no more than by chance" in line


def test_one_label_in_the_batch_proves_nothing() -> None:
    assert said(logits(torch.full((32,), 2), 3), torch.full((32,), 2)) == []


@pytest.mark.parametrize(
    ("order", "classes", "samples"),
    [
        (lambda y: (y + 3) % 10, 10, 32),
        (lambda y: 1 - y, 2, 24),
        (lambda y: y + 1, 101, 64),  # a background class before all others
        (lambda y: torch.randperm(100, generator=torch.Generator().manual_seed(1))[y], 100, 128),
        (lambda y: torch.tensor(sorted(range(12), key=str)).argsort()[y], 12, 48),  # folders sorted as text
    ],
    ids=["shifted", "flipped", "background", "permuted", "as text"],
)
def test_another_order_of_the_classes_is_named(order: Callable[[Tensor], Tensor], classes: int, samples: int) -> None:
    labels = some(classes - (classes == 101), samples)
    for labelled in (True, False):
        (line,) = said(logits(order(labels), classes), labels, labelled=labelled)
        assert "seems to know the classes in another order" in line
    first = next(int(label) for label in sorted(set(labels.tolist())) if int(order(torch.tensor(label))) != label)
    if classes < 100:
        assert f"{int(order(torch.tensor(first)))} for label {first}" in line


def test_two_classes_that_changed_places_are_seen_among_ten() -> None:
    labels = torch.arange(40) % 10
    order = torch.tensor([0, 1, 2, 5, 4, 3, 6, 7, 8, 9])
    assert "it answers 5 for label 3, 3 for label 5;" in said(logits(order[labels], 10), labels)[0]


def test_ignored_and_mixed_labels() -> None:
    labels = some(10, 64)
    ignored = torch.where(torch.arange(64) % 2 == 0, -100, labels)
    assert said(logits(labels, 10), ignored) == []
    mixed = 0.7 * F.one_hot(labels, 10) + 0.3 * F.one_hot(labels.roll(1), 10)
    assert said(logits(labels, 10), mixed) == []
    assert "another order" in said(logits((labels + 1) % 10, 10), mixed)[0]
    assert said(logits(labels, 10), (torch.rand(64, 10) > 0.5).float()) == []  # several labels a sample


def test_answers_that_change_are_named() -> None:
    labels = some(4, 32)
    batch = Batch(logits(labels, 4), labels, torch.arange(32))
    network = nn.Sequential(nn.BatchNorm1d(4, affine=False)).train()
    for function in (lambda x: F.dropout(x, 0.3), lambda x: network.train()(x * (x > 0)), lambda x: x - x.mean(0)):
        teacher = FunctionTeacher(function)
        notes = check_answers(teacher, batch, teacher(batch), Classification(), labelled=False)
        assert [note for note in notes if "gives other answers when asked again" in note]


def test_a_teacher_of_one_batch_size_alone_is_asked_about_the_whole() -> None:
    def fixed(x: Tensor) -> Tensor:
        return x.view(32, 4) * 3

    labels = some(4, 32)
    batch = Batch(logits(labels, 4), labels, torch.arange(32))
    teacher = FunctionTeacher(fixed)
    (line,) = check_answers(teacher, batch, teacher(batch), Classification(), labelled=True)
    assert line.startswith("the teacher takes batches of 32 alone, and runs in pieces of 32 samples")


def test_a_sigmoid_is_named_and_log_softmax_is_not() -> None:
    labels = some(4, 32)
    assert "as behind a sigmoid" in said(logits(labels, 4).sigmoid(), labels)[0]
    assert said(logits(labels, 4).log_softmax(1), labels) == []


def test_nan_and_probabilities_are_refused() -> None:
    labels = some(4, 16)
    with pytest.raises(RequestError, match="gives NaN for the first batch"):
        said(logits(labels, 4) * torch.nan, labels)


class TestFit:
    """What is found reaches stderr, before training, and a healthy run leaves it silent."""

    def train(self, teacher: Any, student: nn.Module | None = None, **options: Any) -> None:
        x = torch.randn(64, 6)
        loader = DataLoader(TensorDataset(x, x.argmax(1)), batch_size=32)
        distiller = Distiller(student or nn.Linear(6, 6), [Term(losses.kd)], task_weight=0.1)
        make = partial(torch.optim.SGD, lr=0.1)
        fit(
            distiller,
            loader,
            teacher=teacher,
            epochs=1,
            optimizer=make,
            progress=False,
            hardware=Hardware("cpu"),
            **options,
        )

    def test_says_nothing_of_a_healthy_pair(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.train(lambda x: 5 * x)
        assert capsys.readouterr().err == ""

    def test_says_the_phase_and_the_fault(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.train(lambda x: 5 * x.roll(1, 1), saving=Saving(phase="small"))
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("limbeck: small: the teacher seems to know the classes in another order")

    def test_refuses_a_softmax_at_either_end(self) -> None:
        ends = nn.Sequential(nn.Linear(6, 6), nn.Softmax(1))
        with pytest.raises(RequestError, match="the teacher ends in probabilities"):
            self.train(ends)
        with pytest.raises(RequestError, match="the student ends in probabilities"):
            self.train(lambda x: 5 * x, ends)

    def test_asks_at_most_twice_about_the_first_batch(self) -> None:
        sizes: list[int] = []

        def teacher(x: Tensor) -> Tensor:
            sizes.append(len(x))
            return 5 * x

        self.train(teacher)
        assert sizes == [32, 16, 32, 32]
