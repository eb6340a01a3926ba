"""torch.compile for the student's training passes: in a mode by name, or where a trial shows that it pays."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from limbeck.distillers import Scheme
from limbeck.engine.devices.compile_cache import keep_compiled_apart
from limbeck.engine.devices.fabric import AUTO
from limbeck.engine.devices.sharding import is_sharding
from limbeck.errors import RequestError, reason_of, unknown
from limbeck.taps import call
from limbeck.taps.wrappers import calls_hooks
from limbeck.types import Batch, Inputs

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
"""torch.compile's."""
REPLAYED = ("reduce-overhead", "max-autotune")
"""Those that record CUDA graphs, which put each batch's gradients where those of the batch before were."""
TRIED = "default"
"""The mode of a trial: it changes nothing about which memory a step may hold on to."""
DEVICES = ("cuda",)
"""Where compiling is tried unasked."""
LONG = 300.0
"""Seconds that all of a training's passes must take for a trial: compiling may take a minute."""
PROBE = 0.5
"""Seconds that a pass is repeated for, to be measured."""
STRUCTURES = 64
"""Networks of different structure that may be compiled in one process; torch would leave the ninth as it is."""


def check_compile(mode: str | None, scheme: Scheme, accumulate_steps: int) -> None:
    """Raise RequestError for a mode that does not exist, or that a scheme cannot be trained in."""
    if mode in (None, AUTO):
        return
    if mode not in MODES:
        raise unknown("mode of compile", mode, (*MODES, AUTO))
    if scheme.is_compiled:
        raise RequestError(f"compile: {mode}, and the student is compiled already; leave compile out, or give it plain")
    if scheme.why_uncompiled:
        raise RequestError(f"compile: {mode}, but {scheme.why_uncompiled}; leave compile out")
    if accumulate_steps > 1 and mode in REPLAYED:
        raise RequestError(
            f"compile: {mode} records CUDA graphs, which put each batch's gradients where the last batch's are; take "
            f"default or max-autotune-no-cudagraphs with accumulate_steps: {accumulate_steps}"
        )


def check_whole(mode: str | None) -> None:
    """Raise RequestError for a mode by name where the student is sharded, around which nothing would be compiled."""
    if mode not in (None, AUTO):
        raise RequestError(
            f"compile: {mode} takes a whole student, and strategy fsdp keeps it sharded; leave one of them out"
        )


class CompileError(RequestError):
    """torch.compile fails on a student.

    Args:
        reason: What it says.
    """

    def __init__(self, reason: str) -> None:
        self.fault = f"torch.compile fails on the student: {reason}"
        super().__init__(f"{self.fault}; compile: null does without")


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


def choose_compile(scheme: Scheme, example: Batch, fabric: Fabric, passes: int) -> Choice:
    """Whether compiling the student pays for itself within a training.

    It is tried on GPUs alone, for trainings of `LONG` seconds, and not where only repeatable kernels are allowed or the
    user has compiled the student. The choice may differ from run to run, as times do.

    Args:
        scheme: What is trained, on its device; left as it is.
        example: A full batch.
        fabric: Device and precision.
        passes: Batches that are left.
    """
    if not may_gain(scheme, fabric):
        return Choice(None)
    began = time.perf_counter()
    choice = _tried(scheme.student, scheme.prepared(example.inputs), example.size, fabric, passes)
    if not choice.reason:
        return choice
    seconds = time.perf_counter() - began
    return replace(choice, reason=f"{choice.reason} (tried in {seconds:,.0f} s)", seconds=seconds)


def may_gain(scheme: Scheme, fabric: Fabric) -> bool:
    """Whether compiling a scheme's student is tried unasked, if its training is long."""
    if fabric.device.type not in DEVICES or torch.are_deterministic_algorithms_enabled() or is_sharding(fabric):
        return False
    student = scheme.student
    done = scheme.is_compiled or student._compiled_call_impl is not None
    # One process alone would wait for the others' statistics.
    together = fabric.world_size > 1 and any(isinstance(module, nn.SyncBatchNorm) for module in student.modules())
    return not (scheme.why_uncompiled or done or together)


def _tried(network: nn.Module, inputs: Inputs, size: int, fabric: Fabric, passes: int) -> Choice:
    try:
        student = copy.deepcopy(network).train()  # what is compiled for it serves the original too
        plain = _pass_seconds(student, inputs, fabric)
        if passes * plain < LONG:
            return Choice(None)
        with compiled(student, TRIED, size):
            _pass(student, inputs, fabric)
            fast = _pass_seconds(student, inputs, fabric)
    except Exception as error:  # of many kinds: the training goes on without
        return Choice(None, f"not compiled: {reason_of(error)}")
    saved = passes * (plain - fast)
    times = f"a pass takes {1e3 * fast:.2f} ms compiled, and {1e3 * plain:.2f} ms as it is"
    if saved <= 0:
        return Choice(None, f"not compiled: {times}")
    return Choice(TRIED, f"compiled: {times}, which saves {saved:,.0f} s")


@contextmanager
def compiled(network: nn.Module, mode: str | None, size: int) -> Iterator[None]:
    """Inside, a network's training passes on full batches are compiled; None leaves it as it is.

    An epoch's last, smaller batch and everything outside of training run as they are: each would be compiled anew.

    Args:
        network: What is trained; where its user had compiled it, it is so again afterwards.
        mode: One of `MODES`, or None.
        size: Samples of a full batch.
    """
    if mode is None:
        yield
        return
    keep_compiled_apart()
    from torch._dynamo import config  # which takes twice as long as torch
    from torch._dynamo.exc import TorchDynamoException

    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # until torch 2.6
    own, plain = network._compiled_call_impl, network._call_impl
    fast: Callable[..., Any] = torch.compile(_call, mode=mode, dynamic=False)

    def choose(*inputs: Any, **named: Any) -> Any:
        sizes = [len(x) for x in (*inputs, *named.values()) if isinstance(x, Tensor) and x.dim()]
        whole = network.training and torch.is_grad_enabled() and min(sizes, default=0) >= size
        if not whole:
            return plain(*inputs, **named)  # type: ignore[no-untyped-call]
        try:
            return fast(network, *inputs, **named)
        except TorchDynamoException as error:
            raise CompileError(reason_of(getattr(error, "inner_exception", error))) from error

    network._compiled_call_impl = calls_hooks(choose)  # which no copy and no file of the network takes along
    try:
        # Else a network that has hooks now would run code compiled without them, which leaves them out.
        with config.patch({limit: STRUCTURES, "skip_nnmodule_hook_guards": False}):
            yield
    finally:
        network._compiled_call_impl = own


def _call(network: nn.Module, *inputs: Any, **named: Any) -> Any:
    """What is compiled: of a method of torch's own, older torch would compile nothing."""
    return network._call_impl(*inputs, **named)  # type: ignore[no-untyped-call]


def _pass_seconds(student: nn.Module, inputs: Inputs, fabric: Fabric) -> float:
    """The median time of a pass; torch's timer waits for the device."""
    from torch.utils.benchmark import Timer  # which warns, where it is imported, of a CUDA toolkit without a GPU

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
