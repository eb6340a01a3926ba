"""Models of Hugging Face's transformers: what they end in, layers that are cut out, LoRA, and back into a folder."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import Distiller, ModuleTeacher, Saving, Term, fit, load_model, losses
from limbeck.engine.saving.checkpoint import save_student
from limbeck.errors import RequestError
from limbeck.models import parameter_count
from limbeck.models.build import build
from limbeck.models.foreign.hugging_face_layers import cut
from limbeck.models.inspect import inspect
from limbeck.tasks import Embedding

transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")
SIZES = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = {"vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SHAPE: dict[str, Any] = {"input_shape": (6,)}


def settings(kind: str, **more: Any) -> Any:
    """A tiny configuration."""
    match kind:
        case "DistilBert":
            return transformers.DistilBertConfig(dim=16, n_layers=4, n_heads=2, hidden_dim=32, **TEXT, **more)
        case "GPT2":
            return transformers.GPT2Config(n_positions=8, n_embd=16, n_layer=4, n_head=2, **TEXT, **more)
        case "ViT":
            return transformers.ViTConfig(image_size=8, patch_size=2, num_channels=1, **SIZES, **more)
        case "Llama" | "Qwen3":
            heads = {"num_key_value_heads": 1, "head_dim": 8}
            return getattr(transformers, f"{kind}Config")(**heads, **TEXT, **SIZES, **more)
    return getattr(transformers, f"{kind}Config")(**TEXT, **SIZES, **more)


def saved(folder: Path, kind: str, ends: str, **more: Any) -> Path:
    """A folder with a tiny model and its weights."""
    torch.manual_seed(0)
    getattr(transformers, f"{kind}{ends}")(settings(kind, **more)).save_pretrained(folder)
    return folder


def ids(samples: int = 3, length: int = 6) -> Tensor:
    return torch.randint(3, 20, (samples, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("kind", "ends", "head", "shape"),
    [
        ("Bert", "ForTokenClassification", None, (3, 6, 5)),
        ("Bert", "ForMaskedLM", None, (3, 6, 20)),
        ("GPT2", "LMHeadModel", None, (3, 6, 20)),
        ("Llama", "ForCausalLM", "language-model", (3, 6, 20)),
        ("Bert", "ForMaskedLM", "language-model", (3, 6, 20)),
        ("Bert", "ForMaskedLM", "embedding", (3, 16)),
        ("DistilBert", "Model", None, (3, 16)),
        ("GPT2", "ForSequenceClassification", None, (3, 5)),
    ],
)
def test_a_model_ends_in_what_its_architecture_or_the_head_says(
    tmp_path: Path, kind: str, ends: str, head: str | None, shape: tuple[int, ...]
) -> None:
    folder = saved(tmp_path, kind, ends, num_labels=5)
    classes = 20 if "LM" in ends and head != "embedding" else 5
    model = build(f"hf:{folder}", **SHAPE, classes=classes, head=head).eval()
    output = model(input_ids=ids(), attention_mask=torch.ones_like(ids()))
    output = output if isinstance(output, Tensor) else output.logits
    assert output.shape == shape
    if head is None and ends != "Model":
        theirs = getattr(transformers, f"{kind}{ends}").from_pretrained(folder).eval()
        torch.testing.assert_close(output, theirs(ids()).logits)


def test_a_new_head_is_asked_for_and_told(tmp_path: Path, capsys: Any) -> None:
    folder = saved(tmp_path, "Bert", "ForMaskedLM")
    with pytest.raises(RequestError, match=r"lack classifier.bias, classifier.weight; replace_head: true"):
        build(f"hf:{folder}", **SHAPE, classes=2, head="token-classification")
    with pytest.raises(RequestError, match="unknown head 'tokens'"):
        build(f"hf:{folder}", **SHAPE, classes=2, head="tokens")
    model = build(f"hf:{folder}", **SHAPE, classes=2, head="token-classification", replace_head=True)
    assert model(ids()).logits.shape == (3, 6, 2)
    assert "new in the network: classifier.bias, classifier.weight" in capsys.readouterr().err
    with pytest.raises(RequestError, match=r"knows 20 tokens, and the data have 21"):
        build(f"hf:{folder}", **SHAPE, classes=21)


def test_a_configuration_alone_starts_from_scratch(tmp_path: Path) -> None:
    folder = saved(tmp_path, "GPT2", "LMHeadModel")
    model = build(f"hf:{folder / 'config.json'}", **SHAPE, classes=11, config={"n_layer": 1})
    assert model(ids() % 11).logits.shape == (3, 6, 11)
    assert model.config.num_hidden_layers == 1
    trained = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert not torch.equal(model.transformer.h[0].mlp.c_fc.weight, trained.transformer.h[0].mlp.c_fc.weight)


def test_an_embedding_is_the_mean_over_the_tokens_that_count(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bert", "Bert", "Model")
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
    model = build(f"hf:{folder}", **SHAPE, classes=None).eval()
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        tokens = theirs(ids(), attention_mask=mask).last_hidden_state
        expected = torch.stack([one[:count].mean(0) for one, count in zip(tokens, (6, 3, 1), strict=True)])
        torch.testing.assert_close(model(input_ids=ids(), attention_mask=mask), expected)
    first = build(f"hf:{folder}", **SHAPE, classes=None, pooling="first").eval()
    torch.testing.assert_close(first(input_ids=ids(), attention_mask=mask), tokens[:, 0])


def test_a_sentence_encoder_keeps_its_pooling(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bert", "Bert", "Model")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Normalize"}]')
    model = build(f"hf:{folder}", **SHAPE, classes=None, layers=[1, 3]).eval()
    vectors = model(ids())
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    about = {"model": f"hf:{folder}", "options": {"layers": [1, 3]}, "classes": 1, "input": {"shape": [6]}}
    save_student(tmp_path / "run", "student", model, about)
    again = load_model(tmp_path / "run" / "student.json")
    torch.testing.assert_close(again(ids()), vectors)
    torch.testing.assert_close(
        build(f"hf:{tmp_path / 'run' / 'student'}", **SHAPE, classes=None).eval()(ids()), vectors
    )
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_weightedmean_tokens": true}')
    with pytest.raises(RequestError, match="pools by pooling_mode_weightedmean_tokens; give pooling: mean or first or"):
        build(f"hf:{folder}", **SHAPE, classes=None)


@pytest.mark.parametrize(
    ("kind", "ends", "stack"),
    [
        ("Bert", "ForMaskedLM", "bert.encoder.layer"),
        ("DistilBert", "ForSequenceClassification", "distilbert.transformer.layer"),
        ("GPT2", "LMHeadModel", "transformer.h"),
        ("Llama", "ForCausalLM", "model.layers"),
        ("Qwen3", "ForCausalLM", "model.layers"),
        ("ViT", "ForImageClassification", None),
    ],
)
def test_a_student_is_cut_out_of_its_teacher(tmp_path: Path, kind: str, ends: str, stack: str | None) -> None:
    folder = saved(tmp_path / "teacher", kind, ends)
    teacher = getattr(transformers, f"{kind}{ends}").from_pretrained(folder)
    student = build(f"hf:{folder}", **SHAPE, classes=None, layers=[0, 3])
    assert student.config.num_hidden_layers == 2
    own, theirs = student.state_dict(), teacher.state_dict()
    if stack is None:  # versions of transformers call it differently
        stack = next(name for name, one in teacher.named_modules() if isinstance(one, nn.ModuleList))
    of = {name: name.replace(f"{stack}.1.", f"{stack}.3.") for name in own}
    assert of.keys() == {
        name for name in theirs if not name.startswith((f"{stack}.1.", f"{stack}.2.", f"{stack}.3."))
    } | {name for name in own if name.startswith(f"{stack}.1.")}
    assert all(torch.equal(own[name], theirs[other]) for name, other in of.items())
    student.save_pretrained(tmp_path / "student")
    back = getattr(transformers, f"{kind}{ends}").from_pretrained(tmp_path / "student").eval()
    x = torch.rand(2, 1, 8, 8) if kind == "ViT" else ids()
    torch.testing.assert_close(back(x).logits, student.eval()(x).logits)


def test_what_cannot_be_cut_is_said(tmp_path: Path) -> None:
    model = build(f"hf:{saved(tmp_path, 'GPT2', 'LMHeadModel')}", **SHAPE, classes=None)
    for layers in ([4], [0, 0], [], [-1], [0.5]):
        with pytest.raises(RequestError, match=r"layers are different numbers from 0 to 3"):
            cut(model, layers)  # type: ignore[arg-type]
    sizes = {"vocab_size": 20, "d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 32}
    t5 = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))
    with pytest.raises(RequestError, match=r"one stack of layers.* has 2 \(encoder.block, decoder.block\)"):
        cut(t5, [0])
    with pytest.raises(RequestError, match="Linear shows none"):
        cut(nn.Linear(2, 2), [0])
    shared = transformers.AlbertForMaskedLM(transformers.AlbertConfig(embedding_size=8, **TEXT, **SIZES))
    with pytest.raises(RequestError, match="AlbertForMaskedLM shows none"):
        cut(shared, [0])
    swin = {"embed_dim": 8, "depths": [2, 2], "num_heads": [1, 1], "window_size": 2, "patch_size": 2}
    stages = transformers.SwinForImageClassification(transformers.SwinConfig(image_size=8, num_channels=1, **swin))
    with pytest.raises(RequestError, match="its layers are not alike"):
        cut(stages, [1])


def lora_of(folder: Path, **more: Any) -> nn.Module:
    pytest.importorskip("peft", reason="the extra lora is not installed")
    options = {"r": 2, "target_modules": ["query", "value"], "lora_alpha": 8, **more}
    return build(f"hf:{folder}", **SHAPE, classes=None, lora=options)


def test_lora_trains_its_matrices_alone_and_is_saved_as_a_plain_model(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bert", "Bert", "ForSequenceClassification", num_labels=2)
    before = transformers.BertForSequenceClassification.from_pretrained(folder).state_dict()
    teacher, student = build(f"hf:{folder}", **SHAPE, classes=None), lora_of(folder)
    trained = {name for name, one in student.named_parameters() if one.requires_grad}
    assert len(trained) == 4 * 2 * 2  # layers, query and value, A and B
    assert all("lora_" in name for name in trained)
    assert sum(student.get_parameter(name).numel() for name in trained) == 4 * 2 * 2 * 2 * 16
    batches = [{"input_ids": part, "labels": (part[:, 0] > 9).long()} for part in ids(32).split(8)]
    fit(
        Distiller(student, [Term(losses.kd)]),
        batches,
        teacher=ModuleTeacher(teacher),
        epochs=2,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.05),
        out=tmp_path / "run",
        saving=Saving(save_every=1),
        progress=False,
    )
    back = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "student").eval()
    snapshot = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "student-epoch1")
    after = back.state_dict()
    changed = {name for name, one in before.items() if not torch.equal(one, after[name])}
    assert changed == {name for name in before if name.endswith(("query.weight", "value.weight"))}
    assert changed == {name for name, one in snapshot.state_dict().items() if not torch.equal(one, before[name])}
    torch.testing.assert_close(back(ids()).logits, student(ids()).logits)
    assert student.state_dict().keys() == before.keys()
    for name in changed:  # what was added is of rank 2
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-4) == 2


def test_lora_is_refused_where_it_fits_nowhere(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bert", "Bert", "ForSequenceClassification")
    with pytest.raises(RequestError, match=r"unknown option of lora 'alpha'; did you mean lora_alpha"):
        lora_of(folder, alpha=4)
    with pytest.raises(RequestError, match=r"lora: Target modules .*qkv"):
        lora_of(folder, target_modules=["qkv"])
    with pytest.raises(RequestError, match=r"unknown part of modules_to_save 'head'"):
        lora_of(folder, modules_to_save=["head"])
    also = lora_of(folder, modules_to_save=["classifier"])
    assert {name for name, one in also.named_parameters() if one.requires_grad and "lora_" not in name} == {
        "classifier.weight",
        "classifier.bias",
    }


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.")  # peft asks transformers for it
def test_a_wrapped_model_of_peft_is_saved_plain_and_stays_as_it_is(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="the extra lora is not installed")
    plain = transformers.BertForSequenceClassification(settings("Bert"))
    model = peft.get_peft_model(copy.deepcopy(plain), peft.LoraConfig(r=2, target_modules=["query"]))
    save_student(tmp_path, "student", model, {})
    assert any("lora_" in name for name, _ in model.named_parameters())
    tensors = json.loads((tmp_path / "student.json").read_text())["tensors"]
    assert tensors.keys() == plain.state_dict().keys()
    back = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    torch.testing.assert_close(back(ids()).logits, plain.eval()(ids()).logits)


def test_the_tokenizer_goes_with_the_student(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="the extra text is not installed")
    folder = saved(tmp_path / "bert", "Bert", "ForSequenceClassification")
    words = {"[UNK]": 0, **{f"w{number}": number for number in range(1, 20)}}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]").save_pretrained(folder)
    model = build(f"hf:{folder}", **SHAPE, classes=None, layers=[0])
    save_student(tmp_path / "run", "student", model, {})
    back = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "student")
    assert back("w3 w1 what")["input_ids"] == [3, 1, 0]


def test_sizes_of_a_model_that_reads_tokens_are_told(tmp_path: Path, capsys: Any) -> None:
    folder = saved(tmp_path, "Bert", "ForMaskedLM")
    whole = parameter_count(transformers.BertForMaskedLM.from_pretrained(folder))
    seen = inspect(f"hf:{folder}", (6,), 20, layers=[2])
    layer = sum(one.numel() for one in transformers.BertModel.from_pretrained(folder).encoder.layer[0].parameters())
    assert seen.parameters == whole - 3 * layer
    assert f"layers 2 are kept, {whole - 3 * layer:,} of {whole:,} parameters" in capsys.readouterr().err
    assert seen.multiply_adds > 6 * 4 * 16 * 16


def test_encoders_learn_embeddings_from_one_another(tmp_path: Path) -> None:
    teacher = build(f"hf:{saved(tmp_path, 'Bert', 'Model')}", **SHAPE, classes=None)
    student = build(f"hf:{tmp_path}", **SHAPE, classes=None, layers=[0])
    mask = (torch.arange(6) < torch.tensor([6, 4, 2, 6]).repeat(8)[:, None]).long()
    batches = [
        {"input_ids": part, "attention_mask": counted}
        for part, counted in zip(ids(32).split(8), mask.split(8), strict=True)
    ]
    done = fit(
        Distiller(student, [Term(losses.cosine)], task_weight=0, task=Embedding()),
        batches,
        teacher=teacher,
        val=batches,
        epochs=6,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
        progress=False,
    )
    assert done.metrics[-1]["val_cosine"] > max(0.9, done.metrics[0]["val_cosine"])
