"""Pixels, outputs, codes and sizes of ONNX graphs and Keras models: as their owner means them, against hand values."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from limbeck import Distiller, Hardware, KerasModel, ModuleTeacher, OnnxModel, Preprocess, RequestError, fit
from limbeck.data import InMemory, load, make_loader
from limbeck.engine.optimizers.named import optimizer
from limbeck.export import write_onnx
from limbeck.models import multiply_adds, parameter_count
from limbeck.models.build import build
from limbeck.models.foreign.outputs import Outputs, flattened
from limbeck.models.pixels import configured
from limbeck.recipes.read import check
from limbeck.recipes.schema import Teacher
from limbeck.runs.finished.read import evaluate_run
from limbeck.runs.machine import Machine
from limbeck.runs.pixels import with_pixels
from limbeck.runs.run import run
from limbeck.types import Batch

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="the extra keras is not installed")
onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
layers, helper, kinds = keras.layers, onnx.helper, onnx.TensorProto
CLOSE = {"rtol": 0, "atol": 1e-4}

PIXELS = torch.randint(0, 256, (6, 3, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
IMAGES = PIXELS.float() / 255
WEIGHTS = torch.randn(48, 5, generator=torch.Generator().manual_seed(2))
KNOWN = IMAGES.flatten(1) @ WEIGHTS


def graph(path: Path, nodes: list[Any], given: Any, out: dict[str, list[Any]], values: dict[str, Any]) -> Path:
    outputs = [helper.make_tensor_value_info(name, kind, ["n", *shape]) for name, (kind, *shape) in out.items()]
    constants = [onnx.numpy_helper.from_array(torch.as_tensor(value).numpy(), name) for name, value in values.items()]
    made = helper.make_graph(nodes, "g", [given], outputs, constants)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def scaled(path: Path, kind: int, first: list[Any], **values: Any) -> Path:
    """A graph from images of a kind to logits, whose first nodes give "unit" from "image"."""
    nodes = [*first, helper.make_node("Flatten", ["unit"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])]
    given = helper.make_tensor_value_info("image", kind, ["n", 3, 4, 4])
    return graph(path, nodes, given, {"y": [kinds.FLOAT, 5]}, {"w": WEIGHTS, **values})


def cast(to: int = 1) -> Any:
    return helper.make_node("Cast", ["image"], ["floats"], to=to)


def asked(model: nn.Module, images: Tensor, inputs: nn.Module | None = None) -> tuple[Tensor, list[str]]:
    teacher = ModuleTeacher(model, inputs=inputs)
    logits = teacher(Batch(images, torch.zeros(len(images), dtype=torch.long), torch.arange(len(images)))).output
    assert logits is not None
    return logits, teacher.notes


class TestPixels:
    @pytest.mark.parametrize("kind", [kinds.UINT8, kinds.INT32, kinds.FLOAT])
    def test_a_graph_that_divides_by_255(self, tmp_path: Path, kind: int) -> None:
        first = [cast(), helper.make_node("Div", ["floats", "most"], ["unit"])]
        model = OnnxModel(scaled(tmp_path / "a.onnx", kind, first, most=torch.tensor(255.0)))
        for given in (IMAGES, PIXELS):
            logits, notes = asked(model, given)
            torch.testing.assert_close(logits, KNOWN, **CLOSE)
        logits, notes = asked(model, IMAGES)
        assert len([note for note in notes if note.startswith("gets pixels from 0 to 255")]) == 1
        torch.testing.assert_close(asked(model, IMAGES, Preprocess(std=[1 / 255] * 3))[0], KNOWN, **CLOSE)

    def test_signed_bytes(self, tmp_path: Path) -> None:
        nodes = [helper.make_node("DequantizeLinear", ["image", "step", "zero"], ["unit"])]
        values = {"step": torch.tensor(1 / 255), "zero": torch.tensor(-128, dtype=torch.int8)}
        model = OnnxModel(scaled(tmp_path / "a.onnx", kinds.INT8, nodes, **values))
        logits, notes = asked(model, IMAGES)
        torch.testing.assert_close(logits, KNOWN, **CLOSE)
        assert notes[0].startswith("gets pixels from -128 to 127")

    def test_a_graph_that_knows_0_to_1_is_left(self, tmp_path: Path) -> None:
        first = [
            helper.make_node("Sub", ["image", "mean"], ["zero"]),
            helper.make_node("Div", ["zero", "std"], ["unit"]),
        ]
        values = {"mean": torch.tensor(0.5), "std": torch.tensor(0.25)}
        model = OnnxModel(scaled(tmp_path / "a.onnx", kinds.FLOAT, first, **values))
        logits, notes = asked(model, IMAGES)
        torch.testing.assert_close(logits, ((IMAGES - 0.5) / 0.25).flatten(1) @ WEIGHTS, **CLOSE)
        assert notes == []

    def test_fractions_are_not_cut_down_in_a_direct_call(self, tmp_path: Path) -> None:
        first = [cast(), helper.make_node("Div", ["floats", "most"], ["unit"])]
        model = OnnxModel(scaled(tmp_path / "a.onnx", kinds.UINT8, first, most=torch.tensor(255.0)))
        with pytest.raises(RequestError, match=r"takes whole numbers \(uint8\), and was given fractions"):
            model(IMAGES)
        with pytest.raises(RequestError, match="from 0 to 255, and was given -9"):
            model(IMAGES * 255 - 10)
        torch.testing.assert_close(model(IMAGES * 255), KNOWN, **CLOSE)

    @pytest.mark.parametrize(
        "first",
        [
            lambda: layers.Rescaling(1 / 127.5, offset=-1),
            lambda: layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[60.0**2] * 3),
        ],
    )
    def test_keras_layers_that_scale(self, first: Any) -> None:
        network = keras.Sequential([keras.Input((4, 4, 3)), first(), layers.Flatten(), layers.Dense(5)])
        known = torch.as_tensor(network(PIXELS.float().permute(0, 2, 3, 1).numpy())).detach()
        for given in (IMAGES, PIXELS):
            torch.testing.assert_close(asked(KerasModel(network), given)[0], known, **CLOSE)
        _, notes = asked(KerasModel(network), IMAGES, Preprocess(mean=[0.5] * 3, std=[0.5] * 3))
        assert notes == [note for note in notes if "and expects pixels from 0 to 255" in note] != []

    def test_what_timm_says(self) -> None:
        network = nn.Linear(2, 2)
        vars(network)["pretrained_cfg"] = {"mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3)}
        for channels, mean in ((3, (0.4, 0.5, 0.6)), (1, (0.5,))):
            found = configured(network, channels)
            assert found is not None
            assert found.mean == pytest.approx(mean)

    def test_a_recipe_with_pretrained_weights(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        timm = pytest.importorskip("timm", reason="the extra timm is not installed")
        torch.save(timm.create_model("test_resnet", num_classes=10).state_dict(), tmp_path / "weights.pth")
        overlay = {"file": str(tmp_path / "weights.pth"), "num_classes": 10, "mean": [0.4, 0.5, 0.6], "std": [0.2] * 3}
        data = load("digits", tmp_path)
        spec = Teacher(model="timm:test_resnet", pretrained=True, pretrained_cfg_overlay=overlay)
        found = with_pixels(spec, build(spec.model, input_shape=(1, 8, 8), classes=10, **spec.options), data)
        assert (found.mean, found.std) == ([pytest.approx(0.5)], [pytest.approx(0.2)])  # grey: their means
        said = Teacher(model="timm:test_resnet", pretrained=True, pretrained_cfg_overlay=overlay, mean=[0.3], std=[0.2])
        assert with_pixels(said, build(said.model, input_shape=(1, 8, 8), classes=10, **said.options), data) == said
        first, second = capsys.readouterr().err.splitlines()[-2:]
        assert "as its pretrained_cfg says" in first
        assert "by the recipe's mean and std, and not" in second


class TestOutputs:
    @pytest.mark.parametrize(
        ("shapes", "classes", "chosen"),
        [
            ({"embedding": (0, 128), "scores": (0, 10)}, 10, "scores"),
            ({"a": ("n", 10), "b": ("n", 10)}, None, None),
            ({"value": (0, 1), "scores": (0, 10)}, None, "scores"),
            ({"maps": (0, 8, 4, 4), "scores": (0, 10, 1, 1)}, None, "scores"),
            ({"aux": (0, 10), "logits": (0, 10)}, None, "logits"),
        ],
    )
    def test_chosen(self, shapes: dict[str, Any], classes: int | None, chosen: str | None) -> None:
        assert Outputs("it", shapes, {}).chosen(classes) == chosen

    def test_several_are_asked_about(self) -> None:
        with pytest.raises(RequestError, match=r"a \(B, 10\), b \(B, 10\); name one: logits='NAME'"):
            Outputs("it", {"a": (0, 10), "b": (0, 10)}, {}).chosen(10)

    def test_flattened(self) -> None:
        x = torch.rand(2, 3)
        assert torch.equal(flattened(x[:, :, None, None]), x)
        assert flattened(torch.rand(2, 3, 2, 1)).shape == (2, 3, 2, 1)

    @pytest.mark.parametrize("known", [True, False])
    def test_codes(self, tmp_path: Path, known: bool) -> None:
        values = {"w": WEIGHTS, "step": torch.tensor(0.25), "zero": torch.tensor(3, dtype=torch.int8)}
        last = [helper.make_node("QuantizeLinear", ["y", "step", "zero"], ["codes"])]
        if not known:
            last = [helper.make_node("Cast", ["y"], ["codes"], to=kinds.INT8)]
        nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"]), *last]
        given = helper.make_tensor_value_info("x", kinds.FLOAT, ["n", 3, 4, 4])
        path = graph(tmp_path / "a.onnx", nodes, given, {"codes": [kinds.INT8, 5]}, values)
        if known:
            expected = 0.25 * ((KNOWN / 0.25).round() + 3).clamp(-128, 127) - 0.75
            torch.testing.assert_close(OnnxModel(path)(IMAGES), expected, **CLOSE)
            return
        for logits in (None, "codes"):
            with pytest.raises(RequestError, match="codes"):
                OnnxModel(path, logits=logits)

    def test_keras_by_name(self) -> None:
        image = keras.Input((4,))
        main, aux = (layers.Dense(3, name=name)(image) for name in ("main", "aux"))
        network, x = keras.Model(image, [aux, main]), torch.rand(2, 4)
        expected = torch.as_tensor(network(x)[1]).detach()
        torch.testing.assert_close(KerasModel(network, logits="main")(x)["logits"], expected)
        with pytest.raises(RequestError, match=r"aux \(B, 3\), main \(B, 3\); name one"):
            KerasModel(network)(x)
        with pytest.raises(RequestError, match=r"unknown output of the Keras model .* 'mains'; did you mean main"):
            KerasModel(network, logits="mains")


def test_size_of_a_quantised_convolution(tmp_path: Path) -> None:
    values = {
        "k": torch.ones(8, 3, 3, 3, dtype=torch.int8), "zero": torch.tensor(0, dtype=torch.int8),
        "step": torch.tensor(0.1), "byte": torch.tensor(0, dtype=torch.uint8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "byte"], ["q"]),
        helper.make_node("QLinearConv", ["q", "step", "byte", "k", "step", "zero", "step", "byte"], ["c"]),
        helper.make_node("DequantizeLinear", ["c", "step", "byte"], ["f"]),
        helper.make_node("GlobalAveragePool", ["f"], ["y"]),
    ]
    given = helper.make_tensor_value_info("x", kinds.FLOAT, ["n", 3, 4, 4])
    model = OnnxModel(graph(tmp_path / "a.onnx", nodes, given, {"y": [kinds.FLOAT, 8, 1, 1]}, values))
    assert parameter_count(model) == 8 * 27
    assert multiply_adds(model, torch.zeros(1, 3, 4, 4)) == 2 * 2 * 8 * 27
    assert model(IMAGES).shape == (6, 8)


def test_a_keras_models_settings_count_and_its_layers_numbers_do_not() -> None:
    def made(activation: str, scale: float) -> str:
        network = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Rescaling(scale),
                layers.Dense(3, activation=activation, kernel_initializer="ones"),
            ]
        )
        return ModuleTeacher(KerasModel(network)).fingerprint

    assert made("relu", 1.0) == made("relu", 1.0)
    assert len({made("relu", 1.0), made("gelu", 1.0), made("relu", 0.5)}) == 3


def test_a_keras_student_is_written_as_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript, which torch exports with, is not installed")
    network = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(5)])
    told = write_onnx(tmp_path / "a.onnx", KerasModel(network).eval(), {"shape": [3, 4, 4], "mean": None, "std": None})
    known = torch.as_tensor(network(IMAGES.permute(0, 2, 3, 1).numpy())).detach()
    torch.testing.assert_close(OnnxModel(tmp_path / "a.onnx")(IMAGES), known, **CLOSE)
    assert told["output"]["shape"] == ["batch", 5]


class TestStudentsPixels:
    """A student whose own layers scale pixels of 0–255 sees them: applied in a recipe, said in Python."""

    def network(self) -> Any:
        return keras.Sequential(
            [keras.Input((8, 8, 1)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(10, name="scores")]
        )

    def test_in_a_recipe(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.network().save(tmp_path / "student.keras")
        recipe = check(
            {
                "teacher": {"model": "mlp", "hidden": [8], "epochs": 1},
                "student": {"model": f"keras:{tmp_path / 'student.keras'}"},
                "distill": {"method": "kd"},
                "epochs": 2,
            }
        )
        quiet = Machine("cpu", progress=False)
        result = run(recipe, root=tmp_path, out=tmp_path / "run", machine=quiet)
        said = capsys.readouterr().err
        assert said.count("gets pixels from 0 to 255, as its layers before scores scale them down") == 1
        trained = self.network()
        weights = load_file(tmp_path / "run" / "student.safetensors")
        trained.layers[-1].set_weights([weights["scores.kernel"].numpy(), weights["scores.bias"].numpy()])
        test = load("digits", tmp_path).test
        assert isinstance(test, InMemory)
        answers = trained.predict(test.inputs.permute(0, 2, 3, 1).numpy().astype("float32"), verbose=0).argmax(1)
        assert result["distilled"]["test_accuracy"] == (answers == test.targets.numpy()).sum() / 360
        about = json.loads((tmp_path / "run" / "student.json").read_text())["input"]
        assert (about["mean"], about["std"]) == ([0.0], [1 / 255])
        assert run(recipe, root=tmp_path, out=tmp_path / "run", resume=True, machine=quiet) == result
        assert evaluate_run(tmp_path / "run", tmp_path)["accuracy"] == result["distilled"]["test_accuracy"]

    @pytest.mark.parametrize("prepared", [False, True])
    def test_in_python(self, prepared: bool, capsys: pytest.CaptureFixture[str]) -> None:
        data = InMemory(torch.rand(16, 1, 8, 8), torch.arange(16) % 10)
        inputs = Preprocess(std=[1 / 255]) if prepared else None
        fit(
            Distiller(KerasModel(self.network()), inputs=inputs), make_loader(data, 8), epochs=1,
            optimizer=optimizer("sgd", lr=0.01), hardware=Hardware("cpu"), progress=False,
        )  # fmt: skip
        told = "the student gets pixels from 0 to 1, and expects pixels from 0 to 255: its layers before scores scale"
        said = capsys.readouterr().err
        assert said.count(told) == (not prepared)
        assert ("give the distiller inputs=Preprocess(std=[1/255])" in said) == (not prepared)
