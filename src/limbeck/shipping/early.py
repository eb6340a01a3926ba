"""Early exit as a row of the table: what a sample costs in the mean when it may leave where it is sure."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from limbeck.distillers import SelfDistiller
from limbeck.measure.early_exit import ask_exits, cheapest, early_point
from limbeck.models import multiply_adds, preprocess
from limbeck.models.networks.multi_exit import MultiExit, early_exit, first_exits
from limbeck.quantization.session import INPUT, Array, Given, Runner
from limbeck.runs.finished.exits import THRESHOLDS, WITHIN
from limbeck.shipping.formats import Packing
from limbeck.shipping.plan import Plan
from limbeck.shipping.reading import normalisation
from limbeck.shipping.rows import Row
from limbeck.shipping.subjects import UNVALIDATED, Case, Subject

NAME = "early exit"


def policy(case: Case, plan: Plan) -> Row | None:
    """The cheapest threshold within half a point of the deepest exit on validation; None, noted, without one."""
    network = case.whole
    if network is None:
        return None
    if not case.task.classifies_samples:
        case.notes.append(f"early exit is left out: it is for classifiers, and this network learned {case.task.name}")
        return None
    if case.chosen_on == UNVALIDATED:
        case.notes.append("early exit is left out: its threshold is chosen on a validation split (data.validation)")
        return None
    deepest = case.students[-1]
    given = deepest.about["input"]
    ready = preprocess(given.get("mean"), given.get("std"), deepest.size)
    record = ask_exits(SelfDistiller(network.eval(), inputs=ready), case.validation())
    example = torch.zeros(1, *deepest.shape)
    costs = [multiply_adds(first_exits(network, number), example) for number in range(1, len(network.trunk) + 1)]
    least = record.hits[:, -1].double().mean().item() - WITHIN - 1e-9
    best = cheapest([early_point(record, costs, threshold) for threshold in THRESHOLDS], least)
    if best is None:
        case.notes.append("early exit is left out: no threshold keeps within half a point of the deepest exit")
        return None
    figures = {"threshold": best.threshold, "multiply_adds": best.multiply_adds, "leave_at": list(best.shares)}
    subject = Subject(NAME, network, deepest.about, deepest.size)
    packing = Packing()
    return Row(
        case, subject, "torch", "fp32", None, _run(network, subject, packing, best.threshold), packing, figures=figures
    )


def _run(network: MultiExit, subject: Subject, packing: Packing, threshold: float) -> Runner:
    ready = normalisation(subject.about["input"]) or torch.nn.Identity()

    @torch.no_grad()
    def run(given: Given) -> Array:
        return np.asarray(early_exit(network, ready(torch.from_numpy(given[INPUT])), threshold).logits)

    return run


def over_samples(row: Row, batch: int) -> Callable[[], Any]:
    """Runs batches of validation samples one after the other: here the time depends on what is seen."""
    inputs = np.concatenate([row.read(one.inputs)[INPUT] for one in row.case.validation()])
    size = min(batch, len(inputs))
    pieces = itertools.cycle([inputs[at : at + size] for at in range(0, len(inputs) - size + 1, size)])
    return lambda: row.run({INPUT: next(pieces)})
