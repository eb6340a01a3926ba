"""What is shipped and what it is compared with: networks, and the samples on which they are judged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data import DataSet, make_loader
from limbeck.data.splits import Split
from limbeck.data.text.tokenizers import Tokenizer
from limbeck.errors import RequestError
from limbeck.models import parameter_count
from limbeck.models.load import load_network, read_description
from limbeck.models.logits import to_logits
from limbeck.models.networks.multi_exit import MultiExit, exit_network
from limbeck.quantization.session import Given
from limbeck.recipes import schema
from limbeck.runs import components, identity
from limbeck.runs.finished.read import Finished, take_up, teachers_of
from limbeck.runs.folder import RESULT
from limbeck.runs.teachers import Candidate, as_one
from limbeck.runs.texts import in_own_tokens
from limbeck.shipping.kinds import reading
from limbeck.shipping.reading import Reading
from limbeck.shipping.several import FEW, several
from limbeck.taps import Choice
from limbeck.tasks import Classification, Task
from limbeck.teachers import Teacher
from limbeck.types import Batch

Batches = Callable[[], Iterable[Batch]]
VALIDATION_SAMPLES = 5000
"""Samples on which int8 files are chosen, at most."""
UNVALIDATED = "training samples that are not used to calibrate: the run has no validation split"


@dataclass(frozen=True)
class Subject:
    """One network.

    Attributes:
        name: "teacher", "baseline", "distilled", or an exit such as "exit 1/3".
        network: In eval mode, on the CPU, from normalised samples to outputs (B, …), such as logits (B, classes).
        about: How it is built, its classes and its "input": shape, mean and std.
        size: Height and width to which its images are resized before it reads them, beside the file; None for none.
        prepare: Of a teacher of texts with tokens of its own, what takes these out of a batch; None for none.
        int8: The int8 file that its run has trained (`quantize` in the recipe); None without one.
        reads: What its files read, where the description does not say it.
    """

    name: str
    network: nn.Module
    about: Mapping[str, Any]
    size: int | None = None
    prepare: nn.Module | None = None
    int8: Path | None = None
    reads: Reading | None = None

    @cached_property
    def reading(self) -> Reading:
        """What its files read."""
        return self.reads or reading(self.about, self.network, self.size, self.prepare)

    @property
    def shape(self) -> tuple[int, ...]:
        """One sample's shape as the file reads it."""
        return self.reading.shape

    @property
    def output(self) -> Choice:
        """Which part of what the network returns is its output; None finds it."""
        found: str | int | None = self.about.get("output")
        return found

    @cached_property
    def output_shape(self) -> tuple[int, ...]:
        """One sample's output."""
        model = self.reading.model(to_logits(self.network, self.output), {})
        with torch.no_grad():
            found: Tensor = model(*self.reading.example((1, None)).values())
        return tuple(found.shape[1:])

    @property
    def parameters(self) -> int:
        return parameter_count(self.network)

    @property
    def stem(self) -> str:
        """What its files are called."""
        return self.name.partition("/")[0].replace(" ", "-")

    def read(self, inputs: Any) -> Given:
        """From a batch's inputs to what its file reads with the normalisation inside: pixels from 0 to 1."""
        return self.reading.read(inputs, {})


@dataclass(frozen=True)
class Case:
    """A run, or the user's own network: what is shipped of it, and what it is compared with.

    Attributes:
        name: What its folder is called.
        students: What is shipped.
        references: The teachers and the baseline, where these are there.
        calibration: Training samples, whose labels are not looked at.
        validation: Where int8 files are chosen.
        chosen_on: What these samples are, in words.
        test: Read for the table.
        task: What is learned.
        teacher: With whose outputs the agreement is; None without one.
        finished: The run, for what is trained from it; None for the user's own network.
        tokenizer: What makes ids of texts; None where samples are none.
        whole: The network with all its exits; None for one with a single exit.
        origin: What the card says: recipe, data, seed, fingerprint of the run.
        notes: What was left out, and why.
    """

    name: str
    students: Sequence[Subject]
    references: Sequence[Subject]
    calibration: Batches
    validation: Batches
    chosen_on: str
    test: Batches
    task: Task = field(default_factory=Classification)
    teacher: Teacher | None = None
    finished: Finished | None = None
    tokenizer: Tokenizer | None = None
    whole: MultiExit | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @torch.no_grad()
    def teacher_output(self, batch: Batch) -> Tensor | None:
        """The teacher's output on a batch; None without a teacher."""
        if self.teacher is None:
            return None
        given = self.teacher(batch).output
        if given is None:
            raise RequestError("the teacher gives features alone, no output to agree with")
        return self.task.output(given).float().cpu()

    def asked(self, batches: Batches) -> Iterator[tuple[Batch, Tensor | None]]:
        """The batches of a split, each with the teacher's output."""
        return ((batch, self.teacher_output(batch)) for batch in map(self.task.batch, batches()))


