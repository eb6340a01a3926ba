from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from limbeck.compare import compare, difference, summarise
from limbeck.errors import RequestError
from limbeck.recipes.methods import METHODS
from limbeck.recipes.read import check
from limbeck.report import write_page
from limbeck.runs import hits
from limbeck.runs.machine import Machine

pytestmark = pytest.mark.usefixtures("few_digits")
QUIET = Machine(accelerator="cpu", progress=False)
CNNS: dict[str, Any] = {
    "name": "cnns",
    "data": {"batch_size": 64},
    "teacher": {"model": "cnn", "channels": [8, 12, 16], "epochs": 2, "optimizer": {"lr": 0.01}},
    "student": {"model": "cnn", "channels": [4, 6]},
    "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5, "temperature": 2}]},
    "epochs": 1,
    "optimizer": {"lr": 0.01},
}


def go(out: Path, methods: list[str], seeds: list[int], **options: Any) -> dict[str, Any]:
    return compare(check(CNNS), methods, seeds, root=out, out=out, machine=QUIET, **options)


def test_differences_are_paired_and_their_interval_is_students() -> None:
    baseline, rival = np.array([0.90, 0.92, 0.91, 0.93]), np.array([0.915, 0.931, 0.926, 0.941])
    expected = stats.ttest_rel(rival, baseline).confidence_interval(0.95)
    found = difference(list(rival - baseline), rivals=1)
    assert found["difference"] == pytest.approx(0.01325)
    assert found["interval"] == pytest.approx([expected.low, expected.high])
    assert found["verdict"] == "better"
    assert difference(list(baseline - rival))["verdict"] == "worse"


def test_the_verdict_is_corrected_for_the_number_of_methods() -> None:
    pairs = [0.010, 0.002, 0.006, 0.004]
    p = stats.ttest_1samp(pairs, 0).pvalue
    assert 0.05 / 10 < p < 0.05
    assert difference(pairs, rivals=1)["verdict"] == "better"
    assert difference(pairs, rivals=10)["verdict"] == "no difference shown"
    assert difference(pairs, rivals=10)["interval"] == difference(pairs, rivals=1)["interval"]


def test_one_seed_shows_nothing() -> None:
    assert difference([0.05]) == {
        "difference": 0.05,
        "interval": None,
        "simultaneous": None,
        "errors": ["seeds"],
        "verdict": "one seed shows nothing",
    }


def test_summary_has_means_and_spreads() -> None:
    def results(*accuracies: float) -> dict[int, dict[str, Any]]:
        about = {"monitor": "accuracy", "mode": "max", "seconds": 2.0}
        return {n: {"test": {"accuracy": a, "agreement": 0.5}, **about} for n, a in enumerate(accuracies)}

    summary = summarise({"baseline": results(0.8, 0.9), "kd": results(0.9, 0.9)})
    assert summary["kd"]["mean"] == pytest.approx(0.9)
    assert summary["baseline"]["std"] == pytest.approx(np.std([0.8, 0.9], ddof=1))
    assert summary["kd"]["difference"] == pytest.approx(0.05)
    assert "verdict" not in summary["baseline"]


