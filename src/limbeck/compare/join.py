"""The students of one comparison that were trained on several machines, joined after a look whether they fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.compare.cells import BACKBONE, BASELINE, OWN, students_in
from limbeck.compare.labels import label_of
from limbeck.compare.sequential import FILE as UNTIL
from limbeck.compare.table import Row, Table, label_in, without_method
from limbeck.compare.verdicts import VERDICT, Rules, summarise
from limbeck.errors import RequestError
from limbeck.runs import hits, identity
from limbeck.runs.entry import score
from limbeck.runs.folder import read_result, student_folder
from limbeck.runs.identity import Identity
from limbeck.runs.same import reasons


@dataclass(frozen=True)
class _Student:
    folder: Path
    method: str
    seed: int
    result: Mapping[str, Any]
    made_of: Identity

    @property
    def at(self) -> Path:
        return self.folder / student_folder(self.method, self.seed)

    @property
    def name(self) -> str:
        return str(self.at)


def join(folders: Sequence[Path]) -> dict[str, Any]:
    """The methods of several folders of one comparison, as compare.json has them: verdicts are made from all students.

    Args:
        folders: Of comparisons with the same recipe, code, teacher and data; methods and seeds may differ.

    Returns:
        "methods", as `summarise` gives them, "seeds", and "folders".

    Raises:
        RequestError: A student was made of something else than the others, or is there twice with other figures.
    """
    for folder in folders:
        if (folder / UNTIL).exists():
            raise RequestError(
                f"{folder} looks at its verdicts repeatedly (--until decided), which a joined table does not correct "
                "for; leave --join out"
            )
    students = [student for folder in folders for student in _students(folder)]
    _check(students)
    results: dict[str, dict[int, Mapping[str, Any]]] = {BASELINE: {}}
    for one in sorted(students, key=lambda one: one.seed):
        whole = {**one.result, "hits": hits.read(one.at)}
        results.setdefault(one.method, {}).setdefault(one.seed, whole)
    if not results[BASELINE]:
        raise RequestError("none of these folders has students of the baseline, beside which the others are measured")
    samples = sum(students[0].made_of["data"]["splits"]["test"]["counts"])
    methods = summarise(results, Rules(samples))
    if OWN in methods:
        methods[OWN]["label"] = label_in(folders[0], [name for name in methods if name != OWN])
    return {
        "folders": [str(folder) for folder in folders],
        "figure": students[0].result["monitor"],
        "seeds": sorted({one.seed for one in students}),
        "methods": methods,
    }


def as_table(joined: Mapping[str, Any]) -> Table:
    """The same as a table."""
    where = ", ".join(joined["folders"])
    rows = [
        Row(
            where,
            method,
            joined["figure"],
            dict(zip(entry["seeds"], entry["scores"], strict=True)),
            verdict={key: entry[key] for key in VERDICT if key in entry},
            label=label_of(method, entry),
        )
        for method, entry in joined["methods"].items()
    ]
    return Table(rows, [], [])


def _students(folder: Path) -> Iterator[_Student]:
    there = students_in(folder)
    if not there:
        raise RequestError(f"{folder} holds no finished student of a comparison; --join joins comparisons")
    for method, seed in there:
        at = folder / student_folder(method, seed)
        made_of, result = identity.read(at), read_result(at)
        if made_of is None:
            raise RequestError(f"{at} does not record what it was made of: bring back its {identity.FILE}")
        if result.get("identity") != identity.digest(made_of):
            raise RequestError(f"{at}: its result.json is that of another student")
        yield _Student(folder, method, seed, result, made_of)


def _check(students: Sequence[_Student]) -> None:
    """Refuse the first student that does not fit those before it."""
    first: dict[str, _Student] = {}
    seen: dict[tuple[str, int], _Student] = {}
    reference = next((one for one in students if one.method != BACKBONE), students[0])
    for one in students:
        before = first.setdefault(one.method, one)
        changed = identity.differences(_any_seed(before.made_of), _any_seed(one.made_of))
        if not changed and one.method != BACKBONE:
            changed = identity.differences(_any_method(reference, one), _any_method(one, reference))
            before = reference
        if changed:
            raise RequestError(f"{one.name} does not fit {before.name}: {reasons(changed)}")
        twin = seen.setdefault((one.method, one.seed), one)
        figure = one.result["monitor"]
        values = score(twin.result), score(one.result)
        if values[0] != values[1]:
            raise RequestError(
                f"{twin.name} and {one.name} are the same student with other figures (test {figure} {values[0]} and "
                f"{values[1]}); move one of them away"
            )


def _any_seed(made_of: Identity) -> Identity:
    return {**made_of, "recipe": {**made_of["recipe"], "seed": None}}


def _any_method(one: _Student, other: _Student) -> Identity:
    """What a student shares with those of all methods: the recipe but for its method, and code that both have."""
    both = one.made_of["code"].keys() & other.made_of["code"].keys()
    recipe = {key: value for key, value in without_method(one.made_of).items() if key != "versions"}
    recipe["data"] = one.made_of["recipe"]["data"]
    return {**one.made_of, "recipe": recipe, "code": {name: one.made_of["code"][name] for name in both}}
