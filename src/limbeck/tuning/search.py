"""The search: trials in turns, each compared with the best one so far while it runs; none sees the test set."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.errors import RunError, reason_of, whose
from limbeck.notices import muted
from limbeck.recipes import schema
from limbeck.tuning.budget import Budget
from limbeck.tuning.contenders import Contender
from limbeck.tuning.limits import Limits
from limbeck.tuning.pruning import hopeless
from limbeck.tuning.settings import Settings, with_settings
from limbeck.tuning.trainer import Trainer, Watch, curve

if TYPE_CHECKING:
    from optuna.trial import Trial

    from limbeck.tuning.studies import Study

PAUSE = 1.0
"""Seconds between two looks at what other processes do."""
Say = Callable[[str], None]


def silent(line: str) -> None:
    """Of a search without display."""


@dataclass
class Search:
    """The trials of all contenders.

    Attributes:
        contenders: In the order of their turns.
        studies: Their trials, by name.
        trainer: Carries them out.
        budget: What each contender may use.
        say: Is told of each trial.
        limits: What a student may cost; one that costs more is not trained.
    """

    contenders: Sequence[Contender]
    studies: Mapping[str, Study]
    trainer: Trainer
    budget: Budget
    say: Say
    limits: Limits = field(default_factory=Limits)

    def run(self) -> None:
        """Carry out all trials that are due, and wait for those of other processes.

        Raises:
            RequestError: A contender cannot be trained by the recipe's own settings; code of the user's own may raise
                anything else there, and its error has a note of whose trial it was.
            RunError: Of a contender no trial came to its end.
        """
        by_name = {one.name: one for one in self.contenders}
        while True:
            for contender in self.contenders:
                for trial in self.studies[contender.name].left(self.budget.trials):
                    self._carry_out(contender, trial)
            name = self.budget.due({name: study.spent() for name, study in self.studies.items()})
            if name is not None:
                begun = self.studies[name].start(self.budget.trials)
                if begun is not None:
                    self._carry_out(by_name[name], begun)
            elif any(study.busy() for study in self.studies.values()):
                time.sleep(PAUSE)
            else:
                break
        for contender in self.contenders:
            self.best(contender)

    def best(self, contender: Contender) -> dict[str, Any]:
        """The record of a contender's best trial; of equals the first.

        Raises:
            RunError: None came to its end.
        """
        records = self.studies[contender.name].records()
        found = best_of(records, self.trainer.mode)
        if found is None:
            reason = next((one["reason"] for one in records if one.get("reason")), "none was begun")
            raise RunError(f"no trial of {contender.label} came to its end: {reason}")
        return found

    def _carry_out(self, contender: Contender, trial: Trial) -> None:
        study = self.studies[contender.name]
        settings = study.settings(trial, contender.space, contender.own)
        before = best_of(study.records(), self.trainer.mode)
        out = self.trainer.job.out / "trials" / f"{contender.folder}-{trial.number}"
        began = time.perf_counter()
        with whose(f"{contender.label}, trial {trial.number + 1}"):
            record = self._record(contender, trial, settings, out, before)
        record["seconds"] = round(time.perf_counter() - began, 3)
        study.finish(trial, record)
        shutil.rmtree(out, ignore_errors=True)
        self.say(self._line(contender, trial.number, record, before))

    def _record(
        self, contender: Contender, trial: Trial, settings: Settings, out: Path, before: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Train a trial; what becomes of it, but for the seconds."""
        record: dict[str, Any] = {"settings": settings, "state": "complete", "value": None, "reason": None}
        monitor, mode = self.trainer.monitor, self.trainer.mode
        try:
            # The first trial is the recipe as it is, whatever of it the space could say.
            recipe = with_settings(contender.recipe, settings) if trial.number else contender.recipe
            if reason := self.trainer.exceeded(self.limits, contender, recipe):
                return {**record, "state": "refused", "reason": reason, "epochs": 0, "curve": []}
            with muted():
                watch = Watch(
                    monitor,
                    lambda: self.studies[contender.name].beat(trial),
                    lambda scores: self._lost(scores, recipe, before) is not None,
                )
                self.trainer.train(contender, recipe, out, resume=out.exists(), watch=watch)
        except Exception as error:  # the user's own code may raise anything
            if trial.number == 0 and not isinstance(error, RunError):
                raise
            return {**record, "state": "failed", "reason": reason_of(error), "epochs": 0, "curve": []}
        scores = curve(out, monitor)
        if (epochs := self._lost(scores, recipe, before)) is not None:
            record["state"], scores = "pruned", scores[:epochs]
        value = score_of(scores, recipe, mode)
        if not math.isfinite(value):
            record |= {"state": "failed", "reason": f"validation {monitor} is {value}"}
        return {**record, "value": value if math.isfinite(value) else None, "epochs": len(scores), "curve": scores}

    def _lost(self, scores: Sequence[float], recipe: schema.Recipe, before: Mapping[str, Any] | None) -> int | None:
        """After how many epochs a trial had lost against the best one so far; None of one that has not."""
        if before is None:
            return None
        counts = self.trainer.scored
        mode, curves = self.trainer.mode, (scores, before["curve"])
        if recipe.keep == "best":  # what counts of a trial is its best epoch, whichever it is
            curves = best_so_far(scores, mode), best_so_far(before["curve"], mode)
        ends = range(1, len(scores) + 1)
        return next((end for end in ends if hopeless(curves[0][:end], curves[1], recipe.epochs, mode, counts)), None)

    def _line(
        self, contender: Contender, number: int, record: Mapping[str, Any], before: Mapping[str, Any] | None
    ) -> str:
        values = {"best so far": before and before["value"], self.trainer.monitor: record["value"]}
        shown = ", ".join(f"{name} {value:.4f}" for name, value in reversed(values.items()) if value is not None)
        state = {"complete": "", "pruned": f"ended after epoch {record['epochs']}"}.get(
            record["state"], f"{record['state']}: {record['reason']}"
        )
        line = ", ".join(filter(None, (shown, state)))
        line = f"{contender.label}, trial {number + 1} of {self.budget.trials}: {line}"
        return f"{line} ({record['seconds']:.1f} s)"


def best_of(records: Sequence[Mapping[str, Any]], mode: str) -> dict[str, Any] | None:
    """The best of the trials that came to their end, of equals the first; None where there is none."""
    whole = [one for one in records if one["state"] == "complete"]
    sign = 1 if mode == "max" else -1
    return dict(max(whole, key=lambda one: (sign * one["value"], -one["number"]))) if whole else None


def best_so_far(scores: Sequence[float], mode: str) -> list[float]:
    """The best of all scores up to each epoch.

    >>> best_so_far([0.5, 0.8, 0.6], "max"), best_so_far([3.0, 4.0, 2.0], "min")
    ([0.5, 0.8, 0.8], [3.0, 3.0, 2.0])
    """
    return list(accumulate(scores, max if mode == "max" else min))


def score_of(scores: Sequence[float], recipe: schema.Recipe, mode: str) -> float:
    """The validation score of the student that a training gives: the best epoch's or the last one's.

    Raises:
        RunError: There is none.
    """
    if not scores:
        raise RunError("the training gives no score on the validation split")
    if recipe.keep == "last":
        return scores[-1]
    return max(scores) if mode == "max" else min(scores)
