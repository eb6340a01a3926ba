"""Pairs of taps that a feature loss could compare."""

from __future__ import annotations

from limbeck.taps.listing import TapInfo


def match(teacher: list[TapInfo], student: list[TapInfo], most: int = 8) -> list[tuple[TapInfo, TapInfo]]:
    """Propose pairs (teacher tap, student tap) worth a feature loss, last layers first.

    A natural hint is what a stage hands to the next one: the last map of each height and width, the last tokens, the
    last vectors. Maps of one size pair first, then those nearest in depth; equal shapes win over adaptable ones.
    Where a pair of stages would need an adapter, the last modules of one shape at their size, inside them or not,
    follow as a pair that needs none.

    Args:
        teacher: What `trace` gave for the teacher.
        student: What `trace` gave for the student, on the same input.
        most: The number of pairs at most.
    """
    teacher, student = _by_sample(teacher), _by_sample(student)
    pairs: list[tuple[TapInfo, TapInfo]] = []
    remaining = _stage_ends(student)
    for t in reversed(_stage_ends(teacher)):
        fitting = [s for s in remaining if len(s.shape) == len(t.shape)]
        same_size = [s for s in fitting if s.shape[2:] == t.shape[2:]]
        best = next((s for s in reversed(same_size) if s.shape == t.shape), None)
        if fitting:
            best = best or (same_size or fitting)[-1]
            pairs.append((t, best))
            if best.shape != t.shape:
                pairs += [pair for pair in _equal(teacher, student, t.shape[2:]) if pair not in pairs]
            remaining = remaining[: remaining.index(best)]
    return pairs[:most]


def _by_sample(taps: list[TapInfo]) -> list[TapInfo]:
    """The modules whose output has as many rows as the model's: others fold patches or windows into the batch."""
    return [tap for tap in taps if not tap.operation and tap.shape[:1] == taps[-1].shape[:1]]


def _stage_ends(taps: list[TapInfo]) -> list[TapInfo]:
    """For each rank and resolution the last of the outermost modules that give it; the model's output left out."""
    ends: dict[tuple[int, ...], TapInfo] = {}
    for tap in taps:
        if tap.shape != taps[-1].shape:
            size = (len(tap.shape), *tap.shape[2:])
            if size not in ends or tap.name.count(".") <= ends[size].name.count("."):
                ends[size] = tap
    return sorted(ends.values(), key=taps.index)


def _equal(teacher: list[TapInfo], student: list[TapInfo], size: tuple[int, ...]) -> list[tuple[TapInfo, TapInfo]]:
    """The last pair of modules with maps of one shape and this size, or none."""
    for t in reversed(teacher):
        if len(t.shape) == 4 and t.shape[2:] == size:
            s = next((s for s in reversed(student) if s.shape == t.shape), None)
            if s is not None:
                return [(t, s)]
    return []
