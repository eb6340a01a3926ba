"""What loaders give is read as people mean it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck import Batch, RequestError
from limbeck.tasks import Classification, Embedding, Task
from limbeck.tasks.items import as_batch

X, Y = torch.rand(4, 3), torch.tensor([0, 1, 2, 0])
IDS, MASK = torch.randint(0, 9, (4, 5)), torch.tensor([[1, 1, 1, 0, 0]] * 4)


@pytest.mark.parametrize(
    ("item", "inputs", "targets"),
    [
        ((X, Y), X, Y),
        ([X, Y], X, Y),
        ((X, Y, {"path": "a.png"}), X, Y),
        ((X, Y, torch.arange(4)), X, Y),
        ((IDS, MASK, Y), {"input_ids": IDS, "attention_mask": MASK}, Y),
        ({"input_ids": IDS, "attention_mask": MASK, "labels": Y}, {"input_ids": IDS, "attention_mask": MASK}, Y),
        ({"pixel_values": X, "label": Y}, {"pixel_values": X}, Y),
        ({"image": X, "targets": Y}, X, Y),
        ({"x": X, "y": Y, "path": ["a"] * 4}, X, Y),
        ({"text": {"ids": IDS}, "image": X, "labels": Y}, {"text": {"ids": IDS}, "image": X}, Y),
        (X, X, None),
        ((X,), X, None),
        ({"input": X}, X, None),
        ((X, None), X, None),
        ((X, [{"boxes": X}] * 4), X, [{"boxes": X}] * 4),
        ((X.numpy(), Y.numpy()), X, Y),
        (X.numpy(), X, None),
        ((IDS.numpy(), MASK.numpy(), Y), {"input_ids": IDS, "attention_mask": MASK}, Y),
        ({"image": X.numpy(), "path": ["a"] * 4, "label": Y.numpy()}, X, Y),
        (({"ids": IDS.numpy()}, Y), {"ids": IDS}, Y),
    ],
)  # fmt: skip
def test_items(item: Any, inputs: Any, targets: Any) -> None:
    batch = as_batch(item)
    assert batch.size == 4
    assert same(batch.inputs, inputs)
    assert same(batch.targets, targets)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one is other


def test_an_index_is_kept() -> None:
    assert as_batch({"x": X, "labels": Y, "index": torch.tensor([3, 1, 0, 2])}).index.tolist() == [3, 1, 0, 2]
    assert as_batch((X, Y)).index.tolist() == [-1] * 4


@pytest.mark.parametrize("item", [3, "ab", (), {}, {"path": ["a"]}, ("a", Y), (X, 3), ({"a": [1]}, Y)])
def test_what_cannot_be_read_is_said(item: Any) -> None:
    with pytest.raises(RequestError, match=r"a loader gives \(inputs, targets\).*the task's batch="):
        as_batch(item)


def test_a_function_reads_the_rest() -> None:
    task: Task = Classification(batch=lambda item: (item["a"]["b"], item["c"]))
    batch = task.batch({"a": {"b": X}, "c": Y})
    assert torch.equal(batch.inputs, X)
    assert torch.equal(batch.targets, Y)


def test_samples_without_labels_are_such_of_a_classifier_and_none_elsewhere() -> None:
    assert Classification().batch(X).targets.tolist() == [-100] * 4
    assert Embedding().batch(X).targets is None


def test_parts_and_devices_of_nested_batches() -> None:
    batch = Batch({"a": {"b": X}, "c": X}, [{"boxes": X[:2]}] * 4, torch.arange(4))
    part = batch.part(slice(1, 3)).to(torch.device("cpu"))
    assert (part.size, len(part.targets)) == (2, 2)
    assert torch.equal(part.inputs["a"]["b"], X[1:3])  # type: ignore[call-overload,index]


@pytest.mark.parametrize(
    ("choice", "said"),
    [(0, None), ("logits", None), (lambda out: out["logits"], None), ("none", "no output 'none'"), (7, "no output 7")],
)  # fmt: skip
def test_which_output_is_meant_can_be_said(choice: Any, said: str | None) -> None:
    raw: Any = (X, torch.zeros(4, 9)) if choice in (0, 7) else {"embedding": torch.zeros(4, 9), "logits": X}
    task = Classification(output=choice)
    if said is None:
        assert torch.equal(task.output(raw), X)
        return
    with pytest.raises(RequestError, match=said):
        task.output(raw)
