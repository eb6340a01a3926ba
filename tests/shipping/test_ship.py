"""`limbeck ship` on a run on digits: what its table says of a file is what onnxruntime and NumPy find in that file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import limbeck
from limbeck.data.sets import load
from limbeck.errors import RequestError
from limbeck.models.load import load_network
from limbeck.recipes.read import check, read
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.shipping import OwnModel, latency, ship
from limbeck.shipping.formats import Packing
from limbeck.shipping.retraining import retrain
from limbeck.shipping.subjects import from_run

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

QUIET = Machine(accelerator="cpu", progress=False)
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "data": {"batch_size": 64, "validation": 0.2},
    "teacher": {"model": "cnn", "channels": [16], "epochs": 2, "optimizer": {"lr": 0.01}},
    "student": {"model": "mlp", "hidden": [48], "mean": [0.3], "std": [0.4]},
    "distill": {"terms": [{"loss": "kd", "weight": 0.5, "temperature": 2}]},
    "epochs": 4,
    "optimizer": {"lr": 0.01},
}


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMBECK_CACHE", str(tmp_path_factory.mktemp("cache")))
        run(check(RECIPE), root=folder, out=folder, machine=QUIET)
    return folder


@pytest.fixture(scope="module")
def shipped(digits_run: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "ROUNDS", 10)
        return ship(digits_run, batch=[1, 8], tolerance=2.0, memory=False, progress=False)


@pytest.fixture(scope="module")
def pixels() -> tuple[np.ndarray, np.ndarray]:
    test = load("digits", Path()).test
    return test.inputs.numpy().astype(np.float32) / 255, test.targets.numpy()  # type: ignore[union-attr]


def row_of(found: dict[str, Any], model: str, runtime: str, precision: str = "fp32") -> dict[str, Any]:
    (row,) = (r for r in found["rows"] if (r["model"], r["runtime"], r["precision"]) == (model, runtime, precision))
    return row


def outputs(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": x})[0])


def test_the_table_has_every_model_in_every_runtime(shipped: dict[str, Any]) -> None:
    there = {(row["model"], row["runtime"], row["precision"]) for row in shipped["rows"]}
    wanted = {("torch", "fp32"), ("onnx", "fp32"), ("onnx", "int8")}
    assert {(model, *one) for model in ("teacher", "baseline", "distilled") for one in wanted} <= there
    assert {("distilled", "onnx", "fp16"), ("distilled", "torch.export", "fp32")} <= there
    written = json.loads((Path(shipped["out"]) / "ship.json").read_text())
    assert written == {key: value for key, value in shipped.items() if key != "out"}
    fields = {"file", "bytes", "score", "interval", "agreement", "calibration_error", "latency", "peak_memory_bytes"}
    assert all(fields <= set(row) for row in written["rows"])
    assert all(set(row["latency"]) == {"1", "8"} for row in written["rows"])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_row_is_of_the_file_on_disk(
    shipped: dict[str, Any], pixels: tuple[np.ndarray, np.ndarray], precision: str
) -> None:
    x, labels = pixels
    row = row_of(shipped, "distilled", "onnx", precision)
    path = Path(shipped["out"]) / row["file"]
    choices = outputs(path, x).argmax(1)
    assert row["score"] == (choices == labels).mean()
    assert row["bytes"] == path.stat().st_size
    teacher = outputs(Path(shipped["out"]) / row_of(shipped, "teacher", "onnx")["file"], x).argmax(1)
    # Of 360 samples one may lie on the edge between torch's teacher and the same one in onnxruntime.
    assert row["agreement"] == pytest.approx((choices == teacher).mean(), abs=1 / 360 + 1e-9)


def test_the_fp32_file_gives_torch_s_logits(
    shipped: dict[str, Any], digits_run: Path, pixels: tuple[np.ndarray, np.ndarray]
) -> None:
    x, _ = pixels
    expected = limbeck.load_model(digits_run / "student.json")(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(outputs(Path(shipped["out"]) / "distilled.onnx", x), expected, atol=1e-4)


def test_the_int8_file_holds_whole_numbers_and_keeps_the_tolerance(shipped: dict[str, Any]) -> None:
    import onnx

    graph = onnx.load(Path(shipped["out"]) / "distilled-int8.onnx").graph
    sizes = {one.name: (one.data_type, int(np.prod(one.dims))) for one in graph.initializer}
    weights = [kind for kind, size in sizes.values() if size >= 480]
    assert weights
    assert set(weights) <= {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    how = shipped["chosen"]["run"]["distilled"]
    assert how["refused"] is None
    assert how["test_drop"] <= how["tolerance"] == 0.02
    kept = [one for one in how["attempts"] if one["drop"] <= 0.02]
    assert how["scheme"] == min(kept, key=lambda one: one["distance"])["scheme"]


def test_the_script_runs_where_torch_cannot_be_imported(
    shipped: dict[str, Any], pixels: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    x, _ = pixels
    np.save(tmp_path / "samples.npy", (x[:20] * 255).round().astype(np.uint8))
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    out = Path(shipped["out"])
    code = (out / "run_onnx.py").read_text()
    assert len(code.splitlines()) <= 12
    done = subprocess.run(
        [sys.executable, "run_onnx.py", str(tmp_path / "samples.npy")],
        cwd=out,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    about = json.loads((out / "limbeck.json").read_text())
    assert about["file"] == "distilled-int8.onnx"
    assert done.stdout.split() == [str(one) for one in outputs(out / about["file"], x[:20]).argmax(1)]


def test_what_a_device_build_needs(shipped: dict[str, Any]) -> None:
    about = json.loads((Path(shipped["out"]) / "limbeck.json").read_text())
    assert about["limbeck"] == limbeck.__version__
    assert about["input"]["name"] == "input"
    assert about["input"]["shape"] == ["batch", 1, 8, 8]
    assert about["input"]["layout"] == "NCHW"
    assert about["input"]["normalisation"] == {"mean": [0.3], "std": [0.4]}
    assert about["input"]["normalise_before"] is None
    assert about["classes"] == list("0123456789")
    assert about["run"] == shipped["runs"]["run"]["fingerprint"]


def test_the_card_has_a_metadata_block_and_the_figures(shipped: dict[str, Any]) -> None:
    """As the Hub's own client reads it; what the user is to fill is a remark, for the Hub refuses empty fields."""
    hub = pytest.importorskip("huggingface_hub")
    path = Path(shipped["out"]) / "README.md"
    card = hub.ModelCard.load(path)
    (result,) = card.data.eval_results
    row = row_of(shipped, "distilled", "onnx", "int8")
    assert result.metric_value == pytest.approx(row["score"], abs=5e-5)
    assert all(card.data.to_dict().values())
    assert "# license: to fill" in path.read_text()
    assert "distilled | onnx | int8" in card.text
    assert read(str(Path(shipped["out"]) / "recipe.yaml")).student.options == {"hidden": [48]}


