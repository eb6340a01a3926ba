"""A network of the user's own, with the samples on which it is calibrated, chosen and judged."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.distillers.scheme import checked_task
from limbeck.engine.batches.source import Source
from limbeck.engine.batches.streams import as_loader
from limbeck.errors import RequestError, as_request, shown
from limbeck.models import preprocess
from limbeck.models.given import check_network
from limbeck.models.preprocess import is_image
from limbeck.options import is_list
from limbeck.shipping.kinds import class_count, kind
from limbeck.shipping.plan import Plan
from limbeck.shipping.several import Several, number, several
from limbeck.shipping.subjects import Batches, Case, Subject
from limbeck.taps import Choice, call, output_of
from limbeck.tasks import Classification, Embedding, Task
from limbeck.teachers import ModuleTeacher, Teacher
from limbeck.teachers.chosen import chosen_by
from limbeck.teachers.coding import classes_of
from limbeck.types import Batch, Inputs, each, tensors_of

CPU = torch.device("cpu")


@dataclass(frozen=True)
class OwnModel:
    """A trained network that comes from no run.

    Args:
        network: From normalised samples (B, *shape), or from named inputs (as keyword arguments), to outputs, such as
            logits (B, classes); it stays as it is.
        test: Batches, or pairs (inputs, targets), for the table; inputs are a tensor, or a dict of tensors. An axis
            besides the first whose size differs from batch to batch has any size up to the largest in the files.
        calibration: Training batches, whose targets are not looked at; needed for int8.
        validation: Batches on which int8 files are chosen; needed for int8.
        teacher: What agreement and speed are compared with.
        baseline: What scores are compared with.
        mean, std: Of the normalisation, a value a channel; batches hold samples before it, from 0 to 1. Of named inputs
            it is that of the images, floating point of four dimensions.
        class_names: What the classes are called.
        task: What it learned; a class a sample by default.
        name: What the card calls it.
    """

    network: nn.Module
    test: Iterable[Any]
    calibration: Iterable[Any] | None = None
    validation: Iterable[Any] | None = None
    teacher: nn.Module | None = None
    baseline: nn.Module | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    class_names: Sequence[str] = ()
    task: Task = field(default_factory=Classification)
    name: str = "model"


def from_module(own: OwnModel, plan: Plan) -> Case:
    """The case of a network of the user's own.

    Raises:
        RequestError: int8 is wanted without the data that it needs, a network cannot read its batches, or teacher or
            baseline gives another number of outputs than it.
    """
    for what, given in (("calibration", own.calibration), ("validation", own.validation)):
        if plan.quantises and given is None:
            raise RequestError(f"int8 needs {what} data: give OwnModel {what}=…, or ship with int8=False")
    own = _checked(own)
    example = Source(own.test, CPU, read=own.task.batch).first().inputs
    if any(x.dtype == torch.uint8 and (x is example or x.dim() == 4) for x in tensors_of(example)):
        raise RequestError("the test batches hold pixels in uint8; give them in floating point, from 0 to 1")
    reads = None if isinstance(example, Tensor) else _by_name(own)
    networks = {"network": own.network, "teacher": own.teacher, "baseline": own.baseline}
    copies = {name: _copied(one) for name, one in networks.items() if one is not None}
    ready = preprocess(own.mean, own.std, None)
    if ready and isinstance(example, Tensor) and not is_image(example):
        raise RequestError(
            f"mean and std are of images (B, C, H, W), and the test batches are {tuple(example.shape)}: leave them out"
        )
    classes = _outputs(copies, each(example, lambda x: number(x[:1])), ready, own.task)
    _check_names(own, classes)
    network = copies.pop("network")
    given = {
        "shape": list(example.shape[1:] if isinstance(example, Tensor) else reads.shape if reads else ()),
        "range": [0, 1] if isinstance(example, Tensor) and example.dim() == 4 else None,
        "mean": own.mean,
        "std": own.std,
    }
    named: dict[str, Any] = {"class_names": list(own.class_names)} if own.class_names else {}
    if isinstance(own.task.choice, str | int):
        named["output"] = own.task.choice
    about = {"model": type(own.network).__name__, "options": {}, "classes": classes, "input": given, **named}
    return Case(
        name=own.name,
        students=[Subject("distilled", network, about, reads=reads)],
        references=[Subject(name, one, about, reads=reads) for name, one in copies.items()],
        calibration=lambda: _first(own, plan.samples),
        validation=_again(own, own.validation if own.validation is not None else own.test),
        chosen_on="the validation data that were given",
        test=_again(own, own.test),
        task=own.task,
        teacher=_teacher(copies.get("teacher"), ready, own.task),
    )


def _checked(own: OwnModel) -> OwnModel:
    """The same, its functions that make batches as loaders.

    Raises:
        RequestError: Something in it is of another kind than it should be.
    """
    loaders: dict[str, Any] = {}
    for what in ("test", "calibration", "validation"):
        given = getattr(own, what)
        if what == "test" or given is not None:
            loaders[what] = as_loader(given, what)
        if isinstance(given, Iterator):
            raise RequestError(
                f"{what} is read several times, and an iterator is over after one; give a list, or a DataLoader"
            )
    for what in ("network", "teacher", "baseline"):
        if what == "network" or getattr(own, what) is not None:
            check_network(f"the {what}", getattr(own, what))
    checked_task(own.task)
    if not is_list(own.class_names):
        raise RequestError(f"class_names is a list of texts, not {shown(own.class_names)}")
    if not isinstance(own.name, str) or own.name in ("", ".", "..") or Path(own.name).name != own.name:
        raise RequestError(f"name is what a folder and a card are called, not {shown(own.name)}")
    return replace(own, **loaders)


def _check_names(own: OwnModel, outputs: int) -> None:
    """Raise RequestError for class names that are not those of the network's outputs."""
    count = class_count(own.task, outputs)
    if own.class_names and kind(own.task).named and count != len(own.class_names):
        raise RequestError(f"class_names are {len(own.class_names)}, and the network's outputs are of {count} classes")


