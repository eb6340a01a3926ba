"""Keras models, built as a user builds them, against what PyTorch's own modules do."""

from __future__ import annotations

import copy
import itertools
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from limbeck import (
    Distiller,
    Hardware,
    KerasModel,
    MeanTeacher,
    ModuleTeacher,
    Preprocess,
    Saving,
    Term,
    evaluate,
    fit,
    losses,
)
from limbeck.data import InMemory, load, make_loader
from limbeck.engine.loop import Loop
from limbeck.errors import RequestError
from limbeck.models import load_weights, multiply_adds, parameter_count
from limbeck.models.build import build
from limbeck.models.networks.keras_cnn import keras_cnn
from limbeck.models.stages import embedding, stages
from limbeck.recipes.read import check
from limbeck.runs.finished.read import evaluate_run
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.taps import Taps, trace
from limbeck.types import Batch

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="the extra keras is not installed")
layers = keras.layers

SEEDED_CALLABLE = """
import keras

def student(input_shape, classes):
    channels, height, width = input_shape
    return keras.Sequential([
        keras.Input((height, width, channels)), keras.layers.Flatten(), keras.layers.Dense(8, "relu"),
        keras.layers.Dropout(0.1), keras.layers.Dense(classes),
    ])
"""


def example_cnn(first: int, second: int, *, size: int = 8, end: Any = None) -> Any:
    """The network of Keras's distillation example, teacher at 256, 512 channels and student at 16, 32."""
    return keras.Sequential(
        [
            keras.Input((size, size, 1)),
            layers.Conv2D(first, (3, 3), strides=(2, 2), padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.MaxPooling2D(pool_size=(2, 2), strides=(1, 1), padding="same"),
            layers.Conv2D(second, (3, 3), strides=(2, 2), padding="same"),
            layers.Flatten(),
            layers.Dense(10, activation=end),
        ]
    )


def with_everything(dropout_seed: int | None = None) -> Any:
    """Batch statistics, dropout, and a model within the model."""
    block = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(4, 3, padding="same", name="conv"), layers.BatchNormalization()],
        name="block",
    )
    inputs = keras.Input((8, 8, 1))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(block(inputs)))
    return keras.Model(inputs, layers.Dense(10)(layers.Dropout(0.5, seed=dropout_seed)(x)))


@pytest.fixture(autouse=True)
def on_the_cpu() -> Iterator[None]:
    """Left to itself, Keras computes on a GPU where there is one."""
    with keras.device("cpu"):
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> InMemory:
    train = load("digits", tmp_path_factory.mktemp("data")).train
    assert isinstance(train, InMemory)
    return InMemory(train.inputs[:192], train.targets[:192])


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def learn(distiller: Distiller, data: InMemory, teacher: Any = None, **options: Any) -> Any:
    common: dict[str, Any] = {"epochs": 6, "hardware": Hardware("cpu"), "progress": False, "seed": 5}
    loader = make_loader(data, 32, shuffle=True, seed=5)
    return fit(
        distiller, loader, teacher=teacher, optimizer=partial(torch.optim.Adam, lr=0.01), **(common | options)
    )  # fmt: skip


