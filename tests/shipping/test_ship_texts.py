"""Students of texts are shipped: what the table says is what onnxruntime, NumPy and tokenizers find in the files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from torch import Tensor, nn

from limbeck import load_model
from limbeck.cli.shipped import shipped as show
from limbeck.data import load
from limbeck.data.text.device import for_device
from limbeck.data.text.tokenizers import FILE, ByteTokenizer, read_tokenizer
from limbeck.errors import RequestError
from limbeck.models.build import build
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.shipping import formats, latency, memory, ship
from limbeck.shipping.formats import Packing
from limbeck.shipping.int8 import harmful, schemes
from limbeck.shipping.quantiser import Quantiser, Scheme
from limbeck.shipping.subjects import Subject
from limbeck.types import MASK

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

QUIET = Machine(accelerator="cpu", progress=False)
KINDS = {
    "NUM": ["how many miles", "what year did", "how much does"],
    "HUM": ["who invented", "who was the first", "what actor played"],
    "LOC": ["where is", "what country has", "what city hosts"],
}
THINGS = [f"{a} {b}" for a in ("the old", "a famous", "the longest") for b in ("bridge", "opera", "river", "comet")]
NEW = ["where is the opera ?", "who invented <|end|> the comet", "how many miles " + "and miles " * 40]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files shaped as text-trec's: label, tab, text, without a line of names."""
    root = tmp_path_factory.mktemp("questions")
    lines = [f"{kind}\t{start} {thing} ?" for thing in THINGS for kind, starts in KINDS.items() for start in starts]
    (root / "train.tsv").write_text("\n".join(lines[:81]))
    (root / "test.tsv").write_text("\n".join(lines[81:]))
    return root


