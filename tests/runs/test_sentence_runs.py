"""A sentence encoder teaches a student that has a tokenizer of its own, from the recipe to the student's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from limbeck import ModuleTeacher, load_model
from limbeck.data import make_loader
from limbeck.data.text.texts import IDS
from limbeck.data.text.tokenizers import read_tokenizer
from limbeck.errors import RequestError
from limbeck.recipes.read import check
from limbeck.runs import components, teachers
from limbeck.runs.finished.read import evaluate_run
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.asking import Asking
from limbeck.runs.run import run
from limbeck.shipping import latency, ship

QUIET = Machine(accelerator="cpu", progress=False)
WORDS = ["red", "green", "blue", "old", "new", "small", "large", "round", "flat", "warm"]
THINGS = ["stone", "leaf", "river", "house", "cloud", "coin"]
TEXTS = [f"A {word} and {other} {thing}" for word in WORDS for other in WORDS[:4] for thing in THINGS]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as sentence-transformers writes it: mean pooling, normalized, 7 tokens at most, with its tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    pieces = [*(word[:2] for word in THINGS), *(f"##{word[2:]}" for word in THINGS)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "and", *WORDS, *pieces]
    own = Tokenizer(models.WordPiece({word: n for n, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    own.normalizer, own.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    own.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    own.enable_truncation(5)  # as the folder of MiniLM has it: what the encoder's own files say counts
    own.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=own.get_vocab_size(), initializer_range=0.2, **sizes)
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 7, "do_lower_case": false}')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    parts = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(parts))
    return folder


def recipe(encoder: Path, **changes: Any) -> Any:
    (encoder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    options = {"train": "texts.jsonl", "teacher_tokenizer": "teacher", "vocab": 290, "length": 24}
    return check(
        {
            "name": "sentences",
            "data": {"name": "text-sentences", "batch_size": 16, "options": options},
            "teacher": {"model": f"hf:{encoder}", "store": "disk"},
            "student": {"model": "bag_of_embeddings", "dim": 16},
            "distill": {"task_weight": 0, "terms": [{"loss": "cosine"}, {"loss": "in_batch_similarity"}]},
            "task": {"name": "embedding", "monitor": "spearman", "mode": "max"},
            "epochs": 15,
            "optimizer": {"name": "adamw", "lr": 0.03},
            **changes,
        }
    )


def by_transformers(encoder: Path, texts: list[str]) -> Any:
    """One text at a time, by transformers' tokenizer and model alone."""
    tokens = transformers.PreTrainedTokenizerFast(tokenizer_file=str(encoder / "tokenizer.json"), pad_token="[PAD]")
    model = transformers.BertModel.from_pretrained(encoder).eval()
    with torch.no_grad():
        rows = [model(**tokens(text, truncation=True, max_length=7, return_tensors="pt", return_token_type_ids=False))
                .last_hidden_state[0].double().mean(0).numpy() for text in texts]  # fmt: skip
    return np.stack([row / np.linalg.norm(row) for row in rows])


def test_the_teacher_reads_its_own_tokens_and_gives_its_own_embeddings(encoder: Path) -> None:
    made = recipe(encoder)
    data = components.data(made.data, encoder)
    assert data.classes == 16
    teacher = teachers.as_one(teachers.candidates(made, data))
    batch = next(iter(make_loader(data.test, 20)))
    assert data.tokenizer is not None
    texts = [data.tokenizer.decode(row.tolist()) for row in batch.inputs[IDS]]
    assert texts[0] in TEXTS
    np.testing.assert_allclose(teacher(batch).output.numpy(), by_transformers(encoder, texts), atol=1e-5)


def test_a_student_learns_the_embeddings_from_stored_outputs_and_is_shipped_by_itself(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    asked, plain = list[int](), ModuleTeacher.__call__
    monkeypatch.setattr(ModuleTeacher, "__call__", lambda self, batch: asked.append(batch.size) or plain(self, batch))
    result = run(recipe(encoder), root=encoder, out=tmp_path / "run", machine=QUIET)
    tested = result["distilled"]["test"]
    assert asked.count(24) == 2, "about the 24 sentences of validation and of test once, not at each epoch"
    assert result["teacher_outputs"][0]["where"] == "disk"
    assert tested["spearman"] > 0.8
    assert tested["cosine"] > 0.8
    assert evaluate_run(tmp_path / "run", encoder)["spearman"] == pytest.approx(tested["spearman"])

    student = load_model(tmp_path / "run" / "student.json")
    tokens = read_tokenizer(tmp_path / "run")
    ids = torch.tensor([tokens.framed(TEXTS[:1], 24)[0][0]])
    assert torch.nn.functional.cosine_similarity(student(ids), torch.tensor(by_transformers(encoder, TEXTS[:1]))) > 0.5


def test_students_of_other_tokenizers_share_the_stored_outputs(encoder: Path) -> None:
    def made_of(**options: Any) -> Any:
        found = recipe(encoder)
        found.data.options.update(options)
        data = components.data(found.data, encoder)
        teacher = teachers.as_one(teachers.candidates(found, data))
        return Asking(found, data, QUIET.fabric("32-true"), found.teachers[0].store).made_of(teacher), data

    (first, one), (second, other), (third, _) = made_of(), made_of(tokenizer="bytes"), made_of(teacher_length=6)
    assert first == second
    assert one.train.fingerprint != other.train.fingerprint
    assert first["data"] != third["data"]


def test_names_of_inputs_are_written_out_and_not_guessed(encoder: Path) -> None:
    made = recipe(encoder)
    assert made.data.options["teacher_tokenizer"] == str(encoder)
    assert made.teacher.inputs == {"input_ids": "teacher.input_ids", "attention_mask": "teacher.attention_mask"}
    assert made.student.inputs == {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    given = recipe(encoder, student={"model": "bag_of_embeddings", "inputs": ["input_ids"]})
    assert given.student.inputs == ["input_ids"]
    with pytest.raises(RequestError, match="teacher_tokenizer: teacher is that of a teacher hf:FOLDER"):
        recipe(encoder, teacher={"model": "text_encoder", "epochs": 1})


@pytest.mark.slow
def test_student_and_teacher_are_shipped_each_on_its_own_tokens(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(latency, "ROUNDS", 4)
    student = {"model": "bag_of_embeddings", "dim": 16, "bigrams": 64, "weighted": True, "hidden": 16}
    result = run(recipe(encoder, student=student, epochs=5), root=encoder, out=tmp_path / "run", machine=QUIET)
    found = ship(tmp_path / "run", formats=["onnx", "onnx-int8"], batch=[1], tolerance=50, memory=False, root=encoder)
    scores = {(row["model"], row["runtime"], row["precision"]): row["score"] for row in found["rows"]}
    assert scores["teacher", "onnx", "fp32"] == pytest.approx(1, abs=1e-3), "its file gives what the teacher gives"
    assert scores["distilled", "onnx", "fp32"] == pytest.approx(result["distilled"]["test"]["spearman"], abs=1e-3)
    assert scores["distilled", "onnx", "int8"] == pytest.approx(scores["distilled", "onnx", "fp32"], abs=0.1)
