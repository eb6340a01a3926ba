"""The devices of a run, and their precision, through Lightning Fabric."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning_fabric import Fabric

from limbeck.errors import RequestError, unknown

if not torch.cuda.is_available():
    # Importing Fabric makes every torch.cuda.is_available() ask the driver library anew, and torch's optimizers ask at
    # every step; without a GPU that is 15 % of a small step for nothing.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""fp32, or autocast with fp32 weights; losses compute in fp32 in any case."""


def make_fabric(
    precision: str = "32-true",
    accelerator: str = "auto",
    devices: int | str | list[int] = 1,
    strategy: str = "auto",
    num_nodes: int = 1,
) -> Fabric:
    """A launched Fabric.

    Args:
        precision: One of `PRECISIONS`.
        accelerator: "cpu", "cuda", "mps" or "auto".
        devices: How many, which ones, or "auto".
        strategy: "auto", "ddp", … as Fabric names them.
        num_nodes: Number of machines.

    Raises:
        RequestError: A precision that is not one of `PRECISIONS`, or devices that are not there.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    options: dict[str, Any] = {"strategy": strategy, "precision": precision, "num_nodes": num_nodes}
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, **options)
    except Exception as error:
        wanted = f"accelerator {accelerator!r}, devices {devices!r}, strategy {strategy!r}"
        raise RequestError(f"cannot compute on {wanted}: {error}") from error
    fabric.launch()
    return fabric
