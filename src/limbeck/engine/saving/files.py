"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from limbeck.atomic import put
from limbeck.errors import RunError


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file atomically.

    Raises:
        RunError: It cannot be written, on a full disk for one; what was there before stays.
    """
    try:
        put(path, content)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; what was there before is untouched") from error


def write_text(path: Path, content: str) -> None:
    """Write a text file atomically, as UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_torch(path: Path, content: Mapping[str, Any]) -> None:
    """Write what torch.load(weights_only=True) reads back, atomically."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_bytes(path, buffer.getbuffer())


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a state dict as safetensors, atomically; tensors that share memory are written each by itself.

    Returns:
        The SHA-256 of the file.
    """
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    content = save(plain, metadata={"format": "pt"})
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file.

    Raises:
        RunError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
