"""What a step on the CPU frees is there for the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from limbeck.engine.devices import allocator

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or (HUGE.exists() and "[always]" in HUGE.read_text()),
    reason="another C library than glibc, or pages so large that they tell nothing",
)

PAGES = """
import os, resource, torch
from limbeck.engine import make_fabric
from limbeck.engine.devices import allocator

def pages():
    torch.ones(2**22)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(2**22)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

make_fabric(accelerator="cpu")
told = pages()
del os.environ["MALLOC_TRIM_THRESHOLD_"]
allocator.keep_freed.cache_clear()
make_fabric(accelerator="cpu")
print(told, pages())
"""
TENSOR = 2**12
"""Pages of a tensor of 16 MiB."""


def test_freed_memory_is_kept_where_the_user_told_glibc_nothing() -> None:
    """Pages that the system gave while eight tensors of 16 MiB were made one after the other, before and after."""
    named = (*allocator.CHOSEN, "GLIBC_TUNABLES", "LIMBECK_KEEP_FREED")
    environment = {name: value for name, value in os.environ.items() if name not in named}
    environment["MALLOC_TRIM_THRESHOLD_"] = "131072"
    command = [sys.executable, "-c", PAGES]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    told, kept = map(int, done.stdout.split())
    assert told > 7 * TENSOR
    assert kept < 2.5 * TENSOR  # the first one may find its place still too small


@pytest.mark.parametrize(
    ("environment", "kept"),
    [
        ({}, True),
        ({"GLIBC_TUNABLES": "glibc.pthread.rseq=0"}, True),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"}, False),
        ({"MALLOC_MMAP_THRESHOLD_": "131072"}, False),
        ({"LIMBECK_KEEP_FREED": "0"}, False),
    ],
    ids=str,
)
def test_who_chooses(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], kept: bool) -> None:
    for name in (*allocator.CHOSEN, "GLIBC_TUNABLES", "LIMBECK_KEEP_FREED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    told = []
    monkeypatch.setattr(allocator, "set_thresholds", lambda **bytes: told.append(bytes))
    allocator.keep_freed.__wrapped__()
    assert bool(told) == kept
