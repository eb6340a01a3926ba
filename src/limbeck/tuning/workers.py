"""A search by several processes, of this machine or of Ray: each takes the trial that is next, until none is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from limbeck.errors import RunError
from limbeck.notices import tell
from limbeck.recipes import schema
from limbeck.runs import components, teachers
from limbeck.runs.identity import Identity
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.ledger import Ledger, Outputs
from limbeck.runs.parallel.processes import Pool, number
from limbeck.runs.train import Job
from limbeck.tuning.asked import Asked
from limbeck.tuning.begun import Begun
from limbeck.tuning.contenders import Contender
from limbeck.tuning.course import Course
from limbeck.tuning.prepared import Prepared, seen
from limbeck.tuning.search import Say, silent
from limbeck.tuning.studies import open_storage, own
from limbeck.tuning.trainer import Trainer


@dataclass(frozen=True)
class Order:
    """All that another process needs to work on a search.

    Attributes:
        recipe: The search's.
        contenders: Who is tuned.
        made_of: What the search's figures depend on.
        asked: Their budget.
        begun: What the search is called.
        storage: Where trials are recorded.
        root: Folder of the data.
        folder: That of the search, which the process can write.
        machine: Devices and display.
        compile: What was decided for all students.
        trainings: How many students have the same teacher.
        outputs: Where teacher outputs came from, as far as that is known.
        shared: Where the processes share those in memory.
        processes: How many there are.
    """

    recipe: schema.Recipe
    contenders: Sequence[Contender]
    made_of: Identity
    asked: Asked
    begun: Begun
    storage: str
    root: Path
    folder: Path
    machine: Machine
    compile: str | None
    trainings: int
    outputs: Mapping[str, Outputs]
    shared: Path | None
    processes: int


def share_out(course: Course, pool: Pool, machine: Machine) -> float:
    """Carry a search out by the processes of a pool; the seconds that computing teacher outputs took.

    Raises:
        RequestError, RunError: What one of them has met with first; the others are ended.
    """
    job, ready = course.trainer.job, course.prepared
    everyone = ready.contenders
    order = Order(
        ready.recipe, everyone, ready.made_of, course.asked, course.begun, course.asked.storage or str(own(job.out)),
        course.root.absolute(), job.out.absolute(), replace(machine, loggers=()), job.compile, job.trainings,
        job.outputs.known, job.shared, course.processes,
    )  # fmt: skip
    trainings = len(everyone) * max(course.asked.trials, course.asked.fresh)
    seconds = 0.0
    for took, noted in pool.map(work, [order] * min(course.processes, trainings)):
        job.outputs.merge(noted)
        seconds = max(seconds, took)  # each counts all of them, also those that another one has computed
    return seconds


def work(order: Order) -> tuple[float, dict[str, Outputs]]:
    """Carry out a process's part; the seconds of computing teacher outputs, and where those came from."""
    if not order.folder.is_dir():
        raise RunError(
            f"{order.folder} cannot be seen by this machine; processes on other machines need a shared file system for "
            "the search's folder, the data and limbeck's cache (LIMBECK_CACHE)"
        )
    ready, job = _begun(order)
    say: Say = tell if order.machine.progress else silent
    trainer = Trainer(job, ready.found)
    storage = open_storage(order.storage, order.folder)
    course = Course(trainer, ready, order.asked, storage, order.begun, True, order.root, say, order.processes)
    seconds = course.ask()
    course.run()
    return seconds, {key: one for key, one in job.outputs.known.items() if order.outputs.get(key) != one}


def _begun(order: Order) -> tuple[Prepared, Job]:
    recipe, machine = order.recipe, order.machine.one_device(number())
    data = components.data(recipe.data, order.root)
    searched = seen(data)
    found = teachers.candidates(recipe, searched, machine)
    for one in found:
        teachers.train(one, recipe, searched, machine, order.folder, resume=True, retrain=False)
    student = components.model(recipe.student, searched, recipe.seed)
    quiet = replace(machine, progress=False)
    job = Job(
        recipe, searched, quiet, machine.fabric(recipe.precision), order.folder, True, order.compile, order.trainings,
        outputs=Ledger(known=order.outputs), shared=order.shared,
    )  # fmt: skip
    return Prepared(recipe, data, searched, found, student, order.contenders, order.made_of, cut=False), job
