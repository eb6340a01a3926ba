"""`limbeck tune` as a command: its table, its document, what Ctrl-C says, and wrong requests."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path

import pytest
from called import Limbeck

TINY = ("--epochs", 1, "--set", "teacher={model: mlp, hidden: [32], epochs: 2}", "--quiet", "--fresh-seeds", 1)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_digits: None) -> None:
    monkeypatch.chdir(tmp_path)


def test_interrupted_it_says_how_to_resume_and_then_shows_its_table(
    limbeck: Limbeck, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()

    with monkeypatch.context() as patched:
        patched.setattr("limbeck.tuning.search.curve", stop)
        said = limbeck("tune", "digits", "--trials", 2, *TINY)
    assert said.status == 130
    assert said.err.startswith("limbeck: interrupted; resume with: limbeck tune digits --trials 2 --epochs 1 ")
    again = shlex.split(said.err.partition("resume with: limbeck ")[2])
    assert again[-2:] == ["--resume", "runs/tune-digits"]
    said = limbeck(*again)
    assert said.status == 0, said.err
    found = json.loads(Path("runs/tune-digits/tune.json").read_text())
    assert found["baseline"]["trials"] == found["recipe"]["trials"] == 2
    for name in ("baseline", "recipe"):
        assert f"{found[name]['best']['validation']:.4f}" in said.out
        assert f"{found[name]['fresh']['1']:.4f}" in said.out
    assert found["verdict"]["recipe"]["verdict"] == "one seed shows nothing"
    assert all(word in said.out for word in ("one", "seed", "shows", "nothing"))
    assert "best-recipe.yaml" in said.out
    assert Path("runs/tune-digits/tune.html").exists()

    drawn = limbeck("report", "runs/tune-digits", "--title", "Found")
    assert drawn.out == "page: runs/tune-digits/tune.html\n"
    assert "<h1>Found</h1>" in Path("runs/tune-digits/tune.html").read_text()
    assert "holds a search: its table is its page" in limbeck("table", "runs/tune-digits").err

    said = limbeck("tune", "digits", "--trials", 2, *TINY, "--resume", "runs/tune-digits", "--json")
    assert json.loads(said.out)["recipe"]["best"] == found["recipe"]["best"]
    shown = limbeck("run", "runs/tune-digits/best-recipe.yaml", "--no-baseline", "--quiet", "--json")
    assert shown.status == 0, shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trials", 0), "Invalid value for '--trials'"),
        (("--trials", 2, "--methods", "kdd"), "unknown method 'kdd'; did you mean kd"),
        (("--trials", 2, "--methods", ","), "nothing to compare"),
        (("--trials", 2, "--minutes", -1), "minutes above 0"),
        (("--trials", 2, "--space", "none.yaml"), "cannot read the space none.yaml"),
        (("--trials", 2, "--space", "space.yaml"), "space.yaml: optimizer.lr has low 2 above high 1"),
        (("--trials", 2, "--resume", "nothing"), "nothing holds no search to resume"),
        (("--trials", 2, "--resume", "a", "--out", "b"), "leave --out out"),
    ],
)
def test_wrong_requests_leave_nothing_behind(
    limbeck: Limbeck, arguments: tuple[object, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text("optimizer.lr: {low: 2, high: 1}\n")
    said = limbeck("tune", "digits", *arguments, "--quiet")
    assert said.status == 2
    assert message in said.err
    assert said.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]
