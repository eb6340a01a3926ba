"""What a comparison is asked for: methods, seeds, and whether seeds are added where a verdict is open."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.compare.cells import BASELINE, named, students_in
from limbeck.compare.groups import check_teachers, group_of
from limbeck.compare.sequential import Plan, check_same
from limbeck.compare.verdicts import Rules
from limbeck.errors import RequestError
from limbeck.recipes import schema


@dataclass(frozen=True)
class Asked:
    """What is to be compared.

    Attributes:
        methods: "baseline" first.
        seeds: To begin with.
        before: The students that the folder has already.
        plan: How seeds are added; None adds none.
        teachers: How many.
        effect: The difference of which is said how many seeds show it.
    """

    methods: Sequence[str]
    seeds: Sequence[int]
    before: Sequence[tuple[str, int]]
    plan: Plan | None
    teachers: int
    effect: float | None

    def looks(self) -> Iterator[list[int]]:
        """The seeds at each look at the verdicts."""
        last = self.seeds[-1]
        for look in self.plan.looks if self.plan else (len(self.seeds),):
            yield [*self.seeds, *range(last + 1, last + 1 + look - len(self.seeds))]

    def students(self, methods: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
        """Those of the baseline, of some methods, and all that the folder has already."""
        return [*((name, seed) for name in (BASELINE, *methods) for seed in seeds), *self.before]

    def counts(self, method: str, seed: int, seeds: Sequence[int]) -> bool:
        """Whether a student counts at the look at these seeds.

        Where seeds are added, one that was trained for a later look waits for it: a resumed comparison looks where an
        uninterrupted one does.
        """
        later = self.plan is not None and seed not in seeds
        return method == BASELINE or method not in self.methods or not later

    def rules(self, samples: int, seeds: Sequence[int]) -> Rules:
        """How verdicts are made."""
        turns = {seed: group_of(seed, self.teachers) for seed in seeds} if self.teachers > 1 else None
        share = self.plan.share if self.plan else (lambda pairs: 1.0)
        return Rules(samples, turns, self.effect, share)


def asked_for(
    recipe: schema.Recipe,
    methods: Sequence[str],
    seeds: Sequence[int],
    variants: Mapping[str, schema.Recipe],
    max_seeds: int | None,
    teacher_count: int,
    effect: float | None,
    folder: Path | None,
) -> Asked:
    """What is asked for, after a look at what the folder of a resumed comparison holds."""
    names = named(methods, variants)
    if not seeds:
        raise RequestError("a comparison needs at least one seed")
    if effect is not None and not 0 < effect < math.inf:
        raise RequestError(f"--effect is the size of a difference, a number above 0, not {effect:g}")
    if max_seeds is not None and teacher_count > 1:
        raise RequestError("--until decided adds seeds of one teacher; leave --teachers out, or give --seeds instead")
    check_teachers(teacher_count, recipe, seeds)
    plan = None if max_seeds is None else Plan(len(seeds), max_seeds)
    if folder is not None:
        check_same(folder, plan)
    before = students_in(folder) if folder is not None else []
    return Asked(names, seeds, before, plan, teacher_count, effect)
