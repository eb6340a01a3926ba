"""Validation, orders and schemes by one process and by two: all of it by each of the two that call `main`.

Each process writes what it has to FOLDER/NAME-RANK.pt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
)

from limbeck import Distiller, Hardware, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.distillers import MeanTeacher, MutualDistiller, Scheme, SelfDistiller
from limbeck.engine import make_fabric
from limbeck.engine.batches.held_out import HeldOut
from limbeck.engine.devices import sharding
from limbeck.models.networks.multi_exit import Exits

SGD = partial(torch.optim.SGD, lr=0.5)
HELD_OUT, SAMPLES = 45, 70


def made(samples: int) -> InMemory:
    generator = torch.Generator().manual_seed(samples)
    return InMemory(torch.randn(samples, 4, generator=generator), torch.arange(samples) * 7 % 3)


def start(build: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return build()


# Validation: one decision, about every sample once.


class Part(IterableDataset[Any]):
    """This process's part of the samples, of which one process has more batches than the other."""

    def __init__(self, rank: int, world_size: int) -> None:
        data, first = made(HELD_OUT), (0, 30, HELD_OUT)
        own = slice(first[rank], first[rank + 1]) if world_size == 2 else slice(None)
        self.samples = list(zip(data.inputs[own], data.targets[own], strict=True))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.samples)


def held_out(kind: str, rank: int, world_size: int, samples: int = HELD_OUT) -> Iterable[Any]:
    data = made(samples)
    pairs = TensorDataset(data.inputs, data.targets)
    match kind:
        case "loader":
            return make_loader(data, 16)
        case "own part":
            return make_loader(data, 16, rank=rank, world_size=world_size)
        case "DataLoader":
            return DataLoader(pairs, 16)
        case "one batch":
            return DataLoader(pairs, samples)
        case "shuffled":
            return DataLoader(pairs, 16, shuffle=True)
        case "DistributedSampler":
            return DataLoader(pairs, 16, sampler=DistributedSampler(pairs, world_size, rank))
        case "iterable":
            return DataLoader(Part(rank, world_size), 4)
        case _:
            return list(zip(data.inputs.split(16), data.targets.split(16), strict=True))


KINDS = {
    "ddp": ("loader", "own part", "DataLoader", "one batch", "shuffled", "DistributedSampler", "iterable", "list"),
    "fsdp": ("own part", "DataLoader", "one batch", "iterable"),
}


SHARED = KINDS["ddp"][:6]


def shares(fabric: Fabric, kind: str, samples: int) -> list[tuple[list[float], int]]:
    """What this process tests: each batch's samples, known by their first number, and how many of them count."""
    val = held_out(kind, fabric.global_rank, fabric.world_size, samples)
    return [(batch.inputs[:, 0].tolist(), counted) for batch, counted in HeldOut(val, fabric.device, fabric)]


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def validated(fabric: Fabric, kind: str) -> dict[str, Any]:
    student, (rank, world_size) = start(normed), (fabric.global_rank, fabric.world_size)
    train = make_loader(made(SAMPLES), 14, shuffle=True, rank=rank, world_size=world_size)
    val = held_out(kind, rank, world_size)
    run = fit(
        Distiller(student),
        train,
        val=val,
        keep="best",
        epochs=6,
        optimizer=SGD,
        hardware=Hardware(fabric=fabric),
        progress=False,
    )
    figures = [(record["val_accuracy"], record["val_loss"]) for record in run.metrics]
    return {"student": run.student.state_dict(), "figures": figures}


# Orders: what each process reads of an ordinary DataLoader.


class Noting(nn.Linear):
    """Notes the numbers of the samples that it is trained on."""

    def __init__(self) -> None:
        super().__init__(1, 3)
        self.seen: list[list[int]] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(x.flatten().long().tolist())
        return super().forward(x)


class ByTwos(Sampler[list[int]]):
    """A batch sampler of a user's own, of batches 0 1, 2 3, …, in another order each epoch."""

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[2 * i, 2 * i + 1] for i in torch.randperm(len(self)).tolist()])

    def __len__(self) -> int:
        return SAMPLES // 2


