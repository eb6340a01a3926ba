"""Where a model's weights lie, and in which order: a matter of speed, and on CPUs of right gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from limbeck.dtensors import is_dtensor
from limbeck.errors import RequestError, unknown
from limbeck.late_compiler import put_off

CHANNELS_LAST, CONTIGUOUS = "channels_last", "contiguous"
LAYOUTS = (CHANNELS_LAST, CONTIGUOUS)
BLOCK = 16
"""Input channels from which on oneDNN's strided 1×1 kernels are right: as many as they take at once, 16 at most."""


def device_of(model: nn.Module) -> torch.device:
    """Where a model's first weight lies; the CPU for a model without any."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def move(model: nn.Module, device: torch.device) -> None:
    """Move a model that is not trained to a device, in place; channels-last where the device gains from that.

    On CPUs and NVIDIA GPUs convolution, pooling and batch norm run faster on maps whose channels lie side by side, and
    a convolution hands on maps in the layout of its weights. Values stay as they are, and so does a sharded model,
    whose parts lie where they compute.
    """
    if not _is_sharded(model):
        model.to(device)
        _lay_out(model, CHANNELS_LAST if _gains(model, device) else None)


@dataclass(frozen=True)
class Layout:
    """How the maps of a network lie in memory while it is trained.

    Attributes:
        name: One of `LAYOUTS`; None leaves each tensor as it is.
        unsafe: The convolutions whose gradients would be wrong in channels-last, in words; "" for none.
        onednn: False where some of these get maps in channels-last whatever the layout of weights and inputs, since
            the network permutes them itself: then it is trained by torch's own kernels.
    """

    name: str | None
    unsafe: str = ""
    onednn: bool = True

    @property
    def reason(self) -> str:
        """One line for the user; "" where there is nothing to say."""
        if not self.unsafe:
            return ""
        how = "contiguous layout" if self.onednn else "contiguous layout, and torch's own kernels in place of oneDNN's,"
        return f"{how} in place of channels_last, for which oneDNN computes wrong gradients of {self.unsafe}"

    def inputs(self, x: Tensor) -> Tensor:
        """An input as the network must get it: a convolution takes its layout from the maps too."""
        return x.contiguous() if self.unsafe else x

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Inside, no kernel and no compiler chooses another layout for a network with unsafe convolutions."""
        with ExitStack() as stack:
            if self.unsafe:
                from torch._inductor import config

                torch.compiler.reset()  # what was compiled before may hold another layout
                stack.enter_context(config.patch(layout_optimization=False))
            if not self.onednn:
                enabled = torch.backends.mkldnn.set_flags(_enabled=False)[0]  # type: ignore[no-untyped-call]
                stack.callback(torch.backends.mkldnn.set_flags, _enabled=enabled)
            yield


def lay_out(model: nn.Module, wanted: str | None, run: Callable[[Callable[[Tensor], Tensor]], object]) -> Layout:
    """Bring a network that is to be trained into a layout in which its gradients are right, and say which.

    oneDNN's weight gradient of a strided 1×1 convolution is wrong in channels-last, or written beyond its buffer, where
    the input has fewer channels than the kernel takes at once (its issue 6035). Which convolutions run, in any
    version and on any processor, is seen as the network runs; those of its modules that did not run count too.

    Args:
        model: The network with all that is trained beside it, on its device.
        wanted: One of `LAYOUTS`; None for channels-last where the device gains from it and it is safe.
        run: Runs everything once, without gradients, each input changed by the function that it gets.

    Raises:
        RequestError: channels_last is wanted, and would give wrong gradients; no layout has this name.
    """
    if wanted not in (None, *LAYOUTS):
        raise unknown("layout", wanted, LAYOUTS)
    put_off(_Unsafe)
    with _Unsafe(model) as seen:
        run(lambda x: x)
    found = {**_unsafe_modules(model), **seen.found}
    if not found:
        gains = CHANNELS_LAST if _gains(model, device_of(model)) else None
        _lay_out(model, wanted or gains)
        return Layout(wanted or gains)
    if wanted == CHANNELS_LAST:
        raise RequestError(
            f"layout channels_last would give wrong gradients on this CPU, for {_named(found)}; "
            "leave layout out, or take contiguous"
        )
    _lay_out(model, CONTIGUOUS)
    with _Unsafe(model) as seen:
        run(Tensor.contiguous)
    return Layout(CONTIGUOUS, _named(found), onednn=not any(seen.found.values()))


class _Unsafe(TorchDispatchMode):
    """Sees the unsafe convolutions that run.

    Attributes:
        found: For each, in words, whether it has got maps in channels-last.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[str, bool] = {}
        self._owners = {
            weight.data_ptr(): name.removesuffix(".weight")
            for name, weight in model.named_parameters()
            if weight.device.type == "cpu" and not is_dtensor(weight)
        }

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function is torch.ops.aten.convolution.default:
            maps, weight, _, stride, _, _, transposed, _, groups = args
            if maps.dim() == 4 and not transposed and _is_unsafe(maps.device, weight.shape[1:], stride, groups):
                name = self._owners.get(weight.data_ptr(), "a convolution")
                key = _described(name, weight.shape[1])  # which several may share, and one may run twice
                self.found[key] = self.found.get(key, False) or not maps.is_contiguous()
        return function(*args, **(kwargs or {}))


def _unsafe_modules(model: nn.Module) -> dict[str, bool]:
    return {
        _described(name, module.in_channels): False
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
        and _is_unsafe(module.weight.device, module.weight.shape[1:], module.stride, module.groups)
    }


def _is_unsafe(device: torch.device, kernel: tuple[int, ...], stride: tuple[int, ...], groups: int) -> bool:
    """Whether oneDNN may get a convolution's weight gradient wrong in channels-last; `kernel`: (C, height, width)."""
    onednn = device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    channels, *size = kernel
    return onednn and groups == 1 and channels < BLOCK and max(size) == 1 and max(stride) > 1


def _described(name: str, channels: int) -> str:
    return f"{name} (strided 1×1 convolution of {channels} channels)"


def _named(found: Mapping[str, bool]) -> str:
    first, *others = found or [""]
    return f"{first} and {len(others)} more like it" if others else first


def _gains(model: nn.Module, device: torch.device) -> bool:
    return device.type in ("cpu", "cuda") and any(isinstance(module, nn.Conv2d) for module in model.modules())


def _is_sharded(model: nn.Module) -> bool:
    return any(is_dtensor(parameter) for parameter in model.parameters())


def _lay_out(model: nn.Module, name: str | None) -> None:
    formats = {CHANNELS_LAST: torch.channels_last, CONTIGUOUS: torch.contiguous_format}
    if name is not None:
        model.to(memory_format=formats[name])
