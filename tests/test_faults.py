"""The campaign of faults stays runnable: a few trials of it, and how it tells right from wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import forked

ROOT = Path(__file__).parent.parent


def quick() -> None:
    """The command, in a process of its own."""
    from benchmarks.__main__ import main

    sys.argv = ["benchmarks", "faults", "--quick"]
    main()


@forked.needed
def test_a_few_trials_are_right(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(ROOT)
    process = forked.begun(quick)
    process.join(300)
    said = capfd.readouterr()
    assert process.exitcode == 0, said.err
    lines = said.out.splitlines()
    assert lines[-1] == "2 tried, 0 wrong", said.out
    assert [line.partition(",")[0] for line in lines[:-1]] == ["kill -9 at random moments", "SIGTERM"]


def test_what_is_missing_left_over_or_different_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.faults.contents import contents, differences, negative_times
    from benchmarks.faults.forked import Place

    place = Place(tmp_path)
    place.clear()
    for name, value in (
        ("a", {"x": 1, "seconds": 2, "teacher_seconds": 3}),
        ("b", {"x": 1}),
        ("c", {"x": [{"seconds": 3}]}),
    ):
        (place.work / f"{name}.json").write_text(json.dumps(value))
    before = contents(place)
    (place.work / "a.json").write_text(json.dumps({"x": 1, "seconds": 7, "teacher_seconds": 8}))  # only times
    (place.work / "b.json").write_text(json.dumps({"x": 2}))
    (place.work / "c.json").rename(place.work / ".c.json.0123abcd.part")
    (place.cache / "claimed").mkdir(parents=True)
    assert differences(contents(place), before) == [
        "work/c.json is missing",
        "work/.c.json.0123abcd.part is left over",
        "cache/claimed/ is left over",
        "work/b.json differs",
    ]
    (place.work / "metrics.jsonl").write_text('{"seconds": 1}\n{"teacher_seconds": -1}\n')
    assert negative_times(place) == ["work/metrics.jsonl holds a negative time"]


def test_growth_is_found_beside_a_large_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.faults.memory import pace

    pages = [4096 * (epoch * 1500 // 4096) for epoch in range(100)]  # 1,500 bytes an epoch, taken by pages
    step = [value + 200_000 * (epoch > 50) for epoch, value in enumerate(pages)]
    assert pace(pages)[0] == pytest.approx(1500, rel=0.15)
    assert pace(step)[0] == pytest.approx(1500, rel=0.15)
    assert pace([5000 * epoch for epoch in range(100)]) == (5000, 0)
