"""The examples for other people's engines train a student that has learned something."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(
    ("name", "extra"),
    [("lightning_module", "lightning"), ("accelerate_loop", "accelerate"), ("keras_models", "keras")],
)
def test_it_trains(name: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with warnings.catch_warnings(action="ignore"):  # those of other people's engines
        pytest.importorskip(extra, reason=f"{extra} is not installed")
        accuracy = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]()
    assert accuracy > 0.8  # of ten classes; the three reach 0.89 to 0.91
    assert not list(tmp_path.iterdir())
