"""The course of a search: all trials, then the winners on fresh seeds; of several processes one's part in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.recipes import schema
from limbeck.runs.identity import Origins
from limbeck.tuning.asked import Asked
from limbeck.tuning.begun import Begun
from limbeck.tuning.budget import Budget
from limbeck.tuning.contenders import Contender
from limbeck.tuning.fresh import Fresh, Results, fresh_seeds
from limbeck.tuning.prepared import Prepared
from limbeck.tuning.search import Say, Search
from limbeck.tuning.settings import with_settings
from limbeck.tuning.studies import Study
from limbeck.tuning.trainer import Trainer

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


@dataclass(frozen=True)
class Outcome:
    """What a search has found.

    Attributes:
        studies: The trials, by contender.
        best: The record of each one's best trial.
        winners: Each contender with the recipe of that trial.
        results: Their entries by fresh seed.
        fresh: The fresh trainings.
    """

    studies: Mapping[str, Study]
    best: Mapping[str, Mapping[str, Any]]
    winners: Sequence[tuple[Contender, schema.Recipe]]
    results: Results
    fresh: Study


@dataclass(frozen=True)
class Course:
    """A search as one process carries it out.

    Attributes:
        trainer: Carries trainings out.
        prepared: Contenders and data.
        asked: Their budget.
        storage: Where trials are recorded.
        begun: What the search is called there.
        shared: Whether other processes are at work on it too.
        root: Folder of the data.
        say: Is told of each training.
        processes: How many of this command's work on it.
    """

    trainer: Trainer
    prepared: Prepared
    asked: Asked
    storage: BaseStorage
    begun: Begun
    shared: bool
    root: Path
    say: Say
    processes: int = 1

    def ask(self) -> float:
        """Precompute what trials will ask the teacher; the seconds that it took."""
        return sum(self.trainer.asked(one) for one in self.prepared.contenders)

    def run(self) -> Outcome:
        """Carry out what is due, and wait for what others are at."""
        everyone, asked = self.prepared.contenders, self.asked
        studies = {one.name: self._study(one.name, f"{self.begun.drawn_by} {one.name}") for one in everyone}
        budget = Budget.shared(asked.trials, asked.minutes, len(everyone), self.processes)
        search = Search(everyone, studies, self.trainer, budget, self.say, asked.at_most)
        search.run()
        best = {one.name: search.best(one) for one in everyone}
        winners = [(one, _with_best(one, best[one.name])) for one in everyone]
        settings = json.dumps([best[one.name]["settings"] for one in everyone], sort_keys=True)
        fresh = self._study(f"fresh {hashlib.sha256(settings.encode()).hexdigest()[:16]}")
        results = self._fresh(winners, fresh).run()
        return Outcome(studies, best, winners, results, fresh)

    def _fresh(self, winners: Sequence[tuple[Contender, schema.Recipe]], study: Study) -> Fresh:
        ready = self.prepared
        origins = Origins(ready.student, ready.found, ready.data, self.root)
        seeds = fresh_seeds(ready.recipe, self.asked.fresh)
        return Fresh(winners, seeds, study, self.trainer, ready.data, origins, self.say)

    def _study(self, name: str, drawn_by: str = "") -> Study:
        whole = f"{self.begun.name} {name}"
        return Study(self.storage, whole, self.trainer.mode, self.prepared.recipe.seed, self.shared, drawn_by)


def _with_best(contender: Contender, best: Mapping[str, Any]) -> schema.Recipe:
    return with_settings(contender.recipe, best["settings"]) if best["number"] else contender.recipe
