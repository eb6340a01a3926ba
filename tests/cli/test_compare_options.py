"""`limbeck compare`: options that add seeds, vary the teacher, and train side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from called import Limbeck


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--until", "forever", "--max-seeds", 9], "unknown --until 'forever'; valid: decided"),
        (["--until", "decided"], "--until decided and --max-seeds N go together"),
        (["--max-seeds", 9], "--until decided and --max-seeds N go together"),
        (["--jobs", 2, "--devices", 2], "--jobs 2 trains students side by side, each on one device"),
        (["--effect", 0], "--effect is the size of a difference, a number above 0, not 0"),
        (["--effect", "nan"], "--effect is the size of a difference, a number above 0, not nan"),
        (["--on", "slurm"], "--on is ray, or a cluster's address such as ray://head:10001, not 'slurm'"),
    ],
)
def test_wrong_requests(options: list[object], said: str, limbeck: Limbeck, tmp_path: Path) -> None:
    found = limbeck("compare", "digits", "--out", tmp_path / "cmp", *options)
    assert (found.status, found.out, found.err.count("\n")) == (2, "", 1)
    assert said in found.err
    assert not (tmp_path / "cmp").exists()


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (
            "nan",
            "limbeck: baseline, seed 0: the RMSE on held-out samples is no number: the outputs there are not finite",
        ),
        ("inf", "limbeck: baseline, seed 0: the RMSE on held-out samples is inf, and cannot be compared"),
        ("oops", "limbeck: baseline, seed 0: ValueError: could not convert string to float: 'oops' (--debug"),
    ],
)
def test_a_student_that_cannot_be_compared_is_named(
    outputs: str, said: str, limbeck: Limbeck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_theirs.py").write_text(THEIRS.format(outputs=outputs))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "of_theirs", raising=False)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "data: {name: 'of_theirs:data', batch_size: 8}\ntask: regression\nstudent: {model: 'of_theirs:student'}\n"
        "teacher: {model: 'of_theirs:teacher', epochs: 1}\ndistill: {terms: [{loss: mse}]}\nepochs: 1\n"
    )
    found = limbeck("compare", recipe, "--methods", "recipe", "--seeds", 1, "--out", tmp_path / "cmp", "--quiet")
    assert found.err.startswith(said)
    assert (found.status, found.err.count("\n")) == (1, 1)


THEIRS = """
import torch
from limbeck.data import DataSet, InMemory
from limbeck.tasks import Regression


def data():
    x = torch.randn(40, 3)
    parts = InMemory(x[:24], x[:24].sum(1)), InMemory(x[24:], x[24:].sum(1))
    return DataSet("plane", *parts, classes=1, input_shape=(3,), task=Regression())


def teacher():
    return torch.nn.Linear(3, 1)


class Student(torch.nn.Linear):
    def forward(self, x):
        made = super().forward(x)
        return made if len(x) <= 8 else made + float({outputs!r})  # in tests, whose batches are larger


def student():
    return Student(3, 1)
"""


def test_the_table_says_how_seeds_were_added(limbeck: Limbeck, tmp_path: Path) -> None:
    small = ["--set", "teacher={model: mlp, hidden: [8], epochs: 1}", "--epochs", 1, "--limit-samples", 100, "--quiet"]
    asked = ["--seeds", 2, "--until", "decided", "--max-seeds", 3, "--effect", 0.5]
    found = limbeck("compare", "digits", "--out", tmp_path / "cmp", *small, *asked)
    assert found.status == 0, found.err
    row = json.loads((tmp_path / "cmp" / "compare.json").read_text())["methods"]["recipe"]
    assert row["label"] == "dist T=1"
    assert "looks at 2, 3 seeds share the 5 % of error" in found.out
    assert f"show a difference of 0.5 in 80% of comparisons: dist T=1 {row['needed']['seeds']}" in found.out
    low, high = row["simultaneous"]
    assert f"{low:+.4f} to {high:+.4f}" in found.out
