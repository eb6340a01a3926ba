"""A model seen from outside: its taps, parameters and multiply-adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from limbeck.errors import as_request
from limbeck.models.build import build_from
from limbeck.models.foreign.hugging_face_embedder import first_inputs
from limbeck.models.foreign.pieces import fixed_batch
from limbeck.models.measure import multiply_adds, parameter_count
from limbeck.taps import TapInfo, trace


@dataclass(frozen=True)
class Inspected:
    """What `inspect` found: a model's name, its modules and operations as they run, parameters, multiply-adds."""

    name: str
    taps: list[TapInfo]
    parameters: int
    multiply_adds: int


def inspect(name: str, /, input_shape: tuple[int, ...], classes: int, **options: Any) -> Inspected:
    """Build a model by name, with its own options, and run it once.

    Raises:
        RequestError: An unknown name or option, or a model that cannot read this shape.
    """
    model = build_from(name, options, input_shape=input_shape, classes=classes)
    with as_request(lambda reason: f"model {name} cannot read an input of shape {input_shape}: {reason}"):
        example = first_inputs(model, input_shape, fixed_batch(model) or 1)
        taps = trace(model, example, operations=True)
    return Inspected(name, taps, parameter_count(model), multiply_adds(model, example) // len(example))
