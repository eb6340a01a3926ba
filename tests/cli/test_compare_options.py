"""`limbeck compare`: options that add seeds, vary the teacher, and train side by side."""

from __future__ import annotations

import json
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
        (["--on", "slurm"], "--on is ray, or a cluster's address such as ray://head:10001, not 'slurm'"),
    ],
)
def test_wrong_requests(options: list[object], said: str, limbeck: Limbeck, tmp_path: Path) -> None:
    found = limbeck("compare", "digits", "--out", tmp_path / "cmp", *options)
    assert (found.status, found.out, found.err.count("\n")) == (2, "", 1)
    assert said in found.err
    assert not (tmp_path / "cmp").exists()


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
