"""The first batch: what of a student does not fit is found on it, before the first step.

The student is run on two samples in evaluation, and a copy of it makes a training step on a few, with gradients. What
is found out on the way is set on the scheme: how it reads inputs, and whether it has two heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from limbeck.distillers import Scheme
from limbeck.engine.batches.source import Source
from limbeck.engine.devices.fabric import enough_memory, from_first
from limbeck.engine.first.stand_in import as_it_is, stand_in
from limbeck.errors import RequestError, as_request
from limbeck.models import Layout, device_of, lay_out, materialise
from limbeck.models.probabilities import are_probabilities
from limbeck.taps import FLOATS, Conversion, call, dtype_of, evaluating, heads_of, readable, taken_from
from limbeck.taps.wrappers import hooks_run
from limbeck.teachers.pixels import students_pixels
from limbeck.types import Batch, TeacherOutput, flat, map_targets, map_teacher_output, tensors_of

FEW = 8
"""Samples on which a training step is tried."""


def settle(scheme: Scheme, example: Batch, seed: int) -> list[str]:
    """Let a student read its first samples: its lazy layers get their shapes, and inputs a dtype that it can read.

    Args:
        scheme: The student; its lazy layers, `reads` and `classes` are set.
        example: A batch.
        seed: What lazy layers draw their start from.

    Returns:
        What should be said of it, a line each.

    Raises:
        RequestError: Its output has not the form that the task has.
        Exception: What it raises where it cannot read the samples.
    """
    few = example.first(2).to(device_of(scheme.student))
    scheme.two_heads = False
    outputs: list[Any] = []

    def run(conversion: Conversion | None) -> Tensor:
        scheme.reads = conversion
        return scheme.predict(few.inputs)

    def run_all(conversion: Conversion | None) -> None:
        run(conversion)
        scheme.predictions(few.inputs)

    with torch.no_grad(), evaluating(scheme), ExitStack() as stack:
        stack.enter_context(returned_by(scheme.student, outputs))
        dtype = dtype_of(scheme.student)
        materialise(scheme, lambda: readable(run_all, few.inputs, dtype), seed)
        output, scheme.reads = readable(run, few.inputs, dtype)
        if dtype != torch.float32:  # held-out data may come as fp32 all the same
            scheme.reads = scheme.reads or Conversion(FLOATS, dtype)
    scheme.task.check_output(output)
    scheme.task.check_kind(example.targets)
    labels = example.targets
    targets = len(labels) if isinstance(labels, Tensor | list | tuple) else example.size
    if len(output) != few.size or any(len(x) != targets for x in tensors_of(example.inputs)):
        raise RequestError(f"a batch holds inputs {_described(example)} and {targets} targets")
    scheme.classes = output.shape[1] if output.dim() == 2 else None
    read = scheme.reads.note(few.inputs) if scheme.reads else None
    taken = taken_from(outputs[-1], output) if outputs and scheme.task.choice is None else None
    pixels = students_pixels(scheme.student, scheme.inputs, few.inputs, scheme.prepared(few.inputs))
    return [f"the student {note}" for note in (read, taken, pixels) if note]


def sized(scheme: Scheme, example: Batch, teacher_output: TeacherOutput | None, layout: str | None = None) -> Layout:
    """Size what depends on the first batch and the teacher's answers to it, in a layout in which gradients are right.

    Raises:
        RequestError: Something does not fit, or the layout by name would give wrong gradients.
    """

    def run(change: Callable[[Tensor], Tensor]) -> None:
        batch = example.changed(change)
        with torch.no_grad(), evaluating(scheme):
            scheme.predict(batch.inputs)
        scheme.prepare(batch, teacher_output)

    with as_it_is(scheme):
        return lay_out(scheme, layout, run)


def check_step(
    scheme: Scheme, example: Batch, teacher_output: TeacherOutput | None, source: Source, fabric: Fabric
) -> list[str]:
    """Try a training step, and leave batches of one sample out of the source where the student cannot train on one.

    Args:
        scheme: Prepared, on its device; `two_heads` may be set, all else is left as it is.
        example: A batch.
        teacher_output: What the teacher says about it.
        source: Where the batches come from; `least` may be set.
        fabric: Device and precision.

    Returns:
        What should be said of it, a line each.

    Raises:
        RequestError: No step can be made, it has no gradient, or the student ends in a softmax.
    """
    trial = Trial(scheme, example, teacher_output, fabric.autocast).first(FEW)
    notes = trial.check()
    if example.size > 1 and source.alone != 0:
        needs_several = trial.needs_several()  # by all processes, which may share statistics
        source.least = 2 if from_first(fabric, lambda: needs_several) else 1
        if source.least > 1 and source.alone is None:
            notes.append(
                "a batch of a single sample, on which the student cannot train, as with batch norm, is left out of "
                "each epoch"
            )
        if source.least > 1 and source.alone:
            notes.append(
                f"{source.alone} of {len(source) + source.alone} batches holds a single sample, on which the student "
                "cannot train, as with batch norm; it is left out of each epoch"
            )
    return notes


def reading(who: str, example: Batch) -> AbstractContextManager[None]:
    """Say of whatever is raised inside that a model cannot read these inputs."""
    inputs = example.inputs
    if isinstance(inputs, Tensor):
        return as_request(lambda reason: f"the {who} cannot read inputs of shape {_described(example)}: {reason}")
    names = ", ".join(f"{name} {tuple(x.shape)}" for name, x in flat(inputs).items())
    return as_request(
        lambda reason: (
            f"the {who} cannot read the inputs {names}: {reason}; say by the task's batch= which tensors are "
            "inputs, as batch=lambda item: (item['x'], item['y']), or by inputs=NamedInputs({'PARAMETER': 'NAME'}) how "
            f"the {who} calls them"
        )
    )


@dataclass(frozen=True)
class Trial:
    """A training step, tried on a copy of a scheme.

    Attributes:
        scheme: Prepared, on its device; `two_heads` may be set, all else is left as it is.
        batch: The samples.
        teacher_output: What the teacher says about them.
        autocast: Makes the context of a training's forward passes.
    """

    scheme: Scheme
    batch: Batch
    teacher_output: TeacherOutput | None
    autocast: Callable[[], AbstractContextManager[Any]]

    def first(self, samples: int) -> Trial:
        """The same on the first samples."""
        teacher_output = map_teacher_output(self.teacher_output, lambda x: x[:samples])
        return Trial(self.scheme, self.batch.first(samples), teacher_output, self.autocast)

    def check(self) -> list[str]:
        """Make the step, with gradients; gives what should be said of it, a line each.

        Raises:
            RequestError: It cannot be made, it has no gradient, or the student ends in a softmax.
        """
        if self.batch.size == 1:
            self._check_one()
        notes = []
        answer, output = self._with_gradients()
        with torch.no_grad(), evaluating(self.scheme), self._explained():
            evaluated = call(self.scheme.student, self.scheme.prepared(self.batch.inputs))
        found = self.scheme.task.classifies and self.scheme.task.choice is None
        if isinstance(output, tuple | list) and isinstance(evaluated, Tensor) and found:
            notes.append(self._find_heads(output, evaluated))
        if self.scheme.two_heads:
            answer, _ = self._with_gradients()
        self.scheme.task.check_end(answer)
        classifies = self.scheme.task.classifies
        if (
            classifies
            and isinstance(evaluated, Tensor)
            and are_probabilities(evaluated)
            and not are_probabilities(answer)
        ):
            notes.append(
                "the student gives probabilities in evaluation, of which losses and calibration take a softmax again; "
                "return logits there too"
            )
        return notes

    def needs_several(self) -> bool:
        """Whether a batch of one sample makes no step: batch norm has nothing to compare it with."""
        try:
            with torch.no_grad(), stand_in(self.scheme) as scheme, self.autocast():
                alone = self.first(1)
                return not bool(torch.isfinite(scheme(alone.batch, alone.teacher_output).loss))
        except Exception:  # of many kinds: batch norm's, or a loss's that compares samples
            return True

    def _check_one(self) -> None:
        batch, teacher_output = self.batch, map_teacher_output(self.teacher_output, _twice)
        twice = batch.changed(_twice)._replace(targets=map_targets(batch.targets, _twice), index=_twice(batch.index))
        if self.needs_several():
            Trial(
                self.scheme, twice, teacher_output, self.autocast
            )._with_gradients()  # where that fails too, it says why
            raise RequestError(
                "each batch holds one sample, and the student cannot train on one alone, as with batch norm; take a "
                "larger batch_size"
            )

    def _with_gradients(self) -> tuple[Tensor, Any]:
        """The step's logits, and what the student returned."""
        outputs: list[Any] = []
        size, device = self.batch.size, device_of(self.scheme)
        explained, enough = self._explained(), enough_memory("student", size, device)
        with stand_in(self.scheme) as scheme, explained, enough, returned_by(scheme.student, outputs):
            with self.autocast():
                step = scheme(self.batch, self.teacher_output)
            if not step.loss.requires_grad:
                taken = taken_from(outputs[-1], scheme.answer(outputs[-1])) if outputs else None
                raise RequestError(
                    "the loss has no gradient: between the student's weights and it stands something that stops it, "
                    f"such as detach, no_grad or argmax{f'; the student {taken}' if taken else ''}"
                )
            step.loss.backward()
            trained = [weight for weight in scheme.student.parameters() if weight.requires_grad]
            if trained and self.scheme.trains_student and all(weight.grad is None for weight in trained):
                raise RequestError(
                    "no weight of the student gets a gradient: what the losses read of it is detached, or does not "
                    "depend on its weights"
                )
        return step.output.detach(), outputs[-1] if outputs else None

    def _find_heads(self, output: Any, evaluated: Tensor) -> str:
        """Find out what of a tuple that the student returns in training its answer in evaluation is: the nearest.

        It may be the mean of two heads.
        """
        with torch.no_grad(), stand_in(self.scheme) as scheme:
            for module in scheme.student.modules():  # less noise, no statistics: layers without parts are in eval mode
                module.training = module is scheme.student or any(True for _ in module.children())
            returned = call(scheme.student, scheme.prepared(self.batch.inputs))
        if heads := heads_of(returned):
            candidates = [(heads[0] + heads[1]) / 2, *heads]
            distances = [float((one - evaluated).abs().mean()) for one in candidates]
            nearest = distances.index(min(distances))
            self.scheme.two_heads = nearest == 0
            if nearest == 0:
                return _TWO_HEADS
            if nearest == 2:
                raise RequestError(
                    "in training the student returns as its second tensor what it returns in evaluation; return that "
                    "first"
                )
        taken = taken_from(output, self.scheme.answer(output))
        return f"in training the student {taken}; the rest is not trained"

    def _explained(self) -> AbstractContextManager[None]:
        return as_request(lambda reason: f"the student cannot be trained on the first batch: {reason}")


_TWO_HEADS = (
    "the student returns the logits of two heads in training, and their mean in evaluation: the first head learns the "
    "labels, and the second from the teacher's logits; where only one of these is there, the mean learns it"
)


@contextmanager
def returned_by(student: nn.Module, outputs: list[Any]) -> Iterator[None]:
    """Inside, what a student returns is added to `outputs`; nothing of a script, which takes no hook."""
    if isinstance(student, torch.jit.ScriptModule):
        yield
        return
    hook = student.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        with hooks_run(student.modules()):
            yield
    finally:
        hook.remove()


def _described(example: Batch) -> str:
    return ", ".join(f"{tuple(x.shape)} of {x.dtype}" for x in tensors_of(example.inputs))


def _twice(x: Tensor) -> Tensor:
    return torch.cat([x, x])
