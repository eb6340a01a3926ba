"""Where a model's stages and its embedding are: tap names for any convolutional classifier.

A model that knows says so itself, in attributes `stages` and `embedding`. Torchvision's and timm's are
recognised, and what remains is found by one forward pass.
"""

from __future__ import annotations

import torch
from torch import nn

from limbeck.errors import RequestError, reason_of
from limbeck.models.foreign.nodes import Node
from limbeck.taps import TapInfo, trace

PROBE_SIZE = 64
FOREIGN_LINEAR = ("Dense", "Gemm", "MatMul")
"""What Keras and ONNX call a linear layer."""
INERT = ("Identity", "Dropout", "Dropout2d")


def stages(model: nn.Module, *, input_shape: tuple[int, ...] | None = None) -> tuple[str, ...]:
    """The modules whose outputs are a model's stages: its last feature map of each resolution, first to last.

    Args:
        model: One of limbeck's networks, a torchvision or timm model, or any other with maps (B, C, H, W).
        input_shape: (C, H, W) of one sample, for the forward pass that unknown models need; without it,
            64×64 images of as many channels as the first convolution reads.

    Returns:
        Module paths, to be used as taps.

    Raises:
        RequestError: Its stages could not be detected, or does not run on that input.

    >>> from limbeck.models.networks.resnet_cifar import resnet8
    >>> stages(resnet8(input_shape=(3, 32, 32), classes=10))
    ('stage1', 'stage2', 'stage3')
    """
    found = _declared(model) or _resnet_layers(model) or _timm_features(model) or _probed(model, input_shape)
    if not found:
        raise RequestError(
            f"stages of {type(model).__name__} could not be detected: no feature map keeps the input's proportions; "
            "name the taps yourself (`limbeck inspect` lists them)"
        )
    return found


def embedding(model: nn.Module) -> str:
    """The tap of the vector that a model's classifier reads, such as "fc:in".

    Args:
        model: One of limbeck's networks, a timm model, or any other whose last linear layer gives the logits.

    Raises:
        RequestError: The model has no such layer.

    >>> from limbeck.models.networks.resnet_cifar import resnet8
    >>> embedding(resnet8(input_shape=(3, 32, 32), classes=10))
    'classifier:in'
    """
    declared = getattr(model, "embedding", None)
    if isinstance(declared, str):
        return declared
    last = _timm_classifier(model)
    linear = [path for path, module in model.named_modules() if _is_linear(module) and path]
    path = last or (linear[-1] if linear else None)
    if path is None:
        raise RequestError(
            f"{type(model).__name__} has no linear classifier whose input could be its embedding; name the tap yourself"
        )
    return f"{path}:in"


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, Node) and type(module).__name__ in FOREIGN_LINEAR)


def _declared(model: nn.Module) -> tuple[str, ...]:
    names = getattr(model, "stages", None)
    return names if isinstance(names, tuple) and all(isinstance(name, str) for name in names) else ()


def _resnet_layers(model: nn.Module) -> tuple[str, ...]:
    """The layer1 … layer4 of torchvision's and timm's ResNets and their relatives."""
    layers = tuple(name for name, _ in model.named_children() if name.startswith("layer") and name[5:].isdigit())
    return layers if len(layers) > 1 else ()


def _timm_features(model: nn.Module) -> tuple[str, ...]:
    information = getattr(model, "feature_info", None)
    if not isinstance(information, list):
        return ()
    modules = dict(model.named_modules())
    named = (str(entry.get("module")) for entry in information if isinstance(entry, dict))
    return tuple(name for name in named if name in modules and "Pool" not in type(modules[name]).__name__)


def _timm_classifier(model: nn.Module) -> str | None:
    get = getattr(model, "get_classifier", None)
    if get is None:
        return None
    classifier = get()
    # Distilled transformers have two classifiers.
    classifier = classifier[0] if isinstance(classifier, tuple) else classifier
    return next((path for path, module in model.named_modules() if module is classifier), None)


def _probed(model: nn.Module, input_shape: tuple[int, ...] | None) -> tuple[str, ...]:
    shape = input_shape or _guessed_shape(model)
    if shape is None or len(shape) != 3:
        return ()
    parameter = next(model.parameters(), torch.empty(0))
    probe = torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype)
    try:
        seen = trace(model, probe)
    except Exception as error:
        raise RequestError(
            f"{type(model).__name__} does not run on an input of shape {shape}: {reason_of(error)}; "
            "give another input_shape"
        ) from error
    return _last_of_each_size(seen, shape)


def _guessed_shape(model: nn.Module) -> tuple[int, ...] | None:
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return None if first is None else (first.in_channels, PROBE_SIZE, PROBE_SIZE)


def _last_of_each_size(seen: list[TapInfo], shape: tuple[int, ...]) -> tuple[str, ...]:
    """For each height and width the last of the outermost modules that give it, unless that is a pooling."""
    if any(len(tap.shape) == 3 for tap in seen):
        return ()  # tokens: what maps there are come before the first block
    areas = {tap.name: tap.shape[2] * tap.shape[3] for tap in seen if len(tap.shape) == 4}
    ends: dict[tuple[int, ...], TapInfo] = {}
    for tap in seen:
        if not _is_map(tap, shape) or _is_squeezed(tap, areas):
            continue
        size = tap.shape[2:]
        if size not in ends or tap.name.count(".") <= ends[size].name.count("."):
            ends[size] = tap
    found = sorted((tap for tap in ends.values() if not _ends_in_pooling(tap, seen)), key=seen.index)
    return tuple(tap.name for tap in found)


def _is_map(tap: TapInfo, shape: tuple[int, ...]) -> bool:
    """Whether a tensor has the input's proportions; channels-last maps do not, until they are permuted."""
    _, height, width = shape
    if len(tap.shape) != 4 or tap.kind == "Permute":
        return False
    return abs(tap.shape[2] * width - tap.shape[3] * height) <= max(height, width)


def _is_squeezed(tap: TapInfo, areas: dict[str, int]) -> bool:
    """Whether a module around this one gives a larger map, as squeeze-and-excitation does."""
    parts = tap.name.split(".")
    around = (".".join(parts[:length]) for length in range(1, len(parts)))
    return any(areas.get(name, 0) > areas[tap.name] for name in around)


def _ends_in_pooling(tap: TapInfo, seen: list[TapInfo]) -> bool:
    """Whether the last layer that ran inside a module, identities apart, is a pooling."""
    containers = {name.rpartition(".")[0] for name in (other.name for other in seen)}
    layers = [
        other
        for other in seen[: seen.index(tap) + 1]
        if f"{other.name}.".startswith(f"{tap.name}.") and other.name not in containers and other.kind not in INERT
    ]
    return bool(layers) and "Pool" in layers[-1].kind
