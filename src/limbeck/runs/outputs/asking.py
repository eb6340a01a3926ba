"""A recipe's training samples as a teacher is asked about them: in which views, and how its outputs are stored."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import limbeck
from limbeck.data import DataSet, InMemory, Loader, make_loader
from limbeck.folders import cache_root
from limbeck.recipes import schema
from limbeck.runs import components
from limbeck.runs.texts import asked_about
from limbeck.sources import names_in, own_code
from limbeck.teachers import EnsembleTeacher, ModuleTeacher, Teacher
from limbeck.teachers.coding import Coding
from limbeck.teachers.shards import Shards
from limbeck.teachers.stored import place_key
from limbeck.types import Batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Asking:
    """A recipe's training samples, as a teacher is asked about them."""

    recipe: schema.Recipe
    data: DataSet
    fabric: Fabric
    spec: schema.Store
    shown: bool = False
    """Whether a line each minute says how far it has come."""

    @property
    def views(self) -> int:
        """How many versions of each sample the students' epochs see."""
        return views_of(self.recipe, self.data)

    @property
    def batch_size(self) -> int:
        """Samples asked at once: as many as a student's batch, so that the values are those of an online teacher."""
        return min(self.spec.batch_size or self.recipe.data.batch_size, len(self.data.train))

    def batches(self, view: int, start: int = 0, stop: int | None = None) -> Iterable[Batch]:
        """The samples from `start`, a multiple of the batch size, to `stop`, in order, in one view."""
        loader = self._loader()
        loader.set_epoch(view)
        stop = len(self.data.train) if stop is None else stop
        return islice(loader.starting_at(start // self.batch_size), math.ceil((stop - start) / self.batch_size))

    def made_of(self, teacher: Teacher) -> dict[str, str]:
        """What the teacher outputs are a function of."""
        spec = self.recipe.data
        networks = [(one.model, one.options) for one in self.recipe.teachers]
        data_code = [] if isinstance(self.data.train, InMemory) else [spec.name]
        return {
            "teacher": teacher.fingerprint,
            "model": _digest(networks),
            "code": own_code([*names_in([networks, spec.augment]), *data_code], _networks(teacher)),
            "data": asked_about(self.recipe.teachers, self.data),
            "views": views_digest(spec),
            "limbeck": limbeck.__version__,
        }

    @property
    def words(self) -> dict[str, str]:
        """What it is made of in words."""
        teachers = ", ".join(one.model for one in self.recipe.teachers)
        asked = f"batches of {self.batch_size} on {self._kernels()}"
        return {"teacher": teachers, "data": self.data.name, "asked": asked}

    def coding(self, teacher: Teacher) -> Coding:
        """How the teacher outputs are stored on disk.

        As the recipe says; in a place of the user's own as it is stored there already; in limbeck's cache in half
        precision, but where the recipe leaves the place to limbeck: then that must change no figure.
        """
        spec = self.spec
        if spec.dtype is None and spec.where not in schema.PLACES:
            found = Shards(self.place(teacher)).description()
            if found is not None:
                return replace(Coding.of(found.about), **form_of(spec))
        dtype = spec.dtype or ("float32" if spec.where == "auto" else "float16")
        return Coding(dtype, **form_of(spec))

    def place(self, teacher: Teacher) -> str:
        """Where the teacher outputs are stored, if on disk.

        A place of the user's own holds logits; each set of taps besides has a folder of its own in it, so that several
        methods can share the place.
        """
        if self.spec.where in schema.PLACES:
            # What is found unasked has the very bits that would be computed here: not those of another batch size.
            asked = self._asked() if self.spec.where == "auto" else ""
            return str(cache_root() / "teacher_outputs" / place_key(self.made_of(teacher), self.coding(teacher), asked))
        logits, features = teacher(next(iter(self.batches(0))).first(2))
        if logits is not None and not features:
            return self.spec.where
        taps = json.dumps([logits is not None, *sorted(features)])
        return f"{self.spec.where.rstrip('/')}/taps-{hashlib.sha256(taps.encode()).hexdigest()[:8]}"

    def bits(self, teacher: Teacher) -> str:
        """A name that outputs in fp32 have in common where they have the same bits in as many views."""
        return place_key(self.made_of(teacher), Coding("float32"), f"{self.views} views, {self._asked()}")

    def _asked(self) -> str:
        return f"{self.batch_size} {self._kernels()}"

    def _kernels(self) -> str:
        """What the last bits of a network's outputs depend on besides the network and the batch."""
        device = self.fabric.device
        if device.type == "cuda":
            return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
        units = f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} thread(s)"
        return f"{device.type} {units}, torch {torch.__version__}"

    def _loader(self) -> Loader:
        views = components.views(self.recipe.data, self.data)
        device, workers = self.fabric.device, self.recipe.data.workers
        return make_loader(self.data.train, self.batch_size, device=device, workers=workers, views=views)


def views_of(recipe: schema.Recipe, data: DataSet) -> int:
    """How many versions of each training sample the students' epochs see."""
    split, passes = data.train, recipe.epochs
    changing = bool(recipe.data.augment) or (not isinstance(split, InMemory) and split.random)
    if recipe.steps_per_epoch is not None:
        drawn = passes * recipe.steps_per_epoch * recipe.data.batch_size
        passes = math.ceil(drawn / len(split)) + 1  # a last, smaller batch counts as one too
    return min(recipe.data.views or passes, passes) if changing else 1


def form_of(spec: schema.Store) -> dict[str, Any]:
    """What a recipe says of the form in which logits are stored; empty where it says nothing."""
    form = {"top_k": spec.top_k, "draws": spec.draws, "bits": spec.bits, "power": spec.power}
    return form if spec.top_k or spec.draws else {}


def views_digest(spec: schema.Data) -> str:
    """What augmented versions of samples are a function of."""
    return _digest((spec.augment, spec.view_seed))


def _digest(content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def _networks(teacher: Teacher) -> list[nn.Module]:
    """The networks behind a teacher, where there are any."""
    if isinstance(teacher, EnsembleTeacher):
        return [network for one in teacher.teachers.values() for network in _networks(one)]
    return [teacher.module] if isinstance(teacher, ModuleTeacher) else []
