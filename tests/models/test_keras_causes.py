"""What Keras refuses is told with Keras's own cause, and a remedy that helps here."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.errors import RequestError
from limbeck.models import KerasModel
from limbeck.models.foreign.keras import load_keras

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="the extra keras is not installed")
layers = keras.layers


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("keras") / "saved.keras"
    keras.Sequential([keras.Input((4,)), layers.Dense(3)]).save(path)
    return path


def changed(saved: Path, path: Path, **texts: Callable[[str], str]) -> Path:
    """The file with other texts in its parts."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            change = texts.get(name.partition(".")[0])
            new.writestr(name, change(old.read(name).decode()) if change else old.read(name))
    return path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"units": 3', '"units": 4', r"variable\.shape=\(4, 4\), Received: value\.shape=torch\.Size\(\[4, 3\]\)\.$"),
        ('"units": 3', '"units": 3, "newer": 1', r"Unrecognized keyword arguments .*Dense: \{'newer': 1\}$"),
        ('"Dense"', '"Denser"', r"Could not deserialize 'keras\.layers\.Denser' because .*subclass$"),
    ],
)
def test_a_files_fault(saved: Path, tmp_path: Path, old: str, new: str, said: str) -> None:
    path = changed(saved, tmp_path / "odd.keras", config=lambda text: text.replace(old, new))
    with pytest.raises(RequestError, match=said):
        load_keras(path)


def test_a_file_of_another_version_names_both(saved: Path, tmp_path: Path) -> None:
    path = changed(
        saved,
        tmp_path / "newer.keras",
        config=lambda text: text.replace('"units": 3', '"units": 3, "newer": 1'),
        metadata=lambda text: text.replace(keras.__version__, "99.1.0"),
    )
    with pytest.raises(RequestError, match=rf"'99\.1\.0' wrote it, and {keras.__version__} is installed: install the"):
        load_keras(path)


def test_code_in_a_file(tmp_path: Path) -> None:
    image = keras.Input((4,))
    keras.Model(image, layers.Lambda(lambda x: x * 2)(image)).save(tmp_path / "a.keras")
    with pytest.raises(
        RequestError, match=r"risk of arbitrary code execution.*; if you trust .* give KerasModel\(model\)$"
    ):
        load_keras(tmp_path / "a.keras")


def test_an_index_out_of_range() -> None:
    word = keras.Input((6,), dtype="int32")
    model: Any = keras.Model(word, layers.Dense(3)(layers.Flatten()(layers.Embedding(5, 2)(word))))
    with pytest.raises(RequestError, match=r"the Keras model .* cannot compute: index out of range in self$"):
        KerasModel(model)(torch.full((2, 6), 9))
