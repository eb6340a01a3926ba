"""What of this machine's processor decides how fast and how exact int8 is."""

from __future__ import annotations

import platform
from pathlib import Path

INTERESTING = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}
_X86 = ("x86_64", "amd64", "i386", "i686")


def flags() -> list[str]:
    """The instruction sets that matter here and are there; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    lines = (line.partition(":")[2] for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    there = set(next(lines, "").split())
    return [flag for flag in INTERESTING if flag in there]


def overflows() -> bool:
    """Whether products of 8-bit weights and 8-bit activations can overflow 16 bits: x86 processors without VNNI."""
    return platform.machine().lower() in _X86 and not VNNI & set(flags())


def whole_bits() -> int:
    """How many bits a weight has at most that this processor multiplies without overflow."""
    return 7 if overflows() else 8
