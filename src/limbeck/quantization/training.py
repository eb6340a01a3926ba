"""A network with quantisers learns, from labels or from a teacher too, and becomes a file of whole numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from limbeck import losses
from limbeck.distillers import Distiller, Term
from limbeck.models.networks.staged import named
from limbeck.quantization.fake import exportable
from limbeck.quantization.whole_file import written
from limbeck.tasks import (
    Classification,
    Embedding,
    LanguageModelling,
    MultiLabel,
    Regression,
    Segmentation,
    Task,
    TokenClassification,
)

SHARE = 0.1
"""Of a student's epochs, at most, where nobody says more."""
SLOWER = 0.1
"""Of its learning rate: it is trained already."""
LABELS, SOFT = 0.1, 0.9
"""Weights beside a teacher: of the loss on labels, and of the one against the teacher's outputs."""
TEMPERATURE = 4.0
"""Where nothing says another."""


@dataclass(frozen=True)
class Outputs:
    """What the outputs for a kind of task are.

    Attributes:
        name: What files call them.
        loss: The loss between a student's and its teacher's.
        soft: Whether that loss has a temperature.
    """

    name: str
    loss: Callable[..., Any]
    soft: bool = False


_OTHER = Outputs("outputs", losses.mse)
_OUTPUTS: dict[type[Task], Outputs] = {
    Classification: Outputs("logits", losses.kd, soft=True),
    MultiLabel: Outputs("logits", losses.sigmoid_kd),
    Segmentation: Outputs("logits", losses.kd, soft=True),
    TokenClassification: Outputs("logits", losses.kd, soft=True),
    LanguageModelling: Outputs("logits", losses.kd, soft=True),
    Regression: _OTHER,
    Embedding: _OTHER,
}


def outputs_of(task: Task) -> Outputs:
    """The outputs for a task; of a task of the user's own those for what it is derived from, or is like."""
    other = _OUTPUTS[Classification] if task.classifies_samples else _OTHER
    return next((_OUTPUTS[one] for one in type(task).__mro__ if one in _OUTPUTS), other)


def largest(bits: int) -> int:
    """The largest whole number that a weight of so many bits becomes.

    >>> largest(8), largest(7)
    (127, 63)
    """
    return int(2 ** (bits - 1)) - 1


def learner(
    network: nn.Module, task: Task, inputs: nn.Module | None, *, taught: bool, temperature: float = TEMPERATURE
) -> Distiller:
    """A network with quantisers that learns from labels, or from a teacher's outputs beside them.

    Args:
        network: `fake.faked`'s.
        task: What is learned; without labels the teacher's outputs are all of it.
        inputs: What prepares its inputs.
        taught: Whether it has a teacher.
        temperature: By which the outputs of both are softened, where their loss has one.
    """
    if not taught:
        return Distiller(network, inputs=inputs, task=task)
    outputs = outputs_of(task)
    soft: dict[str, Any] = {"temperature": temperature} if outputs.soft else {}
    labels = LABELS if task.labelled else 0.0
    return Distiller(network, [Term(outputs.loss, weight=SOFT, **soft)], task_weight=labels, inputs=inputs, task=task)


def metadata(about: Mapping[str, Any], normalised_inside: bool) -> dict[str, str]:
    """What an ONNX file says of itself: its input, and its classes where they have names.

    Args:
        about: A network's description, as student.json has it.
        normalised_inside: Whether the file itself normalises its input.
    """
    whole = {"limbeck": json.dumps({"input": about["input"], "normalised": normalised_inside})}
    return whole | ({"classes": json.dumps(about["class_names"])} if "class_names" in about else {})


def as_file(
    trained: fx.GraphModule,
    shape: tuple[int, ...],
    *,
    ready: nn.Module | None,
    softmax: bool,
    output: str,
    metadata: Mapping[str, str],
    most: int,
) -> bytes:
    """The ONNX file of a network that was trained with quantisers; the network itself is settled by it.

    Args:
        trained: The network, on the CPU.
        shape: One sample's.
        ready: What stands before it in the file, such as its normalisation.
        softmax: Whether a softmax stands behind it.
        output: What the file calls what it gives.
        metadata: What the file says of itself.
        most: Weights are whole numbers up to it.

    Raises:
        RequestError: The network cannot be written as ONNX.
    """
    exportable(trained)
    plain: nn.Module = named(plain=trained, softmax=nn.Softmax(-1)) if softmax else trained
    model = named(inputs=ready or nn.Identity(), network=plain)
    return written(model, shape, output, metadata, most)
