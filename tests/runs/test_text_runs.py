"""Recipes of texts from the data to the student's files, with tiny networks."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import onnxruntime
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from limbeck import load_model
from limbeck.data.text.texts import IDS
from limbeck.data.text.tokenizers import FILE
from limbeck.errors import RequestError
from limbeck.export.student import export_run
from limbeck.recipes.read import check
from limbeck.runs import train
from limbeck.runs.finished.predict import predictor
from limbeck.runs.finished.read import evaluate_run
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.tasks import LanguageModelling
from limbeck.types import MASK

QUIET = Machine(accelerator="cpu", progress=False)
NET = {"model": "transformer", "dim": 8, "depth": 1, "heads": 2}
LANGUAGE: dict[str, Any] = {
    "name": "language",
    "data": {
        "name": "python-docs",
        "batch_size": 16,
        "options": {"tokenizer": "bytes", "length": 16, "part": 0.005, "sources": False},
    },
    "teacher": {**NET, "dim": 16, "epochs": 1, "store": {"where": "disk", "top_k": 8}},
    "student": NET,
    "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5}]},
    "epochs": 2,
}
WORDS = {"good": ["fine", "great", "lovely"], "bad": ["awful", "poor", "dull"]}


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


def test_a_language_model_from_stored_outputs_killed_and_resumed_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, calls, plain = check(LANGUAGE), 0, LanguageModelling.loss
    last = float("inf")

    def counted(*given: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > last:
            raise Killed
        return plain(*given)

    monkeypatch.setattr(LanguageModelling, "loss", counted)
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "one"))
    whole = run(recipe, root=tmp_path, out=tmp_path / "whole", machine=QUIET)
    for name in ("teacher", "baseline", "distilled"):
        assert 1 < whole[name]["test_perplexity"] < 300, name
        assert whole[name]["mode"] == "min"
    assert {"bits_per_byte", "agreement"} <= set(whole["distilled"]["test"])
    assert whole["teacher_outputs"][0]["top_k"] == 8
    assert (tmp_path / "whole" / FILE).is_file()

    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "two"))
    last, calls = calls - 8, 0
    with pytest.raises(Killed):
        run(recipe, root=tmp_path, out=tmp_path / "killed", machine=QUIET)
    assert not (tmp_path / "killed" / "result.json").exists()
    last = float("inf")
    run(recipe, root=tmp_path, out=tmp_path / "killed", resume=True, machine=QUIET)
    for file in ("student.safetensors", "baseline.safetensors", "teacher.safetensors"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    found = evaluate_run(tmp_path / "whole", tmp_path)
    assert found["perplexity"] == pytest.approx(whole["distilled"]["test_perplexity"])

    monkeypatch.setattr(train, "MEMORY_BYTES", 0)
    again = run(recipe, root=tmp_path, out=tmp_path / "again", machine=QUIET)
    assert again["distilled"]["test"] == whole["distilled"]["test"], "the same figures where the teacher is asked again"

    other = copy.deepcopy(LANGUAGE)
    other["data"]["options"]["length"] = 17
    with pytest.raises(RequestError, match=r"data\.options\.length was 16 and is 17"):
        run(check(other), root=tmp_path, out=tmp_path / "killed", resume=True, machine=QUIET)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reviews")
    lines = [
        f"{label}\t{'very ' * (n % 7)}{word} film {n}"
        for n in range(12)
        for label, words in WORDS.items()
        for word in words
    ]
    (root / "train.tsv").write_text("label\ttext\n" + "\n".join(lines))
    (root / "test.tsv").write_text("label\ttext\n" + "\n".join(f"{a}\t{b} movie" for a in WORDS for b in WORDS[a]))
    return root


def recipe_of(student: str, **options: Any) -> Any:
    return check(
        {
            "name": "reviews",
            "data": {
                "name": "text-classes",
                "batch_size": 8,
                "options": {
                    "train": "train.tsv",
                    "test": "test.tsv",
                    "length": 24,
                    "vocab": 280,
                    "validation": 0.25,
                    **options,
                },
            },
            "teacher": {"model": "text_encoder", "dim": 16, "depth": 1, "heads": 2, "epochs": 4},
            "student": {"model": student, "dim": 16},
            "distill": {"terms": [{"loss": "kd", "weight": 0.5}]},
            "epochs": 10,
            "optimizer": {"lr": 0.02},
        }
    )


def test_a_classifier_of_texts_from_its_files_to_its_answers(reviews: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(recipe_of("bag_of_embeddings", labels=12), root=reviews, out=out, machine=QUIET)
    assert result["distilled"]["test_accuracy"] == 1.0
    (tmp_path / "new.txt").write_text("a fine movie\n\nan awful, dull film\n")
    model, ids = load_model(out / "student.json"), torch.tensor([[258, 1, 0], [259, 260, 1]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    alone = torch.cat([model(ids[:1, :2]), model(ids[1:])])
    for answer in (model(ids, mask), model(input_ids=ids, attention_mask=mask), model({IDS: ids, MASK: mask})):
        assert torch.allclose(answer, alone, atol=1e-6), "padding is no token"
    moved = shutil.move(out, tmp_path / "moved")
    export_run(Path(moved))
    for source in (Path(moved), Path(moved) / "export"):
        answers = list(predictor(source, machine=QUIET).predict([tmp_path / "new.txt"]))
        assert [one.top[0][0] for one in answers] == ["good", "bad"]
        assert [one.file.rpartition(":")[2] for one in answers] == ["1", "3"], "the lines' numbers"
    texts = ["a fine movie", "an awful, dull film"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"id": 1, "said": one}) + "\n" for one in texts))
    (tmp_path / "b.tsv").write_text("".join(f"x\t{one}\n" for one in texts))
    datasets.Dataset.from_dict({"said": texts}).save_to_disk(tmp_path / "set")
    named = predictor(Path(moved), machine=QUIET, column="said", columns=["id", "said"])
    for name in ("a.jsonl", "b.tsv", "set"):
        assert [one.top[0][0] for one in named.predict([tmp_path / name])] == ["good", "bad"], name
    (Path(moved) / FILE).unlink()
    with pytest.raises(RequestError, match=r"holds no tokenizer\.json"):
        predictor(Path(moved), machine=QUIET)


def test_outputs_by_token_of_several_lengths_are_not_stored(reviews: Path, tmp_path: Path) -> None:
    recipe = recipe_of("text_encoder", tokenizer="bytes").model_dump(exclude_unset=True)
    recipe["distill"]["terms"] = [{"loss": "mse", "student": "norm", "teacher": "norm"}]
    recipe["student"] |= {"depth": 1, "heads": 2}
    with pytest.raises(RequestError, match=r"data\.options\.padding to length, or teacher\.store to never"):
        run(check(recipe), root=reviews, out=tmp_path / "out", machine=QUIET)


def test_a_language_model_does_not_teach_a_classifier(reviews: Path, tmp_path: Path) -> None:
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertForMaskedLM(BertConfig(vocab_size=280, max_position_embeddings=24, **size)).save_pretrained(tmp_path / "net")
    recipe = recipe_of("bag_of_embeddings", tokenizer="bytes").model_dump(exclude_unset=True)
    recipe["teacher"] = {"model": f"hf:{tmp_path}/net"}
    with pytest.raises(RequestError, match="the teacher knows 280 classes and the student 2"):
        run(check(recipe), root=reviews, out=tmp_path / "out", machine=QUIET)


@pytest.mark.parametrize(
    ("options", "config"), [({"vocab": 279}, {"vocab_size": 279}), ({}, {"max_position_embeddings": 23})]
)
@pytest.mark.parametrize("kind", ["own", "hf"])
def test_networks_too_small_for_the_data_are_refused_before_training(
    kind: str, options: dict[str, int], config: dict[str, int], reviews: Path, tmp_path: Path
) -> None:
    own = {"model": "text_encoder", "dim": 8, "depth": 1, "heads": 2, **(options or {"vocab": 1})}
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertConfig(**{"vocab_size": 280, "max_position_embeddings": 24, **small, **config}).save_pretrained(
        tmp_path / "net"
    )
    recipe = recipe_of("bag_of_embeddings").model_dump() | {
        "student": own if kind == "own" else {"model": f"hf:{tmp_path}/net"}
    }
    with pytest.raises(RequestError, match=r"student .* cannot read texts of 24 tokens with the ids 0 to 279"):
        run(check(recipe), root=reviews, out=tmp_path / "out", machine=QUIET)
    assert not (tmp_path / "out" / "teacher.json").exists()


@pytest.mark.slow
def test_an_encoder_is_written_as_onnx_for_every_length(reviews: Path, tmp_path: Path) -> None:
    recipe = recipe_of("text_encoder", tokenizer="bytes").model_copy(update={"epochs": 1})
    run(recipe, root=reviews, out=tmp_path / "out", machine=QUIET, baseline=False)
    exported = export_run(tmp_path / "out", onnx=True)
    assert exported["onnx"]["largest_difference"] < 1e-5
    assert exported["onnx"]["output"]["shape"] == ["batch", 2]
    assert [one["name"] for one in exported["onnx"]["input"]] == ["input_ids", "attention_mask"]
    session = onnxruntime.InferenceSession(
        tmp_path / "out" / "export" / "student.onnx", providers=["CPUExecutionProvider"]
    )
    ids = torch.tensor([[*b"a poor film", 257], [*b"ok", 257, *[256] * 9]])
    given = {"input_ids": ids.numpy(), "attention_mask": (ids != 256).long().numpy()}
    (tmp_path / "new.txt").write_text("a poor film\nok\n")
    answers = predictor(tmp_path / "out", machine=QUIET).predict([tmp_path / "new.txt"])
    found = torch.from_numpy(session.run(None, given)[0]).softmax(-1).amax(-1)
    assert found.tolist() == pytest.approx([one.top[0][1] for one in answers], rel=1e-4)
