"""The teachers of a comparison: one for all seeds, or several of their own seeds, each for its group of students."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from limbeck.compare.cells import BASELINE
from limbeck.data import DataSet
from limbeck.errors import RequestError
from limbeck.recipes import schema
from limbeck.runs import teachers
from limbeck.runs.identity import Origins
from limbeck.runs.machine import Machine
from limbeck.runs.run import teacher_entry
from limbeck.runs.train import Job


@dataclass(frozen=True)
class Group:
    """The students of one teacher.

    Attributes:
        number: Which one, from 0; a single teacher's seed is the recipe's plus this.
        recipes: By method, with this teacher.
        found: The teacher; several where the recipe has several.
        origins: What the group's students have in common.
    """

    number: int
    recipes: Mapping[str, schema.Recipe]
    found: Sequence[teachers.Candidate]
    origins: Origins

    @property
    def recipe(self) -> schema.Recipe:
        """The recipe with this teacher."""
        return self.recipes[BASELINE]


def group_of(seed: int, count: int) -> int:
    """The number of the teacher that a student of this seed has: seeds take turns."""
    return seed % count


def with_teacher(recipe: schema.Recipe, number: int) -> schema.Recipe:
    """The recipe with its teachers' seeds moved on by the number of their group; no two groups have one in common."""
    if not number:
        return recipe
    seeds = [one.seed for one in recipe.teachers]
    step = number * (max(seeds) - min(seeds) + 1)
    moved = [one.model_copy(update={"seed": one.seed + step}) for one in recipe.teachers]
    return recipe.model_copy(update={"teacher": moved if isinstance(recipe.teacher, list) else moved[0]})


def candidates(recipe: schema.Recipe, number: int, data: DataSet, machine: Machine) -> list[teachers.Candidate]:
    """The teachers of a recipe that `with_teacher` has made, under names of their own in the comparison's folder."""
    found = teachers.candidates(recipe, data, machine)
    return [replace(one, name=f"{one.name}-seed{one.spec.seed}") for one in found] if number else found


def check_teachers(count: int, recipe: schema.Recipe, seeds: Sequence[int]) -> None:
    """Raise RequestError where so many teachers cannot be had, or have not as many students each."""
    if count == 1:
        return
    if not recipe.teachers:
        raise RequestError(f"--teachers {count} varies the teacher, and this recipe has none; leave it out")
    if any(not one.epochs or one.weights for one in recipe.teachers):
        raise RequestError(
            f"--teachers {count} trains a teacher for each of {count} seeds, and this recipe's comes trained; leave it "
            "out, or let the recipe train one: teacher.epochs"
        )
    students = Counter(group_of(seed, count) for seed in seeds)
    if len(students) < count or len(set(students.values())) > 1:
        raise RequestError(
            f"{count} teachers take turns among the seeds, and each needs as many students; there are {len(seeds)} "
            f"seeds: --seeds {count * -(-len(seeds) // count)}"
        )


def entries(groups: Sequence[Group], seeds: Sequence[int], job: Job) -> list[dict[str, Any]]:
    """What compare.json says of the teachers; of several groups also their seeds, and those of their students."""
    found = []
    for group in groups:
        own = replace(job, recipe=group.recipe)
        students = [seed for seed in seeds if group_of(seed, len(groups)) == group.number]
        for one in group.found:
            more = {"seed": one.spec.seed, "students": students} if len(groups) > 1 else {}
            found.append({**teacher_entry(one, own), **more})
    return found
