"""int8 that is chosen on validation data: schemes in order, then the most harmful layers left in fp32."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from limbeck.errors import reason_of
from limbeck.quantization import session
from limbeck.quantization.session import Array, Given, Runner
from limbeck.shipping.quantiser import METHODS, Quantiser, Scheme
from limbeck.shipping.score import Judged, distance

RANKED_SAMPLES = 256
"""Calibration samples on which the error of a single layer is measured, at most."""
MOST_LEFT_OUT = 0.5
"""A file with a larger share of its layers in fp32 is no int8 file any more."""
NAMED = 8
"""Layers that are named as harmful, at most."""
ROUNDING = 1e-9
"""Shares of samples are no round numbers in binary."""
Judge = Callable[[Runner], Judged]


@dataclass(frozen=True)
class Attempt:
    """One int8 file and its score on validation data.

    Attributes:
        scheme: How it was made.
        left_out: The layers that stayed in fp32, as the network calls them.
        content: The file.
        score: The monitor on validation data.
        drop: By how much that is worse than the fp32 file's.
        distance: Mean squared difference of the logits to the fp32 file's, over their variance.
    """

    scheme: Scheme
    left_out: tuple[str, ...]
    content: bytes
    score: float
    drop: float
    distance: float
    retrained: bool = False

    @property
    def words(self) -> str:
        """What it is, in the table of attempts."""
        retrained = ["trained for int8"] * self.retrained
        out = [f"{len(self.left_out)} left in fp32"] if self.left_out else []
        return ", ".join([*retrained, self.scheme.words, *out])

    def as_dict(self) -> dict[str, Any]:
        """Its figures."""
        return {
            "scheme": self.words,
            "left_out": list(self.left_out),
            "bytes": len(self.content),
            "score": self.score,
            "drop": self.drop,
            "distance": self.distance,
        }


@dataclass
class Search:
    """What was tried.

    Attributes:
        attempts: In the order in which they were tried.
        failed: Schemes that onnxruntime refused, and why.
        harmful: Layers by the error that each alone causes, most harmful first; empty where nobody had to look.
        seconds: What it took.
        ended: Whether the time ran out before all was tried.
    """

    attempts: list[Attempt] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    harmful: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    ended: bool = False

    def kept(self, tolerance: float) -> list[Attempt]:
        """The attempts that keep the tolerance."""
        return [one for one in self.attempts if one.drop <= tolerance + ROUNDING]

    def best(self, tolerance: float) -> Attempt | None:
        """Of the attempts that keep the tolerance the nearest to fp32; where none does, the one that loses least.

        Not the highest score of all: among many attempts that would be the luckiest one.
        """
        kept = self.kept(tolerance)
        if kept:
            return min(kept, key=lambda one: one.distance)
        return min(self.attempts, key=lambda one: (one.drop, one.distance), default=None)

    def as_dict(self) -> dict[str, Any]:
        """The attempts and the harmful layers."""
        return {
            "attempts": [one.as_dict() for one in self.attempts],
            "failed": self.failed,
            "layer_errors": dict(list(self.harmful.items())[:NAMED]),
            "seconds": round(self.seconds, 2),
            "time_ran_out": self.ended,
        }


def search(
    quantiser: Quantiser,
    fp32: Runner,
    judge: Judge,
    reference: Judged,
    *,
    tolerance: float,
    seconds: float,
    overflows: bool,
) -> Search:
    """Try schemes in order; where none keeps the tolerance, leave out layers, most harmful first.

    Args:
        quantiser: Of the fp32 file.
        fp32: The fp32 file.
        judge: Runs a file on validation data.
        reference: What the fp32 file gives there.
        tolerance: By how much the score may drop, as a share.
        seconds: After so many nothing new is tried; one scheme is tried in any case.
        overflows: Whether this processor multiplies without VNNI, where 8-bit weights can overflow.
    """
    began = time.perf_counter()
    found = Search()

    def late() -> bool:
        found.ended = time.perf_counter() - began > seconds
        return found.ended

    def attempt(scheme: Scheme) -> None:
        try:
            content = quantiser.file(scheme)
            judged = judge(session.onnx(content))
        except Exception as error:  # onnxruntime's own limits: the next scheme may do
            found.failed[scheme.words] = reason_of(error)
            return
        names = tuple(quantiser.layers.get(node, node) for node in scheme.left_out)
        drop = judged.drop(reference)
        found.attempts.append(Attempt(scheme, names, content, judged.score, drop, judged.distance(reference)))

    for scheme in schemes(convolves=quantiser.convolves, overflows=overflows, fixed=quantiser.fixed):
        keeps_tables = scheme.products_only and not quantiser.fixed
        if found.attempts and (late() or (keeps_tables and found.kept(tolerance))):
            break  # tables are most of a student of texts: where they can be quantised, they are
        attempt(scheme)
    best = found.best(tolerance)
    if best is not None and best.drop > tolerance + ROUNDING and not late():
        found.harmful = harmful(quantiser, fp32, best.scheme, late)
        _leave_out(found, best, quantiser, attempt, tolerance, late)
    found.seconds = time.perf_counter() - began
    return found


def schemes(*, convolves: bool, overflows: bool, fixed: bool = True) -> Iterator[Scheme]:
    """All schemes in the order in which they are tried.

    Per channel before per tensor, methods of calibration within each; where 8-bit weights overflow, with 7 bits first.
    The second one is that of products only: what stands between them may have no range that calibration can find, such
    as padding by −∞ before a maximum. For networks without convolutions the dynamic ones come last. Where samples have
    no fixed shape, ranges that were found once do not hold for others: then the dynamic ones alone, with tables and
    without.
    """
    if not fixed:
        for only, per_channel in product((False, True), (True, False)):
            yield Scheme(per_channel, "dynamic", overflows, products_only=only)
        return
    bits = (True, False) if overflows else (False,)
    every = product(METHODS, (True, False), bits)
    first, *others = (Scheme(per_channel, method, seven) for method, per_channel, seven in every)
    yield from (first, replace(first, products_only=True), *others)
    if not convolves:
        for per_channel in (True, False):
            yield Scheme(per_channel, "dynamic", overflows)


def harmful(quantiser: Quantiser, fp32: Runner, scheme: Scheme, late: Callable[[], bool]) -> dict[str, float]:
    """The error that each layer causes when it alone is quantised, most harmful first."""
    few = list(_first(quantiser.calibration, RANKED_SAMPLES))
    expected = _outputs(fp32, few)
    static = scheme if scheme.method != "dynamic" or not quantiser.fixed else replace(scheme, method=METHODS[0])
    errors: dict[str, float] = {}
    for node in quantiser.layers:
        if errors and late():
            break
        try:
            errors[node] = distance(_outputs(session.onnx(quantiser.file(static, only=node)), few), expected)
        except Exception:  # one that onnxruntime cannot quantise alone
            continue
    ranked = sorted(errors, key=lambda node: errors[node], reverse=True)
    return {quantiser.layers[node]: errors[node] for node in ranked}


def _first(batches: Sequence[Given], samples: int) -> Iterator[Given]:
    """The first of some samples, batch by batch."""
    for batch in batches:
        if samples > 0:
            yield {name: x[:samples] for name, x in batch.items()}
        samples -= len(next(iter(batch.values())))


def _outputs(run: Runner, batches: Sequence[Given]) -> Array:
    return np.concatenate([run(batch).ravel() for batch in batches])


def _leave_out(
    found: Search,
    best: Attempt,
    quantiser: Quantiser,
    attempt: Callable[[Scheme], None],
    tolerance: float,
    late: Callable[[], bool],
) -> None:
    """Leave out one layer, two, three, four, six, eight, … until the tolerance is kept."""
    nodes = {name: node for node, name in quantiser.layers.items()}
    ranked = [nodes[name] for name in found.harmful]
    for count in _counts(int(MOST_LEFT_OUT * len(quantiser.layers))):
        if late():
            return
        attempt(replace(best.scheme, left_out=tuple(ranked[:count])))
        if found.attempts[-1].drop <= tolerance + ROUNDING:
            return


def _counts(most: int) -> Sequence[int]:
    return [count for count in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if count <= most]
