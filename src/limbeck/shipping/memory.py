"""The peak memory of a process that does nothing but load a file and run it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
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
_ONE = "(shape, kind), = inputs.values()\n"
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
    "openvino": f"""
import numpy, openvino
{_ONE}compiled = openvino.Core().compile_model(path, "CPU", {{"INFERENCE_NUM_THREADS": threads}})
for _ in range(3):
    compiled(numpy.ones(shape, dtype=kind))
""",
    "executorch": f"""
import torch
from executorch.runtime import Runtime
torch.set_num_threads(threads)
{_ONE}method = Runtime.get().load_program(path).load_method("forward")
for _ in range(3):
    method.execute([torch.ones(shape, dtype=getattr(torch, kind))])
""",
    "litert": f"""
import numpy
from ai_edge_litert.interpreter import Interpreter
{_ONE}interpreter = Interpreter(model_path=path, num_threads=threads)
interpreter.allocate_tensors()
for _ in range(3):
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], numpy.ones(shape, dtype=kind))
    interpreter.invoke()
    interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
""",
}
"""A program a runtime: arguments are the file, shapes and dtypes of its inputs by name, and the threads."""
NOT_ASKED, NO_FILE = "not asked for", "no file: the network itself, in PyTorch"


@dataclass(frozen=True)
class Peak:
    """Peak resident memory.

    Attributes:
        bytes: Those of Python and the runtime among them; None where there is no figure.
        missing: Why there is none.
    """

    bytes: int | None
    missing: str | None = None


def peak(path: Path, runtime: str, inputs: Mapping[str, Tensor], threads: int) -> Peak:
    """The peak resident memory of a fresh process that loads a file and runs it three times.

    Args:
        path: The file.
        runtime: One of `CODE`.
        inputs: A batch that it reads, whose values do not matter.
        threads: On which it computes.
    """
    if runtime not in CODE:
        return Peak(None, f"no program here loads a file of {runtime} by itself")
    code = _HEAD + CODE[runtime] + _TAIL
    shapes = {name: [list(x.shape), str(x.dtype).removeprefix("torch.")] for name, x in inputs.items()}
    command = [sys.executable, "-W", "ignore", "-c", code, str(path.resolve()), json.dumps(shapes), str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Peak(None, f"the process that loads {path.name} took longer than {SECONDS} seconds")
    except OSError as error:
        return Peak(None, f"no process could be started: {error.strerror}")
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return Peak(None, f"a process cannot load {path.name} by itself: {_plain(said[-1])}")
    return Peak(int(done.stdout.split()[-1]))


def _plain(line: str) -> str:
    """The last line of a traceback without the error's name."""
    kind, found, words = line.partition(": ")
    return words if found and kind.endswith("Error") else line
