"""`limbeck evaluate --report`: figures by class as scikit-learn has them, a picture, and a page of mistakes."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from called import Limbeck
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from limbeck.data import load


@pytest.fixture(scope="module")
def answers(pictures_run: Path, pictures: Path) -> list[dict[str, str]]:
    """What the student says about the test set's files, by `limbeck predict`."""
    from limbeck.runs.finished.predict import predictor

    rows = [one.as_dict() for one in predictor(pictures_run).predict([pictures / "test"])]
    return [{**row, "label": Path(row["file"]).parent.name} for row in rows]


def test_figures_are_scikit_learns(
    limbeck: Limbeck, digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = load("digits", tmp_path).test
    np.save(tmp_path / "test.npy", test.inputs.numpy())  # type: ignore[union-attr]
    rows = csv.DictReader(io.StringIO(limbeck("predict", digits_run, tmp_path / "test.npy", "--quiet").out))
    predicted = [int(row["class"]) for row in rows]
    said = limbeck("evaluate", digits_run, "--report", "--json")
    found = json.loads(said.out)
    assert found["confusion"] == confusion_matrix(test.targets, predicted).tolist()
    expected = precision_recall_fscore_support(test.targets, predicted, zero_division=np.nan)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        ours = [np.nan if row[name] is None else row[name] for row in found["classes"]]
        np.testing.assert_allclose(ours, values, rtol=1e-12)
    assert found["accuracy"] == sum(np.diag(found["confusion"])) / found["samples"]
    assert json.loads((digits_run / "evaluation.json").read_text())["confusion"] == found["confusion"]
    assert found["files"] == [
        str(digits_run / name) for name in ("evaluation.json", "mistakes.html", "confusion.svg", "confusion.png")
    ]


def test_the_page_shows_the_surest_mistakes(
    limbeck: Limbeck, pictures_run: Path, answers: list[dict[str, str]]
) -> None:
    said = limbeck("evaluate", pictures_run, "--report")
    assert said.status == 0, said.err
    wrong = [row for row in answers if row["class"] != row["label"]]
    assert len(wrong) >= 4
    wrong.sort(key=lambda row: -float(row["probability"]))
    page = (pictures_run / "mistakes.html").read_text(encoding="utf-8")
    assert f"{len(wrong)} of 24 test samples" in page
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert captions == [
        f"label {row['label']}, predicted {row['class']} with {float(row['probability']):.1%}<br>{row['file']}"
        for row in wrong
    ]
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert [Image.open(io.BytesIO(base64.b64decode(one))).size for one in images] == [(8, 8)] * len(wrong)
    assert "http" not in page.replace("http://www.w3.org", "")
    for word in ("夜", "full day", "precision", "mean of all classes", "confusion.png"):
        assert word in said.out
    with Image.open(pictures_run / "confusion.png") as image:
        assert min(image.size) > 300
    assert (pictures_run / "confusion.svg").read_text(encoding="utf-8").count("<svg") == 1


def test_without_matplotlib_there_is_no_picture(
    limbeck: Limbeck, digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("confusion.svg", "confusion.png"):
        (digits_run / name).unlink(missing_ok=True)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "limbeck.report.confusion", raising=False)
    monkeypatch.delattr("limbeck.report.confusion", raising=False)
    said = limbeck("evaluate", digits_run, "--report")
    assert said.status == 0
    assert "a picture needs pip install 'limbeck[report]'" in said.out
    assert (digits_run / "mistakes.html").exists()
    assert not (digits_run / "confusion.png").exists()
