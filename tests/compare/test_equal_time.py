"""Methods at equal wall time: the steps that fit, written down, and students that are functions of them."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from limbeck.cli.compare import _seconds
from limbeck.cli.compared import comparison as show
from limbeck.compare import compare, equal_time
from limbeck.compare.equal_time import Cost, check_seconds
from limbeck.errors import RequestError
from limbeck.recipes.read import check
from limbeck.report import write_page
from limbeck.runs.folder import read_result
from limbeck.runs.machine import Machine

QUIET = Machine(accelerator="cpu", progress=False)
NET = {"model": "transformer", "dim": 8, "depth": 1, "heads": 2}
LANGUAGE: dict[str, Any] = {
    "name": "timed",
    "data": {
        "name": "python-docs",
        "batch_size": 16,
        "options": {"tokenizer": "bytes", "length": 8, "part": 0.003, "sources": False},
    },
    "teacher": {**NET, "epochs": 1, "store": {"where": "disk", "top_k": 4}},
    "student": NET,
    "distill": {"terms": [{"loss": "kd", "temperature": 1}]},
    "epochs": 2,
}


def test_the_steps_that_fit_leave_room_for_storing_the_teachers_outputs() -> None:
    assert Cost(training=30.0, teacher=5.0, steps=600).steps_in(20.0) == 300  # 15 s of 20 steps a second
    assert Cost(training=30.0, teacher=0.0, steps=600).steps_in(90.0) == 1800
    assert Cost(training=30.0, teacher=25.0, steps=600).steps_in(20.0) == 0


def test_a_time_that_is_none_and_what_does_not_go_with_it_are_refused() -> None:
    recipe = check(LANGUAGE)
    check_seconds("baseline", recipe, adds_seeds=False)
    check_seconds(12.5, recipe, adds_seeds=False)
    check_seconds(None, recipe, adds_seeds=True)
    for wrong in (0, -1.0, True, "kd"):
        with pytest.raises(RequestError, match="baseline, or a number of seconds above 0"):
            check_seconds(wrong, recipe, adds_seeds=False)
    with pytest.raises(RequestError, match="leave it out, or --budget"):
        check_seconds("baseline", recipe, adds_seeds=True)
    stops = check(LANGUAGE | {"early_stopping": {"patience": 1}, "keep": "last"})
    with pytest.raises(RequestError, match="leave early_stopping out"):
        check_seconds("baseline", stops, adds_seeds=False)
    assert [_seconds(one) for one in (None, "steps", "time", "90")] == [None, None, "baseline", 90.0]
    with pytest.raises(RequestError, match="steps, time, or a number of seconds, not soon"):
        _seconds("soon")


def test_methods_are_compared_at_equal_time_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = {"baseline": Cost(10.0, 0.0, 20), "recipe": Cost(10.0, 20.0, 20), "on-policy": Cost(25.0, 0.0, 20)}
    seen: dict[str, Any] = {}

    def cost(by_seed: Any, steps: int, asking: float) -> Cost:
        one = next(iter(by_seed.values()))
        seen[one["method"]] = plain(by_seed, steps, asking)
        return costs[one["method"]]

    plain = equal_time._cost
    monkeypatch.setattr(equal_time, "_cost", cost)
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    go: dict[str, Any] = {"root": tmp_path, "out": out, "machine": QUIET, "seconds": "baseline"}
    found = compare(check(LANGUAGE), ["recipe", "on-policy"], [0], **go)

    timed = found["equal_time"]
    assert (timed["seconds"], timed["of"], timed["left"]) == (10.0, "baseline", ["recipe"])
    assert list(timed["methods"]) == ["baseline", "on-policy"]
    plan = json.loads((out / "equal-time" / "plan.json").read_text())
    assert plan["steps_per_epoch"] == {"baseline": plan["whole"], "recipe": 0, "on-policy": 4}  # 8 of 20 steps
    assert timed["methods"]["on-policy"]["steps"] == 8
    assert timed["methods"]["baseline"]["scores"] == found["methods"]["baseline"]["scores"]
    assert timed["methods"]["on-policy"]["scores"] != found["methods"]["on-policy"]["scores"]
    assert not (out / "equal-time" / "baseline-seed0").exists(), "it has its time already"
    made = json.loads((out / "equal-time" / "on-policy-seed0" / "identity.json").read_text())
    assert made["recipe"]["steps_per_epoch"] == 4
    lines = (out / "equal-time" / "on-policy-seed0" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2

    seconds = {name: read_result(out / f"{name}-seed0")["seconds"] for name in costs}
    assert seen["baseline"] == Cost(pytest.approx(seconds["baseline"]), 0.0, 2 * plan["whole"])
    assert seen["on-policy"].teacher == 0.0
    assert seen["recipe"].teacher > 0, "storing its outputs took some time"
    assert seen["recipe"].training + seen["recipe"].teacher == pytest.approx(seconds["recipe"], abs=2e-3)

    show(found, None)
    text = " ".join(capsys.readouterr().out.split())
    for words in ("at equal time, 10.0 s a student", "what the baseline took", "alone take longer: kd T=1"):
        assert words in text, text
    page = write_page(out)
    assert page is not None
    assert "At equal time" in page.read_text()

    # Seconds have changed, and a student is gone: the plan holds, and it is the same student again.
    costs["on-policy"] = Cost(5.0, 0.0, 20)
    before = timed["methods"]["on-policy"]["scores"]
    shutil.rmtree(out / "equal-time" / "on-policy-seed0")
    again = compare(check(LANGUAGE), ["recipe", "on-policy"], [0], resume=True, **go)
    assert again["equal_time"]["methods"]["on-policy"]["scores"] == before
    assert again["methods"]["baseline"] == found["methods"]["baseline"]
    with pytest.raises(RequestError, match="was planned for 10 s"):
        compare(check(copy.deepcopy(LANGUAGE)), ["recipe"], [0], resume=True, **(go | {"seconds": 3.0}))
