"""Files that want to do harm: whatever is in them is not run, stays in its folder, and is refused in one line."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from limbeck import load_model
from limbeck.data import load
from limbeck.distillers import Distiller
from limbeck.engine.saving.checkpoint import Checkpoint, read_checkpoint
from limbeck.errors import LINE, RequestError
from limbeck.models import read_weights
from limbeck.models.build import build
from limbeck.recipes import read
from limbeck.recipes.schema import check_name
from limbeck.runs import teachers
from limbeck.runs.folder import read_result
from limbeck.teachers import StoredTeacher

os.environ.setdefault("KERAS_BACKEND", "torch")


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.place,)


@pytest.fixture
def bomb(tmp_path: Path) -> Bomb:
    return Bomb(tmp_path / "went-off")


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def arrays(content: Any, write: Callable[..., None]) -> bytes:
    buffer = io.BytesIO()
    write(buffer, np.array([content], dtype=object))
    return buffer.getvalue()


WAYS: dict[str, Callable[[Any], bytes]] = {
    "pickle": pickle.dumps,
    "torch": lambda bomb: saved({"weight": bomb}),
    "torch whole": saved,
    "torch as it was": lambda bomb: saved({"weight": bomb}, _use_new_zipfile_serialization=False),
    "npy": lambda bomb: arrays(bomb, np.save),
    "npz": lambda bomb: arrays(bomb, np.savez),
}


def refused(look: Callable[[], Any], bomb: Bomb, message: str = ".") -> None:
    with pytest.raises(RequestError, match=message) as error:
        look()
    assert not Path(bomb.place).exists()
    assert "\n" not in str(error.value)


def test_the_bomb_goes_off_where_pickles_are_run(bomb: Bomb) -> None:
    pickle.loads(pickle.dumps(bomb))
    assert Path(bomb.place).exists()
    Path(bomb.place).rmdir()
    torch.load(io.BytesIO(saved({"weight": bomb})), weights_only=False)
    assert Path(bomb.place).exists()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".npz"])
@pytest.mark.parametrize("way", WAYS)
def test_weights(way: str, suffix: str, bomb: Bomb, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(WAYS[way](bomb))
    refused(lambda: read_weights(path), bomb, "it is damaged, or holds more than tensors|holds no state dict")


HEADERS = {
    "a header of 2⁶³ bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header longer than the file": struct.pack("<Q", 10**9) + b"{}",
    "no JSON": struct.pack("<Q", 8) + b"\xff" * 8,
    "nested": (lambda text: struct.pack("<Q", len(text)) + text)(b'{"a":' * 50_000),
    "a negative offset": {"w": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}},
    "backwards": {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
    "beyond the end": {"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
    "2⁶⁴ values": {"w": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 4]}},
    "one upon another": {
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    },
}


@pytest.mark.parametrize("header", HEADERS)
def test_safetensors_headers(header: str, bomb: Bomb, tmp_path: Path) -> None:
    content = HEADERS[header]
    if isinstance(content, dict):
        text = json.dumps(content).encode()
        content = struct.pack("<Q", len(text)) + text + bytes(4)
    (tmp_path / "w.safetensors").write_bytes(content)
    refused(lambda: read_weights(tmp_path / "w.safetensors"), bomb, "it is damaged, or holds more than tensors")


def test_an_archive_that_unpacks_to_more_than_it_is(bomb: Bomb, tmp_path: Path) -> None:
    plain = io.BytesIO(saved({"weight": torch.zeros(250_000)}))
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    assert (tmp_path / "w.pt").stat().st_size < 10_000
    refused(lambda: read_weights(tmp_path / "w.pt"), bomb, "cannot read the weights file|compressed archive")


@pytest.mark.parametrize("way", WAYS)
def test_checkpoints(way: str, bomb: Bomb, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("last.pt", "best-student.pt"):
        (folder / name).write_bytes(WAYS[way](bomb))
    scheme = Distiller(torch.nn.Linear(2, 2))
    optimizer = torch.optim.SGD(scheme.parameters(), lr=0.1)
    fabric = Fabric(accelerator="cpu", devices=1)
    checkpoint = Checkpoint(tmp_path, "student", {}, fabric, scheme, optimizer)
    refused(lambda: read_checkpoint(folder / "last.pt"), bomb, "is damaged")
    refused(checkpoint.load, bomb, "is damaged")
    refused(lambda: checkpoint.load_best(scheme), bomb, "is damaged")


@pytest.mark.parametrize("way", ["pickle", "torch"])
def test_stored_outputs_and_results(way: str, bomb: Bomb, tmp_path: Path) -> None:
    for name in ("teacher_outputs.json", "result.json", "student.json"):
        (tmp_path / name).write_bytes(WAYS[way](bomb))
    refused(lambda: StoredTeacher(tmp_path), bomb, "is damaged")
    refused(lambda: read_result(tmp_path), bomb, "holds no finished run")


@pytest.mark.parametrize("way", WAYS)
def test_data_sets_that_lie_as_pickles(way: str, bomb: Bomb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*arguments: Any, **options: Any) -> None:
        raise OSError("no network")

    for module in ("mnist", "cifar"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", offline)
    names = [f"cifar-10-batches-py/data_batch_{n}" for n in range(1, 6)] + [
        "cifar-10-batches-py/test_batch", "cifar-10-batches-py/batches.meta", "MNIST/processed/training.pt",
        "cifar-100-python/train", "cifar-100-python/test", "cifar-100-python/meta", "MNIST/processed/test.pt",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(WAYS[way](bomb))
    for name in ("mnist", "cifar10", "cifar100"):
        refused(lambda name=name: load(name, tmp_path), bomb, "--data-root")  # type: ignore[misc]


TAGS = [
    "!!python/object/apply:os.mkdir [{0}]",
    "!!python/object/new:os.mkdir [{0}]",
    "!!python/name:os.mkdir",
    "!!python/module:os",
    '!!python/object/apply:eval [\'__import__("os").mkdir("{0}")\']',
    "!own {{x: 1}}",
]


@pytest.mark.parametrize("tag", TAGS)
def test_tags_in_recipes(tag: str, bomb: Bomb, tmp_path: Path) -> None:
    text = tag.format(bomb.place)
    (tmp_path / "own.yaml").write_text(f"name: own\nseed: {text}\n")
    refused(lambda: read.read(str(tmp_path / "own.yaml")), bomb, "line 2: the tag .* has no place in a recipe")
    refused(lambda: read.read("digits", [f"seed={text}"]), bomb, "the tag .* has no place in a recipe")
    refused(lambda: read.model(f"{{model: {text}}}"), bomb, "a model is a name or a mapping")


def test_aliases_that_explode_and_anchors_within_themselves(bomb: Bomb, tmp_path: Path) -> None:
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    merged = ["m0: &m0 {x: 1}", *(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}]}}" for n in range(1, 30))]
    for text, message in (
        ("\n".join(laughs), "its aliases stand for more than 100,000 values"),
        ("\n".join(merged), "its aliases stand for more than 100,000 values"),
        ("a: &a [*a]", "an anchor stands within itself"),
        ("a: " + "[" * 2000, "nests its values too deeply"),
        ("x" * 200_000, "is longer than 100,000 characters"),
        ("a: 1\nb: 2\na: 3", "line 1: the key 'a' stands twice"),
        ("seed: " + "9" * 5000, "a number has 5,000 digits"),
    ):
        (tmp_path / "own.yaml").write_text(text)
        refused(lambda: read.read(str(tmp_path / "own.yaml")), bomb, message)


@pytest.mark.parametrize("name", ["../up", "..", ".", "/tmp/x", "a/b", "a\\b", "", " ", "a\nb", "\x1b[2J", "n" * 101])
def test_names_that_lead_elsewhere(name: str, bomb: Bomb, tmp_path: Path) -> None:
    import yaml

    whole = {"name": name, "student": {"model": "mlp"}, "distill": {"scheme": "mutual"}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(whole))
    refused(lambda: read.read(str(tmp_path / "own.yaml")), bomb, "a folder is named after")
    whole |= {"name": "plain", "variants": {name: {"epochs": 1}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(whole))
    refused(lambda: read.read(str(tmp_path / "own.yaml")), bomb, "a folder is named after")
    refused(lambda: read.variants(str(tmp_path / "own.yaml")), bomb, "a folder is named after")


@pytest.mark.parametrize("name", ["digits", "名前", "a b (2)", "v1.2", "fashion-cnn:kd-1", ".x", "n" * 100])
def test_names_that_may_be(name: str) -> None:
    assert check_name(name) == name


def test_a_teachers_file_elsewhere_is_kept_in_the_cache(tmp_path: Path) -> None:
    recipe = read.check(
        {"teacher": {"model": "keras:../../up/a.keras", "epochs": 1}, "student": {"model": "mlp"},
         "distill": {"method": "kd"}}
    )  # fmt: skip
    one = teachers.Candidate(recipe.teachers[0], "teacher", nn.Linear(2, 2))
    key = teachers._key(one, recipe, load("digits", tmp_path))
    assert key.startswith("keras-..-..-up-a.keras-")
    assert Path(key).name == key


@pytest.mark.parametrize("place", ["../outside.bin", "/dev/zero", "sub/../../outside.bin", "link.bin"])
def test_onnx_weights_outside_of_their_folder(place: str, bomb: Bomb, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, proto = onnx.helper, onnx.TensorProto
    (tmp_path / "outside.bin").write_bytes(bytes(16))
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "outside.bin")
    weight = proto(name="w", data_type=proto.FLOAT, dims=[2, 2], data_location=proto.EXTERNAL)
    weight.external_data.add(key="location", value=place)
    shape = [helper.make_tensor_value_info(name, proto.FLOAT, ["n", 2]) for name in ("x", "logits")]
    for constant in (False, True):
        nodes = [helper.make_node("MatMul", ["x", "w"], ["logits"])]
        if constant:
            nodes.insert(0, helper.make_node("Constant", [], ["w"], value=weight))
        graph = helper.make_graph(nodes, "g", shape[:1], shape[1:], [] if constant else [weight])
        path = tmp_path / "in" / "a.onnx"
        path.write_bytes(helper.make_model(graph).SerializeToString())
        refused(lambda path=path: build(f"onnx:{path}", input_shape=(2,), classes=2), bomb, "outside of its folder")  # type: ignore[misc]


def test_keras_files_that_call_functions(bomb: Bomb, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")  # on PyTorch, as limbeck has it
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.save(tmp_path / "whole.keras")
    with zipfile.ZipFile(tmp_path / "whole.keras") as old, zipfile.ZipFile(tmp_path / "a.keras", "w") as new:
        for entry in old.namelist():
            content = old.read(entry)
            if entry == "config.json":
                config = json.loads(content)
                activation = {"module": "os", "class_name": "function", "config": "mkdir", "registered_name": "mkdir"}
                config["config"]["layers"][1]["config"]["activation"] = activation
                content = json.dumps(config).encode()
            new.writestr(entry, content)
    build(f"keras:{tmp_path / 'whole.keras'}", input_shape=(4,), classes=2)
    refused(lambda: build(f"keras:{tmp_path / 'a.keras'}", input_shape=(4,), classes=2), bomb, "it names 'os'")
    inputs = keras.Input((4,))
    lambda_ = keras.layers.Lambda(lambda x, place=bomb.place: os.mkdir(place) or x, output_shape=(4,))
    with_code = keras.Model(inputs, lambda_(inputs))
    for name in ("b.keras", "b.h5"):
        with warnings.catch_warnings(action="ignore"):
            with_code.save(tmp_path / name)
        refused(lambda name=name: build(f"keras:{tmp_path / name}", input_shape=(4,), classes=2), bomb)  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong",
    [{"model": 3}, {"options": [1]}, {"options": {"classes": 3}}, {"options": {"name": 3}},
     {"options": {"hidden": [10**12]}},
     {"classes": "x"}, {"input": 3}, {"input": {"shape": 8}}, {"input": {"shape": ["x"]}}, {"input": {"shape": [-1]}},
     {"input": {"shape": [4], "mean": "x"}}, {"input": {"shape": [4], "std": [0, 0]}}, {"model": "mlp\x00"}],
)  # fmt: skip
def test_descriptions_of_students(wrong: dict[str, Any], bomb: Bomb, tmp_path: Path) -> None:
    about = {"model": "mlp", "options": {"hidden": [3]}, "classes": 2, "input": {"shape": [4]}} | wrong
    (tmp_path / "student.json").write_text(json.dumps(about))
    refused(lambda: load_model(tmp_path / "student.json"), bomb)
    for text in ("[" * 100_000, "[1]", "\xff"):
        (tmp_path / "student.json").write_text(text, encoding="latin-1")
        refused(lambda: load_model(tmp_path / "student.json"), bomb)


def test_errors_fit_a_line() -> None:
    from limbeck.errors import one_line, shown

    assert one_line("a\nb\tc\x1b[31m\x00\u2028d") == "a b c\\x1b[31m\\x00 d"
    long = one_line("cannot read " + "/deep" * 400 + "; give another")
    assert len(long) < LINE
    assert long.startswith("cannot read /deep")
    assert long.endswith("; give another")
    assert len(one_line("word " * 1000)) == LINE
    assert shown("x" * 5000).endswith("x' (5,002 characters)")
    assert shown([1, 2]) == "[1, 2]"
