"""What all tests share: markers, a cache of their own, and two small models on small data."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import onnx_once
from limbeck.data import InMemory, sets

# Small models gain nothing from threads, and lose much to them on a busy machine.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pytest_configure(config: pytest.Config) -> None:
    """What is not marked `gpu` is tested on the CPU, also where there is a GPU: `pytest -m gpu` runs the others.

    Ctrl-C is heard, also where the tests were started in the background, as by `make test &`: shells then ignore it.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not re.match(r"gpu\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device, or not run by pytest -m gpu"))
        if item.get_closest_marker("browser") and not any(map(shutil.which, BROWSERS)):
            item.add_marker(pytest.mark.skip(reason="no Chromium"))
        if item.get_closest_marker("data") and "LIMBECK_DATA" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="LIMBECK_DATA names no data folder"))


@pytest.fixture(scope="session")
def data_root() -> Path:
    return Path(os.environ["LIMBECK_DATA"]).resolve()


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session", autouse=True)
def quick_onnx() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        onnx_once.read_once(patch)
        yield


@pytest.fixture(autouse=True)
def own_cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Teachers kept by tests stay out of the user's cache, and are trained once for all tests."""
    monkeypatch.setenv("LIMBECK_CACHE", str(shared_cache))


@pytest.fixture(autouse=True)
def seed() -> None:
    if torch.cuda.is_available():
        torch.manual_seed(0)
    else:  # where torch.manual_seed notes the stack for three devices that are not there: milliseconds a test
        torch.default_generator.manual_seed(0)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """A GPU, where `pytest -m gpu` is run on one, or the CPU in its place."""
    return torch.device("cuda", 0) if request.param == "cuda" else torch.device("cpu")


@pytest.fixture(scope="module")
def few_digits() -> Iterator[None]:
    """Of the digits a third, in modules of tests that train networks with several exits on them."""
    whole = sets.load("digits", Path())
    few = replace(whole, train=whole.train.subset(torch.arange(480)), test=whole.test.subset(torch.arange(120)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sets.NAMES, "digits", lambda root, size: few)
        yield


@pytest.fixture
def blobs() -> InMemory:
    """Three clouds of points that a linear model can tell apart: (96, 4) and labels."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.arange(96) % 3
    centres = 3 * torch.randn(3, 4, generator=generator)
    return InMemory(centres[targets] + torch.randn(96, 4, generator=generator), targets)


@pytest.fixture
def student() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.2), nn.ReLU(inplace=True), nn.Linear(6, 3))


@pytest.fixture
def teacher() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))


@pytest.fixture
def benchmarks() -> Iterator[None]:
    """The benchmarks, which lie beside the package, can be imported wherever the tests are started."""
    root = str(Path(__file__).parent.parent)
    sys.path.insert(0, root)
    yield
    sys.path.remove(root)
