"""Hugging Face classifiers as teachers and students: from a folder, and back into one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from limbeck import Distiller, ModuleTeacher, Term, fit, load_model, losses
from limbeck.errors import RequestError
from limbeck.export.student import export_run
from limbeck.models.build import build
from limbeck.recipes.read import check, dump, read
from limbeck.runs.finished.predict import predictor
from limbeck.runs.finished.read import evaluate_run
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.shipping import latency, ship

transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")
QUIET = Machine(accelerator="cpu", progress=False)
DIGITS = {"input_shape": (1, 8, 8), "classes": 10}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def vit_config() -> Any:
    return transformers.ViTConfig(image_size=8, patch_size=2, num_channels=1, num_labels=10, **SIZES)


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """A folder with a configuration alone."""
    vit_config().save_pretrained(tmp_path / "vit-config")
    return tmp_path / "vit-config"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    transformers.ViTForImageClassification(vit_config()).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def layer_of(model: nn.Module, number: int) -> str:
    """Path of an encoder's layer, which versions of transformers call differently."""
    return next(
        name for name, one in model.named_modules() if type(one).__name__ == "ViTLayer" and f".{number}" in name
    )


def recipe(**changes: Any) -> Any:
    base = {"name": "hf", "epochs": 1, "optimizer": {"name": "adam", "lr": 0.003}, "data": {"name": "digits"}}
    return check({**base, **changes})


