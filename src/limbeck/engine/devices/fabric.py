"""The devices of a run, and their precision, through Lightning Fabric."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from limbeck.engine.devices.allocator import keep_freed
from limbeck.engine.devices.sharding import sharding
from limbeck.errors import RequestError, RunError, unknown
from limbeck.models import multiply_adds, parameter_count
from limbeck.models.foreign.nodes import Node
from limbeck.types import Inputs

if not torch.cuda.is_available():
    # Importing Fabric makes every torch.cuda.is_available() ask the driver library anew, and torch's optimizers ask at
    # every step; without a GPU that is 15 % of a small step for nothing.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"

P = ParamSpec("P")
T = TypeVar("T")

PROCESSES = 64
"""Processes that a CPU may be asked for, where it has not more cores: more would stop the machine."""

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""fp32, or autocast with fp32 weights; losses compute in fp32 in any case."""
AUTO = "auto"


class Autocast(MixedPrecision):
    """Fabric's autocast, but nothing is rounded before it: pixels and a teacher's logits come as they are."""

    def __init__(self, precision: str, device: str) -> None:
        super().__init__(precision, device)  # type: ignore[arg-type]  # one of PRECISIONS

    def convert_input(self, data: Any) -> Any:
        return data

    def convert_output(self, data: Any) -> Any:
        return data


def autocast(forward: Callable[P, T], fabric: Fabric) -> Callable[P, T]:
    """A forward pass in the fabric's precision, without what else its wrapper of a module does; fp32 as it is."""
    precision = fabric.strategy.precision
    if precision.precision == "32-true":
        return forward

    def in_precision(*args: P.args, **kwargs: P.kwargs) -> T:
        with precision.forward_context():
            return forward(*args, **kwargs)

    return in_precision


class Replicated(DDPStrategy):
    """Fabric's DDP, which tolerates unused parameters where a scheme leaves some out: that costs a search.

    Buffers are not sent around at every step: statistics of batch norm are shared at each epoch's end, and a loss with
    a memory keeps it alike by itself.
    """

    def __init__(self) -> None:
        # By the name that this torch has for it.
        new = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
        super().__init__()
        self._ddp_kwargs["forward_sync_buffers" if new else "broadcast_buffers"] = False

    def setup_module(self, module: nn.Module) -> DistributedDataParallel:
        self._ddp_kwargs["find_unused_parameters"] = getattr(module, "leaves_out", False)
        return super().setup_module(module)


REUSE = 512
"""How often a step must use each weight for half precision to pay: below, casting the weights costs what it saves."""


def choose_precision(model: nn.Module, example: Inputs, samples: int, accelerator: str = "auto") -> str:
    """bf16 autocast where model and device gain from it, else fp32: the same on every run on the same hardware.

    It gains where the device multiplies bf16 matrices in hardware and a step uses each weight at least `REUSE` times;
    depthwise convolutions, which CPUs compute faster in fp32, speak against it there. Measured on a Xeon with AMX,
    two cores: the tutorial's teacher 2.9 times as fast, resnet8x4 2.3, a perceptron of 1200 units 0.9, MobileNet 0.7.

    Args:
        model: What is trained; its mode and statistics are left as they are.
        example: One sample as the model reads it.
        samples: Samples of a step.
        accelerator: "cpu", "cuda", "mps" or "auto".
    """
    kind = kind_of(accelerator)
    foreign = any(isinstance(module, Node) for module in model.modules())  # its framework says how it computes
    others = any(one.dtype != torch.float32 for one in model.parameters())  # autocast leaves fp64 as it is
    if foreign or others or not _multiplies_bf16(kind):
        return "32-true"
    depthwise = any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in model.modules())
    if depthwise and kind == "cpu":
        return "32-true"
    reuse = samples * multiply_adds(model, example) / max(1, parameter_count(model))
    return "bf16-mixed" if reuse >= REUSE else "32-true"


