"""A comparison of self-distillation: every exit, beside both students that "without it" may mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from limbeck import load_model
from limbeck.cli import compared as printed
from limbeck.compare import compare, difference, summarise
from limbeck.errors import RequestError
from limbeck.export import export_run
from limbeck.models import parameter_count
from limbeck.recipes.read import check
from limbeck.report import write_page
from limbeck.runs.machine import Machine

pytestmark = pytest.mark.usefixtures("few_digits")
QUIET = Machine(accelerator="cpu", progress=False)
SELF: dict[str, Any] = {
    "name": "self",
    "data": {"batch_size": 64, "drop_last": True},
    "student": {"model": "byot_small", "widths": [4, 6, 8]},
    "distill": {"scheme": "self"},
    "epochs": 1,
    "optimizer": {"lr": 0.01},
}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("compare") / "cmp"
    return out, compare(check(SELF), ["recipe", "backbone"], [0, 1], root=out, out=out, machine=QUIET)


def test_every_exit_has_its_figures(compared: tuple[Path, dict[str, Any]]) -> None:
    out, comparison = compared
    methods = comparison["methods"]
    exits = ["exit 1/3", "exit 2/3", "exit 3/3", "ensemble"]
    assert list(methods["baseline"]["predictions"]) == list(methods["recipe"]["predictions"]) == exits
    assert list(methods["backbone"]["predictions"]) == ["exit 3/3"]
    assert methods["recipe"]["predictions"]["ensemble"]["scores"] == methods["recipe"]["scores"]
    for seed in (0, 1):
        result = json.loads((out / f"recipe-seed{seed}" / "result.json").read_text())
        found = methods["recipe"]["predictions"]["exit 1/3"]["scores"][seed]
        assert found == result["test_accuracy/exit 1/3"]
    assert json.loads((out / "compare.json").read_text())["methods"] == methods


def test_differences_are_to_the_same_exit_and_to_the_backbone(compared: tuple[Path, dict[str, Any]]) -> None:
    methods = compared[1]["methods"]
    accuracy = {name: np.array(methods[name]["predictions"]["exit 3/3"]["scores"]) for name in methods}
    row = methods["recipe"]["predictions"]["exit 3/3"]
    assert row["difference"] == pytest.approx((accuracy["recipe"] - accuracy["baseline"]).mean())
    assert row["backbone"]["difference"] == pytest.approx((accuracy["recipe"] - accuracy["backbone"]).mean())
    assert "difference" not in methods["baseline"]["predictions"]["exit 3/3"]
    assert "backbone" not in methods["backbone"]["predictions"]["exit 3/3"]


def test_the_backbone_is_the_plain_network_of_the_deepest_exit(compared: tuple[Path, dict[str, Any]]) -> None:
    out, _ = compared
    about = json.loads((out / "backbone-seed0" / "student.json").read_text())
    assert about["options"] == {"widths": [4, 6, 8], "exit": 3}
    model = load_model(out / "backbone-seed0" / "student.json")
    assert "attention" not in repr(model)
    alone = export_run(out / "recipe-seed0", exit=3, out=out / "exported")
    assert (
        parameter_count(model) == alone["parameters"] < parameter_count(load_model(out / "recipe-seed0/student.json"))
    )
    assert export_run(out / "backbone-seed0", out=out / "exported")["parameters"] == alone["parameters"]


def test_table_and_page_show_them(compared: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    out, comparison = compared
    page = write_page(out)
    printed.comparison(comparison, page)
    shown = capsys.readouterr().out
    assert page
    text = page.read_text()
    for name, row in comparison["methods"]["recipe"]["predictions"].items():
        assert f"{row['mean']:.4f} ± {row['std']:.4f}" in shown
        assert f"<td>self, {name}</td><td>{row['mean']:.4f}" in text
        assert row["errors"] == ["seeds", "test samples"]
    assert "− backbone" in shown


def test_verdicts_are_corrected_for_every_prediction() -> None:
    gains = [0.010, 0.004, 0.007, 0.005]
    p = stats.ttest_1samp(gains, 0).pvalue
    assert 0.05 / 8 < p < 0.05 / 2

    def results(extra: list[float]) -> dict[int, dict[str, Any]]:
        names = ("exit 1/3", "exit 2/3", "exit 3/3", "ensemble")
        about = {"monitor": "accuracy", "mode": "max"}
        figures = [
            {f"test_accuracy/{n}": 0.9 + e for n in names} | {"test": {"accuracy": 0.9 + e}} | about for e in extra
        ]
        return dict(enumerate(figures))

    summary = summarise({"baseline": results([0] * 4), "recipe": results(gains), "mutual": results(gains)})
    assert summary["recipe"]["verdict"] == "better"
    assert summary["recipe"]["predictions"]["exit 1/3"]["verdict"] == "no difference shown"


def test_seeds_that_agree_to_the_sample_prove_nothing() -> None:
    one = 1 / 360
    assert difference([one, one, one], resolution=one)["verdict"] == "no difference shown"
    assert difference([10 * one] * 3, resolution=one)["verdict"] == "better"
    # Where the seeds spread more than a sample, they alone count.
    wide = [0.02, 0.05, 0.08]
    assert difference(wide, resolution=one) == difference(wide)


def test_a_student_with_one_exit_has_no_backbone(tmp_path: Path) -> None:
    plain = SELF | {
        "student": {"model": "mlp"},
        "distill": {"scheme": "teacher-free", "terms": [{"loss": "kd"}]},
    }
    with pytest.raises(RequestError, match="backbone is a deepest exit alone, and mlp has a single exit"):
        compare(check(plain), ["backbone"], [0], root=tmp_path, out=tmp_path / "cmp", machine=QUIET)
    assert not (tmp_path / "cmp").exists()
