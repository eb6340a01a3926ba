"""A run's network with several exits: the accuracy of each alone, together, and when samples may leave early."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from limbeck.data import make_loader
from limbeck.data.splits import Split
from limbeck.distillers import SelfDistiller
from limbeck.engine.saving.files import write_json
from limbeck.errors import RequestError
from limbeck.measure.early_exit import EarlyPoint, ExitRecord, ask_exits, cheapest, early_point
from limbeck.models import multiply_adds, parameter_count
from limbeck.models.networks.multi_exit import MultiExit, exit_network, first_exits
from limbeck.runs import components
from limbeck.runs.finished.read import classifier
from limbeck.runs.machine import Machine

EXITS = "exits.json"
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99, 0.995, 0.999)
WITHIN = 0.005


def weigh_exits(
    run: Path,
    root: Path | None = None,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    within: float | None = None,
    machine: Machine | None = None,
) -> dict[str, Any]:
    """Accuracy and compute of a run's exits, and of early exit at confidence thresholds; writes exits.json.

    The curve is measured on the validation split, and the threshold chosen there: the cheapest whose accuracy is at
    most `within` below the deepest exit's. The test set is asked about that one threshold only. A run without a
    validation split gets its curve on the test set, and no threshold.

    Args:
        run: The folder of a finished run of self-distillation.
        root: Folder of the data; by default the one that the run had, else the usual one.
        thresholds: Confidences in [0, 1] to try.
        within: Share of accuracy that may be lost; 0.005 (half a point) by default.
        machine: The device.

    Returns:
        What exits.json holds, and "out", the run folder.

    Raises:
        RequestError: No finished run, a network with a single exit, a threshold out of range, or `within` without a
            validation split.
    """
    _check(thresholds, within)
    found = classifier(run, root, "limbeck exits")
    recipe, data, network = found.recipe, found.data, found.student
    if within is not None and data.validation is None:
        raise RequestError("a threshold is chosen on a validation split, and this run has none; set data.validation")
    if not isinstance(network, MultiExit):
        raise RequestError(f"the student {recipe.student.model} has a single exit; byot_small, for one, has several")
    example = torch.zeros(1, *components.shape(recipe.student, data))
    sizes = _sizes(network, example)
    costs = [multiply_adds(first_exits(network, exit), example) for exit in range(1, len(sizes) + 1)]

    whole = {"parameters": parameter_count(network), "multiply_adds": multiply_adds(network, example)}
    device = (machine or Machine(progress=False)).fabric(recipe.precision).device
    scheme = SelfDistiller(network, inputs=components.inputs(recipe.student)).to(device)

    def ask(split: Split) -> ExitRecord:
        return ask_exits(scheme, make_loader(split, components.held_out_batch(recipe, data), device=device), device)

    test = ask(data.test)
    validation = ask(data.validation) if data.validation else None
    points = [early_point(validation or test, costs, threshold) for threshold in sorted(thresholds)]
    result: dict[str, Any] = {
        "recipe": recipe.title,
        "data": data.name,
        "seed": recipe.seed,
        "exits": _accuracies(sizes, test, validation),
        "ensemble": whole | _ensemble(test, validation),
        "curve": {"split": "validation" if validation else "test", "points": [point.as_dict() for point in points]},
        "chosen": _chosen(points, validation, test, costs, WITHIN if within is None else within)
        if validation
        else None,
    }
    write_json(run / EXITS, result)
    return {**result, "out": str(run)}


def _check(thresholds: Sequence[float], within: float | None) -> None:
    if not thresholds:
        raise RequestError("name at least one threshold, such as 0.9")
    for threshold in thresholds:
        if not 0 <= threshold <= 1:
            raise RequestError(f"a threshold is a probability between 0 and 1, not {threshold}")
    if within is not None and not 0 <= within <= 1:
        raise RequestError(f"within is a share of accuracy between 0 and 1, such as 0.005, not {within}")


def _sizes(network: MultiExit, example: torch.Tensor) -> dict[str, dict[str, Any]]:
    """Parameters and multiply-adds of each exit as a network of its own, shallowest first."""
    last = len(network.trunk)
    sizes = {}
    for exit in range(1, last + 1):
        alone = exit_network(network, exit)
        sizes[f"{exit}/{last}"] = {"parameters": parameter_count(alone), "multiply_adds": multiply_adds(alone, example)}
    return sizes


def _accuracies(
    sizes: dict[str, dict[str, Any]], test: ExitRecord, validation: ExitRecord | None
) -> dict[str, dict[str, Any]]:
    entries = {}
    for column, (name, size) in enumerate(sizes.items()):
        entries[name] = dict(size)
        if validation:
            entries[name]["validation_accuracy"] = _share(validation.hits[:, column])
        entries[name]["test_accuracy"] = _share(test.hits[:, column])
    return entries


def _ensemble(test: ExitRecord, validation: ExitRecord | None) -> dict[str, Any]:
    return {
        **({"validation_accuracy": _share(validation.ensemble)} if validation else {}),
        "test_accuracy": _share(test.ensemble),
    }


def _chosen(
    points: Sequence[EarlyPoint], validation: ExitRecord, test: ExitRecord, costs: Sequence[int], within: float
) -> dict[str, Any]:
    """The cheapest threshold within a loss of accuracy on validation, and its score on the test set."""
    # Of samples as counts: a share such as 0.97 − 0.005 is no round number in binary.
    least = _share(validation.hits[:, -1]) - within - 1e-9
    best = cheapest(points, least)
    if best is None:
        return {"within": within, "threshold": None}
    on_test = early_point(test, costs, best.threshold)
    return {
        "within": within,
        "threshold": best.threshold,
        "validation": best.as_dict(),
        "test": on_test.as_dict(),
    }


def _share(hits: torch.Tensor) -> float:
    return int(hits.sum()) / len(hits)
