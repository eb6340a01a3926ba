"""A student with a part of its teacher's vocabulary, from the recipe to what `from_pretrained` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from limbeck import load_model
from limbeck.data.text.beside import give_tokenizer
from limbeck.data.text.tokenizers import ByteTokenizer, trained_bpe
from limbeck.engine.saving.checkpoint import save_student
from limbeck.errors import RequestError
from limbeck.models.build import build
from limbeck.models.foreign.hugging_face_layers import cut
from limbeck.recipes.read import check, dump
from limbeck.runs import components
from limbeck.runs.finished.predict import predictor
from limbeck.runs.finished.read import evaluate_run
from limbeck.runs.machine import Machine
from limbeck.runs.run import run

QUIET = Machine(accelerator="cpu", progress=False)
ROWS = [("good", "a fine playful film"), ("bad", "a dull, endless film"), ("good", "fine play"), ("bad", "endless")] * 4
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of BERT with its tokenizer, most of whose words no text has; and the texts."""
    folder = tmp_path_factory.mktemp("bert")
    letters = sorted({letter for _, text in ROWS for letter in text if letter.isalpha()})
    others = [f"other{number}" for number in range(40)]
    words = [*others[:20], *SPECIAL.values(), *letters, *(f"##{one}" for one in letters), *others[20:], ","]
    words += ["fine", "play", "##ful", "film", "dull", "end", "##less"]
    own = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    own.normalizer, own.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    ends = [(one, words.index(one)) for one in ("[CLS]", "[SEP]")]
    own.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    transformers.PreTrainedTokenizerFast(tokenizer_object=own, **SPECIAL).save_pretrained(folder)
    said = json.loads((folder / "tokenizer_config.json").read_text())
    added = {str(words.index(one)): {"content": one, "special": True} for one in SPECIAL.values()}
    said |= {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "added_tokens_decoder": added}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    ids = {"pad_token_id": words.index("[PAD]"), "initializer_range": 0.3, "max_position_embeddings": 16}
    config = transformers.BertConfig(vocab_size=len(words) + 3, num_labels=2, **sizes, **ids)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "train.tsv").write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in ROWS))
    return folder


def recipe(teacher: Path, data: dict[str, Any] | None = None, **kept: Any) -> Any:
    files = {"train": "train.tsv", "test": "train.tsv", "length": 16}
    return check(
        {
            "name": "fewer-tokens",
            "data": data or {"name": "text-classes", "batch_size": 8, "options": files},
            "teacher": {"model": f"hf:{teacher}"},
            "student": {"from_teacher": kept},
            "distill": {"terms": [{"loss": "kd"}]},
            "epochs": 1,
            "optimizer": {"name": "sgd", "lr": 1e-20},  # which no weight of fp32 feels
        }
    )


def logits_of(folder: Path, texts: list[str]) -> torch.Tensor:
    """By transformers alone."""
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return torch.cat([model(**tokens(text, return_tensors="pt")).logits for text in texts])


def test_a_student_of_the_tokens_in_use_answers_as_its_teacher(teacher: Path, tmp_path: Path) -> None:
    made = recipe(teacher, vocabulary="used")
    assert check(yaml.safe_load(dump(made))) == made
    result = run(made, root=teacher, out=tmp_path / "run", machine=QUIET)
    assert result["distilled"]["test"]["agreement"] == 1
    student = tmp_path / "run" / "student"
    texts = [text for _, text in ROWS[:4]]
    torch.testing.assert_close(logits_of(student, texts), logits_of(teacher, texts))
    tokens = transformers.AutoTokenizer.from_pretrained(student)
    there = json.loads((student / "config.json").read_text())
    assert there["vocab_size"] == len(tokens) < 60
    assert there["pad_token_id"] == tokens.pad_token_id
    assert tokens.unk_token_id not in tokens("a dully filmed endplay")["input_ids"]
    assert not (student / "vocab.txt").exists()
    assert evaluate_run(tmp_path / "run", teacher)["accuracy"] == result["distilled"]["test_accuracy"]
    (tmp_path / "new.txt").write_text(texts[1] + "\n")
    (answer,) = predictor(tmp_path / "run", machine=QUIET).predict([tmp_path / "new.txt"])
    assert answer.top[0][1] == pytest.approx(logits_of(teacher, texts[1:2]).softmax(1).max().item(), abs=1e-5)
    ids = torch.tensor([tokens(texts[1])["input_ids"]])
    torch.testing.assert_close(load_model(tmp_path / "run" / "student.json")(ids), logits_of(teacher, texts[1:2]))


