"""The int8 file of one network: chosen, or trained for int8 and chosen, or refused with its reasons."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from limbeck.engine.saving.files import write_bytes
from limbeck.errors import RequestError, RunError
from limbeck.quantization import session
from limbeck.quantization.processor import overflows
from limbeck.quantization.session import INPUT, Given, Runner
from limbeck.shipping import runners
from limbeck.shipping.int8 import NAMED, ROUNDING, Attempt, Search, harmful, search
from limbeck.shipping.plan import Plan
from limbeck.shipping.quantiser import Quantiser, Scheme
from limbeck.shipping.retraining import retrain
from limbeck.shipping.score import Judged, lost
from limbeck.shipping.subjects import Case, Subject


@dataclass
class Chosen:
    """How one network's int8 file came about.

    Attributes:
        on: The samples on which it was chosen, in words.
        reference: What the fp32 file scores on them.
        tolerance: By how much the monitor may drop (`Judged.drop`).
        mode: Whether more of the monitor is better: "max", or "min".
        found: What was tried.
        best: The attempt that was chosen, or that was the least bad.
        layers: Layers that cause the most error, most harmful first; empty where that was not looked for.
        refused: Why there is no file; empty where there is one.
        test: The drop on the test set, of the file that was chosen.
        retraining: What training for int8 took; None without it.
    """

    on: str
    reference: float
    tolerance: float
    mode: str
    found: Search
    best: Attempt | None
    layers: list[str] = field(default_factory=list)
    refused: str = ""
    test: float | None = None
    retraining: dict[str, Any] | None = None
    rank: Callable[[], list[str]] = list
    """Looks for the layers that cause the most error."""

    def as_dict(self) -> dict[str, Any]:
        """The record in ship.json."""
        return {
            "chosen_on": self.on,
            "fp32_score": self.reference,
            "tolerance": self.tolerance,
            "scheme": self.best.words if self.best else None,
            "left_out": list(self.best.left_out) if self.best else [],
            "validation_drop": self.best.drop if self.best else None,
            "test_drop": self.test,
            "refused": self.refused or None,
            "harmful_layers": self.layers,
            "retraining": self.retraining,
            **self.found.as_dict(),
        }


def choose(case: Case, subject: Subject, plan: Plan, fp32: Path, target: Path) -> Chosen:
    """Find the int8 file of a network, and write it; nothing is written where it would be refused.

    Args:
        case: Its samples.
        subject: The network.
        plan: The tolerance and the time.
        fp32: Its ONNX file.
        target: The int8 file.
    """

    def read(inputs: Any) -> Given:
        return plan.packing.read(subject, inputs)

    # Without labels the teacher is the measure: its outputs are precomputed for all files that are tried.
    taught = None if case.task.labelled else [output for _, output in case.asked(case.validation)]

    def judge(run: Runner) -> Judged:
        batches = map(case.task.batch, case.validation())
        answered = zip(batches, itertools.repeat(None) if taught is None else taught, strict=False)
        return runners.judge([(plan.packing.logits(run), read)], answered, case.task)[0]

    calibration = [read(batch.inputs) for batch in case.calibration()]
    made = partial(Quantiser, fp32, calibration, subject.reading.fixed, subject.network)
    quantiser, whole = made(), session.onnx(fp32, plan.threads)
    try:
        reference = judge(whole)
        own = _of_the_run(subject, plan, judge, reference)
        found = Search(own)
        if not own or own[0].drop > plan.tolerance + ROUNDING:
            limits = {"tolerance": plan.tolerance, "seconds": plan.seconds}
            found = search(quantiser, whole, judge, reference, **limits, overflows=overflows())
            found.attempts += own
        best, mode = found.best(plan.tolerance), case.task.mode
        layers = list(found.harmful)[:NAMED]
        chosen = Chosen(case.chosen_on, reference.score, plan.tolerance, mode, found, best, layers)
        if best is None:
            reasons = "; ".join(dict.fromkeys(found.failed.values()))
            chosen.refused = f"onnxruntime cannot quantise it: {reasons}"
            return chosen
        chosen.rank = partial(_ranked, made, fp32, best.scheme, plan.threads)
        if best.drop > plan.tolerance + ROUNDING:
            best = _retrained(chosen, case, subject, plan, calibration, judge, reference) or best
        if best.drop > plan.tolerance + ROUNDING:
            _refuse(chosen, best.drop, chosen.on)
            return chosen
        write_bytes(target, best.content)
        return chosen
    finally:
        quantiser.close()


def settle(chosen: Chosen, fp32: Judged, int8: Judged, path: Path) -> None:
    """Look at the test figures of the file that was chosen: beyond the tolerance it is refused, and removed."""
    chosen.test = int8.drop(fp32)
    if chosen.test > chosen.tolerance + ROUNDING:
        _refuse(chosen, chosen.test, "the test set")
        path.unlink()


def _of_the_run(subject: Subject, plan: Plan, judge: Callable[[Runner], Judged], reference: Judged) -> list[Attempt]:
    """The file that the run itself has trained for int8, where there is one that is packed as is asked for."""
    if subject.int8 is None or not plan.packing.normalised_inside or plan.packing.softmax_inside:
        return []
    content = subject.int8.read_bytes()
    return [_trained(content, judge(session.onnx(content, plan.threads)), reference)]


def _trained(content: bytes, judged: Judged, reference: Judged) -> Attempt:
    scheme = Scheme(True, "learned ranges", overflows(), products_only=True)
    drop, distance = judged.drop(reference), judged.distance(reference)
    return Attempt(scheme, (), content, judged.score, drop, distance, retrained=True)


def _retrained(
    chosen: Chosen,
    case: Case,
    subject: Subject,
    plan: Plan,
    calibration: Sequence[Given],
    judge: Callable[[Runner], Judged],
    reference: Judged,
) -> Attempt | None:
    """The attempt of a student that is trained for int8, where that loses less; else None."""
    before = chosen.best
    if before is None or not plan.retrain or case.finished is None or subject not in case.students:
        return None
    if not subject.reading.fixed or subject.reading.names != (INPUT,):
        return None  # ranges that are found anew for each batch cannot be learned, and `faked` takes one tensor
    try:
        trained = retrain(case, subject, plan.packing, calibration, seven=overflows())
        judged = judge(session.onnx(trained.content, plan.threads))
    except (RequestError, RunError) as error:
        chosen.retraining = {"failed": str(error)}
        return None
    attempt = _trained(trained.content, judged, reference)
    drop = attempt.drop
    recovered = (before.drop - drop) / before.drop
    chosen.retraining = {**trained.about, "drop_before": before.drop, "drop": drop, "recovered": recovered}
    chosen.found.attempts.append(attempt)
    if drop >= before.drop:
        return None
    chosen.best = attempt
    return attempt


def _ranked(made: Callable[[], Quantiser], fp32: Path, scheme: Scheme, threads: int) -> list[str]:
    quantiser = made()
    try:
        return list(harmful(quantiser, session.onnx(fp32, threads), scheme, lambda: False))[:NAMED]
    finally:
        quantiser.close()


def _refuse(chosen: Chosen, drop: float, where: str) -> None:
    chosen.layers = chosen.layers or chosen.rank()
    layers = f"; most error by {', '.join(chosen.layers[:4])}" if chosen.layers else ""
    allowed = f"{100 * chosen.tolerance:.2f} are allowed"
    chosen.refused = f"int8 loses {lost(drop, chosen.mode)} on {where}, and {allowed}{layers}"
