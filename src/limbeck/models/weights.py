"""Weights in and out of files, without running code from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from limbeck.errors import RequestError, as_request, shown
from limbeck.models.torch_file import load_torch

WRAPPERS = ("module.", "_orig_mod.", "_forward_module.", "model.", "student.")
"""Prefixes that data parallelism, torch.compile, Fabric and other tools put before every name."""


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a state dict into a model, which must fit it exactly; wrapper prefixes are understood.

    Args:
        model: The model that receives the weights.
        path: A .safetensors file, or a state dict written by torch.save (read with weights_only=True); a checkpoint
            that holds one under "state_dict" or "model" will do.

    Raises:
        RequestError: A file that is missing or unreadable, or whose names or shapes are not the model's.
    """
    weights = _unwrapped(read_weights(path), set(model.state_dict()))
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    misfits = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if weights[name].shape != own[name].shape
    ]
    faults = [
        f"{what} {_some(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", sorted(misfits)))
        if names
    ]
    if faults:
        raise RequestError(f"the weights in {path} do not fit {type(model).__name__}: {'; '.join(faults)}")
    model.load_state_dict(weights)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file or one that torch.save wrote.

    Raises:
        RequestError: The file is missing, unreadable, or holds something else.
    """
    path = Path(path)
    with as_request(lambda reason: f"cannot read the weights file {shown(str(path), 120)}: {reason}"):
        present = path.is_file()
    if not present:
        raise RequestError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = load_torch(path)
    except Exception as error:  # whatever a hostile file makes a reader raise
        raise RequestError(
            f"cannot read the weights file {path}: it is damaged, or holds more than tensors ({type(error).__name__}); "
            "limbeck reads safetensors, and state dicts with weights_only=True"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise RequestError(f"{path} holds no state dict (a mapping of names to tensors)")
    return dict(content)


def _unwrapped(weights: Mapping[str, Tensor], own: set[str]) -> dict[str, Tensor]:
    """The weights with wrapper prefixes taken off, as long as that is what keeps them from fitting."""
    found = dict(weights)
    while found and not own & found.keys():
        prefix = next((w for w in WRAPPERS if all(name.startswith(w) for name in found)), None)
        if prefix is None:
            break
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _some(names: list[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