def test_fewer_tokens_of_a_number(teacher: Path, capsys: Any) -> None:
    used = components.data(recipe(teacher, vocabulary="used").data, teacher).tokenizer
    assert used is not None
    made = recipe(teacher, layers=[1], vocabulary=used.size - 1)
    assert made.data.options["reduce"] == used.size - 1
    data = components.data(made.data, teacher)
    student: Any = components.model(made.student, data, 0)
    assert f"layers 1 and {used.size - 1} tokens are kept" in capsys.readouterr().err
    assert student.bert.embeddings.word_embeddings.weight.shape == (used.size - 1, 16)


def test_where_teacher_and_student_must_share_tokens_fewer_are_refused(teacher: Path) -> None:
    with pytest.raises(RequestError, match=r"text-classes, text-sentences.* the outputs are one a token"):
        recipe(teacher, {"name": "python-docs", "options": {"tokenizer": str(teacher)}}, vocabulary=50)
    files = {"train": "train.tsv", "test": "train.tsv", "tokenizer": "bytes"}
    with pytest.raises(RequestError, match=r"says data\.options.tokenizer"):
        recipe(teacher, {"name": "text-classes", "options": files}, vocabulary=50)


def test_tokens_that_a_model_has_not_are_said(teacher: Path) -> None:
    bert = build(f"hf:{teacher}", input_shape=(6,), classes=None)
    for tokens in ([0, 999], [0, 0], []):
        with pytest.raises(RequestError, match="tokens are different ids from 0 to"):
            cut(bert, tokens=tokens)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    vit = transformers.ViTForImageClassification(transformers.ViTConfig(image_size=4, patch_size=2, **sizes))
    with pytest.raises(RequestError, match="ViTForImageClassification shows no vocabulary"):
        cut(vit, tokens=[0])


def test_the_head_of_a_language_model_loses_the_same_rows() -> None:
    torch.manual_seed(0)
    sizes = {"n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 12, "eos_token_id": 9}
    for tied in (True, False):
        config = transformers.GPT2Config(**sizes, bos_token_id=9, tie_word_embeddings=tied)
        whole = transformers.GPT2LMHeadModel(config).eval()
        kept = [9, 2, 3, 7]
        fewer = cut(whole, tokens=kept).eval()
        assert fewer.config.eos_token_id == 0
        ids = torch.tensor([[1, 2, 3, 0]])
        with torch.no_grad():
            torch.testing.assert_close(fewer(ids).logits, whole(torch.tensor(kept)[ids]).logits[..., kept])


def test_a_student_that_reads_other_tokens_than_its_folder_is_saved_with_these(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    made = trained_bpe([text for _, text in ROWS], 270)
    student = build(f"hf:{teacher}", input_shape=(6,), classes=None, layers=[0])
    give_tokenizer(student, made)
    save_student(tmp_path / "bpe", "student", student, {})
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "bpe" / "student")
    assert tokens("a fine film")["input_ids"] == made.encode(["a fine film"])[0]
    assert tokens.pad_token_id == made.pad
    give_tokenizer(student, ByteTokenizer())
    save_student(tmp_path / "bytes", "student", student, {})
    there = {file.name for file in (tmp_path / "bytes" / "student").iterdir()}
    assert there == {"config.json", "model.safetensors"}
