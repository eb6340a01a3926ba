"""The machine on which files were measured."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any

from limbeck.quantization.processor import flags, overflows
from limbeck.runs.folder import environment


def described(threads: int) -> dict[str, Any]:
    """The machine as ship.json has it."""
    about = environment()
    found = importlib.util.find_spec("onnxruntime")
    return {
        **{key: about[key] for key in ("limbeck", "python", "torch", "platform", "processor", "cores")},
        "onnxruntime": importlib.metadata.version("onnxruntime") if found else None,
        "threads": threads,
        "flags": flags(),
        "int8_overflows": overflows(),
    }