def test_normalisation_and_softmax_go_where_they_are_wanted(
    digits_run: Path, pixels: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 8)
    options: dict[str, Any] = {"preprocessing": "beside", "postprocessing": "inside", "memory": False}
    x, labels = pixels
    test = [(torch.from_numpy(x), torch.from_numpy(labels))]
    own = OwnModel(load_network(digits_run / "student.json"), test=test, mean=[0.3], std=[0.4])
    found = ship(own, out=tmp_path / "out", int8=False, formats=["onnx"], batch=[1], progress=False, **options)
    probabilities = outputs(tmp_path / "out" / "distilled.onnx", (x - np.float32(0.3)) / np.float32(0.4))
    logits = limbeck.load_model(digits_run / "student.json")(torch.from_numpy(x)).detach()
    np.testing.assert_allclose(probabilities, logits.softmax(-1).numpy(), atol=1e-5)
    row = row_of(found, "distilled", "onnx")
    assert row["score"] == (probabilities.argmax(1) == labels).mean()
    # The same calibration error by hand: 15 bins of equal width.
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((sure * 15).astype(int), 14)
    error = sum(abs((sure - right)[bins == b].sum()) for b in range(15)) / len(labels)
    assert row["calibration_error"] == pytest.approx(error, abs=1e-5)
    about = json.loads((tmp_path / "out" / "limbeck.json").read_text())
    assert about["input"]["normalise_before"] == {"mean": pytest.approx([0.3]), "std": pytest.approx([0.4])}
    assert about["output"]["name"] == "probabilities"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["onxx"]}, r"unknown format 'onxx'; did you mean onnx"),
        ({"formats": []}, "at least one format"),
        ({"threads": 0}, "threads is a whole number"),
        ({"batch": [0]}, "batch is a whole number"),
        ({"tolerance": -1}, "tolerance is in points"),
        ({"preprocessing": "outside"}, "unknown preprocessing"),
    ],
)
def test_a_wrong_request_leaves_nothing(
    digits_run: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        ship(digits_run, out=tmp_path / "out", progress=False, **options)
    assert list(tmp_path.iterdir()) == []


def test_without_its_packages_a_format_names_the_extra(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'limbeck\[onnx\]'"):
        ship(digits_run, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_not_overwritten(digits_run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match=r"holds no ship\.json"):
        ship(digits_run, out=tmp_path)
    with pytest.raises(RequestError, match="is a file"):
        ship(digits_run, out=tmp_path / "notes.txt" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_network_that_cannot_be_exported_leaves_nothing(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: object, **options: object) -> None:
        raise RequestError("this network cannot be written as ONNX: it looks at its values")

    monkeypatch.setattr("limbeck.shipping.formats.exported", fails)
    with pytest.raises(RequestError, match="it looks at its values"):
        ship(digits_run, out=tmp_path / "out", formats=["onnx"], progress=False)
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_table(shipped: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    from limbeck.cli.shipped import shipped as show

    show(shipped)
    said = capsys.readouterr().out
    assert "int8 of distilled, run: " in said
    for row in shipped["rows"]:
        assert any(row["model"] in line and f"{row['score']:.4f}" in line for line in said.splitlines())


def test_the_page_holds_the_table_and_the_picture(shipped: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    page = (Path(shipped["out"]) / "ship.html").read_text()
    assert page.count("<tr>") >= len(shipped["rows"])
    assert "<svg" in page
    assert "src=" not in page  # self-contained
    assert "<script" not in page


@pytest.mark.browser
def test_the_ship_page_in_a_real_browser(shipped: dict[str, Any], tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium
    shot = tmp_path / "page.png"
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,1400", f"--screenshot={shot}",
        f"file://{Path(shipped['out']) / 'ship.html'}",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    from PIL import Image

    pixels = np.asarray(Image.open(shot).convert("RGB"))
    # The picture's blue is there, and ink reaches far down the page: the table stands below it.
    assert (np.abs(pixels.astype(int) - (9, 105, 218)).sum(-1) < 30).sum() > 100
    assert np.flatnonzero((pixels < 128).all(-1).any(1)).max() > 700


def test_training_for_int8_takes_a_tenth_of_the_epochs(
    digits_run: Path, shipped: dict[str, Any], pixels: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    case = from_run(digits_run, None, 128)
    (student,) = case.students
    calibration = [student.read(batch.inputs) for batch in case.calibration()]
    found = retrain(case, student, Packing(), calibration, seven=True)
    assert found.about["epochs"] <= 0.1 * found.about["run_epochs"] == pytest.approx(0.4)
    assert found.about["samples"] == 459  # 0.4 of 1,149 training samples
    assert found.about["teacher"] == "the run's"
    (tmp_path / "trained.onnx").write_bytes(found.content)
    x, labels = pixels
    score = (outputs(tmp_path / "trained.onnx", x).argmax(1) == labels).mean()
    assert score > row_of(shipped, "distilled", "onnx")["score"] - 0.05
