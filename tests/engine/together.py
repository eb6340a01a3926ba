"""Trainings that are carried out by one process and by two; as a script, all of them by two: together.py FOLDER."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from limbeck import Distiller, Hardware, OnPolicyDistiller, RequestError, Saving, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.data.text.texts import IDS, Texts, following
from limbeck.distillers.on_policy import Generated
from limbeck.engine import make_fabric
from limbeck.engine.devices import sharding
from limbeck.engine.optimizers.named import MakeOptimizer, optimizer
from limbeck.models.networks.transformer import transformer
from limbeck.tasks import LanguageModelling, TokenClassification
from limbeck.types import IGNORED, Batch

ADAMW = partial(torch.optim.AdamW, lr=0.05)


class StoppedError(Exception):
    """A training that was broken off."""


def train(
    fabric: Fabric,
    out: Path,
    epochs: int,
    terms: list[Term],
    *,
    dropout: float = 0.0,
    make: MakeOptimizer = ADAMW,
    compile: str | None = None,
    **options: Any,
) -> Any:
    """Train a small perceptron on made data; the distiller, when it is done."""
    torch.manual_seed(0)
    data = InMemory(torch.randn(70, 4), torch.arange(70) % 3)
    student = nn.Sequential(nn.Linear(4, 6), nn.Dropout(dropout), nn.ReLU(), nn.Linear(6, 3))
    teacher = nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 3))
    distiller = Distiller(student, terms, **options)
    loader = make_loader(data, 16, shuffle=True, rank=fabric.global_rank, world_size=fabric.world_size)
    run = fit(
        distiller,
        loader,
        teacher=teacher,
        val=make_loader(data, 35),
        keep="best",
        epochs=epochs,
        optimizer=make,
        accumulate_steps=2,
        max_grad_norm=1.0,
        hardware=Hardware(fabric=fabric, compile=compile),
        out=out,
        resume=True,
        saving=Saving(checkpoint_steps=2),
        progress=False,
    )
    assert run.student is student
    assert not any(isinstance(value, DTensor) for value in student.parameters())
    return distiller


def hint() -> Term:
    return Term(losses.mse, student="0", teacher="0", adapter="auto")


def plain(fabric: Fabric, out: Path, epochs: int = 3) -> None:
    """Soft labels and a hint."""
    train(fabric, out, epochs, [Term(losses.kd), hint()])


def by_sgd(fabric: Fabric, out: Path) -> None:
    """The optimizer that a recipe names sgd."""
    train(fabric, out, 1, [Term(losses.kd)], make=optimizer("sgd", lr=0.1, momentum=0.9))


def hint_alone(fabric: Fabric, out: Path) -> None:
    """The last layer gets no gradient."""
    train(fabric, out, 1, [hint()], task_weight=0.0)


def dropout(fabric: Fabric, out: Path, stop_at: int | None = None) -> None:
    """Numbers are drawn as the student runs; broken off at the loss's call of this number."""
    calls = 0

    def kd(student: Tensor, teacher: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise StoppedError
        return losses.kd(student, teacher)

    train(fabric, out, 2, [Term(kd)], dropout=0.5)


def refused(fabric: Fabric, out: Path) -> None:
    """Shards are not compiled, and that is said."""
    with pytest.raises(RequestError, match="compile: default takes a whole student"):
        train(fabric, out, 1, [Term(losses.kd)], compile="default")


def tokens(fabric: Fabric, out: Path) -> None:
    """A class for each of five tokens, and the labels of some: every process has another number of them."""
    torch.manual_seed(0)
    labels = torch.arange(350).view(70, 5) % 3
    labels[torch.rand(70, 5) < torch.linspace(0, 0.9, 5)] = IGNORED
    labels[::2, 1:] = IGNORED  # of two processes, the first has every other sample
    data = InMemory(torch.randn(70, 5, 4), labels)
    student, teacher = (nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3)) for width in (6, 9))
    fit(
        Distiller(student, [Term(losses.kd)], task=TokenClassification()),
        make_loader(data, 16, rank=fabric.global_rank, world_size=fabric.world_size),
        teacher=teacher,
        epochs=1,
        optimizer=partial(torch.optim.SGD, lr=0.5),
        accumulate_steps=2,
        hardware=Hardware(fabric=fabric),
        out=out,
        progress=False,
    )


def writing(fabric: Fabric, out: Path) -> None:
    """Batches that the student writes itself, and others; prompts and answers of several lengths."""
    torch.manual_seed(0)
    make = partial(transformer, input_shape=(8,), classes=7, dim=8, depth=1, heads=2)
    ids, place = torch.randint(6, (30, 8)), torch.arange(8)
    targets = following(ids, place >= 2 + torch.arange(30)[:, None] % 3)
    student, teacher = make(), make()
    with torch.no_grad():
        for weight in (*student.parameters(), *teacher.parameters()):
            weight.mul_(4)  # far from an even distribution
    written = []

    class Watched(OnPolicyDistiller):
        def asked(self, batch: Batch, first: int | None = None) -> Batch:
            made = super().asked(batch, first)
            if isinstance(made, Generated):
                assert isinstance(made.inputs, dict)
                texts = made.inputs[IDS].tolist()
                written.extend([self.epoch, *one] for one in zip(batch.index.tolist(), texts, strict=True))
            return made

    terms, task = [Term(losses.jsd, temperature=1.0)], LanguageModelling()
    fit(
        Watched(student, terms, task=task, share=0.5, end=6, task_weight=0.5),
        make_loader(Texts({IDS: ids}, targets), 8, shuffle=True, rank=fabric.global_rank, world_size=fabric.world_size),
        teacher=teacher,
        epochs=2,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        accumulate_steps=2,
        hardware=Hardware(fabric=fabric, compile=None),
        out=out,
        progress=False,
        measure_balance=False,
    )
    (out / f"written-{fabric.global_rank}.json").write_text(json.dumps(written))


def remember(fabric: Fabric, out: Path) -> None:
    """Every process remembers what all have seen."""
    distiller = train(fabric, out, 1, [Term(losses.CRD, student="0", teacher="0", samples=70, negatives=8)])
    crd = distiller.terms["CRD"].loss
    assert bool((crd.labels >= 0).all())
    for kept in (crd.memory_s, crd.memory_t, crd.log_z):
        first, second = fabric.all_gather(kept)
        assert torch.equal(first, second)


def main(folder: Path) -> None:
    """Each training by two processes."""
    sharding.BLOCK = 24  # so that the first layer is a shard of its own
    ddp, fsdp = (make_fabric(accelerator="cpu", devices=2, strategy=strategy) for strategy in ("ddp", "fsdp"))
    plain(ddp, folder / "ddp")
    if sharding.ON_CPU:
        plain(fsdp, folder / "fsdp")
        plain(fsdp, folder / "interrupted", epochs=1)
        plain(fsdp, folder / "interrupted", epochs=2)
        refused(fsdp, folder / "refused")
        by_sgd(fsdp, folder / "sgd")
    hint_alone(ddp, folder / "hint")
    tokens(ddp, folder / "tokens")
    writing(ddp, folder / "writing")
    remember(ddp, folder / "memory")
    dropout(ddp, folder / "straight")
    try:
        dropout(ddp, folder / "stopped", stop_at=9)  # one for the dry run, five for the first epoch, then in the second
    except StoppedError:
        dropout(ddp, folder / "stopped")
    else:
        raise AssertionError("it was not broken off")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
