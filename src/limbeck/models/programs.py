"""Programs that PyTorch has written to files: TorchScript, and those of torch.export (.pt2)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.fx import GraphModule

from limbeck.errors import RequestError, reason_of
from limbeck.models.program_files import check_archive, check_program

_FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def load_script(path: str | Path) -> nn.Module:
    """Read a model that `torch.jit.save` wrote; a file of torch.save is not read, so no pickle is run.

    Args:
        path: The file.

    Raises:
        RequestError: It is missing, damaged, or no TorchScript.
    """
    path = Path(path)
    check_archive(path, "torchscript")
    try:
        with warnings.catch_warnings(action="ignore"):  # of its own future
            model: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        raise RequestError(f"cannot read the TorchScript file {path}: {reason_of(error)}") from error
    return model


def load_program(path: str | Path) -> nn.Module:
    """Read a program that `torch.export.save` wrote, with the modules of its network, whose outputs are taps.

    Such a file can name Python objects to be unpickled, functions and formulas: one that holds more than PyTorch's own
    operations and tensors is refused before it is read.

    Args:
        path: The file.

    Raises:
        RequestError: It is missing, damaged, no such program, or not harmless.
    """
    path = Path(path)
    check_archive(path, "pt2")
    check_program(path)
    try:
        with warnings.catch_warnings(action="ignore"), _weights_only():
            return torch.export.unflatten(torch.export.load(path))
    except Exception as error:
        raise RequestError(f"cannot read the program of torch.export {path}: {reason_of(error)}") from error


def refuse_program(student: nn.Module) -> None:
    """Raise RequestError for a student that is, or holds, a program of torch.export: its mode cannot be switched."""
    for module in student.modules():
        if isinstance(module, GraphModule) and "train" in vars(module):  # torch puts one there that raises
            raise RequestError(
                "the student is a program of torch.export, which has no train(): dropout and batch norm in it stay as "
                "they were exported; train the network that it was exported from, it can teach as it is"
            )


@contextmanager
def _weights_only() -> Iterator[None]:
    """Inside, torch.load runs no pickle, whatever torch's own code asks it."""
    before = os.environ.get(_FORCED)
    os.environ[_FORCED] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCED]
        else:
            os.environ[_FORCED] = before
