"""A Keras 3 model on the PyTorch backend, made to behave like any module of PyTorch."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError, reason_of
from limbeck.models.foreign.keras_files import cause_of, keras_on_torch, saved_model
from limbeck.models.foreign.keras_inputs import KerasInputs
from limbeck.models.foreign.keras_layers import hang, is_weighted, renamed, settings_of
from limbeck.models.foreign.nodes import Node
from limbeck.models.foreign.outputs import Outputs, flattened
from limbeck.models.pixels import Pixels, measured
from limbeck.models.probabilities import Ending
from limbeck.taps import LOGITS, evaluating


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
        channels_last: It reads images (B, H, W, C), and signals (B, L, C); None sees it from its layers, for images.
        probabilities: It ends in a softmax, and the logarithm of its output is taken.
        logits: Of several outputs the name of that which holds the logits; by default "logits", else the only one of
            shape (B, C). The others are given beside it.
        classes: How many the logits are, to choose between several outputs; None leaves that to who teaches with it.

    Attributes:
        keras: The model itself, with the same weights: `keras.save("student.keras")` ships it.

    Raises:
        RequestError: The model is none of Keras's, not built, has no such output, or Keras runs on another backend.
    """

    keras: Any
    shows_operations = False
    """Taps are its layers, and nothing between them (`limbeck.taps`)."""

    def __init__(
        self,
        model: Any,
        *,
        channels_last: bool | None = None,
        probabilities: bool = False,
        logits: str | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        keras = keras_on_torch()
        if not isinstance(model, keras.Model):
            raise RequestError(f"KerasModel takes a keras.Model, not {type(model).__name__}")
        if not model.built:
            raise RequestError(
                f"the Keras model {model.name} is not built, and has no weights yet; begin it with keras.Input(shape), "
                "or call it once"
            )
        self.__dict__["keras"] = model  # not registered: its layers' weights are, under names that stay the same
        self._layers = list(hang(self, model, {}))
        stated = channels_last is not None
        if channels_last is None:
            channels_last = all(getattr(layer, "data_format", None) != "channels_first" for layer, _ in self._layers)
        self._reads = KerasInputs(model, channels_last=channels_last, stated=stated)
        self._ending = Ending(probabilities=probabilities)
        self._logits, self._classes = logits, classes
        if logits is not None and (names := _output_names(model)):
            Outputs(f"the Keras model {model.name}", dict.fromkeys(names, ()), {}).named(logits)
        weights = {id(weight) for weight in model.weights}
        self._seeds = [v for v in model.variables if id(v) not in weights and v.name == "seed_generator_state"]

    def forward(self, x: Tensor | None = None, /, **named: Tensor) -> Any:
        """The model's output for a tensor, or for several by the names of its inputs.

        Several outputs are given by their names, the logits as "logits".

        Raises:
            RequestError: Inputs that the model cannot read; several outputs that could be logits.
        """
        device = next(iter(named.values())).device if x is None else x.device
        inputs = self._reads(named if x is None else x)
        if self.training:
            for seed in self._seeds:
                seed.assign(torch.randint(2**31 - 1, tuple(seed.shape)))
        with ExitStack() as stack:
            for layer, shown in self._layers:
                if shown.is_read:
                    handle = layer.register_forward_hook(self._show(shown), with_kwargs=True)
                    stack.callback(handle.remove)
            stack.enter_context(self._causes())
            stack.enter_context(keras_on_torch().device(str(device)))
            output = self.keras(inputs, training=self.training)
        return self._answer(output)

    @property
    def notes(self) -> list[str]:
        """What should be known of how it is read, a line each."""
        return self._ending.notes

    @property
    def reads_floats(self) -> bool:
        """Whether it reads no whole numbers."""
        return not self._reads.dtypes

    def choose_logits(self, classes: int | None) -> None:
        """Of several outputs that could be logits, take the one of this many classes, where nobody has chosen."""
        self._classes = self._classes or classes

    @torch.no_grad()
    def expected_pixels(self, images: Tensor) -> Pixels | None:
        """The range of pixels that its layers are made for, or its input's dtype; None where they say nothing."""
        channels = images.shape[1]
        for name, dtype in self._reads.dtypes.items():
            return Pixels.up_to_255(channels, f"its input {name} is of {str(dtype).removeprefix('torch.')}")
        first: list[tuple[Tensor, str]] = []

        def keep(layer: Any, args: tuple[Any, ...], output: Any) -> None:
            if not first and args and isinstance(args[0], Tensor):
                first.append((args[0], layer.name))

        found = []
        with evaluating(self), ExitStack() as stack:
            for layer, _ in self._layers:
                if is_weighted(layer):
                    stack.callback(layer.register_forward_hook(keep).remove)
            for value in (0.0, 1.0):
                first.clear()
                try:
                    with keras_on_torch().device(str(images.device)):
                        self.keras(self._reads(torch.full_like(images[:1], value)), training=False)
                except Exception:  # whoever really runs it will say so
                    return None
                found += first
        if len(found) != 2 or found[0][0].shape != found[1][0].shape:
            return None
        return measured(found[0][0], found[1][0], channels, f"its layers before {found[0][1]} scale them down")

    def identity(self) -> str:
        """What its outputs depend on besides the weights: layers and their settings, how it is read, Keras itself."""
        layers = [settings_of(layer) for layer, _ in self._layers]
        content = [keras_on_torch().__version__, layers, settings_of(self.keras), self._settings()[0]]
        names = {layer.name: f"layer {number}" for number, (layer, _) in enumerate(self._layers)}
        text = json.dumps(renamed(content, {**names, self.keras.name: "model"}), sort_keys=True, default=repr)
        return hashlib.sha256(text.encode()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its Keras model is: by configuration and weights."""
        return _again, (self.keras, *self._settings())

    def __deepcopy__(self, memo: dict[int, Any]) -> KerasModel:
        try:
            return _again(copy.deepcopy(self.keras, memo), *self._settings())
        except (TypeError, ValueError, NotImplementedError) as error:
            raise RequestError(f"the Keras model {self.keras.name} cannot be copied: {reason_of(error)}") from error

    def _settings(self) -> tuple[dict[str, Any], bool, list[bool]]:
        options = {
            "channels_last": self._reads.channels_last if self._reads.stated else None,
            "probabilities": self._ending.probabilities,
            "logits": self._logits,
            "classes": self._classes,
        }
        return options, self.training, [parameter.requires_grad for parameter in self.parameters()]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> KerasModel:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # as torch has it
        for weight in self.keras.weights:
            if str(weight.value.dtype) != f"torch.{weight.dtype}":
                raise RequestError(
                    f"a Keras model computes in the dtype that its layers were built with, {weight.dtype} here, and "
                    f"cannot be brought to {weight.value.dtype}: leave dtype out, or build it with another one"
                )
        return self

    def _answer(self, output: Any) -> Any:
        """The logits, or a mapping with them for a model with several outputs."""
        if isinstance(output, Tensor):
            return self._ending(flattened(output))
        if isinstance(output, Mapping):
            by_name = dict(output)
        elif isinstance(output, tuple | list):
            names = _output_names(self.keras)
            by_name = dict(
                zip(names if len(names) == len(output) else map(str, range(len(output))), output, strict=True)
            )
        else:
            return output
        chosen = self._chosen({name: value for name, value in by_name.items() if isinstance(value, Tensor)})
        return {**by_name, LOGITS: self._ending(flattened(by_name[chosen]))}

    def _chosen(self, tensors: Mapping[str, Tensor]) -> str:
        real = {name: tuple(value.shape) for name, value in tensors.items() if value.is_floating_point()}
        others = {name: f"is of {value.dtype}" for name, value in tensors.items() if name not in real}
        outputs = Outputs(f"the Keras model {self.keras.name}", real, others)
        if self._logits is not None:
            return outputs.named(self._logits)
        chosen = outputs.chosen(self._classes)
        if chosen is None:
            raise outputs.several()
        return chosen

    @contextmanager
    def _causes(self) -> Iterator[None]:
        """Inside, an error of Keras's says in its first line what Keras says in its third."""
        try:
            yield
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError | RequestError) or cause_of(error) == reason_of(error):
                raise
            raise RequestError(f"the Keras model {self.keras.name} cannot compute: {cause_of(error)}") from error

    def _from_keras(self, value: Any) -> Any:
        is_map = isinstance(value, Tensor) and self._reads.moves(value.dim())
        return value.movedim(-1, 1) if is_map else value

    def _show(self, shown: Node) -> Any:
        def hook(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            shown(*map(self._from_keras, args), output=self._from_keras(output))

        return hook


def load_keras(
    path: str | Path,
    *,
    channels_last: bool | None = None,
    probabilities: bool = False,
    logits: str | None = None,
    classes: int | None = None,
) -> KerasModel:
    """Read a model that `model.save("NAME.keras")` wrote; code inside the file is not run (Keras's safe mode).

    Args:
        path: The file.
        channels_last, probabilities, logits, classes: As `KerasModel` takes them.

    Raises:
        RequestError: The file is missing, damaged or unsafe; the extra `keras` is not installed.
    """
    model = saved_model(Path(path))
    return KerasModel(model, channels_last=channels_last, probabilities=probabilities, logits=logits, classes=classes)


def is_keras(model: Any) -> bool:
    """Whether it is a bare Keras model; Keras is not imported to find out."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model)


def _again(model: Any, options: dict[str, Any], training: bool, requires_grad: list[bool]) -> KerasModel:
    made = KerasModel(model, **options).train(training)
    for parameter, flag in zip(made.parameters(), requires_grad, strict=True):
        parameter.requires_grad_(flag)
    return made


def _output_names(model: Any) -> list[str]:
    """The names of a model's outputs; none where it does not say them, as a Sequential or a class of one's own."""
    output = getattr(model, "output", None)
    return list(output) if isinstance(output, Mapping) else list(getattr(model, "output_names", ()))
