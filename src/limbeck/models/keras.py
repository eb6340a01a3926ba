"""A Keras 3 model on the PyTorch backend, made to behave like any module of PyTorch."""

from __future__ import annotations

import copy
import importlib
import json
import os
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError, reason_of, shown
from limbeck.models.nodes import Node, add_node
from limbeck.models.probabilities import Ending

_PARTS = (
    r"builtins|keras(\.src)?(\.(activations|applications|constraints|dtype_policies|initializers|layers|losses|metrics|"
    r"models|ops|optimizers|quantizers|random|regularizers)(\.\w+)*)?"
)
"""The modules of Keras that hold parts of models: a file that names others could have any function called."""


class KerasModel(nn.Module):
    """A Keras model as PyTorch, and the rest of limbeck, expect a module.

    Keras takes the mode as an argument of each call, images as (B, H, W, C), and keeps its layers out of PyTorch's
    sight. Here `train()` and `eval()` switch dropout and batch statistics, images are (B, C, H, W) at the input and at
    every tap, and each layer is a module with its weights, under its Keras name. Layers that Keras named itself are
    numbered within their model ("conv2d", "conv2d_1", …), so that the same code gives the same names at any time.
    Dropout follows PyTorch's generator, whatever seed its layer has. Regularizers that layers carry are not part of
    any loss of limbeck's; moving statistics count as parameters that are not trained, as in Keras's own count.

    Args:
        model: A Keras model that is built.
        channels_last: It reads images (B, H, W, C); None sees it from its layers.
        probabilities: It ends in a softmax, and the logarithm of its output is taken.

    Attributes:
        keras: The model itself, with the same weights: `keras.save("student.keras")` ships it.

    Raises:
        RequestError: The model is none of Keras's, not built, or Keras runs on another backend.
    """

    keras: Any

    def __init__(self, model: Any, *, channels_last: bool | None = None, probabilities: bool = False) -> None:
        super().__init__()
        keras = _keras()
        if not isinstance(model, keras.Model):
            raise RequestError(f"KerasModel takes a keras.Model, not {type(model).__name__}")
        if not model.built:
            raise RequestError(
                f"the Keras model {model.name} is not built, and has no weights yet; begin it with keras.Input(shape), "
                "or call it once"
            )
        self.__dict__["keras"] = model  # not registered: its layers' weights are, under names that stay the same
        self._layers = list(_hang(self, model, {}))
        if channels_last is None:
            channels_last = all(getattr(layer, "data_format", None) != "channels_first" for layer, _ in self._layers)
        self._channels_last = channels_last
        self._ending = Ending(probabilities=probabilities)
        weights = {id(weight) for weight in model.weights}
        self._seeds = [v for v in model.variables if id(v) not in weights and v.name == "seed_generator_state"]

    def forward(self, x: Tensor | None = None, /, **named: Tensor) -> Any:
        """The model's output for a tensor, or for several by the names of its inputs."""
        inputs: Any = {name: self._to_keras(value) for name, value in named.items()} if x is None else self._to_keras(x)
        device = next(iter(named.values())).device if x is None else x.device
        if self.training:
            for seed in self._seeds:
                seed.assign(torch.randint(2**31 - 1, tuple(seed.shape)))
        handles = [
            layer.register_forward_hook(self._show(shown), with_kwargs=True)
            for layer, shown in self._layers
            if shown.is_read
        ]
        try:
            with _keras().device(str(device)):
                output = self.keras(inputs, training=self.training)
        finally:
            for handle in handles:
                handle.remove()
        return self._ending(output) if isinstance(output, Tensor) else output

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its Keras model is: by configuration and weights."""
        return _again, (self.keras, *self._settings())

    def __deepcopy__(self, memo: dict[int, Any]) -> KerasModel:
        try:
            return _again(copy.deepcopy(self.keras, memo), *self._settings())
        except (TypeError, ValueError, NotImplementedError) as error:
            raise RequestError(f"the Keras model {self.keras.name} cannot be copied: {reason_of(error)}") from error

    def _settings(self) -> tuple[bool, bool, bool, list[bool]]:
        flags = [parameter.requires_grad for parameter in self.parameters()]
        return self._channels_last, self._ending.probabilities, self.training, flags

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> KerasModel:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # as torch has it
        for weight in self.keras.weights:
            if str(weight.value.dtype) != f"torch.{weight.dtype}":
                raise RequestError(
                    f"a Keras model computes in the dtype that its layers were built with, {weight.dtype} here, and "
                    f"cannot be brought to {weight.value.dtype}: leave dtype out, or build it with another one"
                )
        return self

    def _to_keras(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1) if self._channels_last and x.dim() >= 4 else x

    def _from_keras(self, value: Any) -> Any:
        is_map = isinstance(value, Tensor) and value.dim() >= 4
        return value.movedim(-1, 1) if self._channels_last and is_map else value

    def _show(self, shown: Node) -> Any:
        def hook(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            shown(*map(self._from_keras, args), output=self._from_keras(output))

        return hook


def load_keras(path: str | Path, *, channels_last: bool | None = None, probabilities: bool = False) -> KerasModel:
    """Read a model that `model.save("NAME.keras")` wrote; code inside the file is not run (Keras's safe mode).

    Args:
        path: The file.
        channels_last, probabilities: As `KerasModel` takes them.

    Raises:
        RequestError: The file is missing, damaged or unsafe; the extra `keras` is not installed.
    """
    keras, path = _keras(), Path(path)
    if not path.is_file():
        raise RequestError(f"there is no Keras file {path}")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):  # of others, Keras's safe mode is not always kept
        raise RequestError(
            f"cannot read the Keras file {path}: it is no archive NAME.keras; load it in Keras, and save it as one"
        )
    try:
        _check_modules(path)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise RequestError(f"cannot read the Keras file {path}: {reason_of(error)}") from error
    return KerasModel(model, channels_last=channels_last, probabilities=probabilities)


def _check_modules(path: Path) -> None:
    """Raise RequestError for a file that names what is no part of a model: Keras imports what it names."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    todo = [config]
    while todo:
        value = todo.pop()
        todo += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        module = value.get("module") if isinstance(value, dict) else None
        if module is not None and not re.fullmatch(_PARTS, str(module)):
            raise RequestError(
                f"it names {shown(module)}, which is no part of a model; load it in Python, and give that"
            )


def is_keras(model: Any) -> bool:
    """Whether it is a bare Keras model; Keras is not imported to find out."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model)


def refuse_keras(model: Any) -> None:
    """Raise RequestError for a bare Keras model, which would train without dropout and without batch statistics."""
    if is_keras(model):
        raise RequestError(
            f"{model.name} is a bare Keras model, which follows neither train() nor eval(); "
            "give limbeck.KerasModel(model)"
        )


def _keras() -> Any:
    """Keras, on PyTorch where nobody has chosen a backend before."""
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        keras = importlib.import_module("keras")
    except ModuleNotFoundError:
        raise RequestError("Keras models need the extra: pip install 'limbeck[keras]'") from None
    if keras.backend.backend() != "torch":
        raise RequestError(
            f"Keras runs on {keras.backend.backend()}, and limbeck needs it on PyTorch: set the environment variable "
            "KERAS_BACKEND=torch before keras is imported for the first time"
        )
    return keras


def _again(
    model: Any, channels_last: bool, probabilities: bool, training: bool, requires_grad: list[bool]
) -> KerasModel:
    made = KerasModel(model, channels_last=channels_last, probabilities=probabilities).train(training)
    for parameter, flag in zip(made.parameters(), requires_grad, strict=True):
        parameter.requires_grad_(flag)
    return made


def _hang(parent: nn.Module, layer: Any, seen: dict[int, Node]) -> Iterator[tuple[Any, Node]]:
    """Hang a node with its weights under `parent` for each layer inside `layer`; a shared one is hung once."""
    inner = [one for one in _inside(layer) if id(one) not in seen]
    for one, name in zip(inner, _names(inner), strict=True):
        seen[id(one)] = shown = add_node(parent, name, type(one).__name__)
        yield one, shown
        yield from _hang(shown, one, seen)
    hung = {id(weight) for one in _inside(layer) for weight in one.weights}
    for weight in layer.weights:
        if id(weight) not in hung:
            # Keras changes a weight in place, and PyTorch moves a parameter in place: the two stay one.
            parent.register_parameter(_own_name(weight, layer), weight.value)


def _inside(layer: Any) -> list[Any]:
    layers = layer._flatten_layers(include_self=False, recursive=False)
    return [one for one in layers if type(one).__name__ != "InputLayer"]


def _own_name(weight: Any, layer: Any) -> str:
    """The weight's name within its layer: "kernel"; "query_kernel" where the layer has parts that Keras hides."""
    path: str = weight.path.rpartition(f"{layer.name}/")[2]
    return path.replace("/", "_").replace(".", "_")


def _names(layers: list[Any]) -> list[str]:
    """The layers' names; those that Keras counted through the whole process are counted among these."""
    counts: Counter[str] = Counter()
    names = []
    for layer in layers:
        stem = re.sub(r"_\d+$", "", layer.name)
        if stem.replace("_", "") == type(layer).__name__.lower():
            names.append(f"{stem}_{counts[stem]}" if counts[stem] else stem)
            counts[stem] += 1
        else:
            names.append(layer.name)
    return names
