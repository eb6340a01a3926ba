"""torch's ONNX exporter reads the source of five hundred functions anew for each file; in tests once a process."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch


def read_once(patch: pytest.MonkeyPatch) -> None:
    """Let the exporter read them when it is first called; what reads them is imported no sooner."""
    plain = torch.onnx.export

    @functools.wraps(plain)
    def export(*given: Any, **options: Any) -> Any:
        _keep()
        return plain(*given, **options)

    patch.setattr(torch.onnx, "export", export)


@functools.cache
def _keep() -> None:
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # in another torch it has another place
        return
    read = functools.cache(ONNXRegistry.from_torchlib)

    def from_torchlib(*given: Any, **options: Any) -> Any:
        registry = copy.copy(read(*given, **options))
        registry.functions = {target: list(found) for target, found in registry.functions.items()}
        return registry

    ONNXRegistry.from_torchlib = staticmethod(from_torchlib)
