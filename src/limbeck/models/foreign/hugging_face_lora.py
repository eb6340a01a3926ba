"""LoRA: small matrices beside frozen weights are trained in their place (peft), and added to them in the end."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from limbeck.errors import RequestError, as_request, unknown

_OURS = ("task_type", "peft_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping")


def with_lora(model: nn.Module, options: Mapping[str, Any], also: Iterable[str] = ()) -> nn.Module:
    """Put trained matrices B·A of rank r beside linear layers of a model, in place, and freeze all else.

    Args:
        model: A plain model; its names stay, and each adapted layer gets the parts base_layer, lora_A and lora_B.
        options: As peft's LoraConfig takes them: r, lora_alpha, lora_dropout, target_modules, …; parts that
            `modules_to_save` names are trained as they are.
        also: Names of further parameters that are trained, such as those of a new head.

    Raises:
        RequestError: peft is not installed, an unknown option, or no such layers.

    Source: Hu et al.: LoRA, arXiv:2106.09685.
    """
    try:
        peft = importlib.import_module("peft")
    except ModuleNotFoundError:
        raise RequestError("lora needs the extra: pip install 'limbeck[lora]'") from None
    known = {field.name for field in dataclasses.fields(peft.LoraConfig)} - {*_OURS}
    for name in options:
        if name not in known:
            raise unknown("option of lora", name, known)
    parts = tuple(options.get("modules_to_save") or ())
    given = {name: value for name, value in options.items() if name != "modules_to_save"}
    whole = [name for name, _ in model.named_parameters() if _within(name, parts)]
    if parts and not whole:
        raise unknown("part of modules_to_save", parts[0], [name for name, _ in model.named_modules() if name])
    with as_request(lambda reason: f"lora: {reason}"):
        peft.inject_adapter_in_model(peft.LoraConfig(**given), model)
    for name in (*whole, *also):
        model.get_parameter(name).requires_grad_(True)
    return model


def has_adapters(model: nn.Module) -> bool:
    """Whether layers of a model have matrices of peft beside their weights."""
    return bool(_adapted(model))


def make_plain(model: nn.Module) -> None:
    """`merge_adapters`, but for a PeftModel, which its user wrapped and keeps."""
    if has_adapters(model) and not isinstance(model, sys.modules["peft"].PeftModel):
        merge_adapters(model)


def merge_adapters(model: nn.Module) -> None:
    """Add the matrices of an adapted model to its weights, in place: it is plain then, with the same outputs."""
    _unload(model, merge=True)


def drop_adapters(model: nn.Module) -> None:
    """Take the matrices of an adapted model away, in place: it is as before `with_lora`, and trainable as a whole."""
    _unload(model, merge=False)


def merged(model: nn.Module) -> nn.Module:
    """A plain model: the model itself where nothing is adapted, else a copy with the matrices added to its weights."""
    if not has_adapters(model):
        return model
    plain: Any = copy.deepcopy(model)
    if isinstance(plain, sys.modules["peft"].PeftModel):
        plain = plain.merge_and_unload()
    else:
        merge_adapters(plain)
    made: nn.Module = plain
    return made


def _unload(model: nn.Module, *, merge: bool) -> None:
    for name in _adapted(model):
        layer: Any = model.get_submodule(name)
        if merge:
            layer.merge()
        model.set_submodule(name, layer.get_base_layer())
    for module in model.modules():
        vars(module).pop("peft_config", None)
    model.requires_grad_(True)


def _adapted(model: nn.Module) -> list[str]:
    tuners = sys.modules.get("peft.tuners.tuners_utils")
    if tuners is None:
        return []
    return [name for name, one in model.named_modules() if isinstance(one, tuners.BaseTunerLayer)]


def _within(name: str, parts: Iterable[str]) -> bool:
    """Whether a parameter lies in one of these parts, by a part's own name or its end, as peft has it."""
    module = name.rpartition(".")[0]
    return any(f".{module}.".endswith(f".{part}.") or f".{part}." in f".{module}." for part in parts)
