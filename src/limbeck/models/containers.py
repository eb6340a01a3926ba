"""What a weights file holds, read without running code from it, and the state dicts inside."""

from __future__ import annotations

import pickle
import re
import sys
import warnings
from _compat_pickle import IMPORT_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from limbeck.errors import RequestError, as_request, reason_of, shown
from limbeck.models.foreign.program_files import kind_of
from limbeck.models.torch_file import load_torch

State = dict[str, Any]
"""A state dict: tensors by name, and modules' extra state."""
DEPTH = 4
"""So deep in a checkpoint a state dict may lie."""
UNKNOWN = 64
"""So many kinds of objects beside the weights may be left out."""


class Inert:
    """Stands for an object that a checkpoint holds beside its weights: nothing of it is kept, and nothing run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


_HARMLESS = [
    "argparse.Namespace",
    "types.SimpleNamespace",
    "functools.partial",
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
    *(f"{module}.multiarray.{name}" for module in ("numpy.core", "numpy._core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
]
"""Of Python's own library only these are left out in silence, and numbers of NumPy's; anything else is refused."""
_MAPPINGS = [
    f"{package}.{place}.AttributeDict"
    for package in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")
    for place in ("utilities.parsing", "utilities.data")
]


def read_content(path: str | Path) -> Any:
    """What a .safetensors file holds, or one that torch.save wrote, on the CPU.

    The latter is read with weights_only=True. Objects of other classes beside the weights, such as the settings of a
    training, become `Inert`: their classes are neither imported nor called.

    Raises:
        RequestError: The file is missing or damaged, or names functions that could do harm.
    """
    path = Path(path)
    with as_request(lambda reason: f"cannot read the weights file {shown(str(path), 120)}: {reason}"):
        present = path.is_file()
    if not present:
        raise RequestError(f"there is no weights file {path}")
    if kind := kind_of(path):
        raise RequestError(f"{path} holds a whole network and no weights alone; build it by the name {kind}:FILE")
    try:
        return load_file(path) if path.suffix == ".safetensors" else _loaded(path)
    except RequestError:
        raise
    except Exception as error:  # whatever a hostile file makes a reader raise
        raise RequestError(
            f"cannot read the weights file {path}: it is damaged, or holds more than tensors ({_reason(error)}); "
            "limbeck reads safetensors, and state dicts with weights_only=True"
        ) from error


def state_dicts(content: Any) -> dict[str, State]:
    """The state dicts in what a file holds, by where they lie: "" for the whole, "state_dict", "model/ema".

    Optimizers' states and records of numbers by step are none.
    """
    found: dict[str, State] = {}
    _search(content, "", found, DEPTH)
    return found


def left_out(content: Any) -> bool:
    """Whether the whole of a file is an object of some class, such as a pickled network."""
    return isinstance(content, Inert)


def holds_arrays(content: Any) -> bool:
    """Whether it is a mapping of names to objects that are left out alone, as NumPy's arrays are."""
    return isinstance(content, Mapping) and bool(content) and all(isinstance(one, Inert) for one in content.values())


def _loaded(path: Path) -> Any:
    names: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(Inert, name) for name in _HARMLESS]
    names += [(OrderedDict, name) for name in _MAPPINGS] + [(_mapping, "collections.defaultdict")]
    for _ in range(UNKNOWN):
        try:
            with torch.serialization.safe_globals(names), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of old pickle protocols, read all the same or refused
                return load_torch(path)
        except pickle.UnpicklingError as error:
            unknown = re.search(r"Unsupported global: GLOBAL (\S+) was not", str(error))
            if unknown is None or not _is_foreign(unknown[1]):
                raise
            names.append((Inert, unknown[1]))
    raise RequestError(f"{path} holds objects of more than {UNKNOWN} classes; save model.state_dict() alone")


def _mapping(*_: Any) -> dict[str, Any]:
    return {}


def _is_foreign(name: str) -> bool:
    """Whether a class belongs to a package or to its user, and not to Python: then a stand-in for it will do."""
    package, dot, _ = name.partition(".")
    return bool(dot) and package not in sys.stdlib_module_names and package not in IMPORT_MAPPING  # Python 2's names


def _reason(error: Exception) -> str:
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named:
        return f"{named[1]}, which is never run"
    return f"{type(error).__name__}" if isinstance(error, pickle.UnpicklingError) else reason_of(error)[:100]


def _search(content: Any, place: str, found: dict[str, State], depth: int) -> None:
    if not isinstance(content, Mapping) or not content or not all(isinstance(name, str) for name in content):
        return
    if "param_groups" in content:
        return
    if all(_is_value(name, value) for name, value in content.items()):
        found[place] = dict(content)
        return
    if depth:
        for name, value in content.items():
            _search(value, f"{place}/{name}" if place else name, found, depth - 1)


def _is_value(name: str, value: Any) -> bool:
    return isinstance(value, Tensor) or name.endswith("_extra_state")
