"""What a recipe leaves to this machine, decided: precision, the pixels of its student, the bits of its weights."""

from __future__ import annotations

from torch import nn

from limbeck.data import DataSet
from limbeck.engine.devices.compiling import check_whole
from limbeck.engine.devices.fabric import AUTO
from limbeck.errors import RequestError
from limbeck.quantization.processor import whole_bits
from limbeck.recipes import schema
from limbeck.runs import components
from limbeck.runs.machine import Machine
from limbeck.runs.pixels import with_pixels


def settled(recipe: schema.Recipe, student: nn.Module, data: DataSet, machine: Machine) -> schema.Recipe:
    """The recipe with its precision decided, and what pixels its student gets, as it is then written down.

    Raises:
        RequestError: The machine is to compile or quantise students, and to keep them sharded.
    """
    if machine.strategy == "fsdp":
        check_whole(recipe.compile)
        if recipe.quantize is not None:
            raise RequestError("quantize is for students that each device holds as a whole; leave --strategy fsdp out")
    spec = with_pixels(recipe.student, student, data)
    example = components.example(spec, data)
    precision = machine.precision(recipe.precision, student, example, recipe.data.batch_size)
    return with_bits(recipe.model_copy(update={"precision": precision, "student": spec}))


def with_bits(recipe: schema.Recipe) -> schema.Recipe:
    """The recipe with the bits of int8 weights decided for this machine."""
    if recipe.quantize is None or recipe.quantize.bits != AUTO:
        return recipe
    return recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"bits": whole_bits()})})


def settled_as(settled: schema.Recipe, other: schema.Recipe) -> schema.Recipe:
    """Another recipe for the same student, or a part of it, with what was decided for a settled one."""
    pixels = {"mean": settled.student.mean, "std": settled.student.std}
    student = other.student.model_copy(update=pixels)
    return with_bits(other.model_copy(update={"precision": settled.precision, "student": student}))
