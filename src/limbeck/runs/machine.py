"""What a run computes on, and what it shows meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from limbeck.engine.callbacks.hooks import Callback, LogTo
from limbeck.engine.devices.fabric import AUTO, choose_precision, kind_of, make_deterministic, make_fabric
from limbeck.types import Inputs

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.loggers.logger import Logger


@dataclass
class Machine:
    """Devices as Lightning Fabric takes them, progress display and loggers."""

    accelerator: str = "auto"
    devices: int | str = 1
    strategy: str = "auto"
    progress: bool = True
    loggers: Sequence[Logger] = ()
    num_nodes: int = 1
    deterministic: bool = False

    def fabric(self, precision: str) -> Fabric:
        """A launched Fabric with this precision."""
        if self.deterministic:
            make_deterministic()
        return make_fabric(precision, self.accelerator, self.devices, self.strategy, self.num_nodes)

    def precision(self, wanted: str, network: nn.Module, example: Inputs, samples: int) -> str:
        """The precision that is wanted, "auto" decided for a network that reads such an example."""
        return choose_precision(network, example, samples, self.accelerator) if wanted == AUTO else wanted

    def logging(self) -> list[Callback]:
        """What gives a training's figures to the loggers; nothing without any, for it is called at each step."""
        return [LogTo(*self.loggers)] if self.loggers else []

    def one_device(self, number: int) -> Machine:
        """The machine with one of its GPUs, counted round; itself where it has no several."""
        gpus = torch.cuda.device_count() if kind_of(self.accelerator) == "cuda" else 0
        return replace(self, devices=f"{number % gpus},") if gpus > 1 else self

    @staticmethod
    def place(fabric: Fabric) -> dict[str, Any]:
        """Where a loader puts its batches, and which part of them this process gets."""
        return {"device": fabric.device, "rank": fabric.global_rank, "world_size": fabric.world_size}
