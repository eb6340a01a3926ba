"""A student in int8: trained on with quantisers, written as one file, and judged as onnxruntime runs that file.

recipe's epochs = the student's own + those with quantisers (`quantize.epochs`; none where it is only quantised)
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from limbeck.data import DataSet, make_loader
from limbeck.engine.devices.fabric import AUTO
from limbeck.engine.saving.files import write_bytes
from limbeck.engine.validation import Hear
from limbeck.errors import RequestError, as_request, counted
from limbeck.models import preprocess
from limbeck.models.load import QUANTISERS
from limbeck.models.logits import to_logits
from limbeck.models.networks.multi_exit import MultiExit
from limbeck.models.onnx_writer import check_packages
from limbeck.models.preprocess import as_pixels
from limbeck.quantization import session
from limbeck.quantization.fake import faked
from limbeck.quantization.processor import whole_bits
from limbeck.quantization.training import SHARE, SLOWER, TEMPERATURE, as_file, largest, learner, metadata, outputs_of
from limbeck.recipes import schema
from limbeck.recipes.length import at_length
from limbeck.runs import components
from limbeck.runs.stages import Distilled
from limbeck.runs.train import Job
from limbeck.taps.wrappers import unwrapped
from limbeck.teachers import ModuleTeacher, Teacher, VirtualTeacher
from limbeck.types import Inputs

BATCH = 64
"""Samples at once that set the ranges of activations."""
LABELS = "labels"
_WRITTEN: WeakSet[nn.Module] = WeakSet()
"""Students that were found to be writable: a comparison asks once for all its methods."""


def epochs_of(recipe: schema.Recipe) -> int:
    """How many of a recipe's epochs train with quantisers.

    Raises:
        RequestError: A tenth of them is less than one, or nothing is left to the student's own training.
    """
    spec = recipe.quantize
    if spec is None:
        return 0
    if spec.epochs is None:
        epochs = math.floor(SHARE * recipe.epochs + 1e-9)
        if not epochs:
            raise RequestError(
                f"quantize takes a tenth of the epochs, and of {recipe.epochs} that is less than one; write "
                "quantize.epochs: 1, or 0 to quantise without training"
            )
        return epochs
    if spec.epochs >= recipe.epochs:
        raise RequestError(
            f"quantize.epochs {spec.epochs} leaves nothing of {counted(recipe.epochs, 'epoch')} to the student's own "
            "training"
        )
    return spec.epochs


def before(recipe: schema.Recipe) -> schema.Recipe:
    """The recipe of the student's own training: without the epochs that train with quantisers."""
    own = recipe.model_copy(update={"quantize": None})
    return at_length(own, recipe.epochs - epochs_of(recipe))


def check(recipe: schema.Recipe, student: nn.Module, data: DataSet) -> None:
    """Raise RequestError for a student that cannot be quantised, or a training with quantisers that cannot be."""
    spec = recipe.quantize
    if spec is None:
        return
    check_packages()
    epochs = epochs_of(recipe)
    if data.tokenizer is not None or recipe.student.inputs is not None:
        raise RequestError("quantize is for students of one image or vector a sample; leave it out")
    if isinstance(student, MultiExit):
        raise RequestError(
            "quantize is for students of one output, and this one has several exits; leave it out, and let limbeck "
            "ship quantise each of them"
        )
    if epochs and not spec.teacher and not components.task(recipe, data).labelled:
        raise RequestError("quantize.teacher: false trains by labels, and this task has none; write teacher: true")
    if student in _WRITTEN:
        return
    try:
        with as_request(str):
            _file(recipe, with_quantisers(recipe, student, data, samples=2), data)
    except RequestError as error:
        raise RequestError(f"the student {recipe.student.model} cannot be quantised: {error}") from error
    _WRITTEN.add(student)


