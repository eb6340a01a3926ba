"""The winners, trained anew on seeds that the search has not used, and tested: the one look at the test set."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from limbeck.compare.cells import BASELINE
from limbeck.compare.verdicts import Rules, summarise
from limbeck.data import DataSet
from limbeck.data.overlap import overlap_note
from limbeck.engine.saving.files import write_json, write_text
from limbeck.errors import whose
from limbeck.recipes import schema
from limbeck.recipes.read import dump
from limbeck.runs import hits, identity
from limbeck.runs.entry import check_finite, score
from limbeck.runs.folder import RECIPE, RESULT
from limbeck.runs.identity import Origins
from limbeck.tuning.contenders import Contender
from limbeck.tuning.search import PAUSE, Say, score_of
from limbeck.tuning.trainer import Trainer, Watch, curve

if TYPE_CHECKING:
    from limbeck.tuning.studies import Study

FOLDER = "fresh"
Results = dict[str, dict[int, dict[str, Any]]]
"""By contender and seed."""


def fresh_seeds(recipe: schema.Recipe, count: int) -> list[int]:
    """The seeds of the trainings behind the search, which has used the recipe's alone.

    >>> from limbeck.recipes.read import read
    >>> fresh_seeds(read("digits"), 3)
    [1, 2, 3]
    """
    return [recipe.seed + number for number in range(1, count + 1)]


@dataclass
class Fresh:
    """The trainings of all winners on all fresh seeds.

    Attributes:
        winners: Each contender with its best recipe.
        seeds: The fresh seeds.
        study: The trainings, one trial each, seed by seed.
        trainer: Carries them out.
        data: Those of the search, and the test set.
        origins: Finds what a student is made of.
        say: Is told of each training.
    """

    winners: Sequence[tuple[Contender, schema.Recipe]]
    seeds: Sequence[int]
    study: Study
    trainer: Trainer
    data: DataSet
    origins: Origins
    say: Say

    def _pair(self, number: int) -> tuple[Contender, schema.Recipe, int]:
        """Every contender with every seed, seed by seed, also beyond the seeds that are asked for now.

        One of those may have been begun, and left, by a search that asked for more.
        """
        seed, which = divmod(number, len(self.winners))
        return (*self.winners[which], self.seeds[0] + seed)

    def run(self) -> Results:
        """Train and test what is not done yet, and wait for what other processes are at."""
        if shared := overlap_note(self.data):
            self.say(shared)
        count = len(self.winners) * len(self.seeds)
        while True:
            for trial in self.study.left():
                self._carry_out(*self._pair(trial.number), trial)
            if self.study.spent().trials < count:
                begun = self.study.start(count)
                if begun is not None:
                    self._carry_out(*self._pair(begun.number), begun)
            elif self.study.busy():
                time.sleep(PAUSE)
            else:
                break
        results: Results = {one.name: {} for one, _ in self.winners}
        for record in self.study.records():
            found = {**record["result"], "hits": _unpacked(record["hits"])}
            results[record["contender"]][record["seed"]] = found
        return results

    def _carry_out(self, contender: Contender, recipe: schema.Recipe, seed: int, trial: Any) -> None:
        began, recipe = time.perf_counter(), recipe.model_copy(update={"seed": seed})
        out = self.trainer.job.out / FOLDER / f"{contender.folder}-seed{seed}"
        made_of = self.origins.completed(self.origins.of(recipe, taught=contender.taught))
        resume = identity.read(out) == made_of
        identity.write(out, made_of)
        write_text(out / RECIPE, dump(recipe))
        watch = Watch(self.trainer.monitor, lambda: self.study.beat(trial))
        with whose(f"{contender.label}, fresh seed {seed}"):
            trained = self.trainer.train(contender, recipe, out, resume=resume, data=self.data, watch=watch)
            scores = curve(out, self.trainer.monitor)
            result = {**trained.tested(), "validation": score_of(scores, recipe, self.trainer.mode)}
            check_finite(result)
        about = {"method": contender.name, "seed": seed, "identity": identity.digest(made_of)}
        write_json(out / RESULT, {**about, **result})
        seconds = round(time.perf_counter() - began, 3)
        record = {"state": "complete", "value": score(result), "epochs": len(scores), "seconds": seconds}
        self.study.finish(
            trial, {**record, "contender": contender.name, "seed": seed, "result": result, "hits": _packed(out)}
        )
        monitor = self.trainer.monitor
        self.say(f"{contender.label}, fresh seed {seed}: test {monitor} {score(result):.4f} ({seconds:.1f} s)")


def _packed(folder: Path) -> dict[str, Any] | None:
    """Which test samples a student gets right, as text that a storage takes; None where that has no meaning."""
    right = hits.read(folder).get(hits.CHOSEN)
    if right is None:
        return None
    return {"samples": len(right), "right": base64.b64encode(np.packbits(right).tobytes()).decode()}


def _unpacked(content: Mapping[str, Any] | None) -> dict[str, NDArray[np.bool_]]:
    if content is None:
        return {}
    bits = np.unpackbits(np.frombuffer(base64.b64decode(content["right"]), np.uint8), count=content["samples"])
    return {hits.CHOSEN: bits.astype(np.bool_)}


def verdicts(results: Results, samples: int) -> dict[str, dict[str, Any]]:
    """What `compare` says of each method's winner beside the baseline's: the difference, its interval, the verdict.

    Args:
        results: By contender and seed.
        samples: Of the test set.
    """
    summary = summarise(results, Rules(samples))
    shown = ("mean", "std", "scores", "seeds", "seconds", "test", "monitor", "mode", "predictions")
    return {
        name: {key: value for key, value in row.items() if key not in shown}
        for name, row in summary.items()
        if name != BASELINE
    }