def kind_of(accelerator: str) -> str:
    """The kind of device that an accelerator's name means here: "cpu", "cuda", "mps" or another."""
    if accelerator != "auto":
        return {"gpu": "cuda"}.get(accelerator, accelerator)
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _multiplies_bf16(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    # Emulated bf16 would be slower than fp32; older torch cannot tell, and then the answer is no.
    known = [getattr(torch.cpu, f"_is_{unit}_supported", bool) for unit in ("amx_tile", "avx512_bf16")]
    return kind == "cpu" and any(ask() for ask in known)


def make_deterministic() -> None:
    """Let torch use only kernels that give the same bits at every run, and fail where there is none.

    On CPUs that is so in any case. On NVIDIA GPUs it costs the choice of the fastest convolution, and atomic additions.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def make_fabric(
    precision: str = "32-true",
    accelerator: str = "auto",
    devices: int | str | list[int] = 1,
    strategy: str = "auto",
    num_nodes: int = 1,
) -> Fabric:
    """A launched Fabric; on CPUs with freed memory kept (`limbeck.engine.devices.allocator`).

    Args:
        precision: One of `PRECISIONS`.
        accelerator: "cpu", "cuda", "mps" or "auto".
        devices: How many, which ones, or "auto"; under torchrun as many as it has started.
        strategy: "auto", "ddp", … as Fabric names them; "fsdp" shards the student over all devices
            (`limbeck.engine.devices.sharding`).
        num_nodes: Number of machines.

    Raises:
        RequestError: A precision that is not one of `PRECISIONS`, or devices that are not there.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, (*PRECISIONS, AUTO))
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun has said how many there are
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        num_nodes = int(os.environ["WORLD_SIZE"]) // devices
    mixed = precision != "32-true"
    chosen = {"plugins": Autocast(precision, kind_of(accelerator))} if mixed else {"precision": precision}
    options: dict[str, Any] = {"strategy": strategy, "num_nodes": num_nodes, **chosen}
    try:
        processes = num_nodes * _count(devices, kind_of(accelerator))
        if strategy == "fsdp":
            options["strategy"] = sharding(processes)
        elif strategy == "ddp" or (strategy == "auto" and processes > 1):
            options["strategy"] = Replicated()
        fabric = Fabric(accelerator=accelerator, devices=devices, **options)
    except Exception as error:
        wanted = f"accelerator {accelerator!r}, devices {devices!r}, strategy {strategy!r}"
        raise RequestError(f"cannot compute on {wanted}: {error}") from error
    fabric.launch()
    if fabric.device.type == "cpu":
        keep_freed()
    return fabric


def from_first(fabric: Fabric, look: Callable[[], T]) -> T:
    """What the first process finds, for all: each by itself might find something else, and wait for the rest."""
    found: T = fabric.broadcast(look() if fabric.is_global_zero else None)  # type: ignore[assignment]
    return found


def from_all(fabric: Fabric, own: T) -> list[T]:
    """What each process has, by their numbers; all must call it."""
    if fabric.world_size == 1:
        return [own]
    gathered: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(gathered, own)
    return gathered


@contextmanager
def enough_memory(phase: str, samples: int, device: torch.device) -> Iterator[None]:
    """Raise RunError, with the remedy, where a device has not the memory for what is computed inside."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"{phase}: {device} has not enough memory for steps of {samples} samples; halve batch_size, and double "
            "accumulate_steps to keep the step as it is"
        ) from error


def is_first() -> bool:
    """Whether this is the first of the processes that were launched together."""
    return getattr(rank_zero_only, "rank", None) in (None, 0)


def _count(devices: int | str | list[int], kind: str) -> int:
    """How many devices of this machine are meant."""
    if isinstance(devices, list):
        return len(devices)
    if isinstance(devices, str) and "," in devices:
        return len([one for one in devices.split(",") if one.strip()])
    every = max(1, torch.cuda.device_count()) if kind == "cuda" else 1
    wanted = every if devices in ("auto", "-1", -1) else int(devices)
    most = max(PROCESSES, os.cpu_count() or 1)
    if kind == "cpu" and wanted > most:
        raise RequestError(f"each is a process of its own on a CPU, and this machine allows {most}")
    return wanted
