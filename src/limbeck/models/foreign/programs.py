"""Programs that PyTorch has written to files: TorchScript, and those of torch.export (.pt2)."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule

from limbeck.errors import RequestError, reason_of
from limbeck.models.foreign.program_files import check_archive, check_program
from limbeck.taps.wrappers import part_at
from limbeck.types import content

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


def program_text(model: nn.Module) -> str:
    """What a model computes, of those parts that are programs: their code, which no weight and no name tells."""
    texts = []
    for name, module in model.named_modules():
        graph = getattr(module, "graph", None)
        if isinstance(module, torch.jit.ScriptModule):
            texts.append(f"{name} {_code(module)}")
        elif isinstance(graph, Graph):
            texts.append(f"{name} {graph} {_constants(module, graph)}")
    return "\n".join(texts)


def _constants(module: nn.Module, graph: Graph) -> str:
    """The tensors that a graph reads and that are no weights."""
    weights = module.state_dict()
    names = [str(node.target) for node in graph.nodes if node.op == "get_attr" and node.target not in weights]
    return "".join(f"{name} {_digest(part_at(module, name))}" for name in names)


def _digest(value: object) -> str:
    return hashlib.sha256(content(value)).hexdigest() if isinstance(value, Tensor) else ""


def _code(module: torch.jit.ScriptModule) -> str:
    try:
        code, constants = module.code_with_constants
    except (RuntimeError, AttributeError):  # a part that only holds others
        return ""
    code = re.sub(r"___torch_mangle_\d+\.", "", code)  # which counts what this process has read before
    return code + "".join(
        f"{key} {_digest(value) or value!r}" for key, value in sorted(constants.const_mapping.items())
    )


def refuse_program(student: nn.Module) -> None:
    """Raise RequestError for a student that is, or holds, a program of torch.export: its mode cannot be switched."""
    for module in student.modules():
        raising = isinstance(module, GraphModule) and "train" in vars(module)  # torch puts one there
        if raising or isinstance(module, torch.export.UnflattenedModule):
            raise RequestError(
                "the student is a program of torch.export, which has no training mode: dropout and batch norm in it "
                "stay as they were exported; train the network that it was exported from, it can teach as it is"
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