def _by_name(own: OwnModel) -> Several:
    """What a network of several inputs reads: their shapes in all of the batches that were given."""
    loaders = [one for one in (own.test, own.calibration, own.validation) if one is not None]
    return several(batch.inputs for one in loaders for batch in _again(own, one)())


def _outputs(networks: Mapping[str, nn.Module], sample: Inputs, ready: nn.Module | None, task: Task) -> int:
    """How many outputs the first network gives of a sample.

    Raises:
        RequestError: One of them cannot read it, or gives another number; of embeddings the numbers may differ.
    """
    found = {name: _answers(name, network, sample, ready, task.choice) for name, network in networks.items()}
    first, count = next(iter(found.items()))
    for name, other in found.items():
        if other != count and not isinstance(task, Embedding):
            raise RequestError(
                f"the {name} gives {other} outputs of a sample and the {first} {count}, so they cannot be compared; "
                f"give a {name} for the same classes"
            )
    return count


@torch.no_grad()
def _answers(name: str, network: nn.Module, sample: Inputs, ready: nn.Module | None, choice: Choice) -> int:
    """How many outputs a network gives of a sample; RequestError where it cannot read one."""
    with as_request(lambda reason: f"the {name} cannot read the test batches: {reason}"):
        return classes_of(output_of(call(network, ready(sample) if ready else sample), choice))


def _teacher(network: nn.Module | None, ready: nn.Module | None, task: Task) -> Teacher | None:
    return None if network is None else ModuleTeacher(network, inputs=ready, output=chosen_by(task))


def _copied(network: nn.Module) -> nn.Module:
    """A copy to be shipped, in eval mode on the CPU; the user's own stays where it is, and as it is."""
    return copy.deepcopy(network).cpu().eval()


def _again(own: OwnModel, loader: Iterable[Any]) -> Batches:
    return lambda: Source(loader, CPU, read=own.task.batch).starting_at()


def _first(own: OwnModel, samples: int) -> Iterator[Batch]:
    """The first batches to calibrate with, of so many samples or a few more."""
    source = Source(own.calibration or (), CPU, read=own.task.batch)
    size = source.first().size
    return islice(source.starting_at(), max(1, -(-samples // size)))
