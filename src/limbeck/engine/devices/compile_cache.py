"""Where torch.compile keeps what it has compiled: a folder for each kind of processor and each limit set on one."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from functools import cache
from pathlib import Path

import torch

from limbeck.folders import cache_root, nearest

PLACE = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable by which users tell torch the folder themselves."""
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
"""Environment variables that limit which of the processor's instructions torch's libraries use."""
OURS = re.compile(r"compiled/\w+-[0-9a-f]{12}")
"""How a folder ends that limbeck chose, in this process or in the one that started it."""


def keep_compiled_apart() -> None:
    """Give torch.compile a folder of limbeck's cache for this processor and these limits, unless the user names one.

    torch finds compiled code again by graph and version alone: in its own folder, which all processes share, a student
    found code compiled for other instructions, and its gradients were wrong. Where limbeck's cache cannot be written,
    torch takes its own.
    """
    named = os.environ.get(PLACE)
    if named and not OURS.fullmatch("/".join(Path(named).parts[-2:])):
        return
    folder = cache_root() / "compiled" / folder_name()
    place = nearest(folder)
    if place.is_dir() and os.access(place, os.W_OK):
        os.environ[PLACE] = str(folder)  # which torch makes when it compiles


def folder_name() -> str:
    """The instructions that torch uses, and a digest of the processor, torch's version and the limits."""
    limits = [os.environ.get(name, "").strip().upper() for name in LIMITS]
    what = repr((_processor(), torch.__version__, limits))
    return f"{torch.backends.cpu.get_cpu_capability().lower()}-{hashlib.blake2b(what.encode()).hexdigest()[:12]}"


@cache
def _processor() -> str:
    """What it is, and on Linux which instructions it has: machines may share a home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.partition(":")[0].strip().lower() in ("flags", "features")), "")
    return f"{platform.machine()} {features.partition(':')[2].strip() or platform.processor()}"
