"""`python -m benchmarks.record` with the folder of a search: what is kept of it, and its section of the results."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("benchmarks")
COMMAND = "limbeck tune small:wide --trials 2"


def trial(number: int, value: float | None, rate: float, state: str = "complete") -> dict[str, Any]:
    settings = {"optimizer.lr": rate, "schedule": "cosine"}
    about = {"reason": None, "seconds": 1.5, "epochs": 2, "curve": [0.1, 0.2]}
    return {"number": number, "state": state, "value": value, "settings": settings, **about}


def contender(best: int, fresh: list[float], seconds: float, *history: dict[str, Any]) -> dict[str, Any]:
    chosen = history[best]
    return {
        "trials": len(history),
        "pruned": sum(one["state"] == "pruned" for one in history),
        "failed": 0,
        "refused": 0,
        "seconds": seconds,
        "best": {"trial": best, "settings": chosen["settings"], "validation": chosen["value"]},
        "own": {"settings": history[0]["settings"], "validation": history[0]["value"]},
        "fresh": {str(seed): one for seed, one in enumerate(fresh, start=1)},
        "history": list(history),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of a search with two trials each, and two fresh seeds."""
    verdict = {"difference": 0.0625, "interval": [0.01, 0.115], "simultaneous": [0.005, 0.12], "verdict": "better"}
    place = str(tmp_path / "cache" / "outputs")
    content = {
        "title": "small:wide",
        "data": "digits",
        "epochs": 2,
        "seed": 0,
        "monitor": "accuracy",
        "mode": "max",
        "samples": {"validation": 1200, "test": 360},
        "fresh_seeds": [1, 2],
        "baseline": contender(0, [0.75, 0.875], 3.0, trial(0, 0.8, 0.01), trial(1, 0.7, 0.03, "pruned")),
        "recipe": {
            "label": "kd T=2",
            **contender(1, [0.8125, 0.9375], 4.6, trial(0, 0.85, 0.01), trial(1, 0.9, 0.0031)),
        },
        "verdict": {"recipe": verdict},
        "optimism": {"baseline": -0.0125, "recipe": 0.025},
        "importances": {"baseline": {}, "recipe": {}},
        "teacher": [{"model": "mlp", "weights": str(tmp_path / "teacher.pt")}],
        "teacher_outputs": [{"where": "disk", "place": place, "reason": f"asked once, in {place}"}],
        "environment": {"processor": "a processor", "cores": 2, "gpus": [], "limbeck": "1.0", "torch": "2.0"},
    }
    (tmp_path / "tune.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def test_a_search_is_kept_and_has_its_section(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = importlib.import_module("benchmarks.record")
    monkeypatch.setattr(record, "RESULTS", folder / "results")
    record.keep(folder, COMMAND)
    (path,) = (folder / "results").iterdir()
    assert path.name == "tune-small-wide.json"
    text = path.read_text(encoding="utf-8")
    assert str(folder) not in text
    kept = json.loads(text)
    assert kept["command"] == COMMAND
    assert kept["recipe"]["history"][1] == {
        "number": 1,
        "state": "complete",
        "value": 0.9,
        "settings": {"optimizer.lr": 0.0031, "schedule": "cosine"},
        "seconds": 1.5,
    }
    lines = record.document().splitlines()
    begin = lines.index("## Tuned: small:wide on digits")
    assert lines[begin + 2] == f"    {COMMAND}"
    assert "on 1,200 validation samples with the seed 0" in lines[begin + 4]
    assert "with the seeds 1, 2 for 2 epochs, and tested on 360 samples" in lines[begin + 4]
    head, rule, *rows = (line.strip("|").split("|") for line in lines[begin + 6 : begin + 10])
    assert len({len(row) for row in (head, rule, *rows)}) == 1
    # The means of the fresh scores; their standard deviation of two is the difference by √2, 0.125 / √2.
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["baseline", "2", "1", "3", "0.8000", "0.8125 ± 0.0884", "", "", "", "", "-0.0125"],
        ["kd T=2", "2", "0", "5", "0.9000", "0.8750 ± 0.0884", "+0.0625", "+0.0100 to +0.1150",
         "+0.0050 to +0.1200", "better", "+0.0250"],
    ]  # fmt: skip
    assert lines[begin + 11 : begin + 13] == [
        "- baseline: trial 1, the recipe as it is",
        "- kd T=2: trial 2, optimizer.lr 0.0031",
    ]
    assert any("a processor" in line for line in lines[begin:])
