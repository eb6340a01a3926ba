"""What a step on the CPU frees is there for the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from limbeck.engine import allocator

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")

PAGES = """
import resource, torch
from limbeck.engine import make_fabric
make_fabric(accelerator="cpu")
torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(**environment: str) -> int:
    """Pages that the system gave while eight tensors of 64 MiB were made one after the other."""
    chosen = {name: value for name, value in os.environ.items() if name not in allocator.CHOSEN} | environment
    command = [sys.executable, "-c", PAGES]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=chosen).stdout)


def test_freed_memory_is_kept() -> None:
    assert pages() < 2.5 * 2**14  # of 8 · 2^14: the first may find its place still too small


def test_what_the_user_chose_stays() -> None:
    assert pages(MALLOC_TRIM_THRESHOLD_="131072") > 7 * 2**14
