"""Forty things that people expect to be able to say, each with what must come out, on small real data.

A researcher trains, compares and writes a table; an engineer brings images, predicts, evaluates and ships.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from called import Limbeck, Said
from PIL import Image

import limbeck as package
from limbeck.recipes.methods import METHODS

SHORT = ("--epochs", "1", "--set", "teacher={model: mlp, hidden: [32], epochs: 2}", "--no-baseline", "--quiet")


@dataclass(frozen=True)
class Attempt:
    """What somebody types, and whether the answer is right."""

    wish: str
    arguments: tuple[str, ...]
    right: Callable[[Said], bool]
    status: int = 0


def rows(said: Said) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(said.out)))


PLACES: dict[str, Path] = {}
"""Where the words in braces lie, once the runs are there."""


def filled(text: str) -> str:
    for name, path in PLACES.items():
        text = text.replace(name, str(path))
    return text


def content(path: str) -> Any:
    return json.loads(Path(filled(path)).read_text(encoding="utf-8"))


def has(*words: str) -> Callable[[Said], bool]:
    return lambda said: all(word in said.out for word in words)


def one_line(*words: str) -> Callable[[Said], bool]:
    return lambda said: (said.out, said.err.count("\n")) == ("", 1) and all(word in said.err for word in words)


def near(values: Any, expected: Any) -> bool:
    return bool(np.allclose(values, expected, atol=1e-6))


TRAIN = [
    Attempt(
        "one short training",
        ("run", "digits", *SHORT, "--out", "short"),
        lambda said: "distilled student" in said.out and content("short/result.json")["distilled"]["epochs"] == 1,
    ),
    Attempt(
        "figures for a script",
        ("run", "digits", *SHORT, "--out", "as json", "--json"),
        lambda said: json.loads(said.out)["distilled"] == content("as json/result.json")["distilled"],
    ),
    Attempt(
        "another seed, learning rate and student",
        ("run", "digits", *SHORT, "--out", "other", "--seed", "5", "--json",
         "--set", "optimizer.lr=0.01", "--set", "student.hidden=[8]"),
        lambda said: (json.loads(said.out)["seed"], json.loads(said.out)["distilled"]["parameters"])
        == (5, 64 * 8 + 8 + 8 * 10 + 10),
    ),
    Attempt(
        "one thread, and a folder with a space and Chinese characters",
        ("run", "digits", *SHORT, "--out", "结果 of today/第一", "--threads", "1"),
        lambda said: content("结果 of today/第一/environment.json")["threads"] == 1,
    ),
    Attempt(
        "resume what is finished",
        ("run", "digits", *SHORT, "--out", "short", "--resume"),
        lambda said: "is finished: its result is given as it is" in said.err,
    ),
    Attempt(
        "several methods and seeds, for a script",
        ("compare", "digits", "--methods", "kd,dkd", "--seeds", "1", "--epochs", "1", "--out", "cmp", "--quiet",
         "--json", "--set", "teacher={model: mlp, hidden: [32], epochs: 2}"),
        lambda said: [(name, row["seeds"]) for name, row in json.loads(said.out)["methods"].items()]
        == [("baseline", [0]), ("kd", [0]), ("dkd", [0])],
    ),
    Attempt(
        "one seed more",
        ("compare", "digits", "--methods", "kd", "--seeds", "2", "--epochs", "1", "--out", "cmp", "--quiet",
         "--resume", "--json", "--set", "teacher={model: mlp, hidden: [32], epochs: 2}"),
        lambda said: json.loads(said.out)["methods"]["kd"]["seeds"] == [0, 1],
    ),
    Attempt(
        "what the teacher has to teach",
        ("diagnose", "digits", "--quiet", "--json", "--set", "teacher={model: mlp, hidden: [32], epochs: 2}"),
        lambda said: json.loads(said.out)["diagnosis"]["samples"] == 1437,
    ),
    Attempt(
        "what it will cost",
        ("plan", "digits", "--json", "--threads", "1"),
        lambda said: json.loads(said.out)["student"]["parameters"] == 64 * 16 + 16 + 16 * 10 + 10,
    ),
]  # fmt: skip
LOOK = [
    Attempt("the version", ("--version",), lambda said: said.out == f"limbeck {package.__version__}\n"),
    Attempt("help", ("-h",), has("predict", "table", "report", "compare")),
    Attempt("help on a command", ("predict", "--help"), has("PATHS...", "--top", "--format", "--out")),
    Attempt("which methods there are", ("list", "methods"), has("dkd", "mean-teacher")),
    Attempt(
        "the same for a script",
        ("list", "methods", "--json"),
        lambda said: all(name in json.loads(said.out)["methods"]["methods"] for name in METHODS),
    ),
    Attempt("all of a recipe", ("show", "digits", "--set", "epochs=3"), has("epochs: 3", "hidden: [16]")),
    Attempt("what a key means", ("show", "--keys", "data.size"), has("data.size:", "default:")),
    Attempt("the layers of a model", ("inspect", "mlp", "--input", "1x8x8"), has("Linear", "parameters")),
    Attempt(
        "where the cache is",
        ("cache", "--where"),
        lambda said: (Path(said.out.strip()) / "teachers").is_dir(),
    ),
    Attempt("what is in it", ("cache", "--list"), has("teacher", "entries")),
    Attempt("what would be deleted", ("cache", "--prune", "--older-than", "30d", "--dry-run"), has("would be freed")),
]
FINISHED = [
    Attempt(
        "the test figures on a chosen device",
        ("evaluate", "{run}", "--accelerator", "cpu", "--json"),
        lambda said: 0.5 < json.loads(said.out)["accuracy"] <= 1,
    ),
    Attempt("a device that nobody knows", ("evaluate", "{run}", "--accelerator", "abacus"), one_line("abacus"), 2),
    Attempt("the test figures", ("evaluate", "{run}"), has("accuracy", "calibration error", "agreement")),
    Attempt(
        "the test figures for a script",
        ("evaluate", "{run}", "--json", "--threads", "1"),
        lambda said: near(json.loads(said.out)["accuracy"], content("{run}/result.json")["distilled"]["test_accuracy"]),
    ),
    Attempt(
        "figures by class",
        ("evaluate", "{run}", "--report", "--json"),
        lambda said: (
            sum(row["support"] for row in json.loads(said.out)["classes"]) == 360
            and len(json.loads(said.out)["confusion"]) == 10
        ),
    ),
    Attempt(
        "evaluation on images of mixed sizes, from anywhere",
        ("evaluate", "{pictures_run}", "--json"),
        lambda said: json.loads(said.out)["samples"] == 24,
    ),
    Attempt("a plain model to ship", ("export", "{run}", "--out", "ship"), has("ship/student.json")),
    Attempt("an exit to ship", ("export", "{exits}", "--exit", "1", "--out", "ship"), has("ship/exit-1.json")),
    Attempt("what each exit gives", ("exits", "{exits}", "--thresholds", "0.5"), has("early exit", "threshold")),
    Attempt(
        "classes of a folder of images",
        ("predict", "{pictures_run}", "{pictures}/test"),
        lambda said: len(rows(said)) == 24 and {row["class"] for row in rows(said)} == {"夜", "full day"},
    ),
    Attempt(
        "the two likeliest classes of one image",
        ("predict", "{pictures_run}", "{pictures}/test/夜/03.png", "--top", "2"),
        lambda said: (
            len(rows(said)) == 1
            and near(float(rows(said)[0]["probability"]) + float(rows(said)[0]["probability_2"]), 1)
        ),
    ),
    Attempt(
        "JSON lines for another program",
        ("predict", "{pictures_run}", "{pictures}/test/夜", "--format", "jsonl", "--quiet"),
        lambda said: len([json.loads(line) for line in said.out.splitlines()]) == 12,
    ),
    Attempt(
        "into a file",
        ("predict", "{pictures_run}", "{pictures}/test", "--out", "预测.csv"),
        lambda said: len(Path("预测.csv").read_text(encoding="utf-8").splitlines()) == 25,
    ),
    Attempt(
        "rows of numbers",
        ("predict", "{run}", "rows.npy", "--quiet"),
        lambda said: [row["file"] for row in rows(said)] == ["rows.npy:1", "rows.npy:2"],
    ),
    Attempt("with the first exit alone", ("predict", "{exits}", "rows.npy", "--exit", "1"), has("rows.npy:2,")),
    Attempt("with the exported file", ("predict", "ship/student.json", "rows.npy"), has("rows.npy:2,")),
]
PAPER = [
    Attempt("several runs in one table", ("table", "{run}", "{cmp}/whole"), has("kd", "rows differ in")),
    Attempt("a table for LaTeX", ("table", "{cmp}/whole", "--format", "latex"), has(r"\begin{tabular}", r"\midrule")),
    Attempt(
        "a table for a notebook",
        ("table", "{cmp}/whole", "--format", "csv"),
        lambda said: near(
            [float(row["mean"]) for row in rows(said)],
            [row["mean"] for row in content("{cmp}/whole/compare.json")["methods"].values()],
        ),
    ),
    Attempt(
        "seeds of two machines as one comparison",
        ("table", "{cmp}/first", "{cmp}/second", "--join", "--format", "json"),
        lambda said: [row["seeds"] for row in json.loads(said.out)["rows"]] == [[0, 1, 2]] * 3,
    ),
    Attempt("a page of a run under a title", ("report", "{run}", "--title", "第一"), has("run.html")),
    Attempt("a page of a comparison", ("report", "{cmp}/whole"), has("compare.html")),
]
WRONG = [
    Attempt("a slip in an option", ("run", "digits", "--sed", "1"), one_line("--sed"), 2),
    Attempt("a slip in a name", ("run", "digts"), one_line("did you mean digits"), 2),
    Attempt("a slip in a method", ("compare", "digits", "--methods", "kdd"), one_line("did you mean kd"), 2),
    Attempt("no thread at all", ("evaluate", "{run}", "--threads", "0"), one_line("--threads"), 2),
    Attempt("a folder that is no run", ("predict", "empty", "rows.npy"), one_line("empty holds no trained student"), 2),
    Attempt("an option of another command", ("list", "--top", "3"), one_line("--top"), 2),
]
ALL = [*TRAIN, *LOOK, *FINISHED, *PAPER, *WRONG]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all of it is typed, one after the other."""
    folder = tmp_path_factory.mktemp("my desk")
    (folder / "empty").mkdir()
    np.save(folder / "rows.npy", np.arange(128, dtype=np.uint8).reshape(2, 1, 8, 8))
    return folder


