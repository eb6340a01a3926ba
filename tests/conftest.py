"""What all tests share: markers, a cache of their own, and in which order files are begun."""

from __future__ import annotations

import gc
import importlib
import os
import re
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

# Small models gain nothing from threads, and lose much to them on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"
# So they do from processes that compile for this one, which import torch once more.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
# Two threads that wait actively, where a test takes two, hinder the tests beside it.
os.environ["OMP_WAIT_POLICY"] = "passive"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LONG = {
    "test_cli_exits.py",
    "test_compare_identity.py",
    "test_examples.py",
    "test_export.py",
    "test_faults.py",
    "test_hf_trainer.py",
    "test_key_maps.py",
    "test_late_compiler.py",
    "test_memory.py",
    "test_plan.py",
    "test_preactivations.py",
    "test_report.py",
    "test_ship_exits.py",
    "test_ship_tasks.py",
    "test_terminal.py",
}
"""Files of few tests that take many seconds."""


def pytest_configure(config: pytest.Config) -> None:
    """What is not marked `gpu` is tested on the CPU, also where there is a GPU: `pytest -m gpu` runs the others.

    Ctrl-C is heard, also where the tests were started in the background, as by `make test &`: shells then ignore it.
    The process that only hands tests out to those of pytest-xdist, in the order that they find, runs none.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not re.match(r"gpu\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if config.getoption("numprocesses", None) and not config.option.collectonly:
        config.option.loadscopereorder = False
    else:
        gc.disable()  # until all tests are imported, of which nothing goes again
        sys.dont_write_bytecode = False  # until then too: what one process has compiled, the others find
        config.pluginmanager.register(importlib.import_module("shared"), "shared")


class Backwards(pytest.Dir):
    """A folder whose files are imported from the last to the first."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        yield from reversed([*super().collect()])


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Dir | None:
    """Of two processes each prepares the asserts of half of the files, and finds the others' prepared by the other."""
    odd = os.environ.get("PYTEST_XDIST_WORKER", "gw0")[-1] in "13579"
    made: pytest.Dir | None = Backwards.from_parent(parent, path=path) if odd else None
    return made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("browser") and not any(map(shutil.which, BROWSERS)):
            item.add_marker(pytest.mark.skip(reason="no Chromium"))
        if item.get_closest_marker("data") and "LIMBECK_DATA" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="LIMBECK_DATA names no data folder"))
    longest_first(items)


def longest_first(items: list[pytest.Item]) -> None:
    """Of several processes none is left alone, at the end, with a file that takes long."""
    tests = Counter(item.path for item in items)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path.name not in LONG, -slow[item.path], -tests[item.path], str(item.path)))


@pytest.fixture(scope="session")
def data_root() -> Path:
    return Path(os.environ["LIMBECK_DATA"]).resolve()


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Teachers kept by tests stay out of the user's cache, and are trained once for all tests."""
    monkeypatch.setenv("LIMBECK_CACHE", str(shared_cache))


@pytest.fixture
def benchmarks() -> Iterator[None]:
    """The benchmarks, which lie beside the package, can be imported wherever the tests are started."""
    root = str(Path(__file__).parent.parent)
    sys.path.insert(0, root)
    yield
    sys.path.remove(root)
