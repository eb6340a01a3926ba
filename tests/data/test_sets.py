from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.data import FromDisk, InMemory, load, make_loader
from limbeck.errors import RequestError


def write_mnist(root: Path, train: int = 20, test: int = 10) -> None:
    """A small set in MNIST's own file format."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, n, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, n) + labels.tobytes())


def write_folder(root: Path, sizes: tuple[int, ...] = (6, 6)) -> None:
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            (root / part / label).mkdir(parents=True)
            for i, size in enumerate(sizes):
                Image.new("RGB", (size, size), (10 * i, 20, 30)).save(root / part / label / f"{i}.png")


def test_digits_are_the_embedded_set() -> None:
    data = load("digits", Path("nowhere"))
    assert (len(data.train), len(data.test)) == (1437, 360)
    assert data.input_shape == (1, 8, 8)
    assert isinstance(data.train, InMemory)
    assert data.train.inputs.dtype == torch.uint8
    assert data.train.inputs.max() == 255
    assert data.test.targets.bincount().min() >= 34


def test_mnist_is_read_in_its_own_format(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = load("mnist", tmp_path)
    assert data.input_shape == (1, 28, 28)
    assert data.classes == 10
    assert (len(data.train), len(data.test)) == (20, 10)


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_sets(name: str, data_root: Path) -> None:
    data = load(name, data_root)
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    assert data.train.targets.bincount().min() > 5_000


def test_fingerprint_changes_with_one_pixel() -> None:
    split = load("digits", Path()).train
    assert isinstance(split, InMemory)
    other = InMemory(split.inputs.clone(), split.targets)
    assert other.fingerprint == split.fingerprint
    other.inputs[3, 0, 2, 2] ^= 1
    assert other.fingerprint != split.fingerprint


def test_image_folder(tmp_path: Path) -> None:
    write_folder(tmp_path)
    data = load("image-folder", tmp_path)
    assert isinstance(data.train, InMemory)
    assert data.train.inputs.shape == (4, 3, 6, 6)
    assert data.train.targets.tolist() == [0, 0, 1, 1]
    assert data.train.inputs[1, :, 0, 0].tolist() == [10, 20, 30]


def test_image_folder_of_many_sizes_needs_one_size(tmp_path: Path) -> None:
    write_folder(tmp_path, (6, 9))
    with pytest.raises(RequestError, match=r"set data\.size"):
        load("image-folder", tmp_path)
    assert load("image-folder", tmp_path, size=5).input_shape == (3, 5, 5)


def test_a_folder_too_large_for_memory_is_read_by_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path)
    monkeypatch.setattr("limbeck.data.sets.MEMORY_LIMIT", 100)
    data = load("image-folder", tmp_path)
    assert isinstance(data.train, FromDisk)
    assert data.train.dataset[0][0].dtype == torch.uint8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnst", "unknown data set 'mnst'; did you mean mnist"),
        ("image-folder", "cannot read the image folder"),
        ("own_missing:make", "cannot import 'own_missing'"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        load(name, tmp_path)


def test_missing_data_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)
    with pytest.raises(RequestError, match=r"nor download it.*--data-root"):
        load("mnist", tmp_path)


def test_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_sets.py").write_text(
        "import torch\n"
        "from torch.utils.data import Dataset, TensorDataset\n"
        "class Listed(Dataset):\n"
        "    def __len__(self): return 6\n"
        "    def __getitem__(self, i): return torch.full((2,), float(i)), i % 3\n"
        "def tensors(): return tuple(TensorDataset(torch.rand(9, 2), torch.arange(9) % 3) for _ in range(2))\n"
        "def listed(): return Listed(), Listed()\n"
        "def nothing(): return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert isinstance(load("own_sets:tensors", tmp_path).train, InMemory)
    listed = load("own_sets:listed", tmp_path)
    assert isinstance(listed.train, FromDisk)
    assert (listed.classes, listed.input_shape) == (3, (2,))
    with pytest.raises(RequestError, match="must return"):
        load("own_sets:nothing", tmp_path)
    with pytest.raises(RequestError, match="unknown name in own_sets 'tensor'; did you mean tensors"):
        load("own_sets:tensor", tmp_path)


OWN = """
import torch
from torch.utils.data import Dataset, TensorDataset
x, y = torch.rand(6, 2), torch.arange(6) % 3
def pair(*tensors): return TensorDataset(*tensors), TensorDataset(*tensors)
class Pictures(Dataset):
    def __len__(self): return 3
    def __getitem__(self, i): return "a picture", i
def raises(): raise ValueError("no data here")
number = 3
def unlabelled(): return pair(x)
def empty(): return pair(x[:0], y[:0])
def pictures(): return Pictures(), Pictures()
def negative(): return pair(x, y - 1)
def soft(): return pair(x, torch.rand(6, 3))
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "fails: ValueError: no data here"),
        ("number", "must be a function, not int"),
        ("unlabelled", "must hold two tensors"),
        ("empty", "of at least one sample"),
        ("pictures", "gives str as input"),
        ("negative", "labels run from -1 to 1; they must count from 0 on"),
    ],
)
def test_own_data_that_will_not_do(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_faults.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("own_faults", None)
    with pytest.raises(RequestError, match=message):
        load(f"own_faults:{name}", tmp_path)


def test_own_data_has_a_fingerprint_of_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_content.py").write_text(
        "import torch\n"
        "from torch.utils.data import Dataset\n"
        "shift = 0.0\n"
        "class Noisy(Dataset):\n"
        "    def __len__(self): return 6\n"
        "    def __getitem__(self, i): return torch.rand(2) + shift, i % 3\n"
        "def noisy(): return Noisy(), Noisy()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    first = load("own_content:noisy", tmp_path).train.fingerprint
    assert load("own_content:noisy", tmp_path).train.fingerprint == first
    monkeypatch.setattr(sys.modules["own_content"], "shift", 1.0)
    assert load("own_content:noisy", tmp_path).train.fingerprint != first


CHANGING = """
import torch
from torch.utils.data import Dataset
from torchvision.transforms import v2
class Flipped(Dataset):
    targets = [i % 3 for i in range(48)]
    def __init__(self, often): self.flip = v2.RandomHorizontalFlip(often)
    def __len__(self): return 48
    def __getitem__(self, i): return self.flip(torch.arange(24).reshape(3, 2, 4) + i), self.targets[i]
def often(): return Flipped(0.5), Flipped(0.0)
def seldom(): return Flipped(0.004), Flipped(0.0)
"""


def test_a_random_transform_is_noticed_and_gives_each_view_its_own_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_changing.py").write_text(CHANGING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    often, seldom = (load(f"own_changing:{name}", tmp_path) for name in ("often", "seldom"))
    assert [often.train.random, often.test.random] == [True, False]
    assert [seldom.train.random, seldom.test.random] == [False, False]

    def pixels(split: FromDisk, epoch: int, workers: int) -> torch.Tensor:
        loader = make_loader(split, 16, workers=workers)
        loader.set_epoch(epoch)
        return torch.cat([batch.inputs for batch in loader])

    assert torch.equal(pixels(often.train, 0, 0), pixels(often.train, 0, 2))
    assert not torch.equal(pixels(often.train, 0, 0), pixels(often.train, 1, 0))
    # Where the looks missed it, a sample has the same pixels in every epoch, which are those of view 0.
    assert torch.equal(pixels(seldom.train, 0, 0), pixels(seldom.train, 7, 2))
