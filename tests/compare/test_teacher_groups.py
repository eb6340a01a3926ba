"""`--teachers N`: students of several teachers, each trained with a seed of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from limbeck.compare import compare
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
    assert high - low > 2 * stats.t.ppf(0.975, 3) * np.std(by_teacher, ddof=1) / 2**0.5
    assert "2 teachers of different seeds took turns" in procedure(found)
    again = compare(check(SMALL), ["recipe"], range(4), root=out, out=out, machine=QUIET, teacher_count=2, resume=True)
    assert again["methods"] == found["methods"]
    with pytest.raises(RequestError, match=r"teacher\.seed was 6 and is 5"):
        compare(check(SMALL), ["recipe"], range(4), root=out, out=out, machine=QUIET, resume=True)


@pytest.mark.parametrize(
    ("changed", "options", "said"),
    [
        ({"teacher": {"model": "mlp", "weights": "x.safetensors"}}, {}, "this recipe's comes trained"),
        ({"teacher": None, "distill": {"scheme": "teacher-free", "method": "kd"}}, {}, "this recipe has none"),
        ({}, {"teacher_count": 5}, "5 teachers need as many seeds, and there are 3: --seeds 5"),
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
