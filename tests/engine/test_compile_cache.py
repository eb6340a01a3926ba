"""Compiled code is kept by kind of processor, and by the limits on its instructions; users may name the folder."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from limbeck import Batch, Distiller, fit
from limbeck.engine.devices import compile_cache, compiling
from limbeck.engine.devices.compile_cache import LIMITS, PLACE, folder_name, keep_compiled_apart


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (PLACE, *LIMITS):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards as it was
        monkeypatch.delenv(name)
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))


def place() -> Path:
    keep_compiled_apart()
    return Path(os.environ[PLACE])


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_has_a_folder_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = place()
    assert first.parent == tmp_path / "cache" / "compiled"
    assert not first.exists()  # before anything is compiled
    assert first.name.startswith(torch.backends.cpu.get_cpu_capability().lower() + "-")
    monkeypatch.setenv(name, "AVX2")
    limited = (
        place()
    )  # also where the environment names limbeck's folder of before, as in a process started by this one
    monkeypatch.setenv(name, "avx2")
    assert place() == limited != first
    monkeypatch.delenv(name)
    assert place() == first


def test_each_kind_of_processor_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first = folder_name()
    monkeypatch.setattr(compile_cache, "_processor", lambda: "x86_64 sse2")
    second = folder_name()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "SVE256")
    assert len({first, second, folder_name()}) == 3
    assert folder_name().startswith("sve256-")


def test_what_the_user_names_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PLACE, str(tmp_path / "mine"))
    assert place() == tmp_path / "mine"


def test_where_nothing_can_be_written_torch_takes_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "file"))
    keep_compiled_apart()
    assert PLACE not in os.environ


def test_it_is_set_before_anything_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    def compile(function: object, **options: object) -> object:
        seen.append(os.environ.get(PLACE))
        return function

    class Noting(nn.Linear):
        """Notes the folder in every pass, as a student that its user compiles would be compiled in the first."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(os.environ.get(PLACE))
            return super().forward(x)

    monkeypatch.setattr(torch, "compile", compile)
    with compiling.compiled(nn.Linear(2, 2), "default", 1):
        pass
    del os.environ[PLACE]
    batch = Batch(torch.rand(4, 2), torch.arange(4) % 3, torch.arange(4))
    fit(Distiller(Noting(2, 3)), [batch], epochs=1, optimizer=partial(torch.optim.SGD, lr=0.1), progress=False)
    assert len(seen) > 2
    assert set(seen) == {str(place())}
