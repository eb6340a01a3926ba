"""Language modelling: next tokens, and how models of them are judged."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from limbeck.errors import RequestError
from limbeck.tasks import LanguageModelling
from limbeck.types import Batch


def test_figures_are_those_of_the_tokens_that_count() -> None:
    generator = torch.Generator().manual_seed(0)
    z, t = (torch.randn(5, 7, 11, generator=generator) for _ in range(2))
    y = torch.randint(11, (5, 7), generator=generator)
    y[:, -1] = -100
    y[0, :3] = -100
    sizes = torch.randint(1, 5, (11,), generator=generator)
    task = LanguageModelling(token_bytes=sizes)
    gathered = task.metrics()
    for some in (slice(0, 2), slice(2, 5)):
        gathered.update(z[some], y[some], t[some])
    found = task.metrics().figures([gathered.state()])
    kept = y != -100
    nats = F.cross_entropy(z[kept].double(), y[kept], reduction="sum")
    assert found["samples"] == 5
    assert found["loss"] == pytest.approx(float(nats) / int(kept.sum()), rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(float(nats) / int(kept.sum())), rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(float(nats) / math.log(2) / int(sizes[y[kept]].sum()), rel=1e-6)
    assert found["accuracy"] == pytest.approx(float((z.argmax(-1) == y)[kept].double().mean()))
    assert found["agreement"] == pytest.approx(float((z.argmax(-1) == t.argmax(-1))[kept].double().mean()))
    assert (task.monitor, task.mode, task.name) == ("perplexity", "min", "language-modelling")


def test_the_state_does_not_grow_with_the_vocabulary() -> None:
    task = LanguageModelling()
    gathered = task.metrics()
    gathered.update(torch.zeros(1, 2, 5000), torch.ones(1, 2).long(), None)
    assert len(gathered.state()) < 10
    assert "bits_per_byte" not in task.metrics().figures([gathered.state()])


def test_the_loss_is_a_mean_over_all_tokens_of_a_step() -> None:
    z = torch.randn(4, 6, 9, generator=torch.Generator().manual_seed(1))
    y = torch.randint(9, (4, 6), generator=torch.Generator().manual_seed(2))
    y[0, 1:] = -100
    task, index = LanguageModelling(), torch.arange(4)
    whole = F.cross_entropy(z.flatten(0, 1), y.flatten())
    parts = [Batch(z[some], y[some], index[some]) for some in (slice(0, 1), slice(1, 4))]
    sizes = [task.size(part) for part in parts]
    assert sizes == [1, 18]
    joined = sum(n * task.loss(part.inputs, part.targets) for n, part in zip(sizes, parts, strict=True)) / sum(sizes)
    torch.testing.assert_close(joined, whole)


def test_labels_that_repeat_the_ids_are_shifted_and_targets_beside_them_stay() -> None:
    ids = torch.tensor([[4, 5, 6, 7], [8, 9, 1, 0]])
    labels = ids.clone()
    labels[0, 0] = labels[1, 3] = -100
    following = torch.tensor([[5, 6, 7, -100], [9, 1, -100, -100]])
    task = LanguageModelling()
    theirs = task.batch({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    assert theirs.targets.tolist() == following.tolist()
    assert task.batch({"input_ids": ids, "labels": following}).targets.tolist() == following.tolist()
    assert task.batch((ids, following)).targets.tolist() == following.tolist()
    ours = Batch({"input_ids": ids}, labels, torch.arange(2))
    assert task.batch(ours).targets.tolist() == labels.tolist()


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(RequestError, match=r"logits \(B, L, V\)"):
        LanguageModelling().check_output(torch.zeros(2, 3))
    with pytest.raises(RequestError, match="label 5 is out of range: the student has 5 classes"):
        LanguageModelling().check(torch.zeros(1, 2, 5), torch.tensor([[5, -100]]))
    with pytest.raises(RequestError, match="ends in probabilities"):
        LanguageModelling().check_teacher(torch.rand(4, 5, 70).softmax(-1), torch.zeros(4, 5).long(), learned=True)
    with pytest.raises(RequestError, match="one number a token"):
        LanguageModelling(token_bytes=torch.ones(2, 2))
