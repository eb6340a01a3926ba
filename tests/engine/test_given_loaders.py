"""What people give `fit` in place of a loader of tensors: functions, iterators that end, arrays, lists, dicts."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Distiller, Hardware, MutualDistiller, RequestError, Run, RunError, Term, evaluate, fit, losses
from limbeck.data import InMemory
from limbeck.tasks import Classification, Segmentation, Task

X, Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(5)), torch.arange(12) % 3
KD = Term(losses.kd)


def train(scheme: Any, batches: Any, **options: Any) -> Run:
    given: dict[str, Any] = {"epochs": 1, "optimizer": partial(torch.optim.SGD, lr=0.1), "progress": False}
    return fit(scheme, batches, hardware=Hardware("cpu"), **given | options)


def student(outputs: int = 3) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, outputs)


def batches() -> Any:
    for start in range(0, 12, 4):
        yield X[start : start + 4], Y[start : start + 4]


class TestIterators:
    def test_a_function_is_called_for_each_epoch(self) -> None:
        """As a list of what it gives, trained on for as many steps."""
        calls = []

        def called() -> Any:
            calls.append(1)
            return batches()

        made, listed = student(), student()
        run = train(Distiller(made), called, epochs=2, steps_per_epoch=3, val=batches)
        train(Distiller(listed), list(batches()), epochs=2)
        assert torch.equal(made.weight, listed.weight)
        assert len(calls) == 3  # the first batch is looked at before
        assert run.metrics[1]["val_accuracy"] == evaluate(listed, list(batches())).score

    def test_without_steps_its_batches_are_counted(self, capsys: pytest.CaptureFixture[str]) -> None:
        made, listed = student(), student()
        train(Distiller(made), batches)
        train(Distiller(listed), list(batches()))
        assert torch.equal(made.weight, listed.weight)
        assert "read once, it gives 3 batches" in capsys.readouterr().err

    def test_a_short_epoch_is_said_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        train(Distiller(student()), batches(), steps_per_epoch=5)
        said = capsys.readouterr().err
        assert "the iterator ended after 3 batches in all, so that epoch 1 has 3 in place of 5" in said

        class Announces(list[Any]):
            def __len__(self) -> int:
                return 4

        train(Distiller(student()), Announces(batches()), epochs=2)
        assert capsys.readouterr().err.count("gives 3 batches in epoch 1, and announces 4") == 1
        train(Distiller(student()), batches(), steps_per_epoch=3)
        assert capsys.readouterr().err == ""

    def test_an_iterator_that_ended_says_so(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(RunError, match=r"for epoch 3: the iterator ended after 3 batches.*fewer epochs"):
            train(Distiller(student()), batches(), steps_per_epoch=2, epochs=3)
        assert "epoch 2 has 1 in place of 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((X, Y), r"is a tuple of a tensor \(12, 4\) and a tensor \(12,\).*TensorDataset.*make_loader"),
        ([X, Y], "is a list of a tensor"),
        ((X, F.one_hot(Y).float()), "TensorDataset"),
        ((X.numpy(), Y.numpy()), r"an array \(12, 4\).*TensorDataset"),
        (X, r"a tensor \(12, 4\).*TensorDataset"),
        ({"x": X, "y": Y}, "a dict of x, y.*TensorDataset"),
        (TensorDataset(X, Y), r"the data set TensorDataset, .*single samples.*DataLoader\(dataset"),
        (InMemory(X, Y), r"the data set InMemory.*make_loader\(dataset"),
        (lambda epoch: batches(), "takes arguments"),
        (lambda: 3, "gives int, no batches"),
        (DataLoader, "the class DataLoader"),
        (3, "is int, and a loader"),
    ],
)
def test_samples_in_place_of_batches_are_refused(given: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        train(Distiller(student()), given)
    with pytest.raises(RequestError, match=words):
        train(Distiller(student()), list(batches()), val=given)
    with pytest.raises(RequestError, match=words):
        evaluate(student(), given)


def test_a_data_set_of_hugging_face_is_refused_with_its_loader() -> None:
    datasets = pytest.importorskip("datasets")
    given = datasets.Dataset.from_dict({"x": X.tolist(), "label": Y.tolist()})
    with pytest.raises(RequestError, match=r"single samples, .*DataLoader\(dataset.with_format\('torch'\)"):
        train(Distiller(student()), given)
    loader = DataLoader(given.with_format("torch"), 4)
    assert train(Distiller(student()), loader).metrics[0]["loss"] == pytest.approx(
        train(Distiller(student()), list(batches())).metrics[0]["loss"]
    )


def test_batches_of_inputs_alone_are_batches() -> None:
    assert len(train(Distiller(student(), [KD], task_weight=0), X.split(4), teacher=student()).metrics) == 1


class TestTargets:
    @pytest.mark.parametrize("form", [Tensor.tolist, Tensor.numpy, lambda y: tuple(y), lambda y: y[:, None]])
    def test_numbers_are_a_tensor(self, form: Any) -> None:
        made, plain = student(), student()
        found = train(Distiller(made), [(X, form(Y))], val=[(X, form(Y))]).metrics[0]
        wanted = train(Distiller(plain), [(X, Y)], val=[(X, Y)]).metrics[0]
        assert found == {**wanted, "seconds": found["seconds"]}
        assert torch.equal(made.weight, plain.weight)

    @pytest.mark.parametrize("targets", [{"class": Y}, ["a"] * 12])
    @pytest.mark.parametrize("weight", [0.0, 1.0])
    def test_others_are_refused_with_the_remedy(self, targets: Any, weight: float) -> None:
        scheme = Distiller(student(), [KD], task_weight=weight)
        with pytest.raises(RequestError, match=r"learns targets that are one tensor.*Classification\(batch="):
            train(scheme, [(X, targets)], teacher=student())
        with pytest.raises(RequestError, match=r"one tensor.*batch="):
            train(scheme, [(X, Y)], val=[(X, targets)], teacher=student())

    @pytest.mark.parametrize("shape", [(12,), (12, 1)])
    def test_one_logit_learns_floats(self, shape: tuple[int, ...]) -> None:
        """The loss is the binary cross-entropy of torch; held-out targets have the same form."""
        made, share = student(1), (X[:, 0] > 0).float()
        wanted = F.binary_cross_entropy_with_logits(made(X)[:, 0], share).item()
        right = ((made(X)[:, 0] > 0) == (share > 0)).float().mean().item()
        data = [(X, share.reshape(shape))]
        run = train(Distiller(made), data, val=data)
        assert run.metrics[0]["loss"] == pytest.approx(wanted)
        assert run.metrics[0]["accuracy"] == pytest.approx(right)
        after = ((made(X)[:, 0] > 0) == (share > 0)).float().mean().item()
        assert run.metrics[0]["val_accuracy"] == pytest.approx(after)
        with pytest.raises(RequestError, match=r"between 0 and 1.*task: regression"):
            train(Distiller(student(1)), [(X, share + 1)])
        with pytest.raises(RequestError, match=r"class indices \(targets.long\(\)\).*task=Regression\(\)"):
            train(Distiller(student()), [(X, Y.float())])

    def test_missing_labels_are_said_at_the_start(self, capsys: pytest.CaptureFixture[str]) -> None:
        train(Distiller(student(), [KD], task_weight=0.5), [X], teacher=student())
        assert capsys.readouterr().err.count("no sample of the first batch has a label") == 1
        train(MutualDistiller([student(), student()]), [X])
        assert "task_weight=0" in capsys.readouterr().err
        train(Distiller(student(), [KD], task_weight=0), [X], teacher=student())
        assert "has a label" not in capsys.readouterr().err


class TestReading:
    def test_what_batch_raises_is_one_line(self) -> None:
        task = Classification(batch=lambda item: item.z)
        with pytest.raises(RequestError, match=r"batch= cannot read a list of 2.*has no attribute 'z'"):
            train(Distiller(student(), task=task), DataLoader(TensorDataset(X, Y), 4))

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: Classification(batch=3), r"batch is a function of \(item\)"),
            (lambda: Classification(loss="mse"), "loss is a function"),
            (lambda: Classification(output=[1]), "output is a field's name"),
            (lambda: Classification(label_smoothing="x"), "label_smoothing"),  # type: ignore[arg-type]
            (lambda: Classification(class_weights="x"), "weights are numbers"),  # type: ignore[arg-type]
            (lambda: Classification(metrics={"a": len}), r"metric a is an object with update\(outputs, targets\)"),
            (lambda: Segmentation(ignore_index="x"), "ignore_index is a class index.*'x'"),  # type: ignore[arg-type]
        ],
    )
    def test_options_are_checked_when_given(self, make: Any, words: str) -> None:
        with pytest.raises(RequestError, match=words):
            make()

    def test_a_later_batch_of_another_shape_is_named(self) -> None:
        with pytest.raises(RunError, match=r"batch 2 of epoch 1.*inputs \(B, 5\) float32.*first batch inputs \(B, 4\)"):
            train(Distiller(student()), [(X, Y), (torch.randn(4, 5), Y[:4])])


class Keyed(nn.Module):
    """Reads its input by keyword alone, as models of Hugging Face may."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = student()

    def forward(self, *, pixel_values: Tensor, labels: Tensor | None = None) -> Any:
        return {"logits": self.layer(pixel_values)}


