"""Seeds are added until verdicts are decided, and looking repeatedly does not make verdicts out of nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.compare import compare, comparison, students
from limbeck.compare.join import join
from limbeck.compare.sequential import Plan, check_same
from limbeck.compare.words import procedure
from limbeck.errors import RequestError
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine

QUIET = Machine(accelerator="cpu", progress=False)
SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"batch_size": 64, "limit_samples": 300},
    "teacher": {"model": "mlp", "hidden": [8], "epochs": 5, "optimizer": {"lr": 0.01}},
    "student": {"model": "mlp", "hidden": [16]},
    "distill": {"method": "kd"},
    "epochs": 5,
    "optimizer": {"lr": 0.02},
}


@pytest.mark.parametrize(
    ("plan", "looks"), [((3, 3), (3,)), ((3, 10), (3, 4, 6, 10)), ((3, 20), (3, 5, 8, 13, 20)), ((2, 4), (2, 4))]
)
def test_looks_grow_by_half_and_share_the_error(plan: tuple[int, int], looks: tuple[int, ...]) -> None:
    made = Plan(*plan)
    assert made.looks == looks
    assert sum(made.share(look) for look in looks) == pytest.approx(1)
    assert made.share(looks[-1] + 5) == made.share(looks[-1])


@pytest.mark.usefixtures("benchmarks")
@pytest.mark.parametrize(("methods", "most"), [(1, 10), (3, 20)])
def test_without_a_difference_at_most_five_in_a_hundred_comparisons_have_a_verdict(methods: int, most: int) -> None:
    from benchmarks.sequential import simulate

    some, _, seeds = simulate(methods, Plan(3, most), comparisons=2000)
    assert 0.005 < some / 2000 <= 0.05
    assert seeds > 0.95 * most
    uncorrected, _, _ = simulate(methods, Plan(3, most), comparisons=2000, corrected=False)
    assert uncorrected / 2000 > 0.1


@pytest.mark.usefixtures("benchmarks")
def test_a_real_difference_is_found_early_and_the_right_way_round() -> None:
    from benchmarks.sequential import simulate

    some, worse, seeds = simulate(1, Plan(3, 20), effect=2.0, comparisons=500)
    assert some / 500 > 0.95
    assert worse == 0
    assert seeds < 12


def test_seeds_are_added_where_a_verdict_is_open(tmp_path: Path) -> None:
    """Of two variants one does not learn at all; the other learns as the baseline does, and is open to the end."""
    weights = {"worse": 0.0, "same": 1.0}
    given = {
        name: check(SMALL | {"distill": {"task_weight": weight, "terms": [{"loss": "kd", "weight": 0.0}]}})
        for name, weight in weights.items()
    }
    options: dict[str, Any] = {"root": tmp_path, "out": tmp_path / "cmp", "machine": QUIET, "variants": given}
    recipe = check(SMALL)
    found = compare(recipe, ["worse", "same"], range(3), max_seeds=5, **options)
    rows = found["methods"]
    assert found["until"] == {"first_seeds": 3, "max_seeds": 5, "looks": [3, 5], "open": ["same"]}
    assert (rows["worse"]["verdict"], rows["same"]["verdict"]) == ("worse", "no difference shown")
    assert rows["worse"]["seeds"] == list(range(len(rows["worse"]["seeds"])))
    assert len(rows["worse"]["seeds"]) < 5
    assert rows["same"]["seeds"] == rows["baseline"]["seeds"] == [0, 1, 2, 3, 4]
    low, high = rows["same"]["simultaneous"]
    assert low < rows["same"]["interval"][0] < rows["same"]["interval"][1] < high
    assert "looks at 3, 5 seeds share the 5 % of error" in procedure(found)
    kept = (tmp_path / "cmp" / "same-seed4" / "student.safetensors").stat().st_mtime_ns
    again = compare(recipe, ["worse", "same"], range(3), max_seeds=5, resume=True, **options)
    assert again["methods"] == rows
    assert (tmp_path / "cmp" / "same-seed4" / "student.safetensors").stat().st_mtime_ns == kept
    for more in ({"max_seeds": 9}, {}):
        with pytest.raises(RequestError, match="resume it with --until decided --seeds 3 --max-seeds 5, or choose"):
            compare(recipe, ["same"], range(3), resume=True, **more, **options)
    assert json.loads((tmp_path / "cmp" / "compare.json").read_text())["methods"] == rows


def test_a_comparison_that_was_killed_between_two_looks_does_not_look_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []
    summed = comparison.summarise

    def counting(results: Any, rules: Any) -> Any:
        judged.append(len(results["recipe"]))
        return summed(results, rules)

    carried_out = students.carry_out

    def dying(job: Any, cell: Any, found: Any) -> None:
        if (cell.method, cell.seed) == ("recipe", 4):
            raise KeyboardInterrupt
        carried_out(job, cell, found)

    same = {"task_weight": 1.0, "terms": [{"loss": "kd", "weight": 0.0}]}
    recipe = check(SMALL | {"distill": same, "epochs": 1})
    options: dict[str, Any] = {"root": tmp_path, "out": tmp_path / "cmp", "machine": QUIET, "max_seeds": 5}
    monkeypatch.setattr(comparison, "summarise", counting)
    with monkeypatch.context() as patched:
        patched.setattr(students, "carry_out", dying)
        with pytest.raises(KeyboardInterrupt):
            compare(recipe, ["recipe"], range(3), **options)
    assert (tmp_path / "cmp" / "recipe-seed3" / "result.json").exists()
    found = compare(recipe, ["recipe"], range(3), resume=True, **options)
    assert judged == [3, 3, 5]
    assert found["methods"]["recipe"]["seeds"] == [0, 1, 2, 3, 4]
    with pytest.raises(RequestError, match=r"looks at its verdicts repeatedly .*leave --join out"):
        join([tmp_path / "cmp"])


def test_a_table_that_was_seen_is_a_look_that_no_plan_knows(tmp_path: Path) -> None:
    """Looks at 3 (with all of the 5 %), 3 and 5 (sharing them) would be one look more than the plan's."""
    out = tmp_path / "cmp"
    out.mkdir()
    (out / "recipe.yaml").write_text("name: small\n")
    check_same(out, Plan(3, 5))
    (out / "compare.json").write_text("{}")
    check_same(out, None)
    with pytest.raises(RequestError, match=r"used all of the 5 % .*leave --until and --max-seeds out, or .* --out"):
        compare(check(SMALL), ["recipe"], range(3), max_seeds=5, resume=True, root=tmp_path, out=out, machine=QUIET)
    assert sorted(path.name for path in out.iterdir()) == ["compare.json", "recipe.yaml"]


@pytest.mark.parametrize(("seeds", "most", "said"), [(1, 5, "--seeds 2"), (3, 2, "less than the 3 seeds")])
def test_wrong_plans(seeds: int, most: int, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Plan(seeds, most)