def from_run(run: Path, root: Path | None, samples: int) -> Case:
    """A finished run's students: the distilled one, or each exit of one with several.

    Args:
        run: The run folder.
        root: Folder of the data; by default the one that the run had, else the usual one.
        samples: Training samples to calibrate with.

    Raises:
        RequestError: No finished run, weights that are not the run's, or data that cannot be read.
    """
    found = take_up(run, root)
    recipe, data = found.recipe, found.data
    candidates = teachers_of(run, found)
    whole = found.student if isinstance(found.student, MultiExit) else None
    references = [_teacher(one, found) for one in candidates]
    if (run / "baseline.json").exists():
        references += _of_the_run(run, "baseline", load_network(run / "baseline.json"), found)[-1:]
    calibration, validation, chosen_on = _held(data, samples)
    loaded = _loader(recipe, data)
    return Case(
        name=run.resolve().name,
        students=_of_the_run(run, "student", found.student.eval(), found),
        references=references,
        calibration=lambda: make_loader(calibration, min(64, len(calibration))),
        validation=lambda: loaded(validation),
        chosen_on=chosen_on,
        test=lambda: loaded(data.test),
        task=components.task(recipe, data),
        teacher=as_one(candidates, mix=recipe.ensemble) if candidates else None,
        finished=found,
        tokenizer=data.tokenizer,
        whole=whole,
        origin=_origin(run, found),
        notes=[] if candidates or not recipe.teachers else ["the teacher cannot be found; its rows are left out"],
    )


def _of_the_run(run: Path, stem: str, network: nn.Module, found: Finished) -> list[Subject]:
    """The student ("distilled") or the baseline of a run; of one with several exits each of them, deepest last."""
    about, spec = dict(read_description(run / f"{stem}.json")), found.recipe.student
    size, reads, int8 = spec.size, _several(spec, found.data), run / f"{stem}-int8.onnx"
    if not isinstance(network, MultiExit):
        name = "distilled" if stem == "student" else stem
        return [Subject(name, network, about, size, int8=int8 if int8.is_file() else None, reads=reads)]
    last = len(network.trunk)
    return [
        Subject(
            f"exit {number}/{last}" if stem == "student" else stem,
            exit_network(network, number),
            {**about, "options": {**about["options"], "exit": number}},
            size,
            reads=reads,
        )
        for number in range(1, last + 1)
    ]


def _several(spec: schema.Model, data: DataSet) -> Reading | None:
    """What a network's files read of samples that are several inputs by name; None of other samples."""
    if data.tokenizer is not None or isinstance(data.train.sample(0), Tensor):
        return None
    prepare = components.inputs(spec.model_copy(update={"mean": None, "std": None}))
    return several((next(iter(make_loader(split, FEW))).inputs for _, split in data.parts), prepare)


def _teacher(one: Candidate, found: Finished) -> Subject:
    about, own = components.about(one.spec, found.data), in_own_tokens(one.spec, found.data)
    prepare, reads = components.inputs(one.spec) if own else None, _several(one.spec, found.data)
    described = {**about, "input": {**about["input"], **own}}
    return Subject(one.name, one.module.eval(), described, one.spec.size, prepare, reads=reads)


def _held(data: DataSet, samples: int) -> tuple[Split, Split, str]:
    """Samples to calibrate with, samples to choose on, and what these are."""
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    calibration = data.train.subset(order[:samples])
    if data.validation is not None:
        kept = torch.randperm(len(data.validation), generator=torch.Generator().manual_seed(0))[:VALIDATION_SAMPLES]
        return calibration, data.validation.subset(kept.sort().values), "the run's validation split"
    rest = order[samples : samples + VALIDATION_SAMPLES]
    if not len(rest):
        raise RequestError(
            f"all {len(order):,} training samples would be used to calibrate, and none to choose on; calibrate with "
            "fewer, or train with data.validation"
        )
    return calibration, data.train.subset(rest), UNVALIDATED


def _loader(recipe: schema.Recipe, data: DataSet) -> Callable[[Split], Iterable[Batch]]:
    size = components.held_out_batch(recipe, data)
    return lambda split: make_loader(split, size, workers=recipe.data.workers)


def _origin(run: Path, found: Finished) -> dict[str, Any]:
    with (run / RESULT).open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return {
        "recipe": found.recipe.name,
        "data": found.data.name,
        "seed": found.recipe.seed,
        "fingerprint": identity.digest(found.made_of) if found.made_of else content,
        "training_samples": len(found.data.train),
        "test_samples": len(found.data.test),
        "method": found.recipe.distill.model_dump(mode="json"),
        "epochs": found.recipe.epochs,
        "teacher_models": [one.model for one in found.recipe.teachers],
    }
