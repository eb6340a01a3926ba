"""`limbeck table`: side by side with what differs, and students of several machines joined."""

from __future__ import annotations

import csv
import io
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
from called import Limbeck


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_joined_students_give_the_verdicts_of_one_comparison(limbeck: Limbeck, comparisons: Path) -> None:
    said = limbeck("table", comparisons / "second", comparisons / "first", "--join", "--format", "json")
    assert said.status == 0, said.err
    whole = json.loads((comparisons / "whole" / "compare.json").read_text())["methods"]
    rows = {row["method"]: row for row in json.loads(said.out)["rows"]}
    assert rows.keys() == whole.keys() == {"baseline", "kd", "recipe"}
    for name, row in rows.items():
        expected = whole[name]
        assert (row["values"], row["mean"], row["std"]) == (expected["scores"], expected["mean"], expected["std"])
        assert row["seeds"] == [0, 1, 2]
        for key in ("difference", "interval", "simultaneous", "verdict", "label"):
            assert row.get(key) == expected.get(key), key
    shown = limbeck("table", comparisons / "first", comparisons / "second", "--join").out
    assert f"{whole['kd']['mean']:.4f} ± {whole['kd']['std']:.4f}" in shown
    assert whole["kd"]["verdict"] in shown


def test_what_does_not_fit_is_refused_with_its_name(limbeck: Limbeck, comparisons: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(comparisons / "second", other)
    result = other / "kd-seed2" / "result.json"
    changed(result, identity="0123456789abcdef")
    said = limbeck("table", comparisons / "first", other, "--join")
    assert (said.status, said.out) == (2, "")
    assert f"{other / 'kd-seed2'}: its result.json is that of another student" in said.err

    shutil.copytree(comparisons / "first", tmp_path / "twin")
    changed(tmp_path / "twin" / "kd-seed1" / "result.json", test_accuracy=0.25, test={"accuracy": 0.25})
    said = limbeck("table", comparisons / "first", tmp_path / "twin", "--join")
    assert said.status == 2
    assert f"{comparisons / 'first' / 'kd-seed1'} and {tmp_path / 'twin' / 'kd-seed1'} are the same student" in said.err

    said = limbeck("table", comparisons / "first", tmp_path, "--join")
    assert said.status == 2
    assert f"{tmp_path} holds no finished student of a comparison" in said.err


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("recipe", "epochs", 7, "epochs was 1 and is 7"),
        ("weights", "teacher", "0123", "the teacher has other weights"),
        ("versions", "torch", "1.0", "torch "),
    ],
)
def test_students_of_another_origin_are_not_joined(
    part: str, key: str, value: Any, message: str, limbeck: Limbeck, comparisons: Path, tmp_path: Path
) -> None:
    from limbeck.runs import identity

    shutil.copytree(comparisons / "second", tmp_path / "other")
    for student in (tmp_path / "other").glob("*-seed2"):
        made_of = identity.read(student)
        assert made_of is not None
        made_of[part][key] = value
        identity.write(student, made_of)
        changed(student / "result.json", identity=identity.digest(made_of))
    said = limbeck("table", comparisons / "first", tmp_path / "other", "--join")
    assert (said.status, said.out) == (2, "")
    assert f"{tmp_path / 'other'}/" in said.err
    assert message in said.err


def test_side_by_side_equal_budgets_are_said_and_others_shown(
    limbeck: Limbeck, comparisons: Path, digits_run: Path, tmp_path: Path
) -> None:
    said = limbeck("table", comparisons / "first", comparisons / "second")
    assert said.status == 0, said.err
    assert "equal budgets; rows differ in their methods and seeds alone" in said.out
    assert "epochs" not in said.out
    said = limbeck("table", comparisons / "whole", digits_run)
    assert "not at an equal budget: rows differ in epochs" in said.out
    rows = json.loads(limbeck("table", comparisons / "whole", digits_run, "--format", "json").out)
    assert (rows["equal_budget"], rows["differ"]) == (False, ["epochs"])
    assert [row["epochs"] for row in rows["rows"]] == [1, 1, 1, 2, 2]
    result = json.loads((digits_run / "result.json").read_text())
    assert [row["mean"] for row in rows["rows"][3:]] == [
        result[name]["test_accuracy"] for name in ("baseline", "distilled")
    ]


def test_two_recipes_of_one_name_show_what_sets_them_apart(
    limbeck: Limbeck, comparisons: Path, digits_run: Path, tmp_path: Path
) -> None:
    from limbeck.runs import identity

    shutil.copytree(comparisons / "first", tmp_path / "hot")
    for student in (tmp_path / "hot").glob("recipe-seed*"):
        made_of = identity.read(student)
        assert made_of is not None
        made_of["recipe"]["distill"]["terms"][0]["temperature"] = 8.5
        identity.write(student, made_of)
    found = json.loads(limbeck("table", comparisons / "first", tmp_path / "hot", "--format", "json").out)
    assert (found["equal_budget"], found["differ"]) == (True, ["distill.terms.0.temperature"])
    shown = [row["distill.terms.0.temperature"] for row in found["rows"] if row["method"] == "recipe"]
    assert shown[1] == 8.5 != shown[0]


def test_formats(limbeck: Limbeck, comparisons: Path) -> None:
    kd = json.loads((comparisons / "whole" / "compare.json").read_text())["methods"]["kd"]["scores"]
    mean, std = statistics.mean(kd), statistics.stdev(kd)
    markdown = limbeck("table", comparisons / "whole", "--format", "markdown").out.splitlines()
    assert markdown[0] == "| method | test accuracy | seeds | − baseline | 95 % interval | simultaneous | verdict |"
    assert markdown[1].count("---") == 7
    assert any(line.startswith("| dist T=1 |") for line in markdown)  # the recipe's own way
    row = next(line for line in markdown if line.startswith("| kd |"))
    assert row.startswith(f"| kd | {mean:.4f} ± {std:.4f} | 0, 1, 2 |")
    latex = limbeck("table", comparisons / "whole", "--format", "latex").out
    assert rf"kd & {mean:.4f} $\pm$ {std:.4f} & 0, 1, 2 &" in latex
    assert r"95 \% interval" in latex
    assert latex.count(r"\\") == 4
    table = list(csv.DictReader(io.StringIO(limbeck("table", comparisons / "whole", "--format", "csv").out)))
    found = next(row for row in table if row["method"] == "kd")
    assert (float(found["mean"]), float(found["std"]), found["seeds"]) == (mean, std, "0 1 2")
    said = limbeck("table", comparisons / "whole", "--format", "html")
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert "unknown format 'html'; valid: csv, json, latex, markdown, text" in said.err


def test_a_folder_without_results_is_one_line(limbeck: Limbeck, tmp_path: Path) -> None:
    said = limbeck("table", tmp_path)
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert f"{tmp_path} holds no finished run" in said.err
