"""Networks sharded over processes (FSDP2), and their states whole, as checkpoints and shipped models hold them.

`torch.distributed.checkpoint.state_dict` does not serve here. With `full_state_dict` and `cpu_offload` it gives the
states to the first process alone, and all of them need the best student. To read an optimizer without moments it
makes a step with it, which LBFGS refuses. It refuses parameters without moments, such as those of layers without a
gradient, and parameters of no module. And it leaves moments in the strides in which they were saved: fused kernels,
which take weight and moment by their places in memory, then make wrong steps.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves, tree_map

from limbeck.distillers import Scheme
from limbeck.distillers.scheme import held, is_container
from limbeck.dtensors import is_dtensor
from limbeck.errors import RequestError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

BLOCK = 2**20
"""Parameters from which on a part of a network is a shard of its own, gathered only while it computes."""


def sharding(processes: int) -> ModelParallelStrategy:
    """Fabric's strategy that shards a scheme's networks, gradients and optimizer states over all processes."""
    return ModelParallelStrategy(
        lambda scheme, mesh: shard(scheme, mesh["data_parallel"]),
        data_parallel_size=processes,
        tensor_parallel_size=1,
    )


def is_sharding(fabric: Fabric) -> bool:
    """Whether networks are trained sharded."""
    return isinstance(fabric.strategy, ModelParallelStrategy)


def check_shared(scheme: Scheme, fabric: Fabric) -> None:
    """Raise RequestError where each of several processes would train a student of its own, its wrapper being off, or
    where the scheme is for one.
    """
    group = torch.distributed.is_available() and torch.distributed.is_initialized()
    processes = torch.distributed.get_world_size() if group else 1
    if scheme.is_shared and fabric.world_size < processes:
        raise RequestError(
            f"the student came in a wrapper that shares gradients among {processes} processes, and fit was to train in "
            f"{fabric.world_size}: give fit fabric=, or devices and strategy='ddp'; it wraps the student itself"
        )
    if scheme.generates and is_sharding(fabric):
        raise RequestError(
            "a student that writes texts itself cannot be sharded, for processes write different numbers of tokens; "
            "take strategy ddp in place of fsdp, or another scheme"
        )


def over_all(fabric: Fabric) -> DeviceMesh:
    """All processes in a row."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(fabric.device.type, (fabric.world_size,))


ON_CPU = hasattr(torch.cpu.Stream, "record_event")
"""Whether this torch shards on CPUs; older ones do so on GPUs alone."""


def shard(root: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shard a module in place: itself, the networks that it holds, and their large parts.

    The networks are shards of their own whatever their size, since a scheme's `predict` calls them by themselves.

    Raises:
        RequestError: The devices are CPUs, and this torch cannot shard there.
    """
    from torch.distributed.fsdp import fully_shard

    if mesh.device_type == "cpu" and not ON_CPU:
        raise RequestError(f"torch {torch.__version__} shards on GPUs only; take a newer one, or leave the shards out")
    root.to(memory_format=torch.contiguous_format)
    networks = set(held(root))
    for part in reversed(list(root.modules())):  # inner ones first
        size = sum(parameter.numel() for parameter in part.parameters())
        if part is root or (size and part in networks) or (size >= BLOCK and not is_container(part)):
            fully_shard(part, mesh=mesh)
    return root


def trained_copy(scheme: Scheme, fabric: Fabric) -> Scheme:
    """What is trained in place of a scheme: a copy where it is to be sharded, so that the scheme stays plain."""
    if not is_sharding(fabric):
        return scheme
    copied = copy.deepcopy(scheme)
    scheme.cpu()
    return copied


def whole(state: Any) -> Any:
    """A state dict with every shard replaced by the whole tensor, on the CPU; all processes must call it."""
    if not _is_sharded(tree_leaves(state)):
        return state
    return tree_map(lambda value: value.full_tensor().cpu() if is_dtensor(value) else value, state)


def load_module(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a whole state dict into a module that may be sharded."""
    own = module.state_dict()
    if _is_sharded(own.values()):
        state = {name: _like(own.get(name), value) for name, value in state.items()}
    module.load_state_dict(state)


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load a whole state dict into an optimizer whose parameters may be sharded, or lie in another order in memory."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts = dict(state["state"])
    for number, parameter in enumerate(parameters):
        if isinstance(parts.get(number), Mapping):
            parts[number] = {name: _like(parameter, value) for name, value in parts[number].items()}
    optimizer.load_state_dict({**state, "state": parts})


def share_buffers(module: nn.Module, fabric: Fabric) -> None:
    """Give every process the first one's buffers: statistics of batch norm differ where batches do."""
    if fabric.world_size > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)


def _is_sharded(values: Iterable[Any]) -> bool:
    return any(is_dtensor(value) for value in values)


def _like(own: Any, value: Any) -> Any:
    """A whole tensor with the shards and strides of `own`; one of another shape, such as a count of steps, as it is."""
    if not isinstance(own, Tensor) or not isinstance(value, Tensor) or value.shape != own.shape:
        return value
    if is_dtensor(own):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
    # Fused kernels take weight and moment by their places in memory, and check nothing.
    return value if value.stride() == own.stride() else torch.empty_like(own, dtype=value.dtype).copy_(value)
