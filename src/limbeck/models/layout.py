"""Where a model's weights lie, and in which order."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.tensor import DTensor


def device_of(model: nn.Module) -> torch.device:
    """Where a model's first weight lies; the CPU for a model without any."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def move(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device, in place; its convolutions' weights channels-last where the device gains from that.

    On CPUs and NVIDIA GPUs convolution, pooling and batch norm run faster on maps whose channels lie side by side, and
    a convolution hands on maps in the layout of its weights. Values stay as they are, and so does a model in shards,
    which lie where they compute.
    """
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return
    planar = device.type in ("cpu", "cuda") and any(isinstance(module, nn.Conv2d) for module in model.modules())
    if planar:
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    else:
        model.to(device)