class TestValues:
    """A Keras network with the weights of a PyTorch one is that network."""

    def test_the_examples_networks_agree_with_pytorchs(self, images: torch.Tensor) -> None:
        mine = KerasModel(example_cnn(6, 5))
        torch_one = keras_cnn(input_shape=(1, 8, 8), classes=10, channels=(6, 5))
        weights = mine.state_dict()
        for name, own in (("conv2d", "stage1.conv"), ("conv2d_1", "stage2.conv")):
            layer = torch_one.get_submodule(own)
            layer.load_state_dict(
                {"weight": weights[f"{name}.kernel"].permute(3, 2, 0, 1), "bias": weights[f"{name}.bias"]}
            )
        # Keras flattens rows × columns × channels, PyTorch channels × rows × columns.
        dense = weights["dense.kernel"].reshape(2, 2, 5, 10).permute(3, 2, 0, 1).reshape(10, 20)
        torch_one.classifier.load_state_dict({"weight": dense, "bias": weights["dense.bias"]})
        taps = Taps(mine, ["conv2d", "max_pooling2d", "conv2d_1:in"])
        output, tensors = taps.run(images)
        expected, hidden = Taps(torch_one, ["stage1.conv", "pool"]).run(images)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(tensors["conv2d"], hidden["stage1.conv"])
        torch.testing.assert_close(tensors["max_pooling2d"], hidden["pool"])
        torch.testing.assert_close(tensors["conv2d_1:in"], hidden["pool"])
        assert parameter_count(mine) == parameter_count(torch_one)
        assert multiply_adds(mine, images[:1]) == multiply_adds(torch_one, images[:1])

    def test_the_published_sizes(self) -> None:
        # Keras's own count of the example's teacher and student.
        for channels in ((256, 512), (16, 32)):
            model = example_cnn(*channels, size=28)
            assert parameter_count(KerasModel(model)) == model.count_params()

    def test_probabilities_become_logits(self, images: torch.Tensor) -> None:
        model = example_cnn(4, 4, end="softmax")
        logits = KerasModel(model, probabilities=True)(images)
        torch.testing.assert_close(logits.softmax(1), model(images.permute(0, 2, 3, 1)))
        with pytest.raises(RequestError, match="set probabilities=True"):
            KerasModel(model)(images)

    def test_channels_first_models_are_seen(self, images: torch.Tensor) -> None:
        inputs = keras.Input((1, 8, 8))
        pooled = layers.GlobalAveragePooling2D(data_format="channels_first")(inputs)
        model = KerasModel(keras.Model(inputs, layers.Dense(3)(pooled)))
        assert model(images).shape == (6, 3)

    def test_named_inputs(self) -> None:
        left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
        model = KerasModel(keras.Model({"left": left, "right": right}, left - 2 * right))
        x, y = torch.randn(3, 4), torch.randn(3, 4)
        torch.testing.assert_close(model(left=x, right=y), x - 2 * y)


class TestMode:
    """train() and eval() do what they do in PyTorch."""

    @pytest.mark.parametrize("seed", [None, 3])
    def test_dropout_is_on_in_training_alone_and_follows_pytorchs_generator(
        self, images: torch.Tensor, seed: int | None
    ) -> None:
        model = KerasModel(with_everything(seed))
        model.eval()
        torch.testing.assert_close(model(images), model(images), rtol=0, atol=0)
        model.train()
        torch.manual_seed(1)
        first, second = model(images), model(images)
        assert not torch.equal(first, second)
        torch.manual_seed(1)
        torch.testing.assert_close(model(images), first, rtol=0, atol=1e-6)

    def test_statistics_move_in_training_alone(self, images: torch.Tensor) -> None:
        model = KerasModel(with_everything())
        mean = model.get_parameter("block.batch_normalization.moving_mean")
        before = mean.clone()
        model.eval()(images)
        assert torch.equal(mean, before)
        conv = Taps(model.train(), ["block.conv"]).run(images)[1]["block.conv"]
        # Keras's momentum is 0.99, and its means begin at 0.
        torch.testing.assert_close(mean, 0.01 * conv.mean((0, 2, 3)))

    def test_frozen_layers_stay(self, digits: InMemory) -> None:
        model = example_cnn(4, 4)
        model.layers[0].trainable = False
        kernel = model.layers[0].kernel.value.detach().clone()
        student = KerasModel(model)
        learn(Distiller(student), digits, epochs=1)
        assert torch.equal(student.get_parameter("conv2d.kernel"), kernel)
        assert not student.get_parameter("conv2d.kernel").requires_grad

    def test_no_hooks_remain(self, images: torch.Tensor) -> None:
        model = KerasModel(example_cnn(4, 4))
        Taps(model, ["conv2d"]).run(images)
        assert not any(layer._forward_hooks for layer in model.keras.layers)