class TestNames:
    @pytest.mark.parametrize("teacher", [Keyed, student, lambda: lambda image: image[:, :3]])
    @pytest.mark.parametrize("made", [Keyed, student])
    def test_one_named_input_reaches_both_kinds_of_model(self, made: Any, teacher: Any) -> None:
        item, plain = {"pixel_values": X, "labels": Y}, student()
        model, guide = made(), teacher()
        named = train(Distiller(model, [KD]), [item], val=[item], teacher=guide)
        by_place: Any = guide.layer if isinstance(guide, Keyed) else guide
        listed = train(Distiller(plain, [KD]), [(X, Y)], val=[(X, Y)], teacher=by_place)
        assert named.metrics[0] == {**listed.metrics[0], "seconds": named.metrics[0]["seconds"]}
        assert evaluate(model, [item]).score == named.metrics[0]["val_accuracy"]

    def test_a_tensor_too_many_names_the_remedy(self) -> None:
        with pytest.raises(RequestError, match=r"cannot read the inputs x \(12, 4\), id \(12,\).*batch="):
            train(Distiller(student()), [{"x": X, "y": Y, "id": torch.arange(12)}])


class Maps(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer, self.size = nn.Conv2d(1, 3, 1), (size, size)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.layer(x), self.size)


class TestSegmentation:
    images, masks = torch.rand(4, 1, 4, 4), torch.randint(3, (4, 4, 4))
    task: Task = Segmentation()

    def test_a_teacher_of_another_size_is_told_from_one_of_other_classes(self) -> None:
        scheme, teacher = Distiller(Maps(4), [KD], task=self.task), Maps(2)
        with pytest.raises(
            RequestError, match=r"differ in dimensions 2 and 3; resize .*F.interpolate\(.*\(4, 4\)\)"
        ) as said:
            train(scheme, [(self.images, self.masks)], teacher=teacher)
        assert "classes" not in str(said.value)
        train(scheme, [(self.images, self.masks)], teacher=lambda x: F.interpolate(teacher(x), (4, 4)))

    def test_masks_with_a_channel(self) -> None:
        torch.manual_seed(0)
        one, other = (Maps(4) for _ in range(2))
        other.load_state_dict(one.state_dict())
        masks = self.masks[:, None]
        first = train(Distiller(one, task=self.task), [(self.images, masks)], val=[(self.images, masks)]).metrics[0]
        data = [(self.images, self.masks)]
        second = train(Distiller(other, task=self.task), data, val=data).metrics[0]
        assert first == {**second, "seconds": first["seconds"]}


def test_numbers_of_numpy_are_numbers() -> None:
    assert len(train(Distiller(student()), [(X, [np.int64(one) for one in Y])]).metrics) == 1
