"""What tune.json holds: each contender's search and fresh trainings, and what the differences show."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from limbeck.runs import components, hits
from limbeck.runs.entry import score, trial
from limbeck.runs.folder import environment
from limbeck.tuning.contenders import Contender
from limbeck.tuning.fresh import verdicts
from limbeck.tuning.prepared import Prepared
from limbeck.tuning.trainer import Trainer

if TYPE_CHECKING:
    from limbeck.tuning.course import Outcome
    from limbeck.tuning.studies import Study


def report(
    trainer: Trainer, prepared: Prepared, found: Outcome, asking: float, threads: int | None = None
) -> dict[str, Any]:
    """The document of a finished search.

    Args:
        trainer: Of the search.
        prepared: Contenders and data.
        found: What came out.
        asking: Seconds in which teacher outputs were precomputed.
        threads: Of each of the processes; None where there was this one alone.
    """
    recipe, data, held_out = trainer.job.recipe, prepared.data, prepared.data.validation
    contenders, studies, best, results = prepared.contenders, found.studies, found.best, found.results
    seconds = {name: study.spent().seconds for name, study in studies.items()}
    teachers = [{"epochs": one.epochs, "seconds": one.seconds, "source": one.source} for one in trainer.found]
    scores = {name: {str(seed): score(one) for seed, one in by_seed.items()} for name, by_seed in results.items()}
    return {
        "title": recipe.title,
        "data": data.name,
        "device": trainer.job.fabric.device.type,
        "epochs": recipe.epochs,
        "seed": recipe.seed,
        **trial(recipe),
        "monitor": trainer.monitor,
        "mode": trainer.mode,
        "samples": {"validation": 0 if held_out is None else len(held_out), "test": len(data.test)},
        "fresh_seeds": sorted({seed for by_seed in results.values() for seed in by_seed}),
        **{one.name: _entry(one, studies[one.name], best[one.name], results[one.name]) for one in contenders},
        "verdict": verdicts(results, hits.scored(components.task(recipe, data), len(data.test))),
        "optimism": {name: _optimism(best[name], by_seed, trainer.mode) for name, by_seed in scores.items()},
        "importances": {one.name: studies[one.name].importances(list(one.space)) for one in contenders},
        "cost": {
            "search": round(sum(seconds.values()), 3),
            "fresh": round(found.fresh.spent().seconds, 3),
            "teacher_outputs": round(asking, 3),
        },
        "teacher": teachers,
        "teacher_outputs": trainer.job.outputs.entries(),
        "environment": {**environment(), **({} if threads is None else {"threads": threads})},
    }


def _optimism(best: Mapping[str, Any], by_seed: Mapping[str, float], mode: str) -> float:
    """By how much the best validation score is better than the mean test score."""
    more = float(best["value"]) - statistics.mean(by_seed.values())
    return more if mode == "max" else -more


def _entry(
    contender: Contender, study: Study, best: Mapping[str, Any], by_seed: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    records = study.records()
    states = [one["state"] for one in records]
    return {
        **({} if contender.label == contender.name else {"label": contender.label}),
        "trials": len(records),
        "pruned": states.count("pruned"),
        "failed": states.count("failed"),
        "refused": states.count("refused"),
        "seconds": round(study.spent().seconds, 3),
        "best": {"trial": best["number"], "settings": best["settings"], "validation": best["value"]},
        "own": {"settings": contender.own, "validation": records[0]["value"] if records else None},
        "fresh": {str(seed): score(one) for seed, one in sorted(by_seed.items())},
        "fresh_validation": {str(seed): one["validation"] for seed, one in sorted(by_seed.items())},
        "recipe": f"best-{contender.folder}.yaml",
        "history": records,
    }