class TestNames:
    """The same code gives the same names, however many models the process has built."""

    def test_layers_are_modules_under_their_names(self, images: torch.Tensor) -> None:
        first, second = KerasModel(with_everything()), KerasModel(with_everything())
        assert first.keras.layers[-1].name != second.keras.layers[-1].name
        assert list(first.state_dict()) == list(second.state_dict())
        assert [(tap.name, tap.shape[1:]) for tap in trace(second, images)] == [
            ("block.conv", (4, 8, 8)), ("block.batch_normalization", (4, 8, 8)), ("block", (4, 8, 8)),
            ("re_lu", (4, 8, 8)), ("global_average_pooling2d", (4,)), ("dropout", (4,)), ("dense", (10,)),
        ]  # fmt: skip

    def test_layers_within_a_layer(self) -> None:
        inputs = keras.Input((5, 8))
        attended = layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
        model = KerasModel(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(attended))))
        _, tensors = Taps(model, ["attention", "attention.query"]).run(torch.randn(2, 5, 8))
        assert tensors["attention"].shape == (2, 5, 8)
        assert set(model.state_dict()) >= {"attention.query.kernel", "attention.attention_output.bias", "dense.bias"}
        assert sum(p.numel() for p in model.parameters()) == model.keras.count_params()

    def test_stages_and_embedding(self, images: torch.Tensor) -> None:
        model = KerasModel(example_cnn(4, 4))
        assert stages(model, input_shape=(1, 8, 8)) == ("conv2d_1",)
        assert embedding(model) == "dense:in"
        assert Taps(model, ["dense:in"]).run(images)[1]["dense:in"].shape == (6, 16)

    def test_an_unknown_tap_names_the_nearest(self) -> None:
        with pytest.raises(RequestError, match="unknown tap of KerasModel 'conv2'; did you mean conv2d"):
            Taps(KerasModel(example_cnn(4, 4)), ["conv2"])


