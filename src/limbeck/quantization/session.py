"""An ONNX file in onnxruntime, as a function from the inputs of a batch to its outputs in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Given = Mapping[str, Array]
"""What a file reads of a batch: (B, …) by the file's input names."""
Runner = Callable[[Given], Array]
"""From the inputs of a batch to outputs (B, …)."""
INPUT = "input"
"""What files of networks with one input call it."""


def onnx(path: Path | bytes, threads: int = 1) -> Runner:
    """An ONNX file in onnxruntime, on so many threads of the CPU.

    Between two calls the threads do not spin: of several files measured in turns, each has the machine to itself.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content = path if isinstance(path, bytes) else str(path)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (output,) = (one.name for one in session.get_outputs())

    def run(given: Given) -> Array:
        return np.asarray(session.run([output], dict(given))[0], dtype=np.float32)

    return run
