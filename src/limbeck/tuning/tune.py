"""`limbeck tune`: from a recipe to the best settings of its baseline and of each method, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from limbeck.engine.saving.files import write_json, write_text
from limbeck.errors import RequestError
from limbeck.notices import once, tell
from limbeck.recipes import schema
from limbeck.recipes.read import dump
from limbeck.runs import identity, teachers
from limbeck.runs.compiling import decided
from limbeck.runs.folder import TUNED, choose, opened
from limbeck.runs.identity import Identity
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.ledger import Ledger
from limbeck.runs.outputs.shared import sharing
from limbeck.runs.parallel.processes import Pool
from limbeck.runs.same import changes, reasons
from limbeck.runs.train import Job
from limbeck.tuning.asked import Asked
from limbeck.tuning.begun import begun
from limbeck.tuning.limits import Limits
from limbeck.tuning.prepared import Prepared, prepare
from limbeck.tuning.report import report
from limbeck.tuning.search import Say, silent
from limbeck.tuning.space import as_content
from limbeck.tuning.trainer import Trainer
from limbeck.tuning.winners import write_winner

if TYPE_CHECKING:
    from limbeck.tuning.course import Outcome

SPACE = "space.yaml"


def tune(
    recipe: schema.Recipe,
    asked: Asked,
    *,
    root: Path,
    out: Path | None = None,
    resume: bool = False,
    variants: Mapping[str, schema.Recipe] | None = None,
    machine: Machine | None = None,
    pool: Pool | None = None,
    began: Callable[[Path], None] = lambda folder: None,
) -> dict[str, Any]:
    """Search the settings of the baseline and of each method at equal budgets, and test the winners on fresh seeds.

    Args:
        recipe: Data, teacher, student and training; the first trial of each contender is as it says.
        asked: Contenders, budget and space.
        root: Folder of the data.
        out: Folder of the search; runs/tune-NAME by default.
        resume: Resume what an interrupted search has left in `out`, or give a finished one more trials.
        variants: The recipe's variants that may be named as methods.
        machine: Devices and display.
        pool: Processes that work on the search side by side; None does one training after the other in this one.
        began: Told the folder, before anything is trained.

    Returns:
        What tune.json holds, and "out", the folder.

    Raises:
        RequestError: Something does not fit; found before anything is written.
        RunError: A training failed.
    """
    machine = machine or Machine()
    if asked.trials < 1 or asked.fresh < 1 or (asked.minutes is not None and not asked.minutes > 0):
        raise RequestError("a search needs at least one trial, one fresh seed, and minutes above 0")
    studies, courses, workers = _on_optuna()
    prepared = prepare(recipe, asked.methods, variants or {}, asked.space, root, machine)
    _limit(prepared, asked.at_most)
    proposed = choose(out, f"tune-{recipe.name}", resume)
    storage = studies.open_storage(asked.storage, proposed) if asked.storage else None
    named = begun(asked, prepared.name, proposed if resume else None)
    fabric = machine.fabric(prepared.recipe.precision)
    described = dump(prepared.recipe)
    fits = _refuser(prepared.made_of)
    with (
        opened(out, f"tune-{recipe.name}", described, resume, fabric, fits) as folder,
        once(),
        sharing(folder, pool is not None) as shared,
    ):
        began(folder)
        named.write(folder)
        _describe(folder, prepared, machine)
        storage = storage or studies.open_storage(None, folder)
        if not named.shared:
            studies.release(storage)
        for one in prepared.found:
            teachers.train(one, prepared.recipe, prepared.searched, machine, folder, resume=resume, retrain=False)
        job = Job(prepared.recipe, prepared.searched, replace(machine, progress=False), fabric, folder, resume)
        trainings = len(prepared.contenders) * (asked.trials + asked.fresh)
        job = replace(job, trainings=trainings, outputs=Ledger(folder, fabric, resume), shared=shared)
        job = decided(job, [one.recipe for one in prepared.contenders if one.taught], prepared.student, prepared.found)
        say: Say = tell if machine.progress else silent
        trainer, several = Trainer(job, prepared.found), named.shared or pool is not None
        processes = pool.places() if pool else 1
        course = courses.Course(trainer, prepared, asked, storage, named, several, root, say, processes)
        asking = workers.share_out(course, pool, machine) if pool else course.ask()
        outcome = course.run()
        _write_winners(folder, outcome, prepared, trainer.monitor)
        result = report(trainer, prepared, outcome, asking, pool.threads if pool else None)
        write_json(folder / TUNED, result)
    return {**result, "out": str(folder)}


def _limit(prepared: Prepared, limits: Limits) -> None:
    """Make limits a part of what the search is made of.

    Raises:
        RequestError: A contender's student exceeds them, and no other one is searched.
    """
    if not limits.as_dict():
        return
    prepared.made_of["recipe"]["at_most"] = limits.as_dict()
    for one in prepared.contenders:
        varies = any(key.partition(".")[0] == "student" for key in one.space)
        found = prepared.found if one.taught else ()
        if not varies and (reason := limits.exceeded(one.recipe, prepared.searched, found)):
            rest = "leave it out of --methods, or " if one.taught else ""
            raise RequestError(
                f"--at-most: {one.label}: {reason}; {rest}search keys of the student by --space, such as student.hidden"
            )


def _describe(folder: Path, prepared: Prepared, machine: Machine) -> None:
    """Write down what is searched, and say it."""
    spaces = as_content({one.name: one.space for one in prepared.contenders})
    text = yaml.safe_dump(spaces, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    write_text(folder / SPACE, text)
    identity.write(folder, prepared.made_of)
    if not machine.progress:
        return
    if prepared.cut:
        tell(
            f"no validation split: {prepared.recipe.data.validation:.0%} of the training samples are held out, in the "
            "search and behind it"
        )
    tell(f"searched, as {folder / SPACE} has it:\n{text.rstrip()}")


def _write_winners(folder: Path, found: Outcome, prepared: Prepared, monitor: str) -> None:
    for one, won in found.winners:
        best = found.best[one.name]
        about = {
            "Recipe": f"{prepared.recipe.title} on {prepared.data.name}",
            "Validation": f"{monitor} {best['value']:.4f} on {len(prepared.searched.test):,} samples",
            "Budget": f"{found.studies[one.name].spent().trials} trials, as the other contenders",
        }
        write_winner(folder, one, won, best, about)


def _refuser(made_of: Identity) -> Callable[[Path], None]:
    def refuse(folder: Path) -> None:
        if changed := changes(folder, made_of):
            raise RequestError(f"{folder} holds another search ({reasons(changed)}); choose another --out")

    return refuse


def _on_optuna() -> tuple[Any, Any, Any]:
    """The modules that need Optuna."""
    try:
        from limbeck.tuning import course, studies, workers
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise RequestError("limbeck tune needs the extra: pip install 'limbeck[tune]'") from None
    return studies, course, workers
