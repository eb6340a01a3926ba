"""What a training step holds in memory, and how long texts may be before a machine's memory is full."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from limbeck.data import DataSet, make_loader
from limbeck.data.text.texts import Texts
from limbeck.distillers import Scheme
from limbeck.engine.first.batch import settle
from limbeck.models.memory import TRAINING, memory_bytes
from limbeck.models.peak import peak_bytes
from limbeck.models.recomputed import recomputes
from limbeck.recipes import schema
from limbeck.runs import learners
from limbeck.types import Batch, map_targets

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def step_memory(recipe: schema.Recipe, student: nn.Module, data: DataSet, fabric: Fabric) -> dict[str, Any]:
    """Measure a step of the baseline on one batch, without a teacher.

    Returns:
        "step_bytes": tensors that live at once in it, gradients among them; "weight_bytes": weights and the moments of
        an optimizer such as Adam; "recomputed": whether blocks are computed anew (`gradient_checkpointing`). Of a
        language model also "longest": tokens of a text at which a step would fill "memory_bytes", the device's, by the
        parabola through the steps at a quarter, half and all of the length; no more than the student has positions.
    """
    scheme = learners.alone(copy.deepcopy(student), recipe, data)
    batch = next(iter(make_loader(data.train, min(recipe.data.batch_size, len(data.train)))))
    settle(scheme, batch, recipe.seed)
    scheme.to(fabric.device).train()
    batch = batch.to(fabric.device)
    weights = sum(one.numel() * one.element_size() for one in student.parameters())
    found = {"step_bytes": _peak(scheme, batch, fabric), "weight_bytes": (TRAINING - 1) * weights}
    return {**found, "recomputed": recomputes(student), **_longest(scheme, batch, fabric, data, found)}


def _longest(scheme: Scheme, batch: Batch, fabric: Fabric, data: DataSet, found: dict[str, int]) -> dict[str, int]:
    memory, length = _memory(fabric.device), data.input_shape[0]
    if memory is None or not isinstance(data.train, Texts) or data.train.targets.dim() != 2 or length < 4:
        return {}
    some = [length // 4, length // 2]
    peaks = [_peak(scheme, _cut(batch, short), fabric) for short in some] + [found["step_bytes"]]
    tokens = solved([*some, length], peaks, memory - found["weight_bytes"])
    positions = _positions(scheme.student)
    return {"memory_bytes": memory, "longest": tokens if positions is None else min(tokens, positions)}


def solved(lengths: list[int], sizes: list[int], limit: int) -> int:
    """The largest length at which the parabola through three points is no higher than a limit.

    >>> solved([1, 2, 4], [10 + 2 + 3, 10 + 4 + 12, 10 + 8 + 48], 10 + 200 + 30_000)
    100
    """
    x, y, z = lengths
    first, second = (sizes[1] - sizes[0]) / (y - x), (sizes[2] - sizes[1]) / (z - y)
    square = max((second - first) / (z - x), 0.0)
    slope = first - square * (x + y)
    rest = limit - (sizes[0] - slope * x - square * x * x)
    if rest <= 0:
        return 0
    if square <= 1e-9:
        return math.floor(rest / max(slope, 1e-9) + 1e-6)
    return math.floor((-slope + math.sqrt(slope * slope + 4 * square * rest)) / (2 * square) + 1e-6)


def _peak(scheme: Scheme, batch: Batch, fabric: Fabric) -> int:
    def step() -> None:
        with fabric.autocast():
            loss = scheme(batch).loss
        loss.backward()

    for parameter in scheme.parameters():
        parameter.grad = None
    return peak_bytes(step)


def _cut(batch: Batch, length: int) -> Batch:
    """The first tokens of each text."""
    cut = batch.changed(lambda x: x[:, :length])
    return cut._replace(targets=map_targets(batch.targets, lambda x: x[:, :length]))


def _memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return memory_bytes()


def _positions(student: nn.Module) -> int | None:
    """How many positions a model has learned; None where they have no end."""
    own = getattr(getattr(student, "embedded", None), "positions", None)
    if isinstance(own, nn.Embedding):
        return own.num_embeddings
    found = getattr(getattr(student, "config", None), "max_position_embeddings", None)
    return found if isinstance(found, int) else None
