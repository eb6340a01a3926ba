"""Gradients in the layout that limbeck chooses, beside those in the contiguous one: layouts.py KIND:THREADS …

A kind is networks or odd. In a process of its own for each processor: what is tested for may end it.
"""

from __future__ import annotations

import copy
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from limbeck import Batch, Distiller, Hardware, fit
from limbeck.engine.devices.compile_cache import keep_compiled_apart
from limbeck.models import NETWORKS, Layout, lay_out
from limbeck.models.layout import CONTIGUOUS

CHANNELS = range(1, 18)
FULL = 16
"""Channels from which on a kernel of oneDNN has none to fill up."""
LARGE = 6_000_000
"""Parameters from which on a network takes too long here as a whole."""
LARGEST = 1e-3
"""Relative distance that rounding explains; wrong gradients are off by .003 and more."""


class Shortcut(nn.Module):
    """A residual block as small ResNets have it: a strided 1×1 convolution beside a 3×3 one."""

    def __init__(self, channels: int, side: nn.Module) -> None:
        super().__init__()
        self.stem, self.side = nn.Conv2d(3, channels, 3, padding=1), side
        self.main = nn.Conv2d(channels, 12, 3, stride=2, padding=1)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.stem(x).relu()
        return self.head(self.main(maps).relu().mean((2, 3)) + self.side(maps).relu().mean((2, 3)))


class Several(nn.Module):
    """Networks side by side."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks]).sum(0)


class Alone(nn.Module):
    """A convolution behind a stem that gives it its channels."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.stem, self.convolution = nn.Conv2d(3, convolution.in_channels, 1), convolution

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(self.stem(x[:, :, :16, :16])).tanh()


class Functional(nn.Module):
    """A 1×1 kernel that no Conv2d holds, on maps that the network permutes itself, as Keras's layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.head = nn.Parameter(torch.rand(12, 6, 1, 1)), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        last = torch.cat([x, x], 1).movedim(1, -1).contiguous()
        return self.head(F.conv2d(last.movedim(-1, 1), self.kernel, stride=2).mean((2, 3)))


def odd() -> Iterator[tuple[str, nn.Module]]:
    """Strided, grouped, depthwise and dilated convolutions, of 1 to 17 channels."""
    for channels in CHANNELS:
        yield f"1x1 of {channels}", Shortcut(channels, nn.Conv2d(channels, 12, 1, stride=2))
    for channels, stride in itertools.product((3, 6, 12), ((1, 2), (2, 1))):
        yield f"1x1 of {channels}, stride {stride}", Shortcut(channels, nn.Conv2d(channels, 12, 1, stride=stride))
    for channels, kernel, dilation in itertools.product((1, 3, 6, 17), (2, 3, 5), (1, 2)):
        pad = dilation * (kernel - 1) // 2
        side = nn.Conv2d(channels, 12, kernel, stride=2, padding=pad, dilation=dilation)
        yield f"{kernel}x{kernel} of {channels}, dilation {dilation}", Shortcut(channels, side)
    for channels in (2, 6, 12):
        for name, groups in (("grouped", 2), ("depthwise", channels)):
            for kernel in (1, 3):
                side = nn.Conv2d(channels, 12, kernel, stride=2, padding=kernel // 2, groups=groups)
                yield f"{name} {kernel}x{kernel} of {channels}", Shortcut(channels, side)
    yield "functional", Functional()


TEXT = {"transformer", "text_encoder", "bag_of_embeddings"}
"""Networks that read no images."""


def networks() -> Iterator[tuple[str, nn.Module]]:
    """Every network of limbeck's but those whose kinds of convolutions all stand in one before, such as deeper ones.

    They are smooth, since rounding turns gradients on and off at a ReLU. Of large ones the new kinds run alone.
    """
    seen: set[tuple[Any, ...]] = set()
    for name, build in NETWORKS.items():
        if name in TEXT:
            continue
        network = build(input_shape=(3, 32, 32), classes=10)
        kinds = {_kind(module) for module in network.modules() if isinstance(module, nn.Conv2d)}
        for module in list(network.modules()):
            for place, child in module.named_children():
                if isinstance(child, nn.ReLU | nn.ReLU6 | nn.LeakyReLU):
                    setattr(module, place, nn.Tanh())
        if kinds - seen and sum(parameter.numel() for parameter in network.parameters()) < LARGE:
            yield name, network
        else:
            for kind in sorted(kinds - seen):
                yield f"{name}, {kind}", Alone(nn.Conv2d(*kind))
        seen |= kinds


def _kind(module: nn.Conv2d) -> tuple[Any, ...]:
    sizes = module.in_channels, module.out_channels, module.kernel_size
    return *sizes, module.stride, module.padding, module.dilation, module.groups


def difference(network: nn.Module) -> tuple[str | None, float]:
    """The layout that is chosen, and the largest relative distance of a gradient in it from the contiguous one's.

    Where that is large, as rounding makes it in very deep networks, how much farther from fp64 than the contiguous one.
    Batch norm stands still, so that rounding is not magnified by the statistics of few samples.
    """
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    permutes = isinstance(network, Functional)  # so that oneDNN would be wrong about it in any layout
    with Layout(CONTIGUOUS, onednn=not permutes).kept():
        plain = _gradients(network.eval(), x)
    chosen = copy.deepcopy(network)

    def run(change: Callable[[Tensor], Tensor]) -> None:
        with torch.no_grad():
            chosen(change(x))

    laid = lay_out(chosen, None, run)
    with laid.kept():
        found = _gradients(chosen, laid.inputs(x))
    far = _distance(plain, found)
    if far > LARGEST:
        exact = _gradients(network.double(), x.double())
        far = max(0.0, _distance(exact, found) - 4 * _distance(exact, plain))
    return laid.name, far


def _gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Of all parameters, for the sum of all outputs with weights drawn at random."""
    outputs = [one for one in tree_leaves(network(x)) if isinstance(one, Tensor)]
    generator = torch.Generator().manual_seed(1)
    total = sum((one * torch.rand(one.shape, generator=generator)).sum() for one in outputs)
    found = torch.autograd.grad(total, list(network.parameters()), allow_unused=True)
    return [torch.zeros(()) if one is None else one for one in found]


