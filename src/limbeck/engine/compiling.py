"""torch.compile for the student's training passes: in a mode by name, or where a trial shows that it pays."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch._dynamo import config as dynamo_config
from torch._dynamo.exc import TorchDynamoException
from torch.utils._pytree import tree_leaves
from torch.utils.benchmark import Timer

from limbeck.distillers import Scheme
from limbeck.engine.devices import AUTO
from limbeck.engine.sharding import is_sharding
from limbeck.errors import RequestError, reason_of, unknown
from limbeck.taps import call
from limbeck.types import Inputs

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
"""torch.compile's."""
REPLAYED = ("reduce-overhead", "max-autotune")
"""Those that record CUDA graphs, and write each batch's gradients over those of the batch before."""
TRIED = "default"
"""The mode of a trial: it changes nothing about which memory a step may hold on to."""
DEVICES = ("cuda",)
"""Where compiling is tried unasked."""
LONG = 300.0
"""Seconds that all of a training's passes must take for a trial: compiling may take a minute."""
STRUCTURES = 64
"""Networks of different structure that may be compiled in one process; torch would silently stop after eight."""
_LIMIT = "recompile_limit" if hasattr(dynamo_config, "recompile_limit") else "cache_size_limit"
PROBE = 0.5
"""Seconds that a pass is repeated for, to be measured."""


def check_compile(mode: str | None, scheme: Scheme, accumulate: int) -> None:
    """Raise RequestError for a mode that does not exist, or that a scheme cannot be trained in."""
    if mode in (None, AUTO):
        return
    if mode not in MODES:
        raise unknown("mode of compile", mode, (*MODES, AUTO))
    if scheme.reads_inside:
        raise RequestError(
            f"compile: {mode} takes terms on logits, and one here reads hidden tensors, which a compiled student does "
            "not show"
        )
    if accumulate > 1 and mode in REPLAYED:
        raise RequestError(
            f"compile: {mode} records CUDA graphs, which write each batch's gradients over the last batch's; take "
            f"default or max-autotune-no-cudagraphs with accumulate: {accumulate}"
        )


def refuse_shards(mode: str | None) -> None:
    """Raise RequestError for a mode by name where students are in shards, around which nothing would be compiled."""
    if mode not in (None, AUTO):
        raise RequestError(
            f"compile: {mode} takes whole students, and strategy fsdp keeps them in shards; leave one out"
        )


@dataclass(frozen=True)
class Choice:
    """How a student is compiled.

    Attributes:
        mode: torch.compile's, or None.
        reason: What a trial showed; "" where there was none.
        seconds: What the trial took.
    """

    mode: str | None
    reason: str = ""
    seconds: float = 0.0


def choose_compile(scheme: Scheme, inputs: Inputs, fabric: Fabric, passes: int) -> Choice:
    """Whether compiling the student pays for itself within a training.

    It is tried on GPUs alone, for trainings of `LONG` seconds, and not where only repeatable kernels are allowed or the
    user has compiled the student. The choice may differ from run to run, as times do.

    Args:
        scheme: What is trained, on its device; left as it is.
        inputs: A whole batch of what the student reads.
        fabric: Device and precision.
        passes: Batches of all epochs.
    """
    ordered = torch.are_deterministic_algorithms_enabled()
    done = isinstance(scheme.student, OptimizedModule) or scheme.student._compiled_call_impl is not None
    if fabric.device.type not in DEVICES or scheme.reads_inside or is_sharding(fabric) or ordered or done:
        return Choice(None)
    began = time.perf_counter()
    student = copy.deepcopy(scheme.student).train()  # what is compiled for it serves the original too
    if any(isinstance(module, nn.SyncBatchNorm) for module in student.modules()):
        return Choice(None)  # each process repeats its pass as often as it takes, and they would wait for each other
    try:
        plain = _pass_seconds(student, inputs, fabric)
        if passes * plain < LONG:
            return Choice(None)
        with compiled(student, TRIED):
            _pass(student, inputs, fabric)
            fast = _pass_seconds(student, inputs, fabric)
    except Exception as error:  # the compiler's, of many kinds: without it the training goes on
        return _tried(None, began, f"not compiled: {reason_of(error)}")
    saved = passes * (plain - fast)
    if saved <= 0:
        times = f"a pass takes {1e3 * plain:.2f} ms as it is, and {1e3 * fast:.2f} ms compiled"
        return _tried(None, began, f"not compiled: {times}")
    times = f"a pass takes {1e3 * fast:.2f} ms in place of {1e3 * plain:.2f}"
    return _tried(TRIED, began, f"compiled: {times}, which saves {saved:,.0f} s")


def _tried(mode: str | None, began: float, reason: str) -> Choice:
    seconds = time.perf_counter() - began
    return Choice(mode, f"{reason} (tried in {seconds:,.0f} s)", seconds)


@contextmanager
def compiled(network: nn.Module, mode: str | None) -> Iterator[None]:
    """Inside, a network's training passes on whole batches are compiled; None leaves it as it is.

    An epoch's last, smaller batch and everything outside of training run as they are: each would be compiled anew.

    Raises:
        RequestError: The network cannot be compiled.
    """
    if mode is None:
        yield
        return
    own, plain, largest = network._compiled_call_impl, network._call_impl, 0
    fast = torch.compile(plain, mode=mode)

    def choose(*inputs: Any, **named: Any) -> Any:
        nonlocal largest
        sizes = [len(x) for x in (*inputs, *named.values()) if isinstance(x, Tensor) and x.dim()]
        largest = max([*sizes, largest])
        whole = network.training and torch.is_grad_enabled() and largest in sizes
        return (fast if whole else plain)(*inputs, **named)

    network._compiled_call_impl = choose  # which no copy and no file of the network takes along
    try:
        with dynamo_config.patch({_LIMIT: STRUCTURES}):
            yield
    except TorchDynamoException as error:
        reason = reason_of(getattr(error, "inner_exception", error))
        raise RequestError(f"torch.compile fails on the student: {reason}; compile: null does without") from error
    finally:
        network._compiled_call_impl = own


def _pass_seconds(student: nn.Module, inputs: Inputs, fabric: Fabric) -> float:
    """The median time of a pass; torch's timer waits for the device."""
    work = functools.partial(_pass, student, inputs, fabric)
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return float(timer.blocked_autorange(min_run_time=PROBE).median)


def _pass(student: nn.Module, inputs: Inputs, fabric: Fabric) -> None:
    """Forward and backward, from all that the student gives; any loss does."""
    with fabric.autocast():
        given = tree_leaves(call(student, inputs))
    losses = [x.float().square().mean() for x in given if isinstance(x, Tensor) and x.requires_grad]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    student.zero_grad()