@pytest.fixture(scope="module", autouse=True)
def places(digits_run: Path, pictures: Path, pictures_run: Path, exits_run: Path, comparisons: Path) -> None:
    PLACES.update({"{run}": digits_run, "{pictures}": pictures, "{pictures_run}": pictures_run})
    PLACES.update({"{exits}": exits_run, "{cmp}": comparisons})


def test_there_are_forty() -> None:
    assert len(ALL) >= 40
    assert len({one.wish for one in ALL}) == len(ALL)


@pytest.mark.parametrize("attempt", ALL, ids=lambda one: one.wish)
def test_attempts(attempt: Attempt, limbeck: Limbeck, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    said = limbeck(*map(filled, attempt.arguments))
    assert said.status == attempt.status, said.err
    assert attempt.right(said), f"{said.out}\n{said.err}"
    assert "\x1b" not in said.out + said.err, "no terminal: nothing that only a terminal understands"
    assert "\r" not in said.out + said.err


def test_a_data_root_is_only_read(limbeck: Limbeck, pictures: Path, pictures_run: Path) -> None:
    def state() -> list[tuple[str, int]]:
        return [(str(path), path.stat().st_mtime_ns) for path in sorted(pictures.rglob("*"))]

    before = state()
    folders = [pictures, *(path for path in pictures.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        for arguments in (
            ("run", pictures_run / "recipe.yaml", "--data-root", pictures, "--out", pictures_run / "again", "--quiet"),
            ("evaluate", pictures_run, "--report", "--data-root", pictures),
            ("predict", pictures_run, pictures / "test", "--quiet"),
        ):
            assert limbeck(*arguments).status == 0, arguments
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert state() == before


def test_relative_paths_work_from_another_folder(
    limbeck: Limbeck, pictures: Path, pictures_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    data = pictures.relative_to(pictures.parent)
    run = ("run", pictures_run / "recipe.yaml", "--data-root", data, "--out", tmp_path / "run", "--quiet")
    assert limbeck(*run, "--epochs", "1", "--no-baseline").status == 0
    here = json.loads(limbeck("evaluate", tmp_path / "run", "--json").out)
    monkeypatch.chdir(tmp_path)
    assert json.loads(limbeck("evaluate", "run", "--json").out) == here


def test_on_a_terminal_the_rows_stay_apart_from_the_bar(
    limbeck: Limbeck, pictures: Path, pictures_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    plain = limbeck("predict", pictures_run, pictures / "test").out
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    said = limbeck("predict", pictures_run, pictures / "test")
    assert (said.status, said.out) == (0, plain)
    assert "read 24 of 24" not in said.err


def test_images_that_a_phone_or_scanner_made(
    limbeck: Limbeck, pictures_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bright = np.full((40, 30), 235, np.uint8)
    Image.fromarray(bright).convert("RGB").convert("CMYK").save(tmp_path / "scan 1.TIFF")
    Image.fromarray(bright).save(tmp_path / "第2.JPG", quality=95)
    Image.fromarray(bright.astype(np.uint16) * 257).save(tmp_path / "depth.png")
    found = rows(limbeck("predict", pictures_run, tmp_path))
    assert [Path(row["file"]).name for row in found] == sorted(["scan 1.TIFF", "第2.JPG", "depth.png"])
    assert {row["class"] for row in found} == {"full day"}
