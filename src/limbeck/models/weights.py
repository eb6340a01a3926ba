"""Weights in and out of files, without running code from them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from limbeck.errors import RequestError, reason_of, some
from limbeck.models.containers import State, holds_arrays, left_out, read_content, state_dicts
from limbeck.models.key_maps import in_own_names, remedy
from limbeck.taps.wrappers import plain_names, unwrapped

WRAPPERS = ("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What data parallelism, torch.compile, Fabric and others put into names."""
_USUAL = ("state_dict", "model", "model_state_dict", "net", "network", "weights")
"""Keys under which tools keep a network, among other tensors."""
_COUNT = "num_batches_tracked"
_AVERAGED = {"ema", "averaged", "average", "avg", "swa"}
"""Words in the names of averaged weights, whose accuracy is the published one."""


@dataclass(frozen=True)
class Part:
    """Some weights in a file that fit a model.

    Attributes:
        place: Where the state dict lies in the file; "" for the whole file.
        prefix: What stands before each of their names there.
        state: The weights under the model's own plain names.
    """

    place: str
    prefix: str
    state: State

    def __str__(self) -> str:
        prefix = f"names that begin with {self.prefix!r}" if self.prefix else ""
        return " of ".join(filter(None, (prefix, f"{self.place!r}" if self.place else "")))

    @property
    def averaged(self) -> bool:
        return bool(_AVERAGED & set(re.split(r"[^a-z]+", f"{self.place}.{self.prefix}".lower())))


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load the one part of a file that fits a model, as torch's own `load_state_dict` takes it; says which part.

    Prefixes of wrappers ("module.") and of a module that held the network ("model.", "net.") are taken off. Batch norms
    of years ago without `num_batches_tracked` will do. Of weights and their running average (EMA) the average is taken.
    limbeck's ResNets take the names of other repositories too (`limbeck.models.key_maps`).

    Args:
        model: The model that receives the weights; wrappers around it are seen through.
        path: A .safetensors file, or one that torch.save wrote (read with weights_only=True): a state dict, or a
            checkpoint that holds one somewhere.

    Raises:
        RequestError: A file that is missing or unreadable, without a part that fits, or with several.
    """
    model = unwrapped(model)
    own = _own(model)
    found = {place: in_own_names(own, state) for place, state in _parts(path).items()}
    fitting = _distinct([part for place, state in found.items() for part in _fitting(model, place, state)])
    if not fitting:
        _load_as_torch_does(model, path, found)
        return
    chosen = _chosen(fitting, path)
    real = {plain: name for name, plain in plain_names(model).items()}
    state = model.state_dict()  # with the versions of its modules, without which some load nothing
    state.update({name: chosen.state[plain] for plain, name in real.items() if plain in chosen.state})
    model.load_state_dict(state)
    if str(chosen):
        others = [str(part) for part in fitting if part is not chosen]
        rather = f", and not {' or '.join(others)}" if others else ""
        _tell(f"{path}: the weights are {chosen}{rather}")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file or one that torch.save wrote, also out of a checkpoint.

    Prefixes of wrappers are taken off, and of weights and their running average the average is taken, as
    `load_weights` does; which part fits cannot be known here without a model.

    Raises:
        RequestError: The file is missing or unreadable, or holds no state dict, or several.
    """
    parts = [Part(place, "", dict(_without(_common(state), state))) for place, state in _parts(path).items()]
    usual = [part for part in parts if part.averaged or part.place.rpartition("/")[2] in _USUAL]
    return _chosen(_distinct(usual or parts), path).state


def _parts(path: str | Path) -> dict[str, State]:
    content = read_content(path)
    found = state_dicts(content)
    if not found and left_out(content):
        raise RequestError(f"{path} holds a pickled network, which would run code; save its state_dict() instead")
    if not found and holds_arrays(content):
        raise RequestError(
            f"{path} holds other objects in place of tensors, such as NumPy's arrays; save "
            "{name: torch.from_numpy(value) for name, value in weights.items()}"
        )
    if not found:
        raise RequestError(f"{path} holds no state dict (a mapping of names to tensors)")
    return found


def _fitting(model: nn.Module, place: str, state: State) -> Iterator[Part]:
    """The parts of a state dict that fit a model, each under a prefix; its names as they are, or without wrappers."""
    own = _own(model)
    for names in ({name: name for name in state}, {name: _bare(name) for name in state}):
        bare = {names[name]: value for name, value in state.items()}
        parts = [Part(place, prefix, dict(_without(prefix, bare))) for prefix in _prefixes(bare, own)]
        fitting = [part for part in parts if not _faults(model, own, part.state)]
        if fitting:
            yield from fitting
            return


