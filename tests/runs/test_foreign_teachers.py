"""Every source of teachers in docs/foreign.md teaches in a whole run, and is as good there as in its own library.

The accuracy in result.json is that of the model in Keras, onnxruntime, scikit-learn, timm or PyTorch itself, with what
that library does to pixels, to the sample.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from limbeck import Distiller, FunctionTeacher, Hardware, Term, fit, losses
from limbeck.data import DataSet, InMemory, load, make_loader
from limbeck.engine.optimizers.named import optimizer
from limbeck.errors import RequestError
from limbeck.measure.evaluation import evaluate_teacher
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.run import run

os.environ.setdefault("KERAS_BACKEND", "torch")
DOCUMENT = Path(__file__).parents[2] / "docs" / "foreign.md"
TINTS = np.array([[1.0, 0.6, 0.8], [0.7, 1.0, 0.5], [0.9, 0.8, 1.0]])
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


def rows() -> dict[str, list[str]]:
    """The table of sources: its cells by the first one of each row."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| source |"))
    found: dict[str, list[str]] = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return found
        source, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        found[source] = cells
    return found


@cache
def tinted() -> DataSet:
    """Digits as images of bytes in three tints, (3, 16, 16)."""
    digits = load("digits", Path("nowhere"))
    splits = []
    for split, count in ((digits.train, 300), (digits.test, 200)):
        assert isinstance(split, InMemory)
        grey = split.inputs[:count].numpy().repeat(2, 2).repeat(2, 3)
        tints = TINTS[np.arange(count) % 3][:, :, None, None]
        splits.append(InMemory(torch.from_numpy((grey * tints).round().astype(np.uint8)), split.targets[:count]))
    return DataSet("tinted", *splits, classes=10, input_shape=(3, 16, 16))


def parts(split: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Pixels (N, 3, 16, 16) of 0–255, and labels."""
    return split.inputs.numpy(), split.targets.numpy()


def right(logits: Any) -> int:
    """How many of the test samples are right."""
    return int((np.asarray(logits).argmax(1) == tinted().test.targets.numpy()).sum())


def fitted(features: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Weights (F, 10) and bias (10,) of a linear classifier of the training samples, by least squares."""
    labels = tinted().train.targets.numpy()
    wide = np.concatenate([features, np.ones((len(features), 1))], 1)
    found = np.linalg.solve(wide.T @ wide + 0.1 * np.eye(wide.shape[1]), wide.T @ np.eye(10)[labels])
    return found[:-1].astype(np.float32), found[-1].astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A teacher that was saved by its own library.

    Attributes:
        teacher: What a recipe says of it.
        right: How many test samples it has right in its own library.
        said: Patterns of the lines that must be said of what was read.
        needs: What a recipe must say, by the pattern with which it is refused without it.
        not_applied: What it should say, by the pattern of the line that tells so without it.
    """

    teacher: dict[str, Any]
    right: int
    said: tuple[str, ...] = ()
    needs: dict[str, str] = field(default_factory=dict)
    not_applied: dict[str, str] = field(default_factory=dict)


def onnx_of_bytes(folder: Path) -> Case:
    """A graph that reads bytes (B, H, W, C), divides them itself, and ends in a linear layer."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    x, _ = parts(tinted().train)
    weight, bias = fitted(x.transpose(0, 2, 3, 1).reshape(len(x), -1) / 255)
    make, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        make.make_node("Cast", ["image"], ["floats"], to=kinds.FLOAT),
        make.make_node("Div", ["floats", "most"], ["unit"]),
        make.make_node("Flatten", ["unit"], ["flat"]),
        make.make_node("Gemm", ["flat", "weight", "bias"], ["logits"]),
    ]
    values = {"most": np.float32(255), "weight": weight, "bias": bias}
    graph = make.make_graph(
        nodes,
        "g",
        [make.make_tensor_value_info("image", kinds.UINT8, ["n", 16, 16, 3])],
        [make.make_tensor_value_info("logits", kinds.FLOAT, ["n", 10])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    path = folder / "bytes.onnx"
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8), path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": parts(tinted().test)[0].transpose(0, 2, 3, 1)})
    return Case(
        {"model": f"onnx:{path}", "channels_last": True},
        right(logits),
        said=(r"gets pixels from 0 to 255, as its input image is of whole numbers \(tensor\(uint8\)\)",),
        needs={"channels_last": r"shape \(B, 16, 16, 3\), and was given \(\d, 3, 16, 16\).*channels_last"},
    )


def keras_file(folder: Path) -> Case:
    """A file whose first layer scales bytes, and whose last one is a softmax."""
    keras = pytest.importorskip("keras")
    dense = keras.layers.Dense(10, activation="softmax")
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 127.5, offset=-1), keras.layers.Flatten(), dense]
    )
    train, test = (
        parts(split)[0].transpose(0, 2, 3, 1).astype(np.float32) for split in (tinted().train, tinted().test)
    )
    weight, bias = fitted(train.reshape(len(train), -1) / 127.5 - 1)
    dense.set_weights([4 * weight, 4 * bias])
    model.save(folder / "teacher.keras")
    return Case(
        {"model": f"keras:{folder / 'teacher.keras'}", "probabilities": True},
        right(model.predict(test, verbose=0)),
        said=(r"gets pixels from 0 to 255, as its layers before dense\S* scale them down",),
        needs={"probabilities": "ends in probabilities .* set probabilities"},
    )


