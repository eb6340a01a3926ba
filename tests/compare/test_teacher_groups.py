"""`--teachers N`: students of several teachers, each trained with a seed of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import stats

from limbeck.compare import compare
from limbeck.compare.groups import with_teacher
from limbeck.compare.intervals import Paired, seeds_needed
from limbeck.compare.verdicts import Rules, summarise
from limbeck.compare.words import procedure
from limbeck.errors import RequestError
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.run import run

QUIET = Machine(accelerator="cpu", progress=False)
SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"batch_size": 64, "limit_samples": 200},
    "teacher": {"model": "mlp", "hidden": [8], "epochs": 1, "seed": 5},
    "student": {"model": "mlp", "hidden": [4]},
    "distill": {"method": "kd"},
    "epochs": 1,
    "optimizer": {"lr": 0.01},
}


def test_seeds_take_turns_among_teachers_of_their_own_seeds(tmp_path: Path) -> None:
    out = tmp_path / "cmp"
    found = compare(check(SMALL), ["recipe"], range(4), root=out, out=out, machine=QUIET, teacher_count=2)
    assert found["teachers_varied"] == 2
    assert [(one["seed"], one["students"]) for one in found["teacher"]] == [(5, [0, 2]), (6, [1, 3])]
    assert found["teacher"][0]["test"]["loss"] != found["teacher"][1]["test"]["loss"]
    for seed in (2, 3):  # each student is the one that `limbeck run` trains with its teacher and seed
        teacher = SMALL["teacher"] | {"seed": 5 + seed % 2}
        alone = run(
            check(SMALL | {"teacher": teacher, "seed": seed}), root=out, out=tmp_path / f"{seed}", machine=QUIET
        )
        for folder, key in ((f"recipe-seed{seed}", "distilled"), (f"baseline-seed{seed}", "baseline")):
            assert json.loads((out / folder / "result.json").read_text())["test"] == alone[key]["test"]
    row, baseline = found["methods"]["recipe"], found["methods"]["baseline"]
    pairs = np.subtract(row["scores"], baseline["scores"])
    by_teacher = [pairs[[0, 2]].mean(), pairs[[1, 3]].mean()]
    assert row["difference"] == pytest.approx(np.mean(by_teacher))
    low, high = row["interval"]
    hits = [
        [load_file(out / f"{name}-seed{seed}" / "test_hits.safetensors")["student"].astype(int) for seed in range(4)]
        for name in ("recipe", "baseline")
    ]
    of_samples = np.subtract(*hits).mean(0).var(ddof=1) / len(hits[0][0])
    of_seeds = max(np.std(by_teacher, ddof=1), 1 / len(hits[0][0]) / 6**0.5) ** 2 / 2
    freedom = (of_seeds + of_samples) ** 2 / (of_seeds**2 + of_samples**2 / (len(hits[0][0]) - 1))  # n − 1 is 1
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, freedom) * (of_seeds + of_samples) ** 0.5)
    assert "2 teachers of different seeds took turns" in procedure(found)
    again = compare(check(SMALL), ["recipe"], range(4), root=out, out=out, machine=QUIET, teacher_count=2, resume=True)
    assert again["methods"] == found["methods"]
    with pytest.raises(RequestError, match=r"teacher\.seed was 6 and is 5"):
        compare(check(SMALL), ["recipe"], range(4), root=out, out=out, machine=QUIET, resume=True)


def test_no_two_groups_share_a_teacher_of_several() -> None:
    one = SMALL["teacher"]
    several = check(SMALL | {"teacher": [one | {"seed": seed} for seed in (0, 2)]})
    seeds = [[teacher.seed for teacher in with_teacher(several, group).teachers] for group in range(3)]
    assert seeds == [[0, 2], [3, 5], [6, 8]]


def test_seeds_that_would_show_a_difference_are_students_not_teachers() -> None:
    about = {"monitor": "accuracy", "mode": "max"}
    draw = np.random.default_rng(0)
    results = {
        name: {seed: {"test": {"accuracy": 0.8 + 0.02 * draw.normal()}, **about} for seed in range(9)}
        for name in ("baseline", "kd")
    }
    rules = Rules(groups={seed: seed % 3 for seed in range(9)})
    row = summarise(results, rules)["kd"]
    ours, theirs = ([one["test"]["accuracy"] for one in results[name].values()] for name in ("kd", "baseline"))
    by_teacher = np.subtract(ours, theirs).reshape(3, 3).mean(0)
    assert row["difference"] == pytest.approx(by_teacher.mean())
    assert row["needed"]["seeds"] == 3 * seeds_needed(Paired(by_teacher.tolist()), 0.01, 0.05)


@pytest.mark.parametrize(
    ("changed", "options", "said"),
    [
        ({"teacher": {"model": "mlp", "weights": "x.safetensors"}}, {}, "this recipe's comes trained"),
        ({"teacher": None, "distill": {"scheme": "teacher-free", "method": "kd"}}, {}, "this recipe has none"),
        ({}, {"teacher_count": 5}, "each needs as many students; there are 3 seeds: --seeds 5"),
        ({}, {}, "2 teachers take turns among the seeds, .* there are 3 seeds: --seeds 4"),
        ({}, {"max_seeds": 9}, "adds seeds of one teacher"),
    ],
)
def test_what_cannot_be_varied(changed: dict[str, Any], options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=said):
        compare(
            check(SMALL | changed), ["kd"], range(3), root=tmp_path, out=tmp_path / "cmp", machine=QUIET,
            **{"teacher_count": 2, **options},
        )  # fmt: skip
    assert not (tmp_path / "cmp").exists()