class TestDistillation:
    """Keras teaches PyTorch, and PyTorch teaches Keras."""

    TERMS = staticmethod(
        lambda student, teacher: [
            Term(losses.kd, weight=0.5),
            Term(losses.mse, student=student, teacher=teacher, adapter="auto"),
        ]
    )

    def test_keras_teaches_pytorch(self, digits: InMemory) -> None:
        teacher = learn(Distiller(KerasModel(example_cnn(12, 16))), digits).student
        student = keras_cnn(input_shape=(1, 8, 8), classes=10, channels=(4, 6))
        before = copy.deepcopy(teacher.state_dict())
        done = learn(Distiller(student, self.TERMS("stage1.conv", "conv2d")), digits, teacher)
        assert done.metrics[-1]["loss"] < 0.8 * done.metrics[0]["loss"]
        assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())

    def test_pytorch_teaches_keras(self, digits: InMemory) -> None:
        teacher = learn(Distiller(keras_cnn(input_shape=(1, 8, 8), classes=10, channels=(12, 16))), digits).student
        terms = self.TERMS("block", "stage1.conv")
        done = learn(Distiller(KerasModel(with_everything()), terms), digits, teacher)
        assert done.metrics[-1]["loss"] < 0.95 * done.metrics[0]["loss"]
        cnn = learn(Distiller(KerasModel(example_cnn(4, 6)), self.TERMS("conv2d", "stage1.conv")), digits, teacher)
        assert cnn.metrics[-1]["loss"] < 0.8 * cnn.metrics[0]["loss"]
        accuracy = evaluate(cnn.student, make_loader(digits, 64))["accuracy"]
        # Keras's own prediction with the same weights.
        pixels = next(iter(make_loader(digits, len(digits)))).inputs.permute(0, 2, 3, 1)
        said = torch.as_tensor(cnn.student.keras.predict(pixels, verbose=0)).argmax(1)
        assert accuracy == pytest.approx((said == digits.targets).float().mean().item())

    def test_a_resumed_run_is_the_uninterrupted_one(
        self, digits: InMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        teacher = keras_cnn(input_shape=(1, 8, 8), classes=10, channels=(6, 6))
        start = with_everything(dropout_seed=3)

        def go(out: Path, epochs: int, **options: Any) -> dict[str, torch.Tensor]:
            student = KerasModel(copy.deepcopy(start))
            learn(
                Distiller(student, self.TERMS("block", "stage1.conv")),
                digits,
                teacher,
                out=out,
                epochs=epochs,
                **options,
            )
            return load_file(out / "student.safetensors")

        whole, again = go(tmp_path / "whole", 3), go(tmp_path / "again", 3)
        with monkeypatch.context() as patched:
            updates, update = itertools.count(), Loop._update

            def killed(*given: Any) -> None:
                if next(updates) == 9:  # in the second epoch
                    raise KeyboardInterrupt
                update(*given)

            patched.setattr(Loop, "_update", killed)
            with pytest.raises(KeyboardInterrupt):
                go(tmp_path / "parts", 3, saving=Saving(checkpoint_steps=2))
        parts = go(tmp_path / "parts", 3, resume=True)
        assert whole.keys() == parts.keys()
        for name, value in whole.items():
            assert torch.equal(value, again[name]), name
            assert torch.equal(value, parts[name]), name

    def test_weights_come_back(self, images: torch.Tensor, digits: InMemory, tmp_path: Path) -> None:
        done = learn(Distiller(KerasModel(with_everything())), digits, out=tmp_path, epochs=1)
        fresh = KerasModel(with_everything()).eval()
        load_weights(fresh, tmp_path / "student.safetensors")
        torch.testing.assert_close(fresh(images), done.student(images))
        torch.testing.assert_close(fresh.keras(images.permute(0, 2, 3, 1)), done.student(images))

    def test_mean_teacher_averages_a_copy(self, digits: InMemory) -> None:
        scheme = MeanTeacher(KerasModel(example_cnn(4, 4)), [Term(losses.kd)], decay=0.5)
        learn(scheme, digits, epochs=1)
        assert not any(p.requires_grad for p in scheme.ema.parameters())
        student, ema = scheme.student.get_parameter("dense.kernel"), scheme.ema.get_parameter("dense.kernel")
        assert 0 < F.mse_loss(student, ema) < student.square().mean()

    def test_bfloat16(self, digits: InMemory) -> None:
        done = learn(Distiller(KerasModel(with_everything())), digits, precision="bf16-mixed")
        assert done.metrics[-1]["loss"] < done.metrics[0]["loss"]
        with pytest.raises(RequestError, match=r"float32 here, and cannot be brought to torch\.bfloat16"):
            ModuleTeacher(done.student, dtype=torch.bfloat16)


class TestCopies:
    def test_a_copy_computes_the_same_and_shares_nothing(self, images: torch.Tensor) -> None:
        model = KerasModel(with_everything()).requires_grad_(False).eval()
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert not copied.training
            assert not any(p.requires_grad for p in copied.parameters())
            torch.testing.assert_close(copied(images), model(images))
        with torch.no_grad():
            copied.get_parameter("dense.bias").add_(1)
        torch.testing.assert_close(copied(images), model(images) + 1)

    def test_a_class_that_keras_does_not_know_is_named(self, images: torch.Tensor) -> None:
        class Own(keras.Model):
            def __init__(self) -> None:
                super().__init__(name="own")
                self.blocks = [layers.Conv2D(2, 3), layers.Conv2D(2, 3)]
                self.scale = self.add_weight(shape=(1,), initializer="ones", name="scale")

            def call(self, x: Any) -> Any:
                for block in self.blocks:
                    x = block(x)
                return self.scale * keras.ops.mean(x, axis=(1, 2))

        model = Own()
        with pytest.raises(RequestError, match="own is not built"):
            KerasModel(model)
        model(torch.zeros(1, 8, 8, 1))
        mine = KerasModel(model)
        assert [name for name, _ in mine.named_parameters() if "bias" not in name] == [
            "scale", "conv2d.kernel", "conv2d_1.kernel",
        ]  # fmt: skip
        assert [tap.shape for tap in trace(mine, images)] == [(6, 2, 6, 6), (6, 2, 4, 4)]
        with pytest.raises(RequestError, match=r"the Keras model own cannot be copied: .*register_keras_serializable"):
            copy.deepcopy(mine)


class TestRecipes:
    @pytest.fixture
    def recipe(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        (tmp_path / "mine_in_keras.py").write_text(SEEDED_CALLABLE)
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        example_cnn(6, 6).save(tmp_path / "teacher.keras")
        return {
            "name": "keras",
            "teacher": {"model": "keras:teacher.keras"},
            "student": {"model": "mine_in_keras:student"},
            "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5}]},
            "epochs": 2,
        }

    def test_both_from_keras(self, recipe: dict[str, Any], tmp_path: Path) -> None:
        quiet = Machine(accelerator="cpu", progress=False)
        results = [run(check(recipe), root=tmp_path, out=tmp_path / name, machine=quiet) for name in ("a", "b")]
        for result in results:
            assert result["teacher"]["source"] == "given"
            assert result["distilled"]["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
        first, second = (load_file(tmp_path / name / "student.safetensors") for name in ("a", "b"))
        assert list(first) == ["dense.bias", "dense.kernel", "dense_1.bias", "dense_1.kernel"]
        assert all(torch.equal(value, second[name]) for name, value in first.items())
        figures = evaluate_run(tmp_path / "a", tmp_path)
        assert figures["accuracy"] == results[0]["distilled"]["test_accuracy"]


class TestErrors:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: KerasModel(nn.Linear(2, 2)), "takes a keras.Model, not Linear"),
            (lambda: KerasModel(keras.Sequential([layers.Dense(2)])), "is not built"),
            (lambda: Distiller(example_cnn(4, 4)), r"give limbeck\.KerasModel\(model\)"),
            (lambda: ModuleTeacher(example_cnn(4, 4)), r"give limbeck\.KerasModel\(model\)"),
            (lambda: build("keras:no.keras", input_shape=(1, 8, 8), classes=10), "there is no Keras file no.keras"),
            (
                lambda: build("keras:a.keras", input_shape=(1, 8, 8), classes=10, last=True),
                "did you mean channels_last",
            ),
        ],
    )
    def test_refused(self, make: Callable[[], Any], message: str) -> None:
        with pytest.raises(RequestError, match=message):
            make()

    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.keras").write_bytes(b"PK nothing")
        with pytest.raises(RequestError, match=r"cannot read the Keras file .*a\.keras"):
            build(f"keras:{tmp_path / 'a.keras'}", input_shape=(1, 8, 8), classes=10)

    def test_a_file_with_code_is_refused(self, tmp_path: Path) -> None:
        inputs = keras.Input((4,))
        keras.Model(inputs, layers.Lambda(lambda x: x * 2)(inputs)).save(tmp_path / "a.keras")
        with pytest.raises(RequestError, match="cannot read the Keras file"):
            build(f"keras:{tmp_path / 'a.keras'}", input_shape=(4,), classes=4)

    def test_another_backend_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        with pytest.raises(RequestError, match=r"Keras runs on jax.*KERAS_BACKEND=torch"):
            KerasModel(example_cnn(4, 4))

    def test_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "keras", None)
        with pytest.raises(RequestError, match=r"pip install 'limbeck\[keras\]'"):
            KerasModel(nn.Linear(2, 2))


def test_what_prepares_the_input_comes_before(images: torch.Tensor) -> None:
    model = KerasModel(example_cnn(4, 4, size=16)).eval()
    prepare = Preprocess(mean=[0.5], std=[0.25], size=16)
    batch = Batch(images, torch.zeros(6, dtype=torch.long), torch.arange(6))
    said = ModuleTeacher(model, inputs=prepare)(batch).output
    torch.testing.assert_close(said, model(prepare(images)))