def timm_network(folder: Path) -> tuple[Any, Path, Callable[[], int]]:
    """A network of timm, a file of its weights, and how many samples it has right behind timm's own transform."""
    timm, image = pytest.importorskip("timm"), pytest.importorskip("PIL.Image")
    torch.manual_seed(3)
    model = timm.create_model("test_resnet", num_classes=10).eval()
    transform = timm.data.create_transform((3, 16, 16), mean=MEAN, std=STD, crop_pct=1.0)

    def seen(split: Any) -> torch.Tensor:
        return torch.stack([transform(image.fromarray(one.transpose(1, 2, 0))) for one in parts(split)[0]])

    with torch.no_grad():
        features = model.forward_head(model.forward_features(seen(tinted().train)), pre_logits=True)
        weight, bias = fitted(features.double().numpy())
        model.fc.weight.copy_(torch.from_numpy(weight.T))
        model.fc.bias.copy_(torch.from_numpy(bias))
    torch.save(model.state_dict(), folder / "weights.pth")

    @torch.no_grad()
    def counted() -> int:
        return right(model(seen(tinted().test)))

    return model, folder / "weights.pth", counted


def timm_pretrained(folder: Path) -> Case:
    _, file, counted = timm_network(folder)
    overlay = {"file": str(file), "num_classes": 10, "mean": MEAN, "std": STD}
    return Case(
        {"model": "timm:test_resnet", "pretrained": True, "pretrained_cfg_overlay": overlay},
        counted(),
        said=(r"gets pixels of mean \[0\.4, 0\.5, 0\.6\] and standard deviation .* as its pretrained_cfg says",),
    )


def timm_weights(folder: Path) -> Case:
    _, file, counted = timm_network(folder)
    return Case(
        {"model": "timm:test_resnet", "weights": str(file), "mean": MEAN, "std": STD},
        counted(),
        not_applied={"mean, std": r"gets pixels from 0 to 1, and its pretrained_cfg says .* not applied"},
    )


def network() -> nn.Module:
    """A convolution without training behind which a linear classifier was fitted, in eval mode."""
    torch.manual_seed(1)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2))
    head = nn.Linear(6 * 49, 10)
    with torch.no_grad():
        body(unit(tinted().train))
        weight, bias = fitted(body.eval()(unit(tinted().train)).double().numpy())
        head.weight.copy_(torch.from_numpy(weight.T))
        head.bias.copy_(torch.from_numpy(bias))
    return nn.Sequential(body, head).eval()


def unit(split: Any) -> torch.Tensor:
    return torch.from_numpy(parts(split)[0]).float() / 255


def torchscript(folder: Path) -> Case:
    model = network()
    with warnings.catch_warnings(action="ignore"):  # of TorchScript's future
        torch.jit.save(torch.jit.trace(model, unit(tinted().test)[:2]), folder / "teacher.pt")
        logits = torch.jit.load(folder / "teacher.pt")(unit(tinted().test)).detach()
    return Case({"model": f"torchscript:{folder / 'teacher.pt'}"}, right(logits))


def program(folder: Path) -> Case:
    """It was exported for batches of 50."""
    torch.export.save(torch.export.export(network(), (unit(tinted().test)[:50],)), folder / "teacher.pt2")
    run_program = torch.export.load(folder / "teacher.pt2").module()
    logits = torch.cat([run_program(piece) for piece in unit(tinted().test).split(50)]).detach()
    return Case(
        {"model": f"pt2:{folder / 'teacher.pt2'}"},
        right(logits),
        said=("takes batches of 50 alone, and runs in pieces",),
    )