def _distance(right: list[Tensor], found: list[Tensor]) -> float:
    """The largest relative one of any parameter's gradients."""
    return max(float((a - b).norm() / a.norm().clamp(min=1e-6)) for a, b in zip(right, found, strict=True))


def trained() -> float:
    """The largest distance of a weight from a plain loop's, for small networks with shortcuts of 1 to 17 channels."""
    worst = 0.0
    for channels in (
        range(CHANNELS.start, FULL),
        range(FULL, CHANNELS.stop),
    ):  # of which the first must not lie channels-last
        torch.manual_seed(0)
        x, y = torch.rand(64, 3, 16, 16).contiguous(memory_format=torch.channels_last), torch.arange(64) % 3
        student = Several([Shortcut(count, nn.Conv2d(count, 12, 1, stride=2)) for count in channels])
        plain = copy.deepcopy(student)
        batches = [Batch(x[i : i + 16], y[i : i + 16], torch.arange(i, i + 16)) for i in range(0, 64, 16)]
        sgd = partial(torch.optim.SGD, lr=0.02, momentum=0.9)
        fit(Distiller(student), batches, epochs=2, optimizer=sgd, precision="32-true", progress=False)
        optimizer = sgd(plain.parameters())
        for batch in batches * 2:
            optimizer.zero_grad()
            F.cross_entropy(plain(batch.inputs.contiguous()), batch.targets).backward()
            optimizer.step()
        worst = max(worst, _apart(student, plain))
    return worst


def compiled(by: str) -> float:
    """As `trained`, for a student that fit or its user compiles: the compiler may choose layouts too."""
    torch.manual_seed(0)
    student = Shortcut(6, nn.Conv2d(6, 12, 1, stride=2))
    plain = copy.deepcopy(student)
    batch = Batch(torch.rand(16, 3, 16, 16), torch.arange(16) % 3, torch.arange(16))
    sgd = partial(torch.optim.SGD, lr=0.1)
    given, mode = (torch.compile(student), None) if by == "user" else (student, "default")
    if by == "user":
        keep_compiled_apart()  # from what was compiled for other instructions; by itself torch would take that too
        with torch.no_grad():
            given(batch.inputs)
    fit(
        Distiller(given),
        [batch],
        epochs=1,
        optimizer=sgd,
        hardware=Hardware(compile=mode),
        precision="32-true",
        progress=False,
    )
    optimizer = sgd(plain.parameters())
    F.cross_entropy(plain(batch.inputs), batch.targets).backward()
    optimizer.step()
    return _apart(student, plain)


def _apart(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def check(what: str, threads: int) -> None:
    """Exit with what is wrong."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    for name, network in {"odd": odd, "networks": networks}[what]():
        layout, worst = difference(network)
        sys.stdout.write(f"{name}: {layout}, {worst:.1e}\n")
        if not worst < LARGEST:
            sys.exit(f"{name}: gradients in the layout {layout} are off by {worst:.1e}, with {threads} threads")
    if what == "odd" and threads == 2:  # gradients depend on the threads; what fit makes of them does not
        by = ("fit", "user") if "ONEDNN_MAX_CPU_ISA" in os.environ else ()
        worst = max([trained(), *map(compiled, by)])
        sys.stdout.write(f"trained: {worst:.1e}\n")
        if not worst < 1e-5:
            sys.exit(f"weights are off by {worst:.1e} from those of a plain loop, with {threads} threads")


if __name__ == "__main__":
    for one in sys.argv[1:]:
        kind, _, number = one.partition(":")
        check(kind, int(number))
