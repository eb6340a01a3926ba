"""`limbeck predict`: the same answers as the run's own test, from files as people have them."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from called import Limbeck, call
from PIL import Image

from limbeck import load_model
from limbeck.data import InMemory, load
from limbeck.runs.finished.read import evaluate_run


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def digit_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """Some test digits as grey PNG files, and their pixels."""
    test = load("digits", Path()).test
    assert isinstance(test, InMemory)
    folder = tmp_path_factory.mktemp("digit files")
    for number, pixels in enumerate(test.inputs[:20, 0].numpy()):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder, test.inputs[:20]


def test_a_folder_gives_the_figures_of_the_runs_own_test(
    limbeck: Limbeck, pictures: Path, pictures_run: Path, tmp_path: Path
) -> None:
    said = limbeck("predict", pictures_run, pictures / "test", "--top", 2, "--batch-size", 5)
    assert said.status == 0, said.err
    rows = table(said.out)
    assert [Path(row["file"]).is_file() for row in rows] == [True] * 24
    right = [row["class"] == Path(row["file"]).parent.name for row in rows]
    loss = 0.0
    for row in rows:
        probabilities = {row["class"]: row["probability"], row["class_2"]: row["probability_2"]}
        loss -= math.log(float(probabilities[Path(row["file"]).parent.name])) / 24
    tested = evaluate_run(pictures_run)
    assert (sum(right) / 24, loss) == (tested["accuracy"], pytest.approx(tested["loss"], abs=1e-4))
    assert 0.6 < tested["accuracy"] < 1, "the student has learned something, and makes mistakes"


def test_answers_are_those_of_the_exported_model(
    limbeck: Limbeck, digits_run: Path, digit_files: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    folder, pixels = digit_files
    assert limbeck("export", digits_run, "--out", tmp_path / "导出").status == 0
    expected = load_model(tmp_path / "导出" / "student.json")(pixels / 255).softmax(1).max(1)
    for source in (digits_run, tmp_path / "导出", tmp_path / "导出" / "student.json"):
        said = limbeck("predict", source, folder, "--format", "jsonl", "--quiet")
        rows = [json.loads(line) for line in said.out.splitlines()]
        assert (said.status, said.err, list(rows[0])) == (0, "", ["file", "class", "probability"])
        assert [row["class"] for row in rows] == [str(int(label)) for label in expected.indices]
        np.testing.assert_allclose([row["probability"] for row in rows], expected.values.detach(), atol=1e-5)


def test_arrays_and_tables_are_read_by_row(
    limbeck: Limbeck, digits_run: Path, digit_files: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    folder, pixels = digit_files
    np.save(tmp_path / "all.npy", pixels[:, 0].numpy())
    lines = [",".join(f"pixel {n}" for n in range(64)), *(",".join(map(str, x.flatten().tolist())) for x in pixels)]
    (tmp_path / "all.csv").write_text("\n".join(lines), encoding="utf-8")
    images = table(limbeck("predict", digits_run, folder, "--quiet").out)
    for name in ("all.npy", "all.csv"):
        rows = table(limbeck("predict", digits_run, tmp_path / name, "--quiet").out)
        assert [row["file"] for row in rows] == [f"{tmp_path / name}:{n}" for n in range(1, 21)]
        assert [(row["class"], row["probability"]) for row in rows] == [
            (row["class"], row["probability"]) for row in images
        ]


def test_out_is_a_whole_file_in_the_format_of_its_name(
    limbeck: Limbeck, digits_run: Path, digit_files: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    for name in ("rows.csv", "rows.jsonl"):
        said = limbeck("predict", digits_run, digit_files[0], "--out", tmp_path / "结果 here" / name)
        assert (said.status, said.out) == (0, "")
        assert "read 20 of 20 files" in said.err
    text = (tmp_path / "结果 here" / "rows.jsonl").read_text(encoding="utf-8")
    by_line = [json.loads(line) for line in text.splitlines()]
    by_row = table((tmp_path / "结果 here" / "rows.csv").read_text(encoding="utf-8"))
    assert [one["class"] for one in by_line] == [row["class"] for row in by_row]


def test_exits_answer_alone_and_together(
    limbeck: Limbeck, exits_run: Path, digit_files: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    folder, pixels = digit_files
    assert limbeck("export", exits_run, "--exit", 2, "--out", tmp_path / "export").status == 0
    alone = load_model(tmp_path / "export" / "exit-2.json")(pixels / 255).softmax(1).max(1).values.detach()
    for source in (exits_run, tmp_path / "export"):
        rows = table(limbeck("predict", source, folder, "--exit", 2, "--quiet").out)
        np.testing.assert_allclose([float(row["probability"]) for row in rows], alone, atol=1e-5)
    together = table(limbeck("predict", exits_run, folder, "--quiet").out)
    assert [row["probability"] for row in together] != [row["probability"] for row in rows]
    assert limbeck("predict", exits_run, folder, "--exit", 9).status == 2


def test_broken_images_are_named_and_the_others_predicted(
    limbeck: Limbeck, digits_run: Path, digit_files: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(digit_files[0], folder)
    whole = (folder / "00.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("mine")
    said = limbeck("predict", digits_run, folder)
    assert (said.status, len(table(said.out))) == (0, 20)
    assert f"cannot read the image {folder / 'cut.png'}" in said.err
    assert "1 of 21 files could not be read" in said.err
    assert "left out by the ends of their names: 1 file (.txt 1)" in said.err
    for path in folder.glob("*.png"):
        path.write_bytes(b"no image")
    said = limbeck("predict", digits_run, folder)
    assert (said.status, said.out) == (2, "")
    assert "none of the given files can be read (21 files)" in said.err


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["nowhere"], "there is no file or folder nowhere"),
        (["empty"], "there is no image in empty"),
        (["wide.csv"], "row 2, has 3 cells, and this run reads 64 numbers a row"),
        (["words.csv"], "'seven' is not a number"),
        (["bright.npy"], "runs from 0 to 300, and this run learned from whole numbers 0 to 255"),
        (["colour.npy"], "has the shape (2, 3, 8, 8), and this run reads (N, 1, 8, 8)"),
        (["bright.npy", "--top", "11"], "--top is 11, and the student knows 10 classes"),
        (["bright.npy", "--exit", "1"], "has a single exit; leave --exit out"),
        (["bright.npy", "--format", "xml"], "unknown format 'xml'; valid: csv, jsonl"),
    ],
)
def test_what_does_not_fit_is_one_line(
    paths: list[str], message: str, limbeck: Limbeck, digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("wide.csv").write_text(",".join(["0"] * 64) + "\n1,2,3\n")
    Path("words.csv").write_text(",".join(["0"] * 63) + ",seven\n")
    np.save("bright.npy", np.tile(np.linspace(0, 300, 64).reshape(1, 8, 8), (2, 1, 1)))
    np.save("colour.npy", np.zeros((2, 3, 8, 8), np.uint8))
    said = limbeck("predict", digits_run, *paths)
    assert (said.status, said.out, said.err.count("\n")) == (2, "", 1)
    assert message in said.err


def test_the_folder_must_hold_a_student(limbeck: Limbeck, tmp_path: Path) -> None:
    (tmp_path / "cmp" / "kd-seed0").mkdir(parents=True)
    (tmp_path / "cmp" / "kd-seed0" / "student.json").write_text("{}")
    for source, message in (
        (tmp_path / "nowhere", "there is no run folder"),
        (tmp_path / "cmp", "is a comparison; name one of its students, such as"),
        (tmp_path / "cmp" / "kd-seed0", "does not say how its model is built"),
    ):
        said = limbeck("predict", source, tmp_path)
        assert (said.status, said.err.count("\n")) == (2, 1)
        assert message in said.err


class Closed(io.StringIO):
    """A pipe whose reader has gone; what is written into it is noticed when it is flushed."""

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_reader_may_have_enough(
    digits_run: Path, digit_files: tuple[Path, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Closed())
    monkeypatch.setattr(sys, "stderr", errors)
    status = call(("predict", str(digits_run), str(digit_files[0]), "--quiet"), monkeypatch)
    sys.stdout.close()
    assert (status, errors.getvalue()) == (141, "")
