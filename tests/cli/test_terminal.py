"""What a command has done is not lost over a terminal that cannot show it, nor over a page that cannot be drawn."""

from __future__ import annotations

import io
import json
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image

import limbeck
from limbeck.cli import show
from limbeck.cli.main import main
from limbeck.recipes.read import read

TINY = ["--epochs", "1", "--set", "teacher.epochs=1", "--quiet"]


def command(*arguments: str, monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8") -> tuple[int, str]:
    """The status, and what stdout got, by a stream of this encoding that raises for other characters."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "argv", ["limbeck", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    out.flush()
    return int(exit_.value.code or 0), out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_output_is_made_to_fit_its_encoding(encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    where = ["--out", "蒸馏 run"]
    status, shown = command("run", "digits", *TINY, *where, monkeypatch=monkeypatch, encoding=encoding)
    assert status == 0
    assert "distilled - baseline" in shown
    assert "student: \\u84b8\\u998f run/student.safetensors" in shown
    assert json.loads(Path("蒸馏 run/result.json").read_text(encoding="utf-8"))["distilled"]["epochs"] == 1
    status, shown = command("evaluate", "蒸馏 run", monkeypatch=monkeypatch, encoding=encoding)
    assert (status, "agreement" in shown) == (0, True)


def test_a_comparison_without_matplotlib_or_whose_page_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    compared = ["compare", "digits", "--seeds", "1", *TINY, "--out", "out folder"]
    with monkeypatch.context() as without:
        without.delitem(sys.modules, "limbeck.report.charts", raising=False)
        without.delattr("limbeck.report.charts", raising=False)
        without.setitem(sys.modules, "matplotlib", None)
        status, shown = command(*compared, monkeypatch=without)
    assert (status, Path("out folder/compare.html").exists()) == (0, False)
    assert "page: needs pip install limbeck[report]" in shown

    def broken(folder: Path) -> None:
        raise OSError("no space")

    monkeypatch.setattr("limbeck.report.write_page", broken)
    status, _ = command(*compared, "--resume", monkeypatch=monkeypatch)
    assert status == 0
    assert "the page cannot be drawn (no space); the figures are in out folder" in capsys.readouterr().err


def test_the_command_that_an_error_advises_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    given = ["run", "digits", "--out", "out", "--set", "teacher.epochs=1", "--quiet", "--no-baseline"]
    status, _ = command(*given, "--epochs", "1", "--resume", monkeypatch=monkeypatch)
    assert status == 0
    assert "there is nothing to resume in out: starting from scratch" in capsys.readouterr().err
    for _ in range(2):  # of a finished run, and of one that is not
        assert command(*given, "--epochs", "2", "--resume", monkeypatch=monkeypatch)[0] == 2
        said = capsys.readouterr().err.strip()
        assert said.startswith("limbeck: out is a run of 1 epoch; train its students anew for 2, by the kept teacher: ")
        Path("out/result.json").unlink(missing_ok=True)
    advised = shlex.split(said.partition("kept teacher: limbeck ")[2])
    assert advised == ["run", "out/recipe.yaml", "--epochs", "2", "--out", "out-2-epochs"]
    assert command(*advised, "--quiet", "--no-baseline", monkeypatch=monkeypatch)[0] == 0
    longer = json.loads(Path("out-2-epochs/result.json").read_text())
    assert (longer["distilled"]["epochs"], longer["teacher"]["source"]) == (2, "reused")
    capsys.readouterr()
    status, _ = command(*given, "--epochs", "1", "--set", "seed=3", "--resume", monkeypatch=monkeypatch)
    said = capsys.readouterr().err.strip()
    assert status == 2
    assert "out holds another run (seed was 0 and is 3); choose another --out, or resume it with its own" in said
    advised = said.partition("recipe: limbeck ")[2].split()
    assert advised == ["run", "out/recipe.yaml", "--out", "out", "--resume"]
    assert command(*advised, "--quiet", monkeypatch=monkeypatch)[0] == 0
    assert json.loads(Path("out/result.json").read_text())["distilled"]["epochs"] == 1


def test_the_version_and_short_help(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("--version", monkeypatch=monkeypatch) == (0, f"limbeck {limbeck.__version__}\n")
    assert "Usage: limbeck run" in command("run", "-h", monkeypatch=monkeypatch)[1]


def test_a_resumed_run_finds_its_data_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIMBECK_DATA", str(tmp_path / "nowhere"))
    for part, kind in ((part, kind) for part in ("train", "val") for kind in "ab"):
        Path("my data", part, kind).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (3, 3), (i, ord(kind), 0)).save(Path("my data", part, kind, f"{i}.png"))
    given = ["run", "digits", *TINY, "--set", "data={name: image-folder, batch_size: 2}", "--out", "out"]
    given += ["--set", "student={model: mlp, hidden: [3]}", "--set", "teacher={model: mlp, epochs: 1}"]
    given += ["--set", "distill={method: kd}"]
    assert command(*given, "--data-root", "my data", monkeypatch=monkeypatch)[0] == 0
    Path("out/result.json").unlink()
    assert command(*given, "--resume", monkeypatch=monkeypatch)[0] == 0
    assert Path("out/result.json").exists()


def test_a_comparisons_own_recipe_has_its_variants_and_resumes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(
        "teacher: {model: mlp, epochs: 1}\nstudent: {model: mlp, hidden: [4]}\nepochs: 1\n"
        "distill: {method: kd}\nvariants: {hot: {distill: {terms: [{loss: kd, temperature: 8}]}}}\n"
    )
    options = ["--quiet", "--out", "cmp", "--methods", "hot"]
    assert command("compare", "mine.yaml", *options, "--seeds", "1", monkeypatch=monkeypatch)[0] == 0
    own = ["compare", "cmp/recipe.yaml", *options, "--seeds", "2", "--resume"]
    assert command(*own, monkeypatch=monkeypatch)[0] == 0
    assert json.loads(Path("cmp/compare.json").read_text())["methods"]["hot"]["seeds"] == [0, 1]
    assert read("cmp/recipe.yaml:hot").distill.terms[0].options == {"temperature": 8}
    # --set on the base reaches no variant, and no variant that is not named is read.
    changed = ["compare", "mine.yaml", *options, "--seeds", "2", "--resume", "--set", "distill.method=dist"]
    assert command(*changed, monkeypatch=monkeypatch)[0] == 0


@pytest.mark.parametrize(
    ("monitor", "mode", "ours", "words"),
    [
        ("rmse", "min", 4.25001, "RMSE +1.0e-05 (worse)"),
        ("rmse", "min", 4.125, "RMSE -0.1250 (better)"),
        ("rmse", "min", 4.25, "no difference"),
        ("accuracy", "max", 4.26, "+1.00 points"),
    ],
)
def test_a_difference_that_counts_is_not_shown_as_none(monitor: str, mode: str, ours: float, words: str) -> None:
    one, other = ({"monitor": monitor, "mode": mode, "test": {monitor: score}} for score in (ours, 4.25))
    assert show._difference(one, other) == words
