"""One training of a contender, in the process and with the data and teacher outputs that all trainings share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from limbeck.data import DataSet
from limbeck.distillers import Scheme
from limbeck.engine.callbacks.hooks import Callback, Training
from limbeck.models import parameter_count
from limbeck.recipes import schema
from limbeck.runs import components, hits, learners, teachers
from limbeck.runs.outputs.keeping import Kept
from limbeck.runs.outputs.ledger import Ledger
from limbeck.runs.stages import assemble, begun, distil, uses_teacher
from limbeck.runs.train import Job
from limbeck.tasks import Task
from limbeck.teachers import Teacher
from limbeck.tuning.contenders import Contender
from limbeck.tuning.limits import Limits

PHASE = "student"


class Watch(Callback):
    """Says after each epoch that a trial is alive, and ends a training that has lost.

    Args:
        monitor: The metric that counts.
        beat: Is called after each epoch, of stages before the student's own training too.
        lost: Whether the student's validation scores so far, by epoch, say that its training need not go on.
    """

    def __init__(
        self, monitor: str, beat: Callable[[], None], lost: Callable[[list[float]], bool] = lambda scores: False
    ) -> None:
        self.monitor, self.beat, self.lost = monitor, beat, lost

    def fit_start(self, training: Training) -> None:
        """A training that was killed after the epoch in which it lost ends before its next one."""
        self._look(training)

    def epoch_end(self, training: Training) -> None:
        self.beat()
        self._look(training)

    def _look(self, training: Training) -> None:
        """The scores of a stage before the student's own training say nothing of it."""
        if training.phase == PHASE and self.lost(scores_in(training.records, self.monitor)):
            training.stop()


def curve(folder: Path, monitor: str) -> list[float]:
    """The validation scores of a training by epoch; those before it was interrupted too."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return scores_in([one for one in map(json.loads, lines) if one["phase"] == PHASE], monitor)


def scores_in(records: Iterable[Mapping[str, Any]], monitor: str) -> list[float]:
    """The validation scores of a training's records."""
    return [float(one[f"val_{monitor}"]) for one in records if f"val_{monitor}" in one]


@dataclass
class Trainer:
    """What all trainings of a search have in common.

    Attributes:
        job: Machine, folder and the mode of torch.compile; its recipe is the search's.
        found: The teachers, trained.
        memories: The teacher outputs in memory, by who is asked about which views.
        asked_of: The fingerprints of those whom contenders ask, by contender.
    """

    job: Job
    found: Sequence[teachers.Candidate]
    memories: dict[str, dict[str, Kept]] = field(default_factory=dict)
    asked_of: dict[str, str] = field(default_factory=dict)

    @cached_property
    def task(self) -> Task:
        """What all contenders learn."""
        return components.task(self.job.recipe, self.job.data)

    @property
    def monitor(self) -> str:
        """The metric that selects."""
        return self.task.monitor

    @property
    def mode(self) -> str:
        """Whether a higher score is better: "max" or "min"."""
        return self.task.mode

    @property
    def scored(self) -> int:
        """How many validation samples are right or wrong as a whole."""
        validation = self.job.data.validation
        return hits.scored(self.task, len(validation) if validation else 0)

    def asked(self, contender: Contender) -> float:
        """Precompute what a contender's trials will ask the teacher, where that pays; the seconds that it took."""
        if not contender.taught or not self.found:
            return 0.0
        recipe, data = contender.recipe, self.job.data
        _, scheme, online = assemble(recipe, components.model(recipe.student, data, recipe.seed), self.found, data)
        if online is None or not uses_teacher(scheme):
            return 0.0
        key = self._key(recipe, online.fingerprint)
        self.asked_of[contender.name] = online.fingerprint
        before = key in self.memories
        _, seconds = self._job(contender, recipe, self.job.out, resume=False).precompute(online, self.found)
        return 0.0 if before else seconds

    def exceeded(self, limits: Limits, contender: Contender, recipe: schema.Recipe) -> str:
        """In words, what a contender's student by this recipe exceeds; empty where it fits."""
        return limits.exceeded(recipe, self.job.data, self.found if contender.taught else ())

    def train(
        self,
        contender: Contender,
        recipe: schema.Recipe,
        out: Path,
        *,
        resume: bool,
        data: DataSet | None = None,
        watch: Watch | None = None,
    ) -> Trained:
        """Train a contender's student by a recipe.

        Args:
            contender: Whose student.
            recipe: The contender's, with a trial's settings and seed.
            out: Where its files go.
            resume: Resume what an interrupted training has left there.
            data: In the place of the search's: with the test set.
            watch: Looks into the training.
        """
        job = self._job(contender, recipe, out, resume)
        job = replace(job, data=data or job.data, callbacks=() if watch is None else (watch,))
        student, judge = begun(job, self.found)
        if not contender.taught:
            alone = learners.alone(student, recipe, job.data)
            return Trained(job, alone, judge, job.train(alone, PHASE))
        done = distil(job, student, self.found)
        return Trained(job, done.scheme, judge, done.training)

    def _job(self, contender: Contender, recipe: schema.Recipe, out: Path, resume: bool) -> Job:
        fingerprint = self.asked_of.get(contender.name, "")
        key = self._key(recipe, fingerprint)
        base = self._key(self.job.recipe, fingerprint) == key
        # Other views are other outputs, of the same name in a ledger.
        outputs = self.job.outputs if base else Ledger()
        memory = self.memories.setdefault(key, {})
        return replace(self.job, recipe=recipe, out=out, resume=resume, memory=memory, outputs=outputs)

    @staticmethod
    def _key(recipe: schema.Recipe, fingerprint: str) -> str:
        return f"{fingerprint} {recipe.data.model_dump_json()} {recipe.epochs}"


@dataclass(frozen=True)
class Trained:
    """A trained student.

    Attributes:
        job: What it was trained in.
        scheme: The student with its losses.
        judge: Who it is compared with in tests.
        training: Its epochs and seconds.
    """

    job: Job
    scheme: Scheme
    judge: Teacher | None
    training: dict[str, Any]

    def tested(self) -> dict[str, Any]:
        """Its entry in results, with the one look at the test set; the samples it gets right are kept in its folder."""
        right = hits.Hits(self.scheme.task, self.scheme.chosen)
        size = {"parameters": parameter_count(self.scheme.student)}
        entry = {**size, **self.job.test(self.scheme, self.judge, right.hear), **self.training}
        right.write(self.job.out)
        return entry
