"""ONNX files from three exporters, against the models that they were made of."""

from __future__ import annotations

import copy
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from torch import nn

from limbeck import Distiller, EnsembleTeacher, Hardware, ModuleTeacher, OnnxModel, Term, fit, losses
from limbeck.compare import compare
from limbeck.data import InMemory, load, make_loader
from limbeck.errors import RequestError
from limbeck.models import multiply_adds, parameter_count
from limbeck.models.build import build
from limbeck.models.inspect import inspect
from limbeck.models.stages import embedding, stages
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.taps import Taps, trace
from limbeck.types import Batch

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
WITHIN = {"rtol": 0, "atol": 1e-4}


class Original(nn.Module):
    """A small network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.classifier = nn.Linear(4 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)
        return self.classifier(hidden.flatten(1))


def export(model: nn.Module, example: tuple[torch.Tensor, ...], path: Path, **options: Any) -> Path:
    pytest.importorskip("onnxscript", reason="onnxscript, which torch exports with, is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own plans
        torch.onnx.export(model.eval(), example, path, dynamo=True, verbose=False, **options)
    return path


def from_sklearn(model: Any, path: Path, **options: Any) -> Path:
    convert = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed").to_onnx
    path.write_bytes(convert(model, np.zeros((1, 64), np.float32), options=options).SerializeToString())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def original() -> nn.Module:
    torch.manual_seed(0)
    model = Original()
    model(torch.randn(32, 1, 8, 8))  # statistics that are not 0 and 1
    return model.eval()


@pytest.fixture(scope="module")
def exported(original: nn.Module, folder: Path) -> Path:
    return export(
        original,
        (torch.zeros(2, 1, 8, 8),),
        folder / "original.onnx",
        dynamic_shapes=({0: "batch"},),
        input_names=["image"],
        output_names=["logits"],
    )


@pytest.fixture(scope="module")
def digits(folder: Path) -> InMemory:
    train = load("digits", folder).train
    assert isinstance(train, InMemory)
    return InMemory(train.inputs[:192], train.targets[:192])


@pytest.fixture(scope="module")
def forest(digits: InMemory) -> RandomForestClassifier:
    return RandomForestClassifier(5, max_depth=6, random_state=0).fit(digits.inputs.flatten(1) / 255, digits.targets)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def batch(images: torch.Tensor) -> Batch:
    return Batch(images, torch.zeros(len(images), dtype=torch.long), torch.arange(len(images)))


class TestTorchsExporter:
    def test_gives_what_the_original_gives(self, exported: Path, original: nn.Module, images: torch.Tensor) -> None:
        logits = OnnxModel(exported)(images)
        torch.testing.assert_close(logits, original(images).detach(), **WITHIN)

    def test_tensors_are_taps_and_the_file_stays(
        self, exported: Path, original: nn.Module, images: torch.Tensor
    ) -> None:
        before = exported.read_bytes()
        model = OnnxModel(exported)
        names = [tap.name for tap in trace(model, images)]
        assert (names[-1], set(names) >= {"relu", "max_pool2d"}) == ("logits", True)
        teacher_output = ModuleTeacher(model, ["relu", "max_pool2d"])(batch(images))
        expected = torch.relu(original.norm(original.conv(images))).detach()
        torch.testing.assert_close(teacher_output.features["relu"], expected, **WITHIN)
        torch.testing.assert_close(
            teacher_output.features["max_pool2d"], nn.functional.max_pool2d(expected, 2), **WITHIN
        )
        torch.testing.assert_close(teacher_output.output, original(images).detach(), **WITHIN)
        assert exported.read_bytes() == before

    def test_distils_as_its_original_does(self, exported: Path, original: nn.Module, digits: InMemory) -> None:
        def learn(teacher: nn.Module, tap: str) -> nn.Module:
            torch.manual_seed(1)
            student = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10))
            terms = [Term(losses.kd, weight=0.9), Term(losses.mse, student="1", teacher=tap)]
            return fit(
                Distiller(student, terms, task_weight=0.1),
                make_loader(digits, 32),
                teacher=teacher,
                epochs=2,
                optimizer=partial(torch.optim.SGD, lr=0.1),
                hardware=Hardware("cpu"),
                progress=False,
            ).student

        class Tapped(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model, self.relu = original, nn.ReLU()

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                hidden = self.relu(self.model.norm(self.model.conv(x)))
                return self.model.classifier(nn.functional.max_pool2d(hidden, 2).flatten(1))

        one, other = learn(Tapped(), "relu"), learn(OnnxModel(exported), "relu")
        for mine, expected in zip(other.parameters(), one.parameters(), strict=True):
            torch.testing.assert_close(mine, expected, **WITHIN)

    def test_size_stages_and_embedding(self, exported: Path, images: torch.Tensor) -> None:
        model = OnnxModel(exported)
        # The exporter folds the batch normalisation into the convolution.
        assert parameter_count(model) == (9 + 1) * 4 + (64 + 1) * 10
        assert multiply_adds(model, images[:1]) == 64 * 9 * 4 + 64 * 10
        assert stages(model, input_shape=(1, 8, 8)) == ("relu",)
        hidden = Taps(model, [embedding(model), "max_pool2d"]).run(images)[1]
        torch.testing.assert_close(hidden[embedding(model)], hidden["max_pool2d"].flatten(1))

    def test_attention_is_counted(self, folder: Path) -> None:
        class Attention(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(6, 7, bias=False)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                y = self.linear(x)
                return (y @ y.transpose(1, 2)).sum(1)

        path = export(Attention(), (torch.zeros(1, 5, 6),), folder / "attention.onnx")
        assert multiply_adds(OnnxModel(path), torch.zeros(1, 5, 6)) == 5 * 6 * 7 + 5 * 5 * 7

    def test_any_tensor_may_hold_the_logits(self, exported: Path, images: torch.Tensor) -> None:
        assert OnnxModel(exported, logits="max_pool2d")(images).shape == (5, 4, 4, 4)

    def test_weights_beside_the_file_are_its_own(self, exported: Path, folder: Path, images: torch.Tensor) -> None:
        graph = onnx.load(exported)
        path = folder / "apart.onnx"
        onnx.save(graph, path, save_as_external_data=True, location="apart.bin", size_threshold=100)
        first = OnnxModel(path)
        torch.testing.assert_close(first(images), OnnxModel(exported)(images))
        weights = bytearray((folder / "apart.bin").read_bytes())
        weights[0] ^= 1
        (folder / "apart.bin").write_bytes(weights)
        assert ModuleTeacher(first).fingerprint != ModuleTeacher(OnnxModel(path)).fingerprint
        (folder / "apart.bin").unlink()
        with pytest.raises(
            RequestError, match=r"keeps weights in the file 'apart\.bin' beside it, and that is missing"
        ):
            OnnxModel(path)

    @pytest.mark.parametrize("fixed", [1, 2, 8])
    def test_a_fixed_batch_size(self, original: nn.Module, folder: Path, images: torch.Tensor, fixed: int) -> None:
        path = export(original, (torch.zeros(fixed, 1, 8, 8),), folder / f"fixed{fixed}.onnx")
        output, tensors = Taps(OnnxModel(path), ["relu"]).run(images)
        torch.testing.assert_close(output, original(images).detach(), **WITHIN)
        assert tensors["relu"].shape == (5, 4, 8, 8)

    def test_a_fixed_batch_size_and_a_tensor_over_the_whole_batch(self, folder: Path) -> None:
        class Shared(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x - x.exp().sum(0, keepdim=True).expand(1, 3)

        model = OnnxModel(export(Shared(), (torch.zeros(2, 3),), folder / "shared.onnx", output_names=["y"]))
        summed = next(tap.name for tap in trace(model, torch.zeros(2, 3)) if tap.shape == (1, 3))
        with pytest.raises(RequestError, match="is not one value a sample, and the graph is for batches of 2"):
            Taps(model, [summed]).run(torch.zeros(4, 3))

    def test_a_name_that_modules_have_too(self, folder: Path) -> None:
        graph = onnx.helper.make_graph(
            [
                onnx.helper.make_node("Relu", ["x"], ["train"]),
                onnx.helper.make_node("Neg", ["train"], ["a.b:0"]),
                onnx.helper.make_node("Exp", ["a.b:0"], ["y"]),
            ],
            "graph",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 3])],
        )
        opset = [onnx.helper.make_opsetid("", 17)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "names.onnx")
        x = torch.randn(4, 3)
        _, tensors = Taps(OnnxModel(folder / "names.onnx"), ["train_", "a/b/0", "y:in"]).run(x)
        torch.testing.assert_close(tensors["train_"], x.relu())
        torch.testing.assert_close(tensors["a/b/0"], -x.relu())
        torch.testing.assert_close(tensors["y:in"], -x.relu())

    def test_named_inputs(self, folder: Path) -> None:
        class Two(nn.Module):
            def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
                return left - 2 * right

        path = export(Two(), (torch.ones(2, 3), torch.ones(2, 3)), folder / "two.onnx")
        model, x, y = OnnxModel(path), torch.randn(2, 3), torch.randn(2, 3)
        torch.testing.assert_close(model(left=x, right=y), x - 2 * y)
        with pytest.raises(RequestError, match="reads left, right, and was given left, wrong"):
            model(left=x, wrong=y)
        with pytest.raises(RequestError, match="reads 2 inputs; give a mapping of left, right"):
            model(x)


class TestFingerprint:
    def test_follows_the_file_and_the_taps(self, exported: Path, original: nn.Module, folder: Path) -> None:
        changed = copy.deepcopy(original)
        with torch.no_grad():
            changed.classifier.bias[0] += 1
        other = export(changed, (torch.zeros(1, 1, 8, 8),), folder / "changed.onnx")
        prints = [
            ModuleTeacher(OnnxModel(exported)).fingerprint,
            ModuleTeacher(OnnxModel(exported), ["relu"]).fingerprint,
            ModuleTeacher(OnnxModel(other)).fingerprint,
            ModuleTeacher(OnnxModel(exported, logits="max_pool2d")).fingerprint,
        ]
        assert len(set(prints)) == 4
        assert ModuleTeacher(OnnxModel(exported)).fingerprint == prints[0]


class TestScikitLearn:
    @pytest.mark.parametrize("options", [{}, {"zipmap": False}])
    def test_probabilities_are_taken_for_logits(
        self, forest: RandomForestClassifier, folder: Path, images: torch.Tensor, options: dict[str, Any]
    ) -> None:
        path = from_sklearn(forest, folder / "forest.onnx", **options)
        logits = OnnxModel(path, probabilities=True)(images)
        expected = torch.as_tensor(forest.predict_proba(images.flatten(1).numpy()), dtype=torch.float32)
        torch.testing.assert_close(logits.softmax(1), expected, **WITHIN)
        with pytest.raises(RequestError, match="set probabilities=True"):
            OnnxModel(path)(images)

    def test_names_of_classes_are_no_tap(self, digits: InMemory, folder: Path, images: torch.Tensor) -> None:
        names = [f"digit {target}" for target in digits.targets.tolist()]
        model = RandomForestClassifier(2, max_depth=3).fit(digits.inputs.flatten(1) / 255, names)
        named = OnnxModel(
            from_sklearn(model, folder / "names_of_classes.onnx"), logits="output_probability", probabilities=True
        )
        assert {tap.shape for tap in trace(named, images)} == {(5, 10)}
        with pytest.raises(RequestError, match="names no tensor but a value of type ndarray"):
            Taps(named, ["output_label"]).run(images)

    def test_coefficients_count(self, digits: InMemory, folder: Path) -> None:
        model = LogisticRegression(max_iter=1000).fit(digits.inputs.flatten(1) / 255, digits.targets)
        path = from_sklearn(model, folder / "linear.onnx")
        assert parameter_count(OnnxModel(path, probabilities=True)) == 64 * 10 + 10

    def test_a_forest_teaches_a_recipe(self, forest: RandomForestClassifier, folder: Path, tmp_path: Path) -> None:
        path = from_sklearn(forest, folder / "teacher.onnx")
        recipe = check(
            {
                "name": "forest",
                "teacher": {"model": f"onnx:{path}", "probabilities": True},
                "student": {"model": "mlp", "hidden": [8]},
                "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5}]},
                "epochs": 2,
            }
        )
        quiet = Machine(accelerator="cpu", progress=False)
        result = run(recipe, root=tmp_path, out=tmp_path / "run", machine=quiet)
        test = load("digits", tmp_path).test
        assert isinstance(test, InMemory)
        expected = forest.score(test.inputs.flatten(1) / 255, test.targets)
        assert result["teacher"]["test_accuracy"] == pytest.approx(expected, abs=0.004)
        assert result["teacher"]["source"] == "given"
        assert result["distilled"]["test"]["agreement"] > 0.1


class TestRecipes:
    def test_compare_and_inspect(self, exported: Path, tmp_path: Path) -> None:
        recipe = check(
            {
                "name": "compared",
                "teacher": {"model": f"onnx:{exported}"},
                "student": {"model": "cnn", "channels": [4, 4]},
                "distill": {"method": "kd"},
                "epochs": 1,
            }
        )
        quiet = Machine(accelerator="cpu", progress=False)
        found = compare(recipe, ["baseline", "kd", "fitnet"], [0], root=tmp_path, out=tmp_path / "run", machine=quiet)
        assert set(found["methods"]) == {"baseline", "kd", "fitnet"}
        inspected = inspect(f"onnx:{exported}", (1, 8, 8), 10)
        assert {tap.name: tap.shape[1:] for tap in inspected.taps}["max_pool2d"] == (4, 4, 4)
        assert inspected.parameters == (9 + 1) * 4 + (64 + 1) * 10

    @pytest.mark.parametrize("part", ["student", "teacher"])
    def test_what_cannot_be_trained_is_refused_at_once(self, exported: Path, tmp_path: Path, part: str) -> None:
        untrained: dict[str, Any] = {"student": {"model": "mlp"}, "teacher": {"model": "mlp", "epochs": 1}}
        untrained[part]["model"] = f"onnx:{exported}"
        recipe = check(untrained | {"name": "none", "distill": {"terms": [{"loss": "kd"}]}, "epochs": 1})
        with pytest.raises(RequestError, match="OnnxModel has no parameter to train; an ONNX file can only teach"):
            run(recipe, root=tmp_path, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_an_ensemble_with_a_module(self, exported: Path, original: nn.Module, images: torch.Tensor) -> None:
        both = EnsembleTeacher([ModuleTeacher(OnnxModel(exported)), ModuleTeacher(original)])
        expected = original(images).detach().log_softmax(1)
        torch.testing.assert_close(both(batch(images)).output, expected, **WITHIN)


class TestKerassExporter:
    def test_a_keras_model(self, folder: Path, images: torch.Tensor) -> None:
        os.environ.setdefault("KERAS_BACKEND", "torch")
        keras = pytest.importorskip("keras", reason="the extra keras is not installed")
        with keras.device("cpu"):
            self.check(keras, folder / "keras.onnx", images)

    def check(self, keras: Any, path: Path, images: torch.Tensor) -> None:
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
        expected = model(images.permute(0, 2, 3, 1)).detach()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.export(path, format="onnx", verbose=False)
        logits = OnnxModel(path, channels_last=True)(images)
        torch.testing.assert_close(logits, expected, **WITHIN)
        with pytest.raises(
            RequestError, match=r"has the shape \(B, 8, 8, 1\), and was given \(5, 1, 8, 8\); channels_last"
        ):
            OnnxModel(path)(images)


class TestCopies:
    def test_a_copy_computes_the_same(self, exported: Path, images: torch.Tensor) -> None:
        model = OnnxModel(exported)
        torch.testing.assert_close(copy.deepcopy(model)(images), model(images))


class TestErrors:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda path: OnnxModel(path.parent / "none.onnx"), r"there is no ONNX file .*none\.onnx"),
            (
                lambda path: ModuleTeacher(OnnxModel(path), ["rel"]),
                r"unknown tap of the teacher .* 'rel'; did you mean relu",
            ),
            (lambda path: OnnxModel(path, logits="logit"), "unknown tensor of .* 'logit'; did you mean logits"),
            (
                lambda path: OnnxModel(path, providers=["CPU"]),
                "unknown provider of onnxruntime 'CPU'; did you mean CPUExec",
            ),
            (
                lambda path: OnnxModel(path)(torch.zeros(2, 1, 9, 9)),
                r"input image of .* has the shape \(B, 1, 8, 8\), and was given \(2, 1, 9, 9\)",
            ),
            (
                lambda path: ModuleTeacher(OnnxModel(path), dtype=torch.bfloat16)(batch(torch.zeros(2, 1, 8, 8))),
                "computes in its own dtype",
            ),
            (
                lambda path: build(f"onnx:{path}", input_shape=(1, 8, 8), classes=10, hidden=3),
                "unknown option of model onnx:.* 'hidden'; valid: channels_last, fixed, logits, probabilities, prov",
            ),
            (
                lambda path: build("onnx:none.onnx", input_shape=(1, 8, 8), classes=10),
                "there is no ONNX file none.onnx",
            ),
        ],
    )
    def test_refused(self, exported: Path, make: Callable[[Path], Any], message: str) -> None:
        with pytest.raises(RequestError, match=message):
            make(exported)

    @pytest.mark.parametrize("content", [b"", b"no graph at all", None])
    def test_a_damaged_file_is_named(self, exported: Path, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / "damaged.onnx"
        path.write_bytes(exported.read_bytes()[:700] if content is None else content)
        with pytest.raises(RequestError, match=r"damaged\.onnx"):
            OnnxModel(path)

    def test_no_logits(self, folder: Path) -> None:
        path = export(nn.Conv2d(1, 2, 3), (torch.zeros(2, 1, 8, 8),), folder / "maps.onnx", output_names=["maps"])
        with pytest.raises(
            RequestError, match=r"no output of real numbers and shape \(B, C\).*but maps \(B, 2, 6, 6\); name a tensor"
        ):
            OnnxModel(path)

    def test_it_does_not_learn(self, exported: Path, digits: InMemory) -> None:
        with pytest.raises(RequestError, match="nothing to train"):
            fit(
                Distiller(OnnxModel(exported)),
                make_loader(digits, 32),
                epochs=1,
                optimizer=partial(torch.optim.SGD, lr=0.1),
                hardware=Hardware("cpu"),
                progress=False,
            )

    @pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
    def test_the_extra_is_named(self, exported: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(RequestError, match=r"pip install 'limbeck\[onnx\]'"):
            OnnxModel(exported, logits=None)(torch.zeros(1, 1, 8, 8))