def test_a_vit_of_a_config_teaches_a_cnn_by_its_tokens(untrained: Path, tmp_path: Path) -> None:
    layer = layer_of(build(f"hf:{untrained}", **DIGITS), 1)
    hint = {"loss": "mse", "weight": 0.1, "student": "stage2", "teacher": layer, "adapter": "auto"}
    result = run(
        recipe(
            epochs=4,
            teacher={"model": f"hf:{untrained}", "epochs": 6, "optimizer": {"name": "adam", "lr": 0.01}},
            student={"model": "cnn", "channels": [8, 8]},
            distill={"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5}, hint]},
        ),
        root=tmp_path, out=tmp_path / "run", machine=QUIET, baseline=False,
    )  # fmt: skip
    assert result["teacher"]["test_accuracy"] > 0.3
    assert result["distilled"]["test_accuracy"] > 0.3


def test_a_vit_teaches_a_network_of_torchvision_in_a_recipe(untrained: Path, tmp_path: Path) -> None:
    layer = layer_of(build(f"hf:{untrained}", **DIGITS), 1)
    hint = {"loss": "mse", "weight": 0.1, "student": "layer1", "teacher": layer, "adapter": "auto"}
    result = run(
        recipe(
            teacher={"model": f"hf:{untrained}", "epochs": 1},
            student={"model": "torchvision:resnet18", "mean": [0.5] * 3, "std": [0.5] * 3, "size": 16},
            distill={"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5}, hint]},
            data={"name": "digits", "limit_steps": 2},
        ),
        root=tmp_path, out=tmp_path / "run", machine=QUIET, baseline=False,
    )  # fmt: skip
    assert 0 < result["distilled"]["test_accuracy"] < 1


def test_a_vit_teaches_a_network_of_torchvision_in_python() -> None:
    torchvision = pytest.importorskip("torchvision")
    config = transformers.ViTConfig(image_size=16, patch_size=4, num_channels=3, num_labels=10, **SIZES)
    teacher = transformers.ViTForImageClassification(config)
    student = torchvision.models.resnet18(num_classes=10)
    hint = Term(losses.mse, student="layer1", teacher=layer_of(teacher, 1), adapter="auto")  # 17 tokens, 4 × 4 maps
    images, labels = torch.rand(8, 3, 16, 16), torch.arange(8)
    done = fit(
        Distiller(student, [Term(losses.kd), hint], task_weight=0.5),
        [(images, labels)],
        teacher=teacher,
        epochs=5,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
        progress=False,
    )
    assert done.metrics[-1]["mse"] < 0.9 * done.metrics[0]["mse"]


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a Hugging Face student, moved elsewhere; the folder that its student came from is gone."""
    there = tmp_path_factory.mktemp("there")
    vit_config().save_pretrained(there / "vit-config")
    student = {"model": f"hf:{there / 'vit-config'}", "config": {"num_hidden_layers": 1}}
    teacher = {"model": "mlp", "hidden": [32], "epochs": 2, "optimizer": {"name": "adam", "lr": 0.01}}
    terms = [{"loss": "kd", "weight": 0.5}]
    run(
        recipe(teacher=teacher, student=student, distill={"task_weight": 0.5, "terms": terms}),
        root=there, out=there / "run", machine=QUIET,
    )  # fmt: skip
    shutil.move(there / "run", tmp_path_factory.mktemp("here") / "run")
    shutil.rmtree(there)
    return tmp_path_factory.getbasetemp() / "here0" / "run"


def test_a_hugging_face_student_is_read_by_from_pretrained(moved: Path) -> None:
    theirs = transformers.AutoModelForImageClassification.from_pretrained(moved / "student").eval()
    ours = load_model(moved / "student.json")
    images = torch.rand(4, 1, 8, 8)
    assert theirs.config.num_hidden_layers == 1
    with torch.no_grad():
        torch.testing.assert_close(theirs(images).logits, ours(images))


def test_a_moved_run_is_tested_and_continued_without_the_first_folder(moved: Path, capsys: Any) -> None:
    result = json.loads((moved / "result.json").read_text())
    again = evaluate_run(moved)
    assert again["accuracy"] == result["distilled"]["test_accuracy"]
    asked = run(read(str(moved / "recipe.yaml")), root=moved, out=moved, resume=True, machine=QUIET)
    assert asked["distilled"] == result["distilled"]
    assert "the student's own start is left out of the checks" in capsys.readouterr().err


def test_a_moved_run_is_exported_and_predicts(moved: Path, tmp_path: Path) -> None:
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    exported = export_run(moved, out=tmp_path / "export", onnx=True)
    images = torch.rand(4, 1, 8, 8)
    ours, there = load_model(moved / "student.json"), load_model(exported["json"])
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "export" / "student")
    with torch.no_grad():
        torch.testing.assert_close(there(images), ours(images))
        torch.testing.assert_close(theirs.eval()(images).logits, ours(images))
    assert json.loads(Path(exported["json"]).read_text())["model"] == "hf:student"
    assert exported["onnx"]["largest_difference"] < 1e-4
    pixels = torch.randint(0, 256, (8, 8), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "one.png")
    (answer,) = predictor(moved, machine=QUIET).predict([tmp_path / "one.png"])
    with torch.no_grad():
        expected = ours(pixels[None, None] / 255).softmax(1).max(1)
    assert answer.top[0] == (str(int(expected.indices)), pytest.approx(float(expected.values), abs=1e-5))


def test_a_moved_run_is_shipped(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 10)
    result = json.loads((moved / "result.json").read_text())
    shipped = ship(moved, formats=["safetensors"], batch=[1], memory=False, progress=False)
    scores = {row["model"]: row["score"] for row in shipped["rows"]}
    for name in ("baseline", "distilled"):
        assert scores[name] == pytest.approx(result[name]["test_accuracy"], abs=0.003)


def test_a_student_is_cut_out_of_the_teacher_that_was_trained(untrained: Path, tmp_path: Path) -> None:
    made = recipe(
        teacher={"model": f"hf:{untrained}", "epochs": 1, "config": {"num_hidden_layers": 3}},
        student={"from_teacher": {"layers": [0, 2], "heads": [1]}},
        distill={"terms": [{"loss": "kd"}]},
        optimizer={"name": "sgd", "lr": 1e-20},  # which no weight of fp32 feels
        data={"name": "digits", "limit_steps": 2},
    )
    assert check(yaml.safe_load(dump(made))) == made
    run(made, root=tmp_path, out=tmp_path / "run", machine=QUIET)
    teacher = load_file(tmp_path / "run" / "teacher.safetensors")
    fresh = build(f"hf:{untrained}", **DIGITS, config={"num_hidden_layers": 3})
    stack = next(name for name, one in fresh.named_modules() if isinstance(one, nn.ModuleList))
    for name in ("student", "baseline"):
        config = json.loads((tmp_path / "run" / name / "config.json").read_text())
        assert (config["num_hidden_layers"], config["num_attention_heads"]) == (2, 1)
        student = load_file(tmp_path / "run" / f"{name}.safetensors")
        assert student.keys() == {one for one in teacher if not one.startswith(f"{stack}.2.")}
        for key, value in student.items():
            expected = teacher[key.replace(f"{stack}.1.", f"{stack}.2.")]
            if any(part in key for part in ("q_proj", "k_proj", "v_proj")):
                expected = expected[8:]
            elif key.endswith("o_proj.weight"):
                expected = expected[:, 8:]
            assert torch.equal(value, expected), key


def test_a_search_begins_with_the_teachers_weights_too(untrained: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    from limbeck.tuning.asked import Asked
    from limbeck.tuning.tune import tune

    made = recipe(
        teacher={"model": f"hf:{untrained}", "epochs": 1, "config": {"num_hidden_layers": 2}},
        student={"from_teacher": {"layers": [0]}},
        distill={"terms": [{"loss": "kd"}]},
        optimizer={"name": "sgd", "lr": 1e-20},
        data={"name": "digits", "limit_steps": 2, "limit_samples": 200},
    )
    tune(made, Asked(["recipe"], 1, fresh=1), root=tmp_path, out=tmp_path / "out", machine=QUIET)
    teacher = load_file(tmp_path / "out" / "teacher.safetensors")
    for name in ("baseline", "recipe"):
        student = load_file(tmp_path / "out" / "fresh" / f"{name}-seed1" / "student.safetensors")
        assert 0 < len(student) < len(teacher)
        for key, value in student.items():
            assert torch.equal(value, teacher[key]), key


def test_what_cannot_be_cut_out_of_a_teacher_is_said(untrained: Path) -> None:
    terms = {"terms": [{"loss": "kd"}]}
    cut = {"from_teacher": {"layers": [0]}}
    with pytest.raises(RequestError, match=r"cuts a Hugging Face model \(hf:FOLDER\), not mlp"):
        recipe(teacher={"model": "mlp", "epochs": 1}, student=cut, distill=terms)
    teacher = {"model": f"hf:{untrained}", "epochs": 1}
    with pytest.raises(RequestError, match="goes without lora"):
        recipe(teacher=teacher, student={**cut, "lora": {"r": 2}}, distill=terms)
    with pytest.raises(RequestError, match="out of one teacher, and there are 2"):
        recipe(teacher=[teacher, teacher], student={**cut, "model": f"hf:{untrained}"}, distill=terms)
    with pytest.raises(RequestError, match=r"names what is kept, such as {layers"):
        recipe(teacher=teacher, student={"from_teacher": {"heads": None}}, distill=terms)
    with pytest.raises(RequestError, match=r"'student.model' is missing"):
        recipe(teacher=teacher, student={"mean": [0.5]}, distill=terms)


def test_the_task_says_what_a_model_ends_in(untrained: Path) -> None:
    made = recipe(
        teacher={"model": f"hf:{untrained}"},
        student={"model": f"hf:{untrained}", "head": "masked-lm"},
        distill={"terms": [{"loss": "kd"}]},
        task="token-classification",
    )
    assert made.teachers[0].options == {"head": "token-classification"}
    assert made.student.options == {"head": "masked-lm"}


def test_a_lora_student_of_a_recipe_is_resumed_and_plain(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the extra lora is not installed")
    lora = {"r": 2, "target_modules": ["q_proj", "v_proj", "query", "value"], "modules_to_save": ["classifier"]}
    made = recipe(
        teacher={"model": "mlp", "hidden": [32], "epochs": 1},
        student={"model": f"hf:{trained}", "lora": lora},
        distill={"terms": [{"loss": "kd"}]},
        data={"name": "digits", "limit_steps": 2},
    )
    result = run(made, root=tmp_path, out=tmp_path / "run", machine=QUIET)
    plain = build(f"hf:{trained}", **DIGITS).state_dict()
    student = load_file(tmp_path / "run" / "student.safetensors")
    assert student.keys() == plain.keys()
    changed = {name for name, value in plain.items() if not torch.equal(value, student[name])}
    assert len(changed) == 2 * 2 + 2  # two layers' queries and values, the classifier's weight and bias
    for name in ("baseline", "distilled"):
        assert result[name]["parameters"] == sum(value.numel() for value in plain.values())
    (tmp_path / "run" / "result.json").unlink()
    again = run(made, root=tmp_path, out=tmp_path / "run", resume=True, machine=QUIET)
    assert again["distilled"] == result["distilled"]


def test_weights_are_those_of_the_folder_and_classes_must_agree(trained: Path, capsys: Any) -> None:
    theirs = transformers.AutoModelForImageClassification.from_pretrained(trained).eval()
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        ours = build(f"hf:{trained}", **DIGITS).eval()(images).logits
        torch.testing.assert_close(ours, theirs(images).logits)
    with pytest.raises(RequestError, match=r"are for 10 classes, and 5 are wanted; replace_head: true"):
        build(f"hf:{trained}", input_shape=(1, 8, 8), classes=5)
    capsys.readouterr()
    five = build(f"hf:{trained}", input_shape=(1, 8, 8), classes=5, replace_head=True)
    assert five(images).logits.shape == (2, 5)
    assert "new in the network: classifier.bias, classifier.weight" in capsys.readouterr().err


def test_what_cannot_be_built_is_said(untrained: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no folder of a Hugging Face model"):
        build(f"hf:{tmp_path / 'nowhere'}", **DIGITS)
    with pytest.raises(RequestError, match=r"unknown setting .* 'num_hiden_layers'; did you mean num_hidden_layers"):
        build(f"hf:{untrained}", **DIGITS, config={"num_hiden_layers": 1})
    transformers.WhisperConfig().save_pretrained(tmp_path / "whisper")
    with pytest.raises(RequestError, match="no image or sequence classifier"):
        build(f"hf:{tmp_path / 'whisper'}", **DIGITS)
    with pytest.raises(RequestError, match="would be untrained"):
        run(
            recipe(
                teacher={"model": f"hf:{untrained}"},
                student={"model": "cnn"},
                distill={"terms": [{"loss": "kd"}]},
            ),
            root=tmp_path, out=tmp_path / "run", machine=QUIET,
        )  # fmt: skip


def test_the_pixels_of_a_folder_are_those_of_its_image_processor(trained: Path) -> None:
    text = '{"image_mean": [0.4], "image_std": [0.2], "do_normalize": true}'
    (trained / "preprocessor_config.json").write_text(text)
    pixels = build(f"hf:{trained}", **DIGITS).pixels
    assert (pixels.mean, pixels.std) == ((0.4,), (0.2,))


def test_text_classifiers_read_dicts_in_python(tmp_path: Path) -> None:
    config = transformers.BertConfig(vocab_size=20, max_position_embeddings=8, num_labels=2, **SIZES)
    config.save_pretrained(tmp_path / "bert")
    shape: dict[str, Any] = {"input_shape": (6,), "classes": 2}
    torch.manual_seed(0)
    ids = torch.randint(1, 20, (32, 6))
    batches = [
        {"input_ids": part, "attention_mask": torch.ones_like(part), "labels": (part[:, 0] > 9).long()}
        for part in ids.split(8)
    ]
    teacher = ModuleTeacher(build(f"hf:{tmp_path / 'bert'}", **shape))
    student = build(f"hf:{tmp_path / 'bert'}", **shape, config={"num_hidden_layers": 1})
    before = student.classifier.weight.clone()
    fit(
        Distiller(student, [Term(losses.kd)]),
        batches,
        teacher=teacher,
        epochs=1,
        optimizer=torch.optim.AdamW,
        out=tmp_path / "run",
        progress=False,
    )
    back = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "student")
    torch.testing.assert_close(back.classifier.weight, student.classifier.weight.cpu())
    assert not torch.equal(back.classifier.weight, before)