def _prefixes(state: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """What may stand before a model's names: what stands before one of them."""
    first = next((name for name in own if not name.endswith(_COUNT)), "")
    ends = [name for name in state if name == first or name.endswith(f".{first}")]
    return [""] if not first else sorted({name.removesuffix(first) for name in ends})


def _without(prefix: str, state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name.removeprefix(prefix), value) for name, value in state.items() if name.startswith(prefix))


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _common(state: Mapping[str, Any]) -> str:
    """The wrappers that stand before all names."""
    found = ""
    while True:
        more = next((f"{found}{one}." for one in WRAPPERS if all(n.startswith(f"{found}{one}.") for n in state)), None)
        if more is None:
            return found
        found = more


def _own(model: nn.Module) -> State:
    names = plain_names(model)
    return {names[name]: value for name, value in model.state_dict().items()}


def _faults(model: nn.Module, own: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    """What keeps weights from fitting, in words."""
    counts = _counts(model)
    missing = sorted(name for name in own.keys() - state.keys() if name not in counts)
    unexpected = sorted(state.keys() - own.keys())
    misfits = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if _is_shaped(own[name]) and (not _is_shaped(state[name]) or state[name].shape != own[name].shape)
    ]
    described = (("missing", missing), ("unexpected", unexpected), ("of another shape", sorted(misfits)))
    return [f"{what} {some(names)}" for what, names in described if names]


def _is_shaped(value: Any) -> bool:
    return isinstance(value, Tensor) and not is_lazy(value)


def _counts(model: nn.Module) -> set[str]:
    """Names of the counts of batches, which batch norm has had since torch 0.4.1 and nothing that is trained uses."""
    names = plain_names(model)
    norms = {path for path, module in model.named_modules() if isinstance(module, _NormBase)}
    return {plain for name, plain in names.items() if name.endswith(_COUNT) and name.rpartition(".")[0] in norms}


def _distinct(parts: list[Part]) -> list[Part]:
    """The parts without those that hold the same values as an earlier one."""
    kept: list[Part] = []
    for part in parts:
        if not any(_same(part.state, other.state) for other in kept):
            kept.append(part)
    return kept


def _same(one: State, other: State) -> bool:
    if one.keys() != other.keys():
        return False
    pairs = [(value, other[name]) for name, value in one.items() if isinstance(value, Tensor)]
    return all(isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def _chosen(parts: list[Part], path: str | Path) -> Part:
    """The only part, or the averaged one beside what it is the average of.

    Raises:
        RequestError: There are several, and nothing tells which is meant.
    """
    averaged = [part for part in parts if part.averaged]
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2 and len(averaged) == 1:
        return averaged[0]
    places = "; ".join(str(part) or "the file as it is" for part in parts)
    raise RequestError(
        f"{path} holds several sets of weights, and which is meant is not clear: {places}; save one alone"
    )


def _load_as_torch_does(model: nn.Module, path: str | Path, found: Mapping[str, State]) -> None:
    """Leave it to torch: a network may bring old names up to date by itself as it loads.

    Raises:
        RequestError: Torch does not take any of the parts either; the model stays as it was.
    """
    own = _own(model)
    likeliest = sorted(found.items(), key=lambda item: -len(own.keys() & dict(_without(_common(item[1]), item[1]))))
    before = {name: value.clone() if _is_shaped(value) else value for name, value in model.state_dict().items()}
    reasons = []
    for place, state in likeliest:
        prefix = _common(state) if not own.keys() & state.keys() else ""
        part = dict(_without(prefix, state))
        try:
            model.load_state_dict(part)
        except (RuntimeError, TypeError, AttributeError, KeyError, ValueError) as error:
            faults = "; ".join(_faults(model, own, part))
            needed = own.keys() - _counts(model)
            reasons.append(faults + remedy(needed, part.keys() - _counts(model)) if faults else reason_of(error))
            model.load_state_dict(before)
        else:
            if place or prefix:
                _tell(f"{path}: the weights are {Part(place, prefix, part)}")
            return
    where = f" ({some(list(map(repr, found)))})" if any(found) else ""
    raise RequestError(f"the weights in {path}{where} do not fit {type(model).__name__}: {reasons[0]}")


@cache
def _tell(line: str) -> None:
    """Say once what was decided."""
    print(f"limbeck: {line}", file=sys.stderr, flush=True)  # noqa: T201 - a comparison loads the same file often
