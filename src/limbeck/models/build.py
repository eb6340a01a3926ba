"""From a model's name to a model: limbeck's own, torchvision's, timm's, one in a file of another tool, or yours."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.errors import RequestError, as_request, shown, unknown
from limbeck.imports import load_object
from limbeck.models import NETWORKS, KerasModel, OnnxModel
from limbeck.models.foreign.hugging_face import load_hugging_face
from limbeck.models.foreign.keras import is_keras, load_keras
from limbeck.models.foreign.programs import load_program, load_script
from limbeck.models.memory import WithinMemory, weigh
from limbeck.models.networks.multi_exit import MultiExit, exit_network
from limbeck.models.pixels import Pixels, configured
from limbeck.models.projected import projected
from limbeck.options import fitting

_READERS: dict[str, Callable[..., nn.Module]] = {
    "onnx": OnnxModel,
    "keras": load_keras,
    "torchscript": load_script,
    "pt2": load_program,
    "hf": load_hugging_face,
}
FILES = frozenset(_READERS)
"""The kinds of files that a model can be named by, as in "keras:FILE"; of Hugging Face it is a folder."""

REUSED = "reused_classifier"
"""The option of a network that ends in the classifier of another one."""


def build(name: str, /, *, input_shape: tuple[int, ...], classes: int | None, **options: Any) -> nn.Module:
    """Build a model by name.

    Args:
        name: One of limbeck's networks ("mlp"), "torchvision:resnet18", "timm:vit_tiny_patch16_224", a file with its
            weights as "onnx:FILE", "keras:FILE", "torchscript:FILE" or "pt2:FILE", a folder of a Hugging Face model
            as "hf:FOLDER", or "package.module:callable"; the callable is given `input_shape` and `classes` (or
            `num_classes`) where it takes them, and may give a Keras model.
        input_shape: One sample's shape, without the batch.
        classes: Number of logits; None keeps the builder's own number.
        **options: The builder's own options; "exit" of a network with several exits: the one to take as a plain
            network, 1 for the shallowest; "reused_classifier", {"channels": C} or {"channels": C, "size": [H, W]}: its
            last map, brought to that size, goes through a projector to C channels and to a classifier of their means
            (`limbeck.models.projected`).

    Raises:
        RequestError: An unknown name or option, a package that is not installed, a builder that fails, weights beyond
            the machine's memory, an exit that the model does not have, or a model that shows no last map.
    """
    return build_from(name, options, input_shape=input_shape, classes=classes)


def build_from(
    name: str, options: Mapping[str, Any], *, input_shape: tuple[int, ...], classes: int | None, copies: int = 1
) -> nn.Module:
    """`build` with options under any names, as a file may hold them, where the memory holds so many copies."""
    own = dict(options)
    reused = own.pop(REUSED, None)
    if reused is not None:
        ends = _ends(name, reused)
        model = build_from(name, own, input_shape=input_shape, classes=classes, copies=copies)
        return projected(model, input_shape=input_shape, classes=classes or 10, **ends)
    exit = own.pop("exit", None)
    what = f"model {shown(name)}"
    if name in NETWORKS:
        weigh(what, lambda: _whole(name, input_shape, classes, own), copies)
    with WithinMemory(what):
        model = _whole(name, input_shape, classes, own)
    if exit is None:
        return model
    if not isinstance(exit, int):
        raise RequestError(f"exit is a number, 1 for the shallowest, not {shown(exit)}")
    if not isinstance(model, MultiExit):
        raise RequestError(f"model {name} has a single exit; leave exit out")
    return exit_network(model, exit)


def check_name(name: str) -> None:
    """Raise RequestError for a model's name behind which there is nothing; nothing is built."""
    source, _, rest = name.partition(":")
    if not rest:
        _own(name)
    elif source == "torchvision":
        _torchvision_models(rest)
    elif source == "timm":
        _timm_models(rest)
    elif source in _READERS:
        if not Path(rest).exists():
            raise RequestError(f"model {shown(name)}: there is no {'folder' if source == 'hf' else 'file'} {rest}")
    else:
        load_object(name, "model")


def _ends(name: str, given: Any) -> dict[str, Any]:
    """The options of `projected` in what a recipe or a file says."""
    right = isinstance(given, Mapping) and "channels" in given and not set(given) - {"channels", "size"}
    size = given.get("size") if right else None
    numbers = [given["channels"], *(size if isinstance(size, list | tuple) else ())] if right else []
    if not right or len(numbers) != (1 if size is None else 3) or not all(type(n) is int and n > 0 for n in numbers):
        raise RequestError(
            f"model {name}: {REUSED} is {{channels: C}} or {{channels: C, size: [H, W]}}, not {shown(given)}"
        )
    return dict(given)


