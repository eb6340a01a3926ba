"""A comparison's figures are of one origin: what was made of something else is refused, or trained again."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from limbeck.compare import compare, summarise
from limbeck.compare.cells import chosen_variants
from limbeck.errors import RequestError
from limbeck.recipes.read import check, read
from limbeck.runs.machine import Machine
from limbeck.runs.run import run

QUIET = Machine(accelerator="cpu", progress=False)
SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"batch_size": 64},
    "teacher": {"model": "mlp", "hidden": [16], "epochs": 1, "optimizer": {"lr": 0.01}},
    "student": {"model": "mlp", "hidden": [4]},
    "distill": {"terms": [{"loss": "kd", "temperature": 2}]},
    "epochs": 1,
    "optimizer": {"lr": 0.01},
}


def go(content: dict[str, Any], out: Path, methods: Sequence[str], seeds: int, **options: Any) -> dict[str, Any]:
    recipe, variants = (SMALL | content), content.get("variants", {})
    recipe.pop("variants", None)
    given = {name: check(recipe | keys) for name, keys in variants.items()}
    root = options.pop("root", out)
    return compare(check(recipe), methods, range(seeds), root=root, out=out, machine=QUIET, variants=given, **options)


def accuracies(comparison: dict[str, Any]) -> dict[str, list[float]]:
    return {name: row["scores"] for name, row in comparison["methods"].items()}


def warm(temperature: float) -> dict[str, Any]:
    terms = [{"loss": "kd", "weight": 5.0, "temperature": temperature}]
    return {"variants": {"warm": {"distill": {"task_weight": 0.0, "terms": terms}}}}


def test_an_edited_variant_is_named_and_trained_again_only_on_request(tmp_path: Path) -> None:
    go(warm(8), tmp_path / "cmp", ["warm"], 1)
    files = {path: path.read_bytes() for path in (tmp_path / "cmp").rglob("*.*") if path.suffix != ".claim"}
    said = r"warm-seed0: made of something else \(distill\.terms\.0\.temperature was 8 and is 1\); --redo trains"
    with pytest.raises(RequestError, match=said):
        go(warm(1), tmp_path / "cmp", ["warm"], 2, resume=True)
    assert {path: path.read_bytes() for path in files} == files
    kept = (tmp_path / "cmp" / "baseline-seed0" / "student.safetensors").stat().st_mtime_ns
    redone = go(warm(1), tmp_path / "cmp", ["warm"], 2, redo=True)
    fresh = go(warm(1), tmp_path / "fresh", ["warm"], 2)
    assert accuracies(redone) == accuracies(fresh)
    assert accuracies(fresh) != accuracies(go(warm(8), tmp_path / "old", ["warm"], 2))
    assert (tmp_path / "cmp" / "baseline-seed0" / "student.safetensors").stat().st_mtime_ns == kept
    assert accuracies(go(warm(1), tmp_path / "cmp", ["warm"], 2, resume=True)) == accuracies(fresh)


def test_an_edited_loss_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    own = {"distill": {"task_weight": 0.0, "terms": [{"loss": "own_cmp_loss:loss", "weight": 5.0}]}}

    def write(sign: str) -> None:
        (tmp_path / "own_cmp_loss.py").write_text(
            f"def loss(student, teacher):\n    return {sign}(student - teacher).square().mean(1)\n"
        )
        sys.modules.pop("own_cmp_loss", None)

    write("")
    go(own, tmp_path / "cmp", ["recipe", "kd"], 1)
    write("0.01 * ")
    with pytest.raises(RequestError, match=r"recipe-seed0: made .* \(the code of own_cmp_loss changed\); --redo"):
        go(own, tmp_path / "cmp", ["kd"], 2, resume=True)
    redone = go(own, tmp_path / "cmp", ["kd"], 2, redo=True)
    assert redone["methods"]["recipe"]["seeds"] == [0]
    assert accuracies(redone)["recipe"] == accuracies(go(own, tmp_path / "fresh", ["recipe"], 1))["recipe"]


def test_another_teachers_file_under_the_same_name(tmp_path: Path) -> None:
    def trained(seed: int) -> str:
        recipe = check(SMALL | {"teacher": SMALL["teacher"] | {"seed": seed}})
        result = run(recipe, root=tmp_path, out=tmp_path / f"run{seed}", machine=QUIET, baseline=False)
        return str(result["teacher"]["weights"])

    files = [trained(seed) for seed in (0, 1)]
    given = {"teacher": {"model": "mlp", "hidden": [16], "weights": str(tmp_path / "teacher.safetensors")}}
    shutil.copy(files[0], tmp_path / "teacher.safetensors")
    first = go(given, tmp_path / "cmp", ["kd"], 1)
    shutil.copy(files[1], tmp_path / "teacher.safetensors")
    with pytest.raises(RequestError, match=r"and 1 more: made of .* \(the teacher has other weights\); --redo"):
        go(given, tmp_path / "cmp", ["kd"], 2, resume=True)
    # The same weights from another place are the same teacher.
    moved = {"teacher": given["teacher"] | {"weights": files[0]}}
    assert accuracies(go(moved, tmp_path / "cmp", ["kd"], 1, resume=True)) == accuracies(first)


def test_a_teacher_in_the_folder_counts_for_its_own_recipe_only(tmp_path: Path) -> None:
    go({}, tmp_path / "cmp", ["kd"], 1)
    longer = {"teacher": SMALL["teacher"] | {"epochs": 2}}
    with pytest.raises(RequestError, match=r"teacher\.epochs was 1 and is 2"):
        go(longer, tmp_path / "cmp", ["kd"], 1, resume=True)
    redone, fresh = (go(longer, tmp_path / name, ["kd"], 1, redo=True) for name in ("cmp", "fresh"))
    assert redone["teacher"][0]["test_accuracy"] == fresh["teacher"][0]["test_accuracy"]
    assert accuracies(redone) == accuracies(fresh)


def test_all_students_of_a_folder_count_for_the_correction(tmp_path: Path) -> None:
    whole = go({}, tmp_path / "cmp", ["kd", "dist", "hard"], 2)
    fewer = go({}, tmp_path / "cmp", ["dist"], 1, resume=True)
    assert set(fewer["methods"]) == {"baseline", "kd", "dist", "hard"}
    for name, row in fewer["methods"].items():
        assert row == whole["methods"][name]
    more = go({}, tmp_path / "cmp", ["dist"], 3, resume=True)
    assert {name: row["seeds"] for name, row in more["methods"].items()} == {
        "baseline": [0, 1, 2], "dist": [0, 1, 2], "kd": [0, 1], "hard": [0, 1]
    }  # fmt: skip
    assert (more["seeds"], more["methods"]["kd"]["difference"]) == ([0, 1, 2], whole["methods"]["kd"]["difference"])


def test_differences_are_paired_over_the_seeds_that_both_have() -> None:
    def results(**figures: float) -> dict[int, dict[str, Any]]:
        about = {"monitor": "accuracy", "mode": "max"}
        return {int(seed[1:]): {"test": {"accuracy": value}, **about} for seed, value in figures.items()}

    baseline = results(s0=0.80, s1=0.90, s2=0.85, s3=0.70)
    kd = results(s1=0.93, s2=0.86, s3=0.75)
    found = summarise({"baseline": baseline, "kd": kd, "dist": results(s9=0.5)})
    interval = stats.ttest_1samp([0.03, 0.01, 0.05], 0).confidence_interval(0.95)
    assert found["kd"]["interval"] == pytest.approx([interval.low, interval.high])
    assert found["kd"]["seeds"] == [1, 2, 3]
    assert "difference" not in found["dist"]


def test_a_result_that_was_copied_from_elsewhere_is_refused(tmp_path: Path) -> None:
    go({}, tmp_path / "cmp", ["kd"], 2)
    shutil.copy(tmp_path / "cmp" / "kd-seed0" / "result.json", tmp_path / "cmp" / "kd-seed1" / "result.json")
    with pytest.raises(RequestError, match=r"kd-seed1: .*\(its result\.json is that of another student\)"):
        go({}, tmp_path / "cmp", ["kd"], 2, resume=True)
    (tmp_path / "cmp" / "kd-seed0" / "identity.json").unlink()
    with pytest.raises(
        RequestError, match=r"kd-seed0 and 1 more: .*does not record what it was made of: identity.json"
    ):
        go({}, tmp_path / "cmp", ["kd"], 2, resume=True)


@pytest.mark.parametrize(("methods", "label"), [(["kd"], None), ([":kd"], ":kd"), ([":mine", "mine"], "mine")])
def test_a_variant_never_stands_in_for_a_method(methods: list[str], label: str | None, tmp_path: Path) -> None:
    distill = {"task_weight": 1.0, "terms": [{"loss": "kd", "weight": 0.0}]}
    content = {"variants": {"kd": {"distill": distill}, "mine": {"distill": distill}}}
    if label is None:
        with pytest.raises(RequestError, match="both a method and a variant of the recipe are called kd; write :kd"):
            go(content, tmp_path / "cmp", methods, 1)
        return
    found = go(content, tmp_path / "cmp", methods, 1)
    assert list(found["methods"]) == ["baseline", label]
    assert found["methods"][label]["scores"] == found["methods"]["baseline"]["scores"]
    folder = "variant-kd-seed0" if label == ":kd" else "mine-seed0"
    assert json.loads((tmp_path / "cmp" / folder / "result.json").read_text())["method"] == label
    again = go(content, tmp_path / "cmp", methods, 1, resume=True)
    assert accuracies(again) == accuracies(found)
    with pytest.raises(RequestError, match=rf"has students of {label}, which the recipe does not have any more"):
        go({}, tmp_path / "cmp", ["dist"], 1, resume=True)


def test_overrides_change_the_recipe_and_leave_a_variant_what_it_gives(tmp_path: Path) -> None:
    source = tmp_path / "mine.yaml"
    source.write_text(
        "student: {model: mlp}\nteacher: {model: mlp, epochs: 2}\n"
        "distill: {terms: [{loss: kd, temperature: 4}]}\n"
        "variants:\n"
        "  hot: {distill: {terms: [{loss: kd, temperature: 8}]}}\n"
        "  two: {teacher: [{model: mlp, epochs: 1}, {model: mlp, epochs: 1}]}\n"
    )
    overrides = ["teacher.epochs=1", "distill.terms.0.temperature=1"]
    found = chosen_variants(str(source), ["kd", "hot"], None, overrides)
    assert list(found) == ["hot"]
    assert found["hot"].distill.terms[0].options == {"temperature": 8}
    assert found["hot"].teachers[0].epochs == 1
    assert read(str(source), overrides).distill.terms[0].options == {"temperature": 1}
