"""The peak memory of a process that does nothing but load a file and run it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SECONDS = 120
_TAIL = """
import re, resource, sys
try:  # a process begins with the peak of the one that started it, but in its own address space
    text = open("/proc/self/status").read()
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", text)[1]) * 1024)
except (OSError, TypeError):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak * (1 if sys.platform == "darwin" else 1024))
"""
_HEAD = "import sys, json\npath, shape, threads = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])\n"
CODE = {
    "onnx": """
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
for _ in range(3):
    session.run(None, {"input": numpy.zeros(shape, dtype=numpy.float32)})
""",
    "torch": """
import torch, limbeck
torch.set_num_threads(threads)
module = limbeck.load_model(path)
with torch.no_grad():
    for _ in range(3):
        module(torch.zeros(shape))
""",
    "torch.export": """
import torch
torch.set_num_threads(threads)
module = torch.export.load(path).module()
with torch.no_grad():
    for _ in range(3):
        module(torch.zeros(shape))
""",
}
"""A program a runtime: arguments are the file, the batch's shape and the threads."""


def peak_bytes(path: Path, runtime: str, shape: Sequence[int], threads: int) -> int | None:
    """Peak resident memory in bytes of a fresh process that loads a file and runs it three times.

    Args:
        path: The file.
        runtime: One of `CODE`.
        shape: Of the batch that it reads.
        threads: On which it computes.

    Returns:
        The bytes, those of Python and the runtime among them; None where the process fails.
    """
    import json

    code = _HEAD + CODE[runtime] + _TAIL
    command = [sys.executable, "-W", "ignore", "-c", code, str(path.resolve()), json.dumps(list(shape)), str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS)
        return int(done.stdout.split()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError):
        return None
