"""CIFAR-100 in its original files: three pickles of Python 2's time, with rows of 3,072 bytes, red, green, blue."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from limbeck.data import InMemory, load
from limbeck.errors import RequestError

SIZES = {"train": 200, "test": 100}


def pixels(part: str) -> np.ndarray:
    return np.random.default_rng(SIZES[part]).integers(0, 256, (SIZES[part], 3072), dtype=np.uint8)


def write(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small made set; torchvision is told its checksums in the place of the published ones."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    names = [f"class{i:02}" for i in range(100)]
    contents: dict[str, dict[str, object]] = {
        part: {
            "filenames": [f"{part}-{i}.png" for i in range(n)],
            "batch_label": f"{part}ing batch 1 of 1",
            "fine_labels": [i % 100 for i in range(n)],
            "coarse_labels": [i % 20 for i in range(n)],
            "data": pixels(part),
        }
        for part, n in SIZES.items()
    }
    contents["meta"] = {"fine_label_names": names, "coarse_label_names": names[:20]}
    sums = {}
    for name, content in contents.items():
        written = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(written)
        sums[name] = hashlib.md5(written).hexdigest()
    kind = torchvision.datasets.CIFAR100
    monkeypatch.setattr(kind, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(kind, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums["meta"]})


def test_cifar100_is_read_in_its_own_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, monkeypatch)
    data = load("cifar100", tmp_path)
    assert (data.name, data.classes, data.input_shape) == ("cifar100", 100, (3, 32, 32))
    assert (len(data.train), len(data.test)) == (200, 100)
    assert isinstance(data.train, InMemory)
    # A row is 1,024 bytes of red, row by row, then green, then blue.
    row = pixels("train")[7]
    assert torch.equal(data.train.inputs[7], torch.from_numpy(row.reshape(3, 32, 32)))
    assert data.train.inputs[7, 1, 2, 5] == row[1024 + 2 * 32 + 5]
    assert data.train.targets.tolist() == [i % 100 for i in range(200)]


def test_a_validation_split_has_every_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, monkeypatch)
    data = load("cifar100", tmp_path).with_validation(0.5)
    assert data.validation
    assert data.validation.targets.bincount().tolist() == [1] * 100


def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, monkeypatch)
    (tmp_path / "cifar-100-python" / "test").write_bytes(b"cut off")

    def no_network(*arguments: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", no_network)
    with pytest.raises(RequestError, match=r"cannot read cifar100 .* nor download it .*--data-root or LIMBECK_DATA"):
        load("cifar100", tmp_path)
