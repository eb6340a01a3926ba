"""What does not fit of held-out data, of later batches and of labels is said in words, as early as it can be seen."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Distiller, Hardware, RequestError, Run, fit
from limbeck.measure import evaluate

X, Y = torch.randn(16, 4, generator=torch.Generator().manual_seed(5)), torch.arange(16) % 3


def loader(x: Tensor = X, y: Tensor = Y, size: int = 8) -> DataLoader[Any]:
    return DataLoader(TensorDataset(x, y), batch_size=size)


def train(student: nn.Module, batches: Any = None, **options: Any) -> Run:
    optimizer = partial(torch.optim.SGD, lr=0.1)
    return fit(
        Distiller(student),
        loader() if batches is None else batches,
        epochs=1,
        optimizer=optimizer,
        progress=False,
        hardware=Hardware("cpu"),
        **options,
    )


class TestHeldOut:
    def test_floats_of_another_precision_are_read(self) -> None:
        """The accuracy is that of the same samples in fp32."""
        runs = []
        for dtype in (torch.float32, torch.float64):
            torch.manual_seed(0)
            runs.append(train(nn.Linear(4, 3), val=loader(X.to(dtype))))
        assert runs[0].metrics[0]["val_accuracy"] == runs[1].metrics[0]["val_accuracy"]
        assert runs[0].metrics[0]["val_loss"] == pytest.approx(runs[1].metrics[0]["val_loss"], rel=1e-6)

    @pytest.mark.parametrize(
        ("val", "words"),
        [
            (loader((X * 50).byte()), "held-out inputs are uint8, and training inputs floats: give both the same"),
            (loader(torch.randn(16, 5)), "the student cannot read the held-out batch"),
            (loader(y=torch.full((16,), 7)), "held-out labels: label 7 is out of range: the student has 3 classes"),
            ([], "no batch at all"),
            (iter([(X, Y)]), "an iterator, which can be read only once"),
        ],
    )
    def test_what_does_not_fit_is_found_before_the_first_step(self, val: Any, words: str) -> None:
        student = nn.Linear(4, 3)
        before = student.weight.detach().clone()
        with pytest.raises(RequestError, match=words):
            train(student, val=val)
        assert torch.equal(student.weight, before)

    def test_a_wrong_label_of_a_later_batch_is_named(self) -> None:
        wrong = torch.cat([Y[:12], torch.tensor([0, 1, 3, 2])])
        with pytest.raises(RequestError, match="held-out label 3 is out of range: the student has 3 classes"):
            train(nn.Linear(4, 3), val=loader(y=wrong))
        with pytest.raises(RequestError, match="label 3 is out of range"):
            evaluate(nn.Linear(4, 3), loader(y=wrong))


class TestTraining:
    def test_a_wrong_label_of_a_later_batch_is_named(self) -> None:
        wrong = torch.cat([Y[:12], torch.tensor([0, 1, 3, 2])])
        with pytest.raises(RequestError, match="label 3 is out of range: the student has 3 classes"):
            train(nn.Linear(4, 3), loader(y=wrong))

    def test_a_first_batch_of_one_is_not_all_there_is(self) -> None:
        """Batch norm cannot train on it; the other batches are trained on."""
        student = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        before = student[0].weight.detach().clone()
        train(student, [(X[:1], Y[:1]), (X[1:9], Y[1:9])])
        assert not torch.equal(student[0].weight, before)
        with pytest.raises(RequestError, match="each batch holds one sample"):
            train(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), loader(size=1))