def quantised(
    job: Job, trained: Distilled, phase: str, judge: Teacher | None = None, hear: Hear | None = None
) -> dict[str, Any]:
    """Make a trained student's int8 file, NAME-int8.onnx, and test it.

    Args:
        job: With the whole recipe, and its `quantize`.
        trained: The student, trained by the recipe `before`; one that nobody taught learns from labels here too.
        phase: What its training was called.
        judge: To measure agreement with on the test set.
        hear: Gets outputs and targets of the test set.

    Returns:
        What result.json says of it: test figures of the file, its name, bytes and bits; epochs, seconds, and who
        taught them.

    Raises:
        RunError: The training failed.
    """
    spec, scheme, epochs, began = job.recipe.quantize, trained.scheme, epochs_of(job.recipe), time.perf_counter()
    assert spec is not None
    network = with_quantisers(job.recipe, scheme.student, job.data, spec.samples)
    taught_by = LABELS
    if epochs:
        guide, online, taught_by = _taught(job, trained)
        temperature = next(iter(scheme.teacher_temperatures), TEMPERATURE)
        taught = guide is not None
        inputs = components.inputs(job.recipe.student)
        learns = learner(network, scheme.task, inputs, taught=taught, temperature=temperature)
        _last_epochs(job, epochs).train(learns, f"{phase}-int8", guide, online, {QUANTISERS: spec.bits})
    content = _file(job.recipe, network.cpu(), job.data)
    name = f"{phase}-int8.onnx"
    if job.fabric.is_global_zero:
        write_bytes(job.out / name, content)
    seconds = round(time.perf_counter() - began, 3)
    return {
        **job.test_function(_predict(job.recipe, job.data, content), judge, hear),
        "file": name,
        "bytes": len(content),
        "bits": spec.bits,
        "epochs": epochs,
        "taught_by": taught_by if epochs else None,
        "seconds": seconds,
    }


def _last_epochs(job: Job, epochs: int) -> Job:
    """The job of the epochs that train with quantisers: fp32, for bf16 knows no more whole numbers than these."""
    recipe = job.recipe
    assert recipe.quantize is not None
    lr = recipe.quantize.lr or SLOWER * recipe.optimizer.lr
    changes = {
        "epochs": epochs,
        "optimizer": recipe.optimizer.model_copy(update={"lr": lr, "groups": []}),
        "schedule": schema.Schedule(name="cosine"),
        "keep": "last",
        "early_stopping": None,
        "save_every": None,
        "precision": "32-true",
        "compile": None,
        "layout": "contiguous",
    }
    return replace(job, recipe=recipe.model_copy(update=changes), fabric=job.machine.fabric("32-true"))


def _taught(job: Job, trained: Distilled) -> tuple[Teacher | None, Teacher | None, str]:
    """Who teaches the epochs with quantisers: cached or online, online, and in words."""
    assert job.recipe.quantize is not None
    if not (trained.taught and job.recipe.quantize.teacher):
        return None, None, LABELS
    if trained.guide is not None and not isinstance(trained.teacher, VirtualTeacher):
        return trained.guide, trained.teacher, "the teacher"
    whole = copy.deepcopy(trained.scheme.student).eval().requires_grad_(False)
    spec = job.recipe.student
    itself = ModuleTeacher(whole, inputs=components.inputs(spec), output=components.output(spec, job.recipe, job.data))
    return itself, itself, "the student itself in fp32"


def with_quantisers(recipe: schema.Recipe, student: nn.Module, data: DataSet, samples: int) -> torch.fx.GraphModule:
    """A copy of the student with quantisers, whose ranges are those of some training samples."""
    plain = to_logits(copy.deepcopy(unwrapped(student)).cpu().eval(), recipe.student.output)
    shape, prepare = components.shape(recipe.student, data), components.inputs(recipe.student)

    def batches() -> Iterator[Tensor]:
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(recipe.seed))
        for batch in make_loader(data.train.subset(order[:samples].sort().values), min(BATCH, samples)):
            if not isinstance(batch.inputs, Tensor):
                raise RequestError("quantize is for students of one input, and these data have several by name")
            yield batch.inputs.float() if prepare is None else prepare(batch.inputs.float())

    return faked(plain, shape, batches(), _most(recipe))


def _most(recipe: schema.Recipe) -> int:
    """The largest whole number that a weight becomes; before a run has decided its bits, as this processor has it."""
    bits = recipe.quantize.bits if recipe.quantize else AUTO
    return largest(whole_bits() if bits == AUTO else int(bits))


def _file(recipe: schema.Recipe, network: torch.fx.GraphModule, data: DataSet) -> bytes:
    """The file: pixels from 0 to 1 in, the task's outputs out."""
    spec = recipe.student
    return as_file(
        network,
        components.shape(spec, data),
        ready=preprocess(spec.mean, spec.std, None),
        softmax=False,
        output=outputs_of(components.task(recipe, data)).name,
        metadata=metadata(components.about(spec, data), normalised_inside=True),
        most=_most(recipe),
    )


def _predict(recipe: schema.Recipe, data: DataSet, content: bytes) -> Callable[[Inputs], Tensor]:
    """The file as onnxruntime runs it, from a batch's inputs to its outputs."""
    run, shape = session.onnx(content, torch.get_num_threads()), components.shape(recipe.student, data)

    def predict(inputs: Inputs) -> Tensor:
        assert isinstance(inputs, Tensor)
        pixels = as_pixels(inputs.cpu(), shape, recipe.student.size)
        return torch.from_numpy(run({session.INPUT: pixels.contiguous().numpy()})).to(inputs.device)

    return predict
