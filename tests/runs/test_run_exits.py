"""`limbeck exits`: the accuracy of a run's exits, and the threshold that its validation split chooses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import RequestError
from limbeck.recipes.read import check
from limbeck.report.exits import write_exits_page
from limbeck.runs.finished.exits import weigh_exits
from limbeck.runs.finished.read import evaluate_run
from limbeck.runs.machine import Machine
from limbeck.runs.run import run

pytestmark = pytest.mark.usefixtures("few_digits")
QUIET = Machine(accelerator="cpu", progress=False)
RECIPE: dict[str, Any] = {
    "name": "exits",
    "data": {"batch_size": 64, "drop_last": True, "validation": 0.2},
    "student": {"model": "byot_small", "widths": [4, 6, 8], "mean": [0.3], "std": [0.4]},
    "distill": {"scheme": "self"},
    "epochs": 3,
    "optimizer": {"lr": 0.01},
    "keep": "best",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("exits") / "run"
    return folder, run(check(RECIPE), root=folder, out=folder, machine=QUIET, baseline=False)


def test_accuracies_are_those_of_the_run(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    found = weigh_exits(folder, folder, machine=QUIET)
    for name, row in found["exits"].items():
        assert row["test_accuracy"] == result["distilled"][f"test_accuracy/exit {name}"]
    assert found["ensemble"]["test_accuracy"] == result["distilled"]["test_accuracy"]
    assert json.loads((folder / "exits.json").read_text()) == {k: v for k, v in found.items() if k != "out"}
    assert evaluate_run(folder, folder)["accuracy"] == result["distilled"]["test_accuracy"]


def test_the_student_kept_is_the_one_with_the_best_ensemble_on_validation(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = finished
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(epoch["val_accuracy"] == epoch["val_accuracy/ensemble"] for epoch in epochs)
    best = max(epoch["val_accuracy/ensemble"] for epoch in epochs)
    found = weigh_exits(folder, folder, machine=QUIET)
    assert found["ensemble"]["validation_accuracy"] == pytest.approx(best)


def test_the_threshold_is_chosen_on_validation_and_tested_once(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    found = weigh_exits(folder, folder, thresholds=[0.9, 0.3, 0.6], within=0.02, machine=QUIET)
    points = found["curve"]["points"]
    assert found["curve"]["split"] == "validation"
    assert [point["threshold"] for point in points] == [0.3, 0.6, 0.9]
    deepest = found["exits"]["3/3"]["validation_accuracy"]
    enough = [point for point in points if point["accuracy"] >= deepest - 0.02]
    chosen = found["chosen"]
    assert chosen["threshold"] == (enough[0]["threshold"] if enough else None)
    assert set(chosen) == ({"within", "threshold", "validation", "test"} if enough else {"within", "threshold"})


def test_the_extremes_are_the_first_exit_and_nearly_the_last(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    low, high = weigh_exits(folder, folder, thresholds=[0, 1], machine=QUIET)["curve"]["points"]
    found = weigh_exits(folder, folder, thresholds=[0.5], within=1.0, machine=QUIET)
    assert low["shares"] == [1, 0, 0]
    assert low["multiply_adds"] == found["exits"]["1/3"]["multiply_adds"]
    assert low["accuracy"] == found["exits"]["1/3"]["validation_accuracy"]
    # All exits are asked on the way down, so this costs what the ensemble does.
    assert high["shares"][2] > 0.9
    assert high["multiply_adds"] <= found["ensemble"]["multiply_adds"]
    assert found["chosen"]["threshold"] == 0.5
    assert sum(found["chosen"]["test"]["shares"]) == pytest.approx(1)


def test_no_threshold_may_be_good_enough(
    finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = finished
    monkeypatch.setattr("limbeck.runs.finished.exits.cheapest", lambda points, least: None)
    assert weigh_exits(folder, folder, machine=QUIET)["chosen"] == {"within": 0.005, "threshold": None}
    page = write_exits_page(folder)
    assert page
    assert "No threshold keeps" in page.read_text()


def test_the_page_has_the_figures_and_a_chart(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    found = weigh_exits(folder, folder, within=1.0, machine=QUIET)
    page = write_exits_page(folder)
    assert page
    text = page.read_text()
    assert text.count("<svg") == 1
    for row in found["exits"].values():
        assert f"<td>{row['parameters']:,}</td><td>{row['multiply_adds']:,}</td>" in text
    assert f"accuracy {found['chosen']['test']['accuracy']:.4f}" in text


def test_without_a_validation_split_nothing_is_chosen(tmp_path: Path) -> None:
    recipe = check(RECIPE | {"data": {"batch_size": 64, "drop_last": True}, "keep": "last", "epochs": 1})
    run(recipe, root=tmp_path, out=tmp_path / "run", machine=QUIET, baseline=False)
    found = weigh_exits(tmp_path / "run", tmp_path, machine=QUIET)
    assert found["curve"]["split"] == "test"
    assert found["chosen"] is None
    assert "validation_accuracy" not in found["exits"]["1/3"]
    page = write_exits_page(tmp_path / "run")
    assert page
    assert "no threshold is chosen by it" in page.read_text()
    with pytest.raises(RequestError, match="chosen on a validation split, and this run has none"):
        weigh_exits(tmp_path / "run", tmp_path, within=0.01, machine=QUIET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": [1.2]}, "between 0 and 1, not 1.2"),
        ({"thresholds": [float("nan")]}, "between 0 and 1, not nan"),
        ({"thresholds": []}, "at least one threshold"),
        ({"within": -0.1}, "within is a share"),
    ],
)
def test_wrong_requests(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        weigh_exits(tmp_path, tmp_path, **options)


def test_a_student_with_one_exit_is_refused(tmp_path: Path) -> None:
    distill = {"scheme": "teacher-free", "terms": [{"loss": "kd", "weight": 0.5, "temperature": 2}]}
    recipe = check(RECIPE | {"student": {"model": "mlp", "hidden": [8]}, "distill": distill, "epochs": 1})
    run(recipe, root=tmp_path, out=tmp_path / "run", machine=QUIET, baseline=False)
    with pytest.raises(RequestError, match="the student mlp has a single exit"):
        weigh_exits(tmp_path / "run", tmp_path, machine=QUIET)
    with pytest.raises(RequestError, match="holds no finished run"):
        weigh_exits(tmp_path, tmp_path, machine=QUIET)
