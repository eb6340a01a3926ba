"""ship.html as a browser lays it out: a picture with its frontier, and a table that can be read."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from limbeck.report.ship import write_ship_page

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.browser

MEASURE = """<script>
const box = (one) => { const r = one.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
const shown = (one) => getComputedStyle(one).color;
const table = document.querySelector("table");
document.body.dataset.found = JSON.stringify({
  width: innerWidth,
  page: document.documentElement.scrollWidth,
  cut: table.parentElement.scrollWidth - table.parentElement.clientWidth,
  picture: box(document.querySelector("figure svg")),
  lines: [...document.querySelectorAll("figure svg [id^=line2d] > path")]
    .filter((one) => one.style.stroke == "rgb(9, 105, 218)" && one.style.strokeOpacity == "0.6")
    .map((one) => ({box: box(one), corners: one.getAttribute("d").match(/[ML]/g).length})),
  rows: [...table.tBodies[0].rows].map((row) => ({
    box: box(row), cells: [...row.cells].map((cell) => cell.innerText), colour: shown(row.cells[0]),
  })),
  head: [...table.tHead.rows[0].cells].map((cell) => cell.innerText),
});
</script>"""


def row(model: str, runtime: str, precision: str, score: float, p50: float, frontier: bool) -> dict[str, Any]:
    return {
        "run": "run", "model": model, "runtime": runtime, "precision": precision, "file": f"reference/{model}.onnx",
        "bytes": 12345, "score": score, "interval": [score - 0.01, score + 0.01], "agreement": 0.95,
        "calibration_error": 0.02, "latency": {size: {"p50_ms": p50, "p95_ms": 2 * p50} for size in ("1", "32")},
        "beside_baseline": {"difference": 0.01, "interval": [0.0, 0.02]},
        "ratio_to_teacher": {"1": {"ratio": 2.0, "interval": [1.9, 2.1]}},
        "peak_memory_bytes": 50_000_000, "frontier": frontier,
    }  # fmt: skip


ROWS = [
    row("teacher", "torch", "fp32", 0.97, 4.0, True),
    row("baseline", "onnx", "fp32", 0.93, 1.1, False),
    row("distilled", "onnx", "fp32", 0.96, 1.0, True),
    row("distilled", "onnx", "int8", 0.95, 0.4, True),
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("page")
    machine = {"limbeck": "0", "torch": "2", "onnxruntime": "1", "processor": "a processor", "threads": 1, "flags": []}
    intervals = {"interval": "Wilson", "beside_baseline": "pairs", "ratio_to_teacher": "median"}
    found = {
        "command": "limbeck ship runs/<run>", "monitor": "accuracy", "mode": "max", "runs": {"run": {}}, "rows": ROWS,
        "intervals": intervals, "machine": machine, "chosen": {}, "slower": [], "notes": ["a note"],
    }  # fmt: skip
    (folder / "ship.json").write_text(json.dumps(found))
    page = write_ship_page(folder)
    assert page
    page.write_text(page.read_text() + MEASURE)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
        f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1400", "--dump-dom", f"file://{page}",
    ]  # fmt: skip
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    written = re.search(r'data-found="([^"]*)"', said)
    assert written
    return dict(json.loads(html.unescape(written[1])))


def test_the_picture_is_in_the_window_and_draws_the_frontier(measured: dict[str, Any]) -> None:
    left, top, right, bottom = measured["picture"]
    assert 0 <= left < right <= measured["width"]
    assert right - left > 400
    assert bottom - top > 240
    line = max(measured["lines"], key=lambda one: float(one["box"][2] - one["box"][0]))  # the other is the legend's
    assert line["corners"] == sum(row["frontier"] for row in ROWS)
    # From 0.4 ms to 4 ms on a logarithmic axis, and up: it crosses most of the picture, and stays inside.
    x0, y0, x1, y1 = line["box"]
    assert left < x0 < x1 < right
    assert top < y0 < y1 < bottom
    assert x1 - x0 > 0.5 * (right - left)


def test_the_table_stands_below_with_every_file(measured: dict[str, Any]) -> None:
    assert measured["head"][:6] == ["model", "runtime", "precision", "file", "bytes", "accuracy"]
    heights = [one["box"][3] - one["box"][1] for one in measured["rows"]]
    assert all(height > 10 for height in heights)
    assert measured["rows"][0]["box"][1] > measured["picture"][3]
    assert [one["cells"][:6] for one in measured["rows"]] == [
        [row["model"], row["runtime"], row["precision"], row["file"], "12,345", f"{row['score']:.4f}"] for row in ROWS
    ]
    marked = {row["frontier"]: one["colour"] for row, one in zip(ROWS, measured["rows"], strict=True)}
    assert marked == {True: "rgb(26, 127, 55)", False: marked[False]}
    assert [one["colour"] for one in measured["rows"]] == [marked[row["frontier"]] for row in ROWS]
    assert marked[True] != marked[False]


def test_neither_the_page_nor_its_table_scrolls_sideways_at_1400_pixels(measured: dict[str, Any]) -> None:
    assert measured["page"] <= measured["width"]
    assert measured["cut"] == 0
