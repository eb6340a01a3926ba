"""Files that torch.save wrote, read without running code from them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from limbeck.errors import RequestError


def load_torch(path: Path) -> Any:
    """What a file of torch.save holds, on the CPU: tensors and plain values, no larger than the file.

    Raises:
        RequestError: It is compressed, which torch.save never does: a small file could fill the memory.
        Exception: Whatever torch raises for a file that holds more than that, or is damaged.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise RequestError(f"{path} is a compressed archive, which torch.save does not write")
    return torch.load(path, map_location="cpu", weights_only=True)