@pytest.fixture(scope="module")
def trec(questions: Path) -> Path:
    options = {"train": "train.tsv", "test": "test.tsv", "columns": ["label", "text"], "vocab": 300, "length": 40}
    recipe = check(
        {
            "name": "questions",
            "data": {"name": "text-classes", "batch_size": 16, "options": {**options, "validation": 0.2}},
            "teacher": {"model": "bag_of_embeddings", "dim": 24, "epochs": 6, "optimizer": {"lr": 0.05}},
            "student": {"model": "text_encoder", "dim": 8, "depth": 1, "heads": 2, "positions": "learned"},
            "distill": {"task_weight": 0.1, "terms": [{"loss": "kd", "weight": 0.9, "temperature": 2}]},
            "epochs": 12,
            "optimizer": {"name": "adamw", "lr": 0.02},
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMBECK_CACHE", str(questions / "cache"))
        run(recipe, root=questions, out=questions / "run", machine=QUIET, baseline=False)
    return questions / "run"


@pytest.fixture(scope="module")
def shipped(trec: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "ROUNDS", 4)
        names = ["safetensors", "onnx", "onnx-int8"]
        return ship(trec, formats=names, batch=[1, 4], tolerance=15, memory=False, progress=False)


def row_of(found: dict[str, Any], model: str, runtime: str, precision: str = "fp32") -> dict[str, Any]:
    (row,) = (r for r in found["rows"] if (r["model"], r["runtime"], r["precision"]) == (model, runtime, precision))
    return row


def outputs(path: Path, ids: Any, mask: Any) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = {"input_ids": np.asarray(ids), "attention_mask": np.asarray(mask)}
    return np.asarray(session.run(None, {one.name: given[one.name] for one in session.get_inputs()})[0])


def encoded(folder: Path, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Texts by the shipped tokenizer alone."""
    reader = tokenizers.Tokenizer.from_file(str(folder / FILE))
    reader.encode_special_tokens = True
    found = reader.encode_batch(texts)
    return np.array([one.ids for one in found]), np.array([one.attention_mask for one in found])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_row_is_of_the_file_on_disk(shipped: dict[str, Any], questions: Path, precision: str) -> None:
    out, row = Path(shipped["out"]), row_of(shipped, "distilled", "onnx", precision)
    lines = [line.split("\t") for line in (questions / "test.tsv").read_text().splitlines()]
    choices = outputs(out / row["file"], *encoded(out, [text for _, text in lines])).argmax(1)
    right = np.array([sorted(KINDS)[at] == label for at, (label, _) in zip(choices, lines, strict=True)])
    assert row["score"] == right.mean() > 0.5
    low, high = row["interval"]
    assert 0 <= low <= row["score"] <= high <= 1
    assert row["bytes"] == (out / row["file"]).stat().st_size
    # 40 learned positions: texts of 128 and 512 tokens cannot be read.
    assert list(row["latency"]) == list(row["ratio_to_teacher"]) == ["1x32", "4x32"]


def test_the_file_gives_torchs_logits_at_any_length(shipped: dict[str, Any], trec: Path) -> None:
    model = load_model(trec / "student.json")
    for count, length in ((1, 2), (3, 7), (2, 40)):
        ids = torch.randint(300, (count, length), generator=torch.Generator().manual_seed(length))
        mask = (torch.arange(length) < torch.tensor([length, *[max(length - 3, 1)] * (count - 1)])[:, None]).long()
        with torch.no_grad():
            expected = model(ids, mask).numpy()
        np.testing.assert_allclose(outputs(Path(shipped["out"]) / "distilled.onnx", ids, mask), expected, atol=1e-4)


def test_products_and_tables_are_whole_numbers(shipped: dict[str, Any]) -> None:
    import onnx

    out = Path(shipped["out"])
    graph = onnx.load(out / "distilled-int8.onnx").graph
    whole = [one for one in graph.initializer if one.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)]
    sizes = sorted(int(np.prod(one.dims)) for one in whole if len(one.dims) == 2)
    # What brings heads together, the three projections in one, the perceptron's two, and the tables of 40 positions and
    # 300 tokens.
    assert sizes[-6:] == [8 * 8, 8 * 24, 8 * 32, 32 * 8, 40 * 8, 300 * 8]
    assert (out / "distilled-int8.onnx").stat().st_size < (out / "distilled.onnx").stat().st_size
    how = shipped["chosen"]["run"]["distilled"]
    assert "dynamic" in how["scheme"]
    assert how["chosen_on"] == "the run's validation split"


def test_the_script_runs_without_torch(shipped: dict[str, Any], trec: Path, tmp_path: Path) -> None:
    out = Path(shipped["out"])
    (tmp_path / "texts.txt").write_text("\n".join(NEW), encoding="utf-8")
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    (tmp_path / "transformers.py").write_text("raise ImportError('nor this')\n")
    assert len((out / "run_onnx.py").read_text().splitlines()) <= 12
    done = subprocess.run(
        [sys.executable, "run_onnx.py", str(tmp_path / "texts.txt"), "distilled.onnx"],
        cwd=out, env={"PYTHONPATH": str(tmp_path), "PATH": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    from limbeck.runs.finished.predict import predictor

    for source in (trec, out / "distilled.json"):  # the run's own tokenizer, and the one that is shipped
        answers = predictor(source, machine=QUIET).predict([tmp_path / "texts.txt"])
        assert done.stdout.split() == [one.top[0][0] for one in answers]


def test_what_a_device_build_needs(shipped: dict[str, Any], trec: Path) -> None:
    out = Path(shipped["out"])
    about = json.loads((out / "limbeck.json").read_text())["input"]
    assert about["names"] == ["input_ids", "attention_mask"]
    assert (about["shape"], about["dtype"]) == (["batch", "length"], "int64")
    assert (about["vocabulary"], about["max_length"], about["pad_id"], about["tokenizer"]) == (300, 40, 0, FILE)
    rows, cut = read_tokenizer(trec / FILE).framed(NEW, 40)
    ids, mask = encoded(out, NEW)
    assert [row[:n].tolist() for row, n in zip(ids, mask.sum(1), strict=True)] == rows
    assert cut == 1
    card = (out / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "run_onnx.py TEXTS.txt" in card
    assert "of up to 40 tokens" in card
    assert "1 × 32 tokens" in (out / "ship.html").read_text()


def test_the_terminal_has_room_for_four_sizes(shipped: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {**row, "latency": dict.fromkeys(("1x32", "1x128", "1x512", "32x32"), row["latency"]["1x32"])}
        for row in shipped["rows"]
    ]
    show({**shipped, "rows": rows})
    said = capsys.readouterr().out
    for row in rows:
        low, high = row["interval"]
        assert any(f"{low:.4f}–{high:.4f}" in line and row["model"] in line for line in said.splitlines())
    assert "ms, 1 × 512" in said


def test_formats_of_fixed_shapes_are_refused(trec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "check", lambda names: None)
    with pytest.raises(RequestError, match="openvino takes samples of one shape, and texts have any length"):
        ship(trec, out=tmp_path / "out", formats=["openvino"], progress=False)
    assert list(tmp_path.iterdir()) == []


def test_texts_have_dynamic_schemes_alone() -> None:
    found = list(schemes(convolves=False, overflows=False, fixed=False))
    assert {one.method for one in found} == {"dynamic"}
    assert [one.products_only for one in found] == [False, False, True, True]


def test_the_layer_that_int8_hurts_is_named(tmp_path: Path) -> None:
    """One column of a product is 3,000 times as large as the others, which share its scale per tensor."""

    class Hurt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.tokens = nn.Embedding(50, 16)
            self.plain, self.hurt, self.last = nn.Linear(16, 16), nn.Linear(16, 8), nn.Linear(8, 4)
            with torch.no_grad():
                self.hurt.weight[0] *= 3000
                self.last.weight[:, 0] /= 3000

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            x = self.tokens(input_ids) * attention_mask[..., None]
            found: Tensor = self.last(self.hurt(self.plain(x).relu())).mean(1)
            return found

    subject = subject_of(Hurt(), ["input_ids", MASK])
    fp32 = formats.write("onnx", tmp_path / "hurt.onnx", subject, Packing(), 1)
    given = [{name: x.numpy() for name, x in subject.reading.example((32, 12), seed).items()} for seed in range(9)]
    quantiser = Quantiser(tmp_path / "hurt.onnx", given, fixed=False, network=subject.network)
    try:
        assert set(quantiser.layers.values()) == {"tokens", "plain", "hurt", "last"}
        ranked = harmful(quantiser, fp32, Scheme(False, "dynamic"), lambda: False)
    finally:
        quantiser.close()
    assert set(ranked) == {"tokens", "plain", "hurt", "last"}
    assert next(iter(ranked)) in ("hurt", "last")


def subject_of(network: nn.Module, names: list[str], length: int = 12, classes: int = 4) -> Subject:
    sample = {"shape": [length], "dtype": "text", "inputs": names, "vocab": 50}
    about = {"model": "mine", "options": {}, "classes": classes, "input": {"shape": [length], "sample": sample}}
    return Subject("distilled", network.eval(), about)


def test_a_language_model_reads_any_length_and_a_long_texts_end(tmp_path: Path) -> None:
    network = build("transformer", input_shape=(12,), classes=50, dim=8, depth=1, heads=2)
    subject = subject_of(network, ["input_ids"], classes=50)
    assert subject.reading.output(subject.output_shape) == ["length", 50]
    assert list(subject.reading.sizes([1, 8])) == ["1x32", "1x128", "1x512", "8x32"], "rotary positions know no end"
    (tmp_path / FILE).write_text(for_device(ByteTokenizer(), 6, framed=False))
    ids, mask = encoded(tmp_path, ["not é☃", "a<|", ""])
    assert ids[0].tolist() == list("not é☃".encode()[-6:])
    assert ids[1].tolist() == [*b"a<|", 256, 256, 256]
    assert mask.sum(1).tolist() == [6, 3, 0]


@pytest.mark.parametrize("end", ["framed", "own"])
def test_a_byte_tokenizer_of_the_package_gives_the_same_ids(end: str, tmp_path: Path) -> None:
    texts = ["déjà vu\n\t ☃", "<|end|>", "", bytes(range(1, 128)).decode()]
    (tmp_path / FILE).write_text(for_device(ByteTokenizer(), 200, framed=end == "framed"))
    ids, mask = encoded(tmp_path, texts)
    expected = ByteTokenizer().framed(texts, 200)[0] if end == "framed" else ByteTokenizer().encode(texts)
    assert [row[:n].tolist() for row, n in zip(ids, mask.sum(1), strict=True)] == expected


@pytest.mark.slow
def test_embeddings_of_hugging_face_models(questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Teacher and student are encoders of transformers; the table's similarity is NumPy's over the two files."""
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("LIMBECK_CACHE", str(questions / "cache"))
    monkeypatch.setattr(latency, "ROUNDS", 4)
    sizes = {"vocab_size": 300, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.BertConfig(**sizes, num_hidden_layers=1, max_position_embeddings=130)
    config.save_pretrained(tmp_path / "config")
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    options = {"train": "train.tsv", "test": "test.tsv", "columns": ["label", "text"], "vocab": 300, "length": 40}
    recipe = {
        "name": "vectors",
        "task": {"name": "embedding"},
        "data": {"name": "text-classes", "batch_size": 16, "options": {**options, "validation": 0.2}},
        "teacher": {"model": f"hf:{tmp_path / 'bert'}", "head": "embedding"},
        "student": {"model": f"hf:{tmp_path / 'config'}", "head": "embedding"},
        "distill": {"task_weight": 0, "terms": [{"loss": "cosine"}]},
        "epochs": 2,
    }
    run(check(recipe), root=questions, out=tmp_path / "run", machine=QUIET)
    found = ship(tmp_path / "run", formats=["onnx"], batch=[1], memory=False, progress=False)
    out, row = Path(found["out"]), row_of(found, "distilled", "onnx")
    assert list(row["latency"]) == ["1x32", "1x128"], "130 positions"
    texts = [line.split("\t")[1] for line in (questions / "test.tsv").read_text().splitlines()]
    cosines = []
    for file in (row["file"], row_of(found, "teacher", "onnx")["file"]):
        vectors = outputs(out / file, *encoded(out, texts)).astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines.append((vectors @ vectors.T)[np.triu_indices(len(texts), 1)])
    assert row["score"] == pytest.approx(np.corrcoef(*cosines)[0, 1], abs=1e-3)
    assert "pipeline_tag: feature-extraction" in (out / "README.md").read_text()


@pytest.mark.slow
def test_a_language_model_from_its_run_to_what_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All formats; the table's perplexity is NumPy's over the file's logits on the test blocks."""
    monkeypatch.setattr(latency, "ROUNDS", 4)
    monkeypatch.setattr(memory, "CODE", {"onnx": memory.CODE["onnx"]})  # the others import torch, a process a file
    network = {"model": "transformer", "dim": 8, "depth": 1, "heads": 2}
    options = {"tokenizer": "bytes", "length": 16, "part": 0.005, "sources": False}
    recipe = {
        "name": "language",
        "data": {"name": "python-docs", "batch_size": 16, "options": options},
        "teacher": {**network, "epochs": 1},
        "student": network,
        "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5}]},
        "epochs": 1,
    }
    run(check(recipe), root=tmp_path, out=tmp_path / "run", machine=QUIET, baseline=False)
    found = ship(tmp_path / "run", tolerance=50, batch=[1], progress=False)
    out = Path(found["out"])
    test = load("python-docs", tmp_path, options=options).test
    ids, targets = test.inputs["input_ids"].long().numpy(), test.targets.long().numpy()  # type: ignore[union-attr]
    for precision in ("fp32", "int8"):
        row = row_of(found, "distilled", "onnx", precision)
        logits = outputs(out / row["file"], ids, None).astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        known = targets >= 0
        expected = np.exp(-np.take_along_axis(logits, np.where(known, targets, 0)[..., None], -1)[..., 0][known].mean())
        assert row["score"] == pytest.approx(expected, rel=1e-4)
        low, high = row["interval"]
        assert low < row["score"] < high
        assert row["peak_memory_bytes"] > 10**7
    assert {row["runtime"] for row in found["rows"]} == {"torch", "onnx", "torch.export"}
    (tmp_path / "texts.txt").write_text("The import\na")
    command = [sys.executable, "run_onnx.py", str(tmp_path / "texts.txt"), "distilled.onnx"]
    said = subprocess.run(command, cwd=out, capture_output=True, text=True, check=True).stdout.splitlines()
    model, answers = load_model(tmp_path / "run" / "student.json"), []
    for text in ("The import", "a"):
        with torch.no_grad():
            logits = model(torch.tensor([list(text.encode())]))
        answers.append(repr(ByteTokenizer().decode([int(logits[0, -1].argmax())])))
    assert said == answers
    longer = torch.randint(256, (2, 40))
    with torch.no_grad():
        expected = model(longer).numpy()
    np.testing.assert_allclose(outputs(out / "distilled.onnx", longer, None), expected, atol=1e-4)
    about = json.loads((out / "limbeck.json").read_text())
    assert about["output"]["shape"] == ["batch", "length", 258]
    assert about["input"]["names"] == ["input_ids"]