def numbered(kind: str, size: int) -> DataLoader[Any]:
    data = TensorDataset(torch.arange(SAMPLES).float()[:, None], torch.zeros(SAMPLES, dtype=torch.int64))
    generator = torch.Generator().manual_seed(5)
    match kind:
        case "shuffled":
            return DataLoader(data, size, shuffle=True)
        case "generator":
            return DataLoader(data, size, shuffle=True, generator=generator)
        case "weighted":
            weights = torch.arange(SAMPLES) + 1.0
            return DataLoader(data, size, sampler=WeightedRandomSampler(weights, SAMPLES, generator=generator))
        case "workers":
            return DataLoader(data, size, shuffle=True, generator=generator, num_workers=1, persistent_workers=True)
        case "batch sampler":
            return DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), size, drop_last=True))
        case _:
            return DataLoader(data, batch_sampler=ByTwos())


ORDERS = ("shuffled", "generator", "weighted", "workers", "batch sampler")


def ordered(fabric: Fabric, kind: str, *, epochs: int = 2, seed: int = 0, out: Path | None = None) -> list[list[int]]:
    """The numbers of the samples of each step in this process."""
    student, size = Noting(), 16 // fabric.world_size
    optimizer = partial(torch.optim.SGD, lr=0.0)
    options: dict[str, Any] = {"optimizer": optimizer, "out": out, "seed": seed, "progress": False}
    options["resume"] = out is not None
    fit(Distiller(student), numbered(kind, size), epochs=epochs, hardware=Hardware(fabric=fabric), **options)
    return student.seen


# Schemes that have no teacher, and batch norm.


class ThreeExits(nn.Module):
    """Exits behind each of three layers, deepest first in what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 7)])
        self.heads = nn.ModuleList([nn.Linear(width, 3) for width in (5, 6, 7)])

    def forward(self, x: Tensor) -> Exits:
        features: list[Tensor] = []
        for stage in self.stages:
            x = stage(x).tanh()
            features.insert(0, x)
        logits = [head(f) for head, f in zip(reversed(self.heads), features, strict=True)]
        return Exits(tuple(logits), tuple(features))


def scheme(kind: str) -> Scheme:
    match kind:
        case "batch norm":
            return Distiller(normed())
        case "mutual":
            return MutualDistiller([nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))])
        case "self":
            return SelfDistiller(ThreeExits())
        case _:
            student = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
            return MeanTeacher(student, [Term(losses.kd, weight=2.0, temperature=1.0)], decay=0.7)


SCHEMES = ("batch norm", "mutual", "self", "mean teacher")
EPOCHS, BATCH, RATE = 2, 14, 0.1


def trained(fabric: Fabric, kind: str) -> dict[str, Tensor]:
    one = start(lambda: scheme(kind))
    loader = make_loader(made(SAMPLES), BATCH, rank=fabric.global_rank, world_size=fabric.world_size)
    fit(
        one,
        loader,
        epochs=EPOCHS,
        optimizer=partial(torch.optim.SGD, lr=RATE),
        hardware=Hardware(fabric=fabric),
        progress=False,
    )
    return {name: value for name, value in one.state_dict().items() if isinstance(value, Tensor)}


def main(folder: Path) -> None:
    """All of it by two processes."""
    sharding.BLOCK = 24
    ddp, fsdp = (make_fabric(accelerator="cpu", devices=2, strategy=strategy) for strategy in ("ddp", "fsdp"))

    def write(name: str, content: Any) -> None:
        torch.save(content, folder / f"{name}-{ddp.global_rank}.pt")

    for strategy, fabric in {"ddp": ddp, "fsdp": fsdp}.items():
        if strategy == "ddp" or sharding.ON_CPU:
            for kind in KINDS[strategy]:
                write(f"{strategy} {kind}", validated(fabric, kind))
    for kind in SHARED:
        write(f"{kind} shared", shares(ddp, kind, HELD_OUT))
    for kind in ("loader", "DataLoader"):
        write(f"{kind} of one", shares(ddp, kind, 1))
    for kind in ORDERS:
        write(f"order {kind}", ordered(ddp, kind))
        ordered(ddp, kind, epochs=1, out=folder / kind)
        write(f"resumed {kind}", ordered(ddp, kind, out=folder / kind))
    write("order of seed 1", ordered(ddp, "shuffled", seed=1))
    write("order by twos", ordered(ddp, "by twos"))
    for kind in SCHEMES:
        write(kind, trained(ddp, kind))
