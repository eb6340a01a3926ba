"""Each task's figures against scikit-learn, NumPy or a hand computation, whole and in pieces, and of two processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as sk
import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck import RequestError
from limbeck.tasks import (
    Classification,
    Embedding,
    MultiLabel,
    Regression,
    Segmentation,
    Task,
    TokenClassification,
    metrics,
)

G = torch.Generator().manual_seed(5)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=G)


def classes(count: int, *shape: int) -> Tensor:
    return torch.randint(0, count, shape, generator=G)


def figures(task: Task, output: Tensor, targets: Any, teacher: Tensor | None = None, size: int = 7) -> dict[str, float]:
    """In batches of `size`, the first half of them in one process and the others in another."""
    both = task.metrics(), task.metrics()
    starts = range(0, len(output), size)
    for number, at in enumerate(starts):
        some = slice(at, at + size)
        told = None if teacher is None else teacher[some]
        both[2 * number >= len(starts)].update(output[some], None if targets is None else targets[some], told)
    return task.metrics().figures([one.state() for one in both])


def test_classification() -> None:
    z, y, t = 2 * normal(50, 7), classes(7, 50), normal(50, 7)
    found = figures(Classification(class_weights=[9.0] * 7, label_smoothing=0.1), z, y, t)
    assert found["accuracy"] == sk.accuracy_score(y, z.argmax(1))
    assert found["top5"] == pytest.approx(sk.top_k_accuracy_score(y, z, k=5))
    assert found["loss"] == pytest.approx(sk.log_loss(y, z.double().softmax(1), labels=range(7)), rel=1e-6)
    assert found["agreement"] == pytest.approx(float((z.argmax(1) == t.argmax(1)).double().mean()))
    assert found["samples"] == 50
    assert "top5" not in figures(Classification(), z[:, :5], y % 5)


def test_one_logit_is_that_of_the_second_of_two_classes() -> None:
    z, y, t = normal(40, 1), classes(2, 40), normal(40)
    task = Classification()
    two = task.output(z)
    assert figures(task, two, y, t)["accuracy"] == sk.accuracy_score(y, z[:, 0] > 0)
    assert figures(task, two, y, t)["agreement"] == pytest.approx(float(((z[:, 0] > 0) == (t > 0)).double().mean()))
    expected = F.binary_cross_entropy_with_logits(z[:, 0], y.float())
    torch.testing.assert_close(task.loss(two, y), expected)
    assert task.output(z[:, 0]).shape == (40, 2)


def test_multi_label() -> None:
    z, y, t = normal(60, 4), (normal(60, 4) > 0.3).float(), normal(60, 4)
    found = figures(MultiLabel(), z, y, t)
    chosen, there = (z > 0).numpy(), y.numpy().astype(int)
    assert found["f1"] == pytest.approx(sk.f1_score(there, chosen, average="micro"))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(there, chosen, average="macro"))
    assert found["exact_match"] == sk.accuracy_score(there, chosen)
    assert found["accuracy"] == pytest.approx(float((chosen == there).mean()))
    ap = [sk.average_precision_score(there[:, c], z[:, c]) for c in range(4)]
    assert found["mean_average_precision"] == pytest.approx(np.mean(ap))
    assert found["loss"] == pytest.approx(float(F.binary_cross_entropy_with_logits(z, y)), rel=1e-6)
    assert found["agreement"] == pytest.approx(float((chosen == (t > 0).numpy()).mean()))


def test_a_label_that_no_sample_has_is_left_out_of_the_mean_precision() -> None:
    z, y = normal(20, 3), (normal(20, 3) > 0).float()
    y[:, 2] = 0
    ap = [sk.average_precision_score(y[:, c], z[:, c]) for c in range(2)]
    assert figures(MultiLabel(), z, y)["mean_average_precision"] == pytest.approx(np.mean(ap))


@pytest.mark.parametrize("outputs", [1, 3])
def test_regression(outputs: int) -> None:
    y = 100 + 5 * normal(45, outputs)
    z, t = y + normal(45, outputs), y + 2 * normal(45, outputs)
    found = figures(Regression(), z, y, t)
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(y.double(), z.double()), rel=1e-5) or outputs > 1
    assert found["rmse"] == pytest.approx(float((y.double() - z.double()).square().mean().sqrt()), rel=1e-6)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(y, z), rel=1e-5)
    assert found["r2"] == pytest.approx(sk.r2_score(y.double(), z.double()), rel=1e-5)
    assert found["distance"] == pytest.approx(float((z - t).double().square().mean().sqrt()), rel=1e-5)


def test_numbers_of_one_output_never_broadcast() -> None:
    z, y = normal(30, 1), normal(30)
    assert float(Regression().loss(z, y)) == pytest.approx(float((z[:, 0] - y).square().mean()))
    assert figures(Regression(), z, y)["rmse"] == pytest.approx(float((z[:, 0] - y).square().mean().sqrt()), rel=1e-6)


def test_segmentation() -> None:
    z, y, t = normal(9, 4, 5, 6), classes(4, 9, 5, 6), normal(9, 4, 5, 6)
    y[:, 0] = 11
    found = figures(Segmentation(ignore_index=11), z, y, t, size=2)
    kept = y != 11
    chosen = z.argmax(1)[kept]
    assert found["accuracy"] == sk.accuracy_score(y[kept], chosen)
    assert found["mean_iou"] == pytest.approx(sk.jaccard_score(y[kept], chosen, average="macro"))
    assert found["loss"] == pytest.approx(float(F.cross_entropy(z, y, ignore_index=11)), rel=1e-5)
    assert found["agreement"] == pytest.approx(float((chosen == t.argmax(1)[kept]).double().mean()))


def test_token_classification_of_texts_of_several_lengths() -> None:
    task = TokenClassification()
    parts = [(normal(3, length, 5), classes(5, 3, length)) for length in (4, 6, 6)]
    for _, y in parts:
        y[:, -1] = -100
    gathered = task.metrics()
    for z, y in parts:
        gathered.update(z, y, None)
    found = task.metrics().figures([gathered.state()])
    z = torch.cat([z.flatten(0, 1) for z, _ in parts])
    y = torch.cat([y.flatten() for _, y in parts])
    z, y = z[y != -100], y[y != -100]
    assert found["accuracy"] == sk.accuracy_score(y, z.argmax(1))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(y, z.argmax(1), average="macro"))
    assert found["perplexity"] == pytest.approx(float(F.cross_entropy(z, y).exp()), rel=1e-5)


@pytest.mark.parametrize("size", [8, 5])  # in batches that hold whole groups, or parts of them
def test_triplets_of_an_embedding(size: int) -> None:
    z, t = normal(24, 5), normal(24, 8)
    found = figures(Embedding(texts=4), z, torch.arange(24), t, size=size)
    right = []
    for own in (z.double().numpy(), t.double().numpy()):
        groups = [own[at : at + 4] for at in range(0, 24, 4)]
        right.append([query @ fits > query @ other for query, fits, *others in groups for other in others])
    assert found["triplet_accuracy"] == pytest.approx(np.mean(right[0]))
    assert found["triplet_agreement"] == pytest.approx(np.mean(np.equal(*right)))
    assert 0 < found["triplet_agreement"] < 1
    assert found["spearman"] == pytest.approx(figures(Embedding(), z, None, t, size=size)["spearman"])
    with pytest.raises(RequestError, match="with targets that number the texts"):
        Embedding(texts=3).metrics().update(z, None, t)
    with pytest.raises(RequestError, match="texts: 2, and a query, a text that fits and another one are 3"):
        Embedding(texts=2)


def test_embedding() -> None:
    z, t = normal(24, 8), normal(24, 8)
    found = figures(Embedding(), z, None, t, size=12)
    assert found["cosine"] == pytest.approx(float(F.cosine_similarity(z, t).mean()), rel=1e-5)
    x, y = [], []
    for some in (slice(0, 12), slice(12, 24)):
        for own, into in ((z[some], x), (t[some], y)):
            cosines = sk.pairwise.cosine_similarity(own.double())
            into.append(cosines[np.triu_indices(12, 1)])
    assert found["similarity"] == pytest.approx(np.corrcoef(np.concatenate(x), np.concatenate(y))[0, 1], rel=1e-5)
    assert "cosine" not in figures(Embedding(), z[:, :5], None, t, size=12)
    own, theirs = (sk.pairwise.cosine_similarity(one.double()) for one in (z[:, :5], t))
    at = np.triu_indices(24, 1)
    ranked = figures(Embedding(), z[:, :5], None, t, size=5)
    assert ranked["spearman"] == pytest.approx(scipy.stats.spearmanr(own[at], theirs[at]).statistic, abs=1e-5)
    near = [[set(np.argsort(-np.delete(row, n))[:10]) for n, row in enumerate(one)] for one in (own, theirs)]
    assert ranked["top10_overlap"] == pytest.approx(np.mean([len(a & b) / 10 for a, b in zip(*near, strict=True)]))
    assert figures(Embedding(), t, None, t)["top10_overlap"] == 1
    assert "top10_overlap" not in figures(Embedding(), z[:11], None, t[:11])
    with pytest.raises(RequestError, match="measured beside its teacher"):
        Embedding().metrics().update(z, None, None)


class Measured:
    """A metric as torchmetrics has them."""

    def __init__(self) -> None:
        self.sum = 0.0

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.sum += float(preds.sum()) + float(target.sum())

    def compute(self) -> float:
        return self.sum

    def merge_state(self, other: Measured) -> None:
        self.sum += other.sum


def test_metrics_of_a_library_stand_beside_the_tasks_own() -> None:
    z, y = normal(30, 3), classes(3, 30)
    task = Classification(metrics={"sum": Measured()}, monitor="sum", mode="min")
    found = figures(task, z, y)
    assert found["sum"] == pytest.approx(float(z.sum() + y.sum()), rel=1e-4)
    assert found["accuracy"] == sk.accuracy_score(y, z.argmax(1))
    assert (task.monitor, task.mode) == ("sum", "min")
    assert task.better(1.0, 2.0)


def test_sums_do_not_depend_on_when_they_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    z, y = normal(30, 3), classes(3, 30)
    whole = figures(Classification(), z, y)
    monkeypatch.setattr(metrics, "HELD", 5)
    assert figures(Classification(), z, y, size=1) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("task", "output", "targets", "said"),
    [
        (Classification(), normal(2, 3), torch.tensor([0, 3]), "label 3 is out of range: the student has 3 classes"),
        (MultiLabel(), normal(2, 3), torch.tensor([0, 1]), r"0 or 1 for each of the student's 3 labels"),
        (MultiLabel(), normal(2, 3), torch.full((2, 3), 2.0), "lie between 0 and 1"),
        (Regression(), normal(2, 3), torch.zeros(2), r"targets of shape \(2,\) do not fit outputs \(2, 3\)"),
        (Regression(), normal(2), None, "no targets"),
        (Segmentation(), normal(2, 3, 4, 4), torch.zeros(2, 4, 4), "a class index for each position"),
        (Segmentation(), normal(2, 3, 4, 4), torch.full((2, 4, 4), 11), r"ignore_index \(now -100\)"),
        (TokenClassification(), normal(2, 3, 4), torch.zeros(2, 4).long(), "a class index for each position"),
        (Embedding(), normal(2, 3), None, "no labels to learn from"),
    ],
)
def test_targets_that_do_not_fit_are_named(task: Task, output: Tensor, targets: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        task.check(output, targets)


@pytest.mark.parametrize("task", [MultiLabel(), Regression(), Segmentation(), TokenClassification(), Embedding()])
def test_outputs_of_another_form_are_named(task: Task) -> None:
    with pytest.raises(RequestError, match=r"this one gives|the student gives"):
        task.check_output(torch.zeros(2, 3, 4, 5, 6))


def test_a_monitor_needs_its_direction() -> None:
    with pytest.raises(RequestError, match="monitor and mode are given together"):
        Classification(monitor="loss")
