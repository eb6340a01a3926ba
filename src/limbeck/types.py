"""The three records that travel through limbeck: Batch → TeacherOutput → Step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

Inputs = Tensor | Mapping[str, "Inputs"]
"""What a model reads: one tensor with the batch in dimension 0, or several by name, which may stand in groups."""
Targets = Any
"""What is to be learned of a batch, as its task has it: a tensor, such as class indices (B,); None without labels; or a
list with one entry a sample, or a mapping of names to these."""
IGNORED = -100
"""The class index of a sample (or position) without a label, as torch's cross-entropy has it."""
MASK = "attention_mask"
"""What models of texts call the input that says which positions are tokens and which are padding."""
TEACHER = "teacher"
"""The group of the inputs that hold the same texts in the tokens of a teacher with a tokenizer of its own."""


class Batch(NamedTuple):
    """Some samples of a data set.

    Attributes:
        inputs: (B, ...) tensor, or a mapping of such tensors for models with several named inputs.
        targets: What the task learns: of a classifier (B,) class indices, `IGNORED` where a sample has no label, or
            (B, C) class probabilities; None where there are no labels.
        index: (B,) int64 position of each sample in its data set, on the CPU, so that what is kept about a sample is
            found without waiting for the device; -1 where the loader does not say.
        view: Which augmented version of the samples this is; 0 where there is no augmentation.
        other: The same samples in another augmented version, for a scheme whose teacher reads that; None without one.
    """

    inputs: Inputs
    targets: Targets
    index: Tensor  # type: ignore[assignment]  # the field's word, though a tuple has a method of that name
    view: int = 0
    other: Inputs | None = None

    @property
    def size(self) -> int:
        """The number of samples B."""
        return len(self.index)

    @property
    def device(self) -> torch.device:
        """Where its inputs lie."""
        return tensors_of(self.inputs)[0].device

    @property
    def mask(self) -> Tensor | None:
        """(B, L) which positions are tokens and no padding; None without such an input, or where others are no texts.

        Beside other inputs, such as images, nothing tells which hidden tensors are of texts.
        """
        return _mask_in(self.inputs)

    @property
    def teacher_mask(self) -> Tensor | None:
        """The same of what the teacher reads, which may have tokens of its own."""
        own = self.inputs.get(TEACHER) if isinstance(self.inputs, Mapping) else None
        return self.mask if own is None else _mask_in(own)

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; its index stays where it is."""
        moved = self.changed(lambda tensor: send(tensor, device))
        return moved._replace(targets=map_targets(self.targets, lambda tensor: send(tensor, device)))

    def changed(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same samples with each input changed."""
        other = None if self.other is None else each(self.other, change)
        return self._replace(inputs=each(self.inputs, change), other=other)

    def first(self, n: int) -> Batch:
        """The first `n` samples."""
        return self.part(slice(n))

    def part(self, at: slice) -> Batch:
        """Some of the samples."""
        targets = part_of(self.targets, at)
        return self.changed(lambda tensor: tensor[at])._replace(targets=targets, index=self.index[at])


def _mask_in(inputs: Inputs) -> Tensor | None:
    found = inputs.get(MASK) if isinstance(inputs, Mapping) else None
    if not isinstance(inputs, Mapping) or not isinstance(found, Tensor) or found.dim() != 2:
        return None
    own = (x for name, x in inputs.items() if name != TEACHER)
    return found.bool() if all(isinstance(x, Tensor) and x.shape == found.shape for x in own) else None


def content(tensor: Tensor) -> memoryview:
    """A tensor's bytes in order, for digests."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on `device`; nobody waits where that is an NVIDIA GPU.

    Elsewhere a tensor could be read before it is there (from a GPU), or be gone before it was read (on its way to MPS).
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def labelled(targets: Tensor) -> Tensor:
    """Which class indices are labels, as booleans of their shape; for (B, C) class probabilities (B,), all true.

    >>> labelled(torch.tensor([2, -100, 0]))
    tensor([ True, False,  True])
    """
    if targets.is_floating_point():
        return torch.ones(len(targets), dtype=torch.bool, device=targets.device)
    if not targets.dtype.is_signed:  # in uint8, -100 would be taken for 156
        return torch.ones_like(targets, dtype=torch.bool)
    return targets != IGNORED


def each(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """The inputs, each one changed."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    return {name: each(value, change) for name, value in inputs.items()}


def tensors_of(inputs: Inputs) -> list[Tensor]:
    """The inputs as a list."""
    return [inputs] if isinstance(inputs, Tensor) else [one for value in inputs.values() for one in tensors_of(value)]


def flat(inputs: Mapping[str, Inputs]) -> dict[str, Tensor]:
    """Named inputs without groups: one inside a group is called GROUP.NAME.

    >>> list(flat({"image": torch.ones(1), "text": {"ids": torch.ones(1)}}))
    ['image', 'text.ids']
    """
    found: dict[str, Tensor] = {}
    for name, value in inputs.items():
        inside = {"": value} if isinstance(value, Tensor) else flat(value)
        found |= {f"{name}.{inner}" if inner else name: tensor for inner, tensor in inside.items()}
    return found


def map_targets(targets: Targets, change: Callable[[Tensor], Tensor]) -> Targets:
    """The targets, each tensor in them changed."""
    if isinstance(targets, Tensor):
        return change(targets)
    if isinstance(targets, Mapping):
        return {name: map_targets(value, change) for name, value in targets.items()}
    if isinstance(targets, list | tuple):
        return [map_targets(value, change) for value in targets]
    return targets


def part_of(targets: Targets, at: slice) -> Targets:
    """The targets of some samples."""
    if isinstance(targets, Mapping):
        return {name: part_of(value, at) for name, value in targets.items()}
    return None if targets is None else targets[at]


class TeacherOutput(NamedTuple):
    """What a teacher gives for a batch.

    Attributes:
        output: Its output as losses compare it, such as logits (B, C); None for a teacher that gives features only. A
            stored teacher may give a sparse form, for losses that take one (`limbeck.losses.TopK`, `Sampled`).
        features: Tensors read at the teacher's taps, by tap name.
    """

    output: Tensor | None
    features: Mapping[str, Tensor] = MappingProxyType({})

    @property
    def logits(self) -> Tensor | None:
        """The output, as a classifier's is called."""
        return self.output


def map_teacher_output(
    teacher_output: TeacherOutput | None, change: Callable[[Tensor], Tensor]
) -> TeacherOutput | None:
    """The teacher output, each of its tensors changed."""
    if teacher_output is None:
        return None
    features = {name: change(x) for name, x in teacher_output.features.items()}
    output: Any = teacher_output.output
    if isinstance(output, tuple):  # a sparse one
        output = type(output)(*map(change, output))
        return TeacherOutput(output, features)
    return TeacherOutput(None if output is None else change(output), features)


class Step(NamedTuple):
    """What one training step needs from a scheme.

    Attributes:
        loss: Scalar to minimise: task_weight · task loss + Σ weight · term.
        output: The student's output as losses compare it, such as logits (B, C); of a scheme that counts its own
            score, some of it.
        parts: Each loss by name, detached and without its weight. One called "task", or "task" and a number, is a mean
            over the samples that have a label; any other is a mean over all samples.
        score: (2,) the sum and the count of the task's score over the batch, of a scheme whose output is never there as
            a whole; None where the output gives it.
    """

    loss: Tensor
    output: Tensor
    parts: Mapping[str, Tensor]
    score: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """The output, as a classifier's is called."""
        return self.output
