"""Fixtures that need torch: small models and data, the device, and a start that is the same for every test."""

from __future__ import annotations

import functools
import gc
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import onnx_once
from limbeck.data import InMemory, sets
from limbeck.engine.devices.fabric import Fabric

torch.set_num_threads(1)
# pytest listens to each logger that it finds, and to this one torch tells every graph that it compiles, in words and
# with all sources, if anybody listens: an eighth of the time of tests that compile.
logging.root.manager.loggerDict.pop("torch.__trace", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device, or not run by pytest -m gpu"))


def pytest_collection_finish() -> None:
    """What was imported by now stays: the collector need not look through it again, at a second each time."""
    gc.freeze()
    gc.enable()
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)


@pytest.fixture(scope="session", autouse=True)
def quick() -> Iterator[None]:
    """What takes long each time, and is the same or nothing to a test."""
    with pytest.MonkeyPatch.context() as patch:
        onnx_once.read_once(patch)
        # Fabric looks for callbacks of other packages in the metadata of all that are installed, for each Fabric.
        fabric = sys.modules[Fabric.__module__]
        patch.setattr(fabric, "_load_external_callbacks", functools.cache(fabric._load_external_callbacks))
        # That a file has reached the disk only a machine that loses its power would tell.
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


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