def test_a_comparison_is_written_goes_on_and_makes_a_page(tmp_path: Path) -> None:
    out = tmp_path / "cmp"
    first = go(out, ["recipe", "rkd"], [0, 1])
    assert list(first["methods"]) == ["baseline", "recipe", "rkd"]
    written = json.loads((out / "compare.json").read_text())
    assert written == {k: v for k, v in first.items() if k != "out"}
    for name, row in first["methods"].items():
        for seed, accuracy in zip(row["seeds"], row["scores"], strict=True):
            assert hits.read(out / f"{name}-seed{seed}")[""].mean() == pytest.approx(accuracy, abs=1e-12)
    assert first["methods"]["rkd"]["errors"] == ["seeds", "test samples"]
    kept = (out / "recipe-seed1" / "student.safetensors").stat().st_mtime_ns

    # Interrupted in the middle: one result is missing, the others are not made again.
    shutil.rmtree(out / "rkd-seed1")
    again = go(out, ["recipe", "rkd"], [0, 1], resume=True)
    assert (out / "recipe-seed1" / "student.safetensors").stat().st_mtime_ns == kept
    assert again["methods"]["rkd"]["scores"] == first["methods"]["rkd"]["scores"]

    page = write_page(out)
    assert page is not None
    text = page.read_text()
    assert text.count("<svg") == 2
    assert "http://" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    for name, row in again["methods"].items():
        assert f"<td>{row.get('label', name)}</td><td>{row['mean']:.4f}" in text
    assert again["methods"]["recipe"]["label"] == "kd T=2"
    low, high = again["methods"]["rkd"]["simultaneous"]
    assert f"<td>{low:+.4f} to {high:+.4f}</td>" in text
    assert write_page(out) == page
    assert page.read_text() == text


def test_all_methods_see_the_same_starts_and_order(tmp_path: Path) -> None:
    changed = CNNS | {"distill": {"task_weight": 1.0, "terms": [{"loss": "kd", "weight": 0.0}]}}
    compare(check(changed), ["recipe"], [3], root=tmp_path, out=tmp_path / "cmp", machine=QUIET)
    folders = [tmp_path / "cmp" / f"{name}-seed3" for name in ("baseline", "recipe")]
    weights = [(folder / "student.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_its_student_loads_alone(name: str, tmp_path: Path) -> None:
    from limbeck.models import load_weights
    from limbeck.models.build import build
    from limbeck.runs.run import run

    stages = METHODS[name].default.stages
    changed = {"epochs": 1 + len(stages), "teacher": CNNS["teacher"] | {"channels": [8, 12, 16]}}
    recipe = check(CNNS | changed | {"distill": {"method": name}})
    result = run(recipe, root=tmp_path, out=tmp_path / "run", machine=QUIET, baseline=False)
    assert result["distilled"]["epochs"] == 1
    assert all((tmp_path / "run" / f"{stage.name}.safetensors").exists() for stage in stages)
    more = {"reused_classifier": {"channels": 16}} if name == "simkd" else {}  # which ships another network
    student = build("cnn", input_shape=(1, 8, 8), classes=10, channels=(4, 6), **more)
    load_weights(student, tmp_path / "run" / "student.safetensors")
    (tmp_path / "run" / "result.json").unlink()
    again = run(recipe, root=tmp_path, out=tmp_path / "run", machine=QUIET, baseline=False, resume=True)
    assert again["distilled"]["test_accuracy"] == result["distilled"]["test_accuracy"]


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["kdd"], "unknown method 'kdd'; did you mean kd"),
        (["baseline"], "nothing to compare"),
    ],
)
def test_wrong_comparisons_write_nothing(methods: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        go(tmp_path / "cmp", methods, [0])
    assert not (tmp_path / "cmp").exists()


def test_a_method_needs_the_places_that_it_compares(tmp_path: Path) -> None:
    flat = CNNS | {"student": {"model": "mlp"}, "distill": {"method": "at"}}
    with pytest.raises(RequestError, match=r"method at: .*could not be detected"):
        compare(check(flat), ["recipe"], [0], root=tmp_path, out=tmp_path / "cmp", machine=QUIET)


@pytest.mark.browser
def test_the_page_in_a_real_browser(tmp_path: Path) -> None:
    go(tmp_path / "cmp", ["recipe"], [0, 1])
    page = write_page(tmp_path / "cmp")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium
    shot = tmp_path / "page.png"
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,1400", f"--screenshot={shot}", f"file://{page}",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    from PIL import Image

    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert pixels.shape == (1400, 1000, 3)
    # Table and charts are drawn: the interval's blue is there, and ink reaches far down the page.
    assert (np.abs(pixels.astype(int) - (9, 105, 218)).sum(-1) < 30).sum() > 100
    assert np.flatnonzero((pixels < 128).all(-1).any(1)).max() > 700