def _whole(name: str, input_shape: tuple[int, ...], classes: int | None, options: dict[str, Any]) -> nn.Module:
    source, _, rest = name.partition(":")
    if not rest:
        return _call(name, _own(name), {"input_shape": input_shape, "classes": classes or 10}, options)
    if source == "torchvision":
        return _torchvision(rest, classes, options)
    if source == "timm":
        return _timm(rest, input_shape, classes, options)
    if source in _READERS:
        reader = _READERS[source]
        chooses = "classes" in inspect.signature(reader).parameters
        return _call(name, reader, {"path": rest, **({"classes": classes} if chooses else {})}, options)
    builder = load_object(name, "model")
    offered = {"input_shape": input_shape, "classes": classes, "num_classes": classes}
    taken = inspect.signature(builder).parameters
    given = {key: value for key, value in offered.items() if key in taken and value is not None}
    return _call(name, builder, given, options)


def _own(name: str) -> Callable[..., nn.Module]:
    if name not in NETWORKS:
        known = [
            *NETWORKS,
            "torchvision:NAME",
            "timm:NAME",
            *(f"{one}:{'FOLDER' if one == 'hf' else 'FILE'}" for one in _READERS),
            "package.module:callable",
        ]
        if name.endswith(".py") and Path(name).is_file():
            raise RequestError(f"{name} is a file of Python: name the function in it that gives the model, {name}:NAME")
        raise unknown("model", name, known)
    return NETWORKS[name]


def _torchvision(name: str, classes: int | None, options: dict[str, Any]) -> nn.Module:
    models = _torchvision_models(name)
    given: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    pretrained = options.pop("pretrained", False)
    if pretrained:
        given = {"weights": "DEFAULT"}  # with the classes that it was trained on
    model = _call(f"torchvision:{name}", models.get_model_builder(name), given, options)
    prepared: Any = models.get_model_weights(name).DEFAULT.transforms() if pretrained else None
    if hasattr(prepared, "mean") and hasattr(prepared, "std"):
        known = Pixels(tuple(prepared.mean), tuple(prepared.std), "torchvision says of these weights")
        vars(model)["pixels"] = known
    return model


def _torchvision_models(name: str) -> Any:
    """torchvision's module of models, which has one of this name."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise unknown("torchvision model", name, known)
    return models


def _timm(name: str, input_shape: tuple[int, ...], classes: int | None, options: dict[str, Any]) -> nn.Module:
    timm = _timm_models(name)
    given: dict[str, Any] = {"model_name": name, "in_chans": input_shape[0]}
    given |= {} if classes is None else {"num_classes": classes}
    model = _call(f"timm:{name}", timm.create_model, given, options)
    if classes and getattr(model, "num_classes", classes) == 0:
        raise RequestError(
            f"timm:{name} is an encoder, and takes no classifier: its answers are not logits of {classes} classes; "
            "wrap it in a network of your own that has one (package.module:callable)"
        )
    # Also None is an answer: of weights that are trained here, or come from a file, its configuration knows nothing.
    vars(model)["pixels"] = configured(model, input_shape[0]) if options.get("pretrained") else None
    return model


def _timm_models(name: str) -> Any:
    """The package timm, which has a model of this name."""
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError:
        raise RequestError("timm: models need the extra: pip install 'limbeck[timm]'") from None
    if not timm.is_model(name.split(".")[0]):
        raise unknown("timm model", name, timm.list_models())
    return timm


def refuse_new_head(name: str, model: nn.Module) -> None:
    """Raise RequestError for a pretrained timm model of other classes than its weights': timm draws a new head then."""
    trained = (getattr(model, "pretrained_cfg", None) or {}).get("num_classes")
    classes = getattr(model, "num_classes", None)
    if trained and classes and classes != trained:
        raise RequestError(
            f"model {name} was trained on {trained:,} classes, and with {classes:,} its head is new and untrained: it "
            "cannot teach; leave num_classes out, or train it with teacher.epochs"
        )


def _call(name: str, builder: Callable[..., Any], given: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    with as_request(lambda reason: f"model {name} cannot be built: {reason}"):
        model = builder(**given, **fitting(f"model {name}", builder, options, given=given.keys()))
        model = KerasModel(model) if is_keras(model) else model
    if not isinstance(model, nn.Module):
        raise RequestError(f"model {name} gave {type(model).__name__} instead of a torch.nn.Module")
    return model
