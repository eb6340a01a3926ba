"""`limbeck tune`: from a recipe to the best settings of its baseline and of each method, and what those are worth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from limbeck.engine.files import write_json, write_text
from limbeck.errors import RequestError
from limbeck.notices import once, tell
from limbeck.recipes import schema
from limbeck.recipes.read import dump
from limbeck.runs import identity, teachers
from limbeck.runs.compiling import decided
from limbeck.runs.folder import TUNED, choose
from limbeck.runs.folder import opened as opened_folder
from limbeck.runs.identity import Identity, Origins
from limbeck.runs.ledger import Ledger
from limbeck.runs.machine import Machine
from limbeck.runs.same import changes, told
from limbeck.runs.train import Job
from limbeck.tuning.budget import Budget
from limbeck.tuning.contenders import Contender
from limbeck.tuning.fresh import Fresh, fresh_seeds
from limbeck.tuning.limits import Limits
from limbeck.tuning.prepared import Prepared, prepare
from limbeck.tuning.report import report
from limbeck.tuning.search import Say, Search
from limbeck.tuning.settings import with_settings
from limbeck.tuning.space import NOTHING, GivenSpace, as_content
from limbeck.tuning.trainer import Trainer
from limbeck.tuning.winners import write_winner

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

SPACE = "space.yaml"


@dataclass(frozen=True)
class Asked:
    """What a search is asked for.

    Attributes:
        methods: As `compare` takes them; the baseline is always among the contenders.
        trials: Of the baseline and of each method.
        minutes: Of the search, shared equally; None for as long as the trials take.
        fresh: Seeds on which the winners are trained anew.
        space: What a file of a space says.
        storage: An address of Optuna, or a path, where several processes share the search; None: a journal in the
            folder.
        at_most: What a student may cost.
    """

    methods: Sequence[str]
    trials: int
    minutes: float | None = None
    fresh: int = 5
    space: GivenSpace = NOTHING
    storage: str | None = None
    at_most: Limits = field(default_factory=Limits)


def tune(
    recipe: schema.Recipe,
    asked: Asked,
    *,
    root: Path,
    out: Path | None = None,
    resume: bool = False,
    variants: Mapping[str, schema.Recipe] | None = None,
    machine: Machine | None = None,
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
    studies = _studies()
    prepared = prepare(recipe, asked.methods, variants or {}, asked.space, root, machine)
    _limit(prepared, asked.at_most)
    proposed = choose(out, f"tune-{recipe.name}", resume)
    storage = studies.opened(asked.storage, proposed) if asked.storage else None
    fabric = machine.fabric(prepared.recipe.precision)
    described = dump(prepared.recipe)
    fits = _refuser(prepared.made_of)
    with opened_folder(out, f"tune-{recipe.name}", described, resume, fabric, fits) as folder, once():
        began(folder)
        _describe(folder, prepared, machine)
        storage = storage or studies.opened(None, folder)
        for one in prepared.found:
            teachers.train(one, prepared.recipe, prepared.searched, machine, folder, resume=resume, retrain=False)
        say: Say = tell if machine.progress else _nothing
        trainings = len(prepared.contenders) * (asked.trials + asked.fresh)
        quiet, outputs = replace(machine, progress=False), Ledger(folder, fabric, resume)
        job = Job(prepared.recipe, prepared.searched, quiet, fabric, folder, resume, trainings=trainings)
        job = replace(job, outputs=outputs)
        taught = [one.recipe for one in prepared.contenders if one.taught]
        job = decided(job, taught, prepared.student, prepared.found)
        result = _carried_out(Trainer(job, prepared.found), prepared, asked, storage, root, say)
        write_json(folder / TUNED, result)
    return {**result, "out": str(folder)}


def _limit(prepared: Prepared, limits: Limits) -> None:
    """Make limits a part of what the search is made of.

    Raises:
        RequestError: The student exceeds them, and no other one is searched.
    """
    if not limits.as_dict():
        return
    prepared.made_of["recipe"]["at_most"] = limits.as_dict()
    varies = any(key.partition(".")[0] == "student" for one in prepared.contenders for key in one.space)
    if not varies and (reason := limits.exceeded(prepared.recipe, prepared.searched)):
        raise RequestError(f"--at-most: {reason}; search keys of the student by --space, such as student.hidden")


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


def _carried_out(
    trainer: Trainer, prepared: Prepared, asked: Asked, storage: BaseStorage, root: Path, say: Say
) -> dict[str, Any]:
    """The search and what comes behind it: what tune.json holds."""
    study_of = _studies().Study
    everyone, recipe, folder = prepared.contenders, prepared.recipe, trainer.job.out
    shared, mode = asked.storage is not None, trainer.mode
    prefix = prepared.name

    asking = sum(trainer.asked(one) for one in everyone)
    by_name = {one.name: study_of(storage, f"{prefix} {one.name}", mode, recipe.seed, shared) for one in everyone}
    budget = Budget.shared(asked.trials, asked.minutes, len(everyone))
    search = Search(everyone, by_name, trainer, budget, say, asked.at_most)
    search.run()
    best = {one.name: search.best(one) for one in everyone}
    winners = [(one, _with_best(one, best[one.name])) for one in everyone]
    for one, won in winners:
        about = {
            "Recipe": f"{recipe.title} on {prepared.data.name}",
            "Validation": f"{trainer.monitor} {best[one.name]['value']:.4f} on {len(prepared.searched.test):,} samples",
            "Budget": f"{by_name[one.name].spent().trials} trials, as the other contenders",
        }
        write_winner(folder, one, won, best[one.name], about)
    settings = json.dumps([best[one.name]["settings"] for one in everyone], sort_keys=True)
    fresh_name = f"{prefix} fresh {hashlib.sha256(settings.encode()).hexdigest()[:16]}"
    fresh_study = study_of(storage, fresh_name, mode, recipe.seed, shared)
    origins = Origins(prepared.student, prepared.found, prepared.data, root)
    seeds = fresh_seeds(recipe, asked.fresh)
    results = Fresh(winners, seeds, fresh_study, trainer, prepared.data, origins, say).run()
    return report(trainer, everyone, by_name, best, results, prepared.data, fresh_study, asking)


def _with_best(contender: Contender, best: Mapping[str, Any]) -> schema.Recipe:
    return with_settings(contender.recipe, best["settings"]) if best["number"] else contender.recipe


def _nothing(line: str) -> None:
    """Of a search without display."""


def _refuser(made_of: Identity) -> Callable[[Path], None]:
    def refuse(folder: Path) -> None:
        if changed := changes(folder, made_of):
            raise RequestError(f"{folder} holds another search ({told(changed)}); choose another --out")

    return refuse


def _studies() -> Any:
    try:
        from limbeck.tuning import studies
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise RequestError("limbeck tune needs the extra: pip install 'limbeck[tune]'") from None
    return studies
