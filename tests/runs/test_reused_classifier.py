"""SimKD as a whole: what is trained, evaluated, exported and loaded is body, projector and the teacher's classifier."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import limbeck
import published as ref
from limbeck import Batch, TeacherOutput
from limbeck.compare import compare
from limbeck.distillers import Distiller, Term
from limbeck.errors import RequestError
from limbeck.export import export_run
from limbeck.losses import simkd
from limbeck.models.build import build
from limbeck.models.load import load_network
from limbeck.models.networks.resnet_cifar import resnet8
from limbeck.models.projected import projected
from limbeck.recipes.methods import Places
from limbeck.recipes.read import check
from limbeck.runs.finished.read import evaluate_run
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.runs.written_out import setting_of
from limbeck.taps import Taps, evaluating

LAST = {"resnet8x4": "stage3", "torchvision:resnet18": "layer4", "vgg8": "stage5", "wrn_16_2": "stage3"}
QUIET = Machine(accelerator="cpu", progress=False)
RECIPE: dict[str, Any] = {
    "name": "reused",
    "data": {"batch_size": 64, "validation": 0.1},
    "teacher": {"model": "cnn", "channels": [8, 24], "epochs": 3, "optimizer": {"lr": 0.01}},
    "student": {"model": "cnn", "channels": [4, 6], "mean": [0.3], "std": [0.4]},
    "distill": {"method": "simkd"},
    "epochs": 6,
    "optimizer": {"lr": 0.01},
    "keep": "best",
}


class Functional(nn.Module):
    """A network with a forward of its own: layers in a list, a function for pooling."""

    def __init__(self, width: int = 6, classes: int = 10, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.layer1 = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(width, width, 3, stride=2, padding=1), nn.BatchNorm2d(width))
        self.fc = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        if self.dropout:
            x = nn.functional.dropout(x, self.dropout, training=self.training)
        x = torch.relu(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def functional(input_shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> nn.Module:
    return Functional(classes=classes, dropout=dropout)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("simkd") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMBECK_CACHE", str(shared_cache))  # in which the tests look for the teacher
        return folder, run(check(RECIPE), root=folder, out=folder, machine=QUIET)


@pytest.mark.parametrize(
    ("pair", "size"),
    [
        (("resnet32x4", "resnet8x4"), 8),
        (("torchvision:resnet18", "torchvision:resnet18"), 32),  # maps of 1×1
        (("wrn_16_2", "vgg8"), 16),  # the student's map is the smaller
        (("vgg8", "wrn_16_2"), 16),  # and the larger
    ],
)
def test_the_first_loss_is_the_papers(pair: tuple[str, str], size: int) -> None:
    shape = (3, size, size)
    teacher, student = (build(name, input_shape=shape, classes=7).double() for name in pair)
    places = Places(student, teacher, shape, 3)
    setting = setting_of("simkd")
    assert setting.network is not None
    network = setting.network(places).make()
    (term,) = setting.terms(places)
    batch = Batch(torch.randn(3, *shape).double(), torch.arange(3), torch.arange(3))
    scheme = Distiller(network, [Term(simkd, student=term["student"], teacher=term["teacher"])], task_weight=0.0)
    with torch.no_grad(), evaluating(teacher):
        logits, tensors = Taps(teacher, [term["teacher"]]).run(batch.inputs)
    answer = TeacherOutput(logits, {term["teacher"]: tensors[term["teacher"]]})
    scheme.prepare(batch, answer)
    scheme.train()
    with torch.no_grad():
        last = LAST[pair[1]]
        _, own = Taps(student.train(), [last]).run(batch.inputs)
    weights = {name: value.numpy() for name, value in network.projector.state_dict().items()}
    expected = ref.reused(own[last].numpy(), tensors[term["teacher"]].numpy(), weights)
    assert term["weight"] == 1.0
    assert scheme(batch, answer).loss.item() == pytest.approx(expected, rel=1e-6)


def test_the_projector_is_the_authors() -> None:
    """SimKD's `transfer`: 1×1, 3×3, 1×1 without bias, half the teacher's channels inside, batch norm and ReLU each."""
    network = projected(resnet8(input_shape=(3, 32, 32), classes=5), input_shape=(3, 32, 32), classes=5, channels=256)
    convolutions = [module for module in network.projector if isinstance(module, nn.Conv2d)]
    assert [tuple(one.weight.shape) for one in convolutions] == [(128, 64, 1, 1), (128, 128, 3, 3), (256, 128, 1, 1)]
    assert all(one.bias is None for one in convolutions)
    kinds = [type(module).__name__ for module in network.projector]
    assert kinds == 3 * ["Conv2d", "BatchNorm2d", "ReLU"]


def test_a_run_trains_tests_and_keeps_what_ships(done: tuple[Path, dict[str, Any]]) -> None:
    folder, result = done
    # Convolutions 1→4 and 4→6 of 3×3; 6→12, 12→12 (3×3), 12→24; each with two numbers a channel of batch norm; 24→10.
    body = (9 * 4 + 2 * 4) + (36 * 6 + 2 * 6)
    ends = 6 * 12 + 9 * 12 * 12 + 12 * 24 + 2 * (12 + 12 + 24) + (24 * 10 + 10)
    assert result["distilled"]["parameters"] == body + ends
    assert result["baseline"]["parameters"] != body + ends
    teacher, student = load_network(result["teacher"]["weights"]), load_network(folder / "student.json")
    assert torch.equal(student.classifier.weight, teacher.classifier.weight)
    assert torch.equal(student.classifier.bias, teacher.classifier.bias)
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    own = [one for one in epochs if one["phase"] == "student"]
    assert "task" not in own[0]  # no labels
    assert own[-1]["loss"] < own[0]["loss"]
    assert result["distilled"]["test_accuracy"] > 0.5


def test_what_is_loaded_gives_the_logits_of_its_parts(done: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, result = done
    exported = export_run(folder, out=tmp_path, onnx=True)  # which compares onnxruntime's logits
    images = torch.rand(5, 1, 8, 8)
    teacher, parts = load_network(result["teacher"]["weights"]), load_network(folder / "student.json")
    with torch.no_grad():
        maps = parts.projector(parts.body((images - 0.3) / 0.4))
        logits = teacher.classifier(maps.mean((2, 3)))
        for path in (folder / "student.json", Path(exported["json"])):
            assert torch.allclose(limbeck.load_model(path)(images), logits, atol=1e-5)
    assert exported["options"]["reused_classifier"] == {"channels": 24}


def test_evaluation_gives_the_runs_figures(done: tuple[Path, dict[str, Any]]) -> None:
    folder, result = done
    found = evaluate_run(folder, folder)
    assert found["accuracy"] == result["distilled"]["test_accuracy"]
    assert found["loss"] == pytest.approx(result["distilled"]["test"]["loss"])
    assert found["agreement"] == result["distilled"]["test"]["agreement"]


def test_a_comparison_has_it_beside_others(done: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, result = done
    recipe = check({**RECIPE, "distill": {"method": "kd"}})
    found = compare(recipe, ["simkd"], [0], root=folder, out=tmp_path / "compare", machine=QUIET)
    assert found["methods"]["simkd"]["mean"] == result["distilled"]["test_accuracy"]
    assert found["methods"]["baseline"]["mean"] == result["baseline"]["test_accuracy"]
    one = tmp_path / "compare" / "simkd-seed0"
    assert json.loads((one / "result.json").read_text())["parameters"] == result["distilled"]["parameters"]
    assert export_run(one)["parameters"] == result["distilled"]["parameters"]
    assert evaluate_run(one, folder)["accuracy"] == result["distilled"]["test_accuracy"]


@pytest.mark.parametrize("unfinished", [("result.json",), ("result.json", "student.json", "student.safetensors")])
def test_an_interrupted_run_goes_on(
    done: tuple[Path, dict[str, Any]], unfinished: tuple[str, ...], tmp_path: Path
) -> None:
    folder, result = done
    again = tmp_path / "run"
    shutil.copytree(folder, again)
    for name in unfinished:
        (again / name).unlink()
    taken_up = run(check(RECIPE), root=folder, out=again, machine=QUIET, resume=True)
    assert taken_up["distilled"]["test"]["loss"] == result["distilled"]["test"]["loss"]


def test_a_forward_of_its_own_is_traced() -> None:
    network = Functional().eval()
    cut = projected(network, input_shape=(1, 8, 8), classes=3, channels=5)
    x = torch.randn(2, 1, 8, 8)
    maps = network.layer2(network.layer1(torch.relu(network.first(x))))
    assert torch.allclose(cut.eval().body(x), maps)
    assert {id(one) for one in cut.body.parameters()} < {id(one) for one in network.parameters()}  # trained in place
    assert not any(name.startswith("fc") for name, _ in cut.body.named_parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": {"model": f"{__name__}:functional", "dropout": 0.5}}, "other operations in training"),
        ({"teacher": {**RECIPE["teacher"], "model": "keras_cnn", "channels": [4, 6]}}, "choose another teacher"),
        ({"teacher": {"model": "mlp", "epochs": 1}}, "could not be detected"),
        ({"distill": {"method": "simkd", "scheme": "two-stage"}}, "ships a network of its own"),
    ],
)
def test_what_cannot_be_reused_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        run(check({**RECIPE, **changes}), root=tmp_path, out=tmp_path / "run", machine=QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "given", [24, {"channels": 0}, {"size": [2, 2]}, {"channels": 4, "size": 2}, {"channels": True}]
)
def test_the_option_is_checked(given: Any) -> None:
    with pytest.raises(RequestError, match="reused_classifier is"):
        build("cnn", input_shape=(1, 8, 8), classes=3, reused_classifier=given)
