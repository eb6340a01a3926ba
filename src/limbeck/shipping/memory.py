"""The peak memory of a process that does nothing but load a file and run it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

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
_HEAD = "import sys, json\npath, inputs, threads = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])\n"
_TENSORS = "given = {name: torch.ones(shape, dtype=getattr(torch, kind)) for name, (shape, kind) in inputs.items()}\n"
CODE = {
    "onnx": """
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
given = {name: numpy.ones(shape, dtype=kind) for name, (shape, kind) in inputs.items()}
for _ in range(3):
    session.run(None, given)
""",
    "torch": f"""
import torch, limbeck
torch.set_num_threads(threads)
{_TENSORS}module = limbeck.load_model(path)
with torch.no_grad():
    for _ in range(3):
        module(*given.values()) if len(given) == 1 else module(**given)
""",
    "torch.export": f"""
import torch
torch.set_num_threads(threads)
{_TENSORS}module = torch.export.load(path).module()
with torch.no_grad():
    for _ in range(3):
        module(*given.values())
""",
}
"""A program a runtime: arguments are the file, shapes and dtypes of its inputs by name, and the threads."""


def peak_bytes(path: Path, runtime: str, inputs: Mapping[str, Tensor], threads: int) -> int | None:
    """Peak resident memory in bytes of a fresh process that loads a file and runs it three times.

    Args:
        path: The file.
        runtime: One of `CODE`.
        inputs: A batch that it reads, whose values do not matter.
        threads: On which it computes.

    Returns:
        The bytes, those of Python and the runtime among them; None where the process fails.
    """
    import json

    code = _HEAD + CODE[runtime] + _TAIL
    shapes = {name: [list(x.shape), str(x.dtype).removeprefix("torch.")] for name, x in inputs.items()}
    command = [sys.executable, "-W", "ignore", "-c", code, str(path.resolve()), json.dumps(shapes), str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS)
        return int(done.stdout.split()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError):
        return None