@cache
def forest() -> Any:
    ensemble = pytest.importorskip("sklearn.ensemble")
    x, y = parts(tinted().train)
    return ensemble.RandomForestClassifier(15, max_depth=9, random_state=0).fit(flat(x), y)


def flat(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(N, 768) from 0 to 1, as a forest is trained on them."""
    return (pixels.reshape(len(pixels), -1) / np.float32(255)).astype(np.float32)


def scikit_learn(folder: Path) -> Case:
    convert = pytest.importorskip("skl2onnx").to_onnx
    pytest.importorskip("onnxruntime")
    path = folder / "forest.onnx"
    path.write_bytes(convert(forest(), np.zeros((1, 768), np.float32), options={"zipmap": False}).SerializeToString())
    return Case(
        {"model": f"onnx:{path}", "probabilities": True},
        right(forest().predict_proba(flat(parts(tinted().test)[0]))),
        needs={"probabilities": "ends in probabilities .* set probabilities"},
    )


CASES: dict[str, Callable[[Path], Case]] = {
    "ONNX": onnx_of_bytes,
    "Keras": keras_file,
    "timm, `pretrained: true`": timm_pretrained,
    "timm, own weights, or in Python": timm_weights,
    "TorchScript": torchscript,
    "torch.export": program,
    "scikit-learn": scikit_learn,
}
FUNCTION = "any function"


def carried_out(teacher: dict[str, Any], out: Path) -> dict[str, Any]:
    recipe = check(
        {
            "data": {"name": f"{__name__}:tinted", "batch_size": 64},
            "teacher": teacher,
            "student": {"model": "mlp", "hidden": [8]},
            "distill": {"method": "kd"},
            "epochs": 1,
        }
    )
    return run(recipe, root=out, out=out / "run", machine=Machine("cpu", progress=False), baseline=False)


def test_the_table_names_what_is_tested() -> None:
    assert set(rows()) == {*CASES, FUNCTION}
    assert {len(cells) for cells in rows().values()} == {4}


@pytest.mark.parametrize("source", [one for one in rows() if one != FUNCTION])
def test_a_source_teaches_as_good_as_it_is(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    case = CASES[source](tmp_path)
    result = carried_out(case.teacher, tmp_path)
    assert result["teacher"]["test_accuracy"] == case.right / len(tinted().test)
    assert case.right > 0.3 * len(tinted().test)  # three times chance
    assert result["distilled"]["parameters"] == 768 * 8 + 8 + 8 * 10 + 10
    said = capsys.readouterr().err
    for pattern in case.said:
        assert len(re.findall(pattern, said)) == 1, said
    named, _, to_say, _ = rows()[source]
    assert case.teacher["model"].partition(":")[0] in named or source == "scikit-learn"
    for option, pattern in case.needs.items():
        with pytest.raises(RequestError, match=pattern):
            carried_out(without(case.teacher, option, to_say), tmp_path / "without")
    for options, pattern in case.not_applied.items():
        carried_out(without(case.teacher, options, to_say), tmp_path / "without")
        assert re.search(pattern, capsys.readouterr().err)


def without(teacher: dict[str, Any], options: str, to_say: str) -> dict[str, Any]:
    """The teacher without options, of which the document says that they must be said."""
    names = options.split(", ")
    assert all(f"`{name}`" in to_say for name in names)
    return {key: value for key, value in teacher.items() if key not in names}


def test_a_function_teaches_as_good_as_it_is() -> None:
    teacher = FunctionTeacher(lambda x: forest().predict_proba(x.reshape(len(x), -1)), numpy=True, probabilities=True)
    loader = make_loader(tinted().test, 64)
    assert (
        evaluate_teacher(teacher, loader)["accuracy"]
        == right(forest().predict_proba(flat(parts(tinted().test)[0]))) / 200
    )
    student = Distiller(nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), [Term(losses.kd)], task_weight=0)
    done = fit(
        student, make_loader(tinted().train, 64), teacher=teacher, epochs=2, optimizer=optimizer("adam", lr=0.01),
        hardware=Hardware("cpu"), progress=False,
    )  # fmt: skip
    assert done.metrics[-1]["loss"] < done.metrics[0]["loss"]
    with pytest.raises(RequestError, match="probabilities"):
        fit(
            student, loader, teacher=lambda x: torch.from_numpy(forest().predict_proba(x.flatten(1).numpy())),
            epochs=1, optimizer=optimizer("adam", lr=0.01), hardware=Hardware("cpu"), progress=False,
        )  # fmt: skip
