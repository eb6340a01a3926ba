"""A recipe's teachers: given, trained now, or trained by an earlier run and kept under a fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

import limbeck
from limbeck.atomic import sweep
from limbeck.data import DataSet, InMemory, make_loader
from limbeck.engine import Hardware, Saving, fit
from limbeck.engine.devices.fabric import AUTO, from_first
from limbeck.engine.devices.sharding import over_all, shard
from limbeck.engine.saving.checkpoint import restore_student, save_student
from limbeck.errors import RequestError
from limbeck.folders import cache_root, nearest
from limbeck.models.foreign.hugging_face_files import digest_of_folder
from limbeck.models.load import load_own
from limbeck.recipes import schema
from limbeck.runs import components, learners
from limbeck.runs.cache.in_use import gate, using
from limbeck.runs.folder import claimed
from limbeck.runs.machine import Machine
from limbeck.runs.pixels import with_pixels
from limbeck.sources import names_in, own_code
from limbeck.taps import LOGITS, Choice
from limbeck.teachers import EnsembleTeacher, ModuleTeacher, Teacher
from limbeck.teachers.ensemble import Mix

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_NOT_TRAINING = {"dtype", "weight", "weights", "store", "shard"}
KEYS = 5
"""Counts what the names of kept teachers are made of; those of an earlier kind are never found again."""


@dataclass
class Candidate:
    """One teacher of a recipe, built, and trained or not yet.

    Attributes:
        spec: What the recipe says of it.
        name: "teacher", or "teacher-0", … where there are several.
        module: The network.
        output: Which part of what it returns is its output; None finds it.
        kept: Where its weights are kept once it is trained; None for one that came trained.
        epochs: What its training took; None where that is unknown.
        seconds: Likewise.
        source: "trained", "reused" from an earlier run, or "given".
    """

    spec: schema.Teacher
    name: str
    module: nn.Module
    output: Choice = None
    kept: Path | None = None
    epochs: int | None = None
    seconds: float | None = None
    source: str = "given"

    def is_kept(self) -> bool:
        """Whether an earlier run has trained it: its description is written last, when all is there."""
        return self.kept is not None and (self.kept / "teacher.json").exists()


def candidates(recipe: schema.Recipe, data: DataSet, machine: Machine | None = None) -> list[Candidate]:
    """Build the recipe's teachers, with the weights of those that are given, and decide how they compute.

    Raises:
        RequestError: A teacher that would be untrained, an unknown name, weights that do not fit.
    """
    found = []
    for number, spec in enumerate(recipe.teachers):
        components.check_is_trained(spec)
        components.optimizer(spec.optimizer)
        components.schedule(spec.schedule, spec.epochs or 1)
        module = components.model(spec, data, spec.seed)
        spec = with_pixels(spec, module, data)
        name = "teacher" if len(recipe.teachers) == 1 else f"teacher-{number}"
        output = components.output(spec, recipe, data)
        one = Candidate(settled(spec, module, data, recipe, machine or Machine()), name, module, output)
        if spec.epochs and not spec.weights:
            one.kept = cache_root() / "teachers" / _key(one, recipe, data)
            _check_writable(cache_root())
        found.append(one)
    return found


def _check_writable(cache: Path) -> None:
    """Raise RequestError, before a teacher is trained, for a cache that could not keep it."""
    there = nearest(cache)
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise RequestError(f"limbeck's cache {cache} cannot be written; set LIMBECK_CACHE to another folder")


def settled(
    spec: schema.Teacher, module: nn.Module, data: DataSet, recipe: schema.Recipe, machine: Machine
) -> schema.Teacher:
    """The teacher with its dtype decided: bf16 where it would gain, asked about so many samples at once."""
    if spec.dtype != AUTO:
        return spec
    if spec.shard:
        return spec.model_copy(update={"dtype": "float32"})
    at_once = None if spec.store.where == "never" else spec.store.batch_size
    samples = at_once or recipe.data.batch_size
    try:
        precision = machine.precision(AUTO, module, components.example(spec, data), samples)
    except Exception:  # it cannot read the data: the dry run says so, with the remedy
        return spec
    return spec.model_copy(update={"dtype": "bfloat16" if precision == "bf16-mixed" else "float32"})


def as_one(
    found: Sequence[Candidate],
    taps: Sequence[str] = (),
    logits: bool = True,
    mix: Mix = "probabilities",
    temperature: float = 1.0,
) -> Teacher:
    """The candidates as one teacher that gives these taps; "N.TAP" names a tap of the N-th of several.

    Of several the logits are averaged as `EnsembleTeacher` takes `mix` and `temperature`.

    Raises:
        RequestError: A tap that the teacher does not have.
    """
    if len(found) == 1:
        return _online(found[0], taps, logits)
    members = {}
    for number, one in enumerate(found):
        own = [tap.removeprefix(f"{number}.") for tap in taps if tap.startswith(f"{number}.")]
        members[str(number)] = _online(one, [tap for tap in own if tap != LOGITS])
    stray = [tap for tap in taps if tap.partition(".")[0] not in members or "." not in tap]
    if stray:
        raise RequestError(f"there are {len(found)} teachers: name the one that has the tap, as in '0.{stray[0]}'")
    weights = {str(n): one.spec.weight for n, one in enumerate(found)}
    return EnsembleTeacher(members, weights, mix=mix, temperature=temperature)


def train(
    one: Candidate,
    recipe: schema.Recipe,
    data: DataSet,
    machine: Machine,
    out: Path,
    *,
    resume: bool,
    retrain: bool,
) -> None:
    """Bring a candidate to its trained weights: those kept by an earlier run, or trained now and then kept."""
    if one.kept is not None:
        with using(one.kept):
            _bring(one, one.kept, recipe, data, machine, out, resume=resume, retrain=retrain)


def _bring(
    one: Candidate,
    kept: Path,
    recipe: schema.Recipe,
    data: DataSet,
    machine: Machine,
    out: Path,
    *,
    resume: bool,
    retrain: bool,
) -> None:
    fabric = machine.fabric("32-true")

    def find() -> tuple[Path, str] | None:
        if resume and (out / f"{one.name}.json").exists():  # written last, when all is there
            return out, one.name
        return (kept, "teacher") if one.is_kept() and not retrain else None

    trained = restore_student(one.module, fabric, find)
    if trained is not None:
        folder, training = trained
        one.epochs, one.seconds = training["epochs"], training["seconds"]
        one.source = "trained" if folder == out else "reused"
        if one.source == "trained" and (retrain or not one.is_kept()):  # killed before it was kept
            _keep(one, data, fabric)
        return
    spec = one.spec
    epochs = spec.epochs or 0
    batch_size = spec.batch_size or recipe.data.batch_size
    fabric = machine.fabric(machine.precision(spec.precision, one.module, components.example(spec, data), batch_size))
    run = fit(
        learners.on_labels(one.module, spec, recipe, data),
        make_loader(
            data.train,
            batch_size,
            shuffle=True,
            drop_last=recipe.data.drop_last,
            weights=components.sampling(recipe.data, data),
            seed=spec.seed,
            workers=recipe.data.workers,
            views=components.teacher_views(spec, recipe, data),
            **machine.place(fabric),
        ),
        epochs=epochs,
        optimizer=components.optimizer(spec.optimizer),
        schedule=components.schedule(spec.schedule, epochs),
        # A mode of torch.compile by name is meant for the student.
        hardware=Hardware(fabric=fabric, compile=AUTO if recipe.compile else None),
        out=out,
        resume=resume,
        saving=Saving(phase=one.name, about=components.about(spec, data)),
        seed=spec.seed,
        callbacks=machine.logging(),
        progress=machine.progress,
    )
    one.epochs, one.seconds, one.source = epochs, run.seconds, "trained"
    _keep(one, data, fabric)


def _keep(one: Candidate, data: DataSet, fabric: Fabric) -> None:
    """Keep a trained teacher for later runs."""
    if one.kept and fabric.is_global_zero:
        sweep(one.kept)
        training = {"epochs": one.epochs, "seconds": one.seconds, "data": data.name, "seed": one.spec.seed}
        about = {**components.about(one.spec, data), "training": training, "keys": KEYS}
        with gate(cache_root()):  # of two processes that keep the same teacher, each writes both files
            save_student(one.kept, "teacher", one.module, about)
    fabric.barrier()


def load_kept(found: Sequence[Candidate]) -> bool:
    """Load the weights that earlier runs have kept; whether all candidates, and at least one, are trained then."""
    for one in found:
        if one.kept and one.is_kept():
            with using(one.kept):
                load_own(one.module, one.kept / "teacher.json")
            one.source = "reused"
    return bool(found) and all(one.kept is None or one.source == "reused" for one in found)


def share_out(found: Sequence[Candidate], fabric: Fabric) -> None:
    """Bring the trained teachers that the recipe says into shards, a part of each on every device."""
    for one in found:
        if one.spec.shard and fabric.world_size > 1:
            shard(one.module, over_all(fabric))


def train_apart(found: Sequence[Candidate], recipe: schema.Recipe, data: DataSet, machine: Machine) -> None:
    """Bring teachers to their trained weights outside of a run; what was interrupted goes on at the next call."""
    fabric = machine.fabric("32-true")
    for one in found:
        if one.kept is None:
            continue
        folder = one.kept.with_name(f"{one.kept.name}.training")
        there = from_first(fabric, one.is_kept)  # then nothing in the folder counts any more
        with nullcontext() if there else claimed(folder, fabric):
            train(one, recipe, data, machine, folder, resume=not there, retrain=False)
            if fabric.is_global_zero:
                shutil.rmtree(folder, ignore_errors=True)


def _online(one: Candidate, taps: Sequence[str], logits: bool = True) -> ModuleTeacher:
    dtype, inputs = components.dtype(one.spec), components.inputs(one.spec)
    return ModuleTeacher(one.module, taps, dtype=dtype, inputs=inputs, logits=logits, output=one.output)


def _key(one: Candidate, recipe: schema.Recipe, data: DataSet) -> str:
    """What a trained teacher depends on: everything that went into its training, the samples and the code included."""
    spec = one.spec
    training = spec.model_dump(mode="json", exclude=_NOT_TRAINING)
    steps = recipe.data.augment if spec.augment is None else spec.augment
    batches = [spec.batch_size or recipe.data.batch_size, recipe.data.drop_last, recipe.data.sampling, *steps]
    # Samples in memory are known by their bytes, however they were made.
    data_code = [] if isinstance(data.train, InMemory) else [recipe.data.name]
    code = own_code([*names_in([training, steps]), *data_code], [one.module])
    task = recipe.task.model_dump(mode="json") if recipe.task else repr(data.task)
    content = [KEYS, limbeck.__version__, training, batches, data.train.fingerprint, code, file_of(spec.model), task]
    text = json.dumps(content, sort_keys=True)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", spec.model)[-60:].lstrip(".")  # a file's path has no place in it
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def file_of(model: str) -> str:
    """A digest of the file, or the folder, that a network begins as ("keras:FILE"); empty where it begins as none."""
    kind, _, name = model.partition(":")
    path = Path(name)
    if kind == "hf" and path.is_dir():
        return digest_of_folder(path)
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
