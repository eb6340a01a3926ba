"""What is said beside the figures: other programs that computed meanwhile, and int8 files that are slower or larger."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from limbeck.cli.shipped import shipped
from limbeck.shipping import latency, table


def test_the_share_of_other_programs_is_the_time_in_which_a_thread_did_not_compute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(wall=0.0)

    def wall() -> float:
        clock.wall += 0.001
        return float(clock.wall)

    # A thread that the machine lets compute for a quarter of the time.
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=wall, thread_time=lambda: clock.wall / 4))
    assert latency.busy() == pytest.approx(0.75, abs=0.01)


def row(precision: str, p50: float, size: int) -> dict[str, Any]:
    return {
        "run": "digits", "model": "distilled", "runtime": "onnx", "precision": precision, "bytes": size,
        "latency": {"1": {"p50_ms": p50}}, "multiply_adds": 10**9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("int8", "lines"),
    [
        (row("int8", 0.5, 2_000), []),
        (row("int8", 2.0, 2_000), ["slower here than fp32 (distilled, digits: 2.000 and 1.000 ms at batch 1)"]),
        (row("int8", 0.5, 9_000), ["larger than fp32 (distilled, digits: 9,000 and 8,000 bytes)"]),
    ],
)
def test_an_int8_file_that_is_slower_or_larger_than_the_fp32_file_is_named(
    int8: dict[str, Any], lines: list[str]
) -> None:
    said = table.slower([row("fp32", 1.0, 8_000), int8], 1, {"int8_overflows": False})
    assert len(said) == len(lines)
    assert all(one.startswith(f"int8 is {line}") for one, line in zip(said, lines, strict=True))


def test_where_the_page_is_or_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = {**row("fp32", 1.0, 8_000), "score": 0.9, "interval": [0.8, 0.95], "agreement": None}
    one |= {"ratio_to_teacher": {}, "peak_memory_bytes": None, "latency": {"1": {"p50_ms": 1.0, "p95_ms": 2.0}}}
    found = {"runs": ["digits"], "monitor": "accuracy", "rows": [one], "chosen": {}, "machine": {}, "mode": "max"}
    found |= {"slower": [], "notes": [], "out": str(tmp_path)}
    shipped(found)
    assert "page: needs pip install limbeck[report]" in capsys.readouterr().out
    (tmp_path / "ship.html").write_text("")
    shipped(found)
    assert f"page: {tmp_path / 'ship.html'}" in capsys.readouterr().out
