"""What checking a store at its first read costs: `python -m benchmarks.stores`.

Made images of MNIST's form and number, the networks of mnist-mlp, and its teacher's outputs on disk: processor seconds
of the check of the whole store beside those of a training epoch that reads them. Then the check alone, on full shards.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from limbeck import Batch, Distiller, ModuleTeacher, TeacherOutput, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.models.networks.mlp import mlp
from limbeck.teachers import StoredTeacher, Teacher
from limbeck.teachers.coding import Coding
from limbeck.teachers.shards import Shards
from limbeck.teachers.stored import store

SAMPLES, BATCH, ROUNDS = 60_000, 32, 2


class _Wide:
    """A teacher that gives many numbers for each sample, at once."""

    fingerprint = "wide"

    def __call__(self, batch: Batch) -> TeacherOutput:
        return TeacherOutput(torch.rand(batch.size, 8192))


def main() -> None:
    """Measure, and print what was measured."""
    images = torch.randint(0, 256, (SAMPLES, 1, 28, 28), dtype=torch.uint8)
    split = InMemory(images, torch.randint(0, 10, (SAMPLES,)))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "mnist"
        _stored(ModuleTeacher(mlp(input_shape=(1, 28, 28), classes=10, hidden=(1200, 1200))), split, place, 1000)
        epoch, check = _least(partial(_epoch, split, place)), _least(partial(_check, place))
        print(f"mnist-mlp: an epoch {epoch:.3f} s, the check {check:.4f} s, {check / epoch:.2%} of the first epoch")
        wide = Path(folder) / "wide"
        few = InMemory(images[:4096], split.targets[:4096])
        _stored(_Wide(), few, wide, 64)
        size = sum(path.stat().st_size for path in wide.rglob("*.safetensors"))
        print(f"a store of {size / 1e6:.0f} MB: {size / _least(partial(_check, wide)) / 1e9:.2f} GB/s")


def _stored(teacher: Teacher, split: InMemory, place: Path, batch_size: int) -> None:
    loader = make_loader(split, batch_size)
    store(
        teacher,
        lambda view, start, stop: islice(loader.starting_at(start // batch_size), -(-(stop - start) // batch_size)),
        place,
        samples=len(split),
        views=1,
        batch_size=batch_size,
        made_of={},
        coding=Coding("float32"),
    )


def _epoch(split: InMemory, place: Path) -> None:
    torch.manual_seed(0)
    student = mlp(input_shape=(1, 28, 28), classes=10, hidden=(20, 20))
    known = StoredTeacher(place)
    for shard in known.description.shards:
        known._shards.read(known.description, *shard)  # checked before, and not counted
    scheme = Distiller(student, [Term(losses.kd, weight=0.7, temperature=7.0)])
    loader = make_loader(split, BATCH, shuffle=True)
    fit(scheme, loader, teacher=known, epochs=1, optimizer=partial(torch.optim.Adam, lr=1e-4), progress=False)


def _check(place: Path) -> None:
    shards = Shards(place)
    table = shards.description()
    assert table is not None
    for shard in table.shards:
        shards.verify(table, *shard)


def _least(work: Callable[[], None]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()  # which other processes on the machine change little
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)


if __name__ == "__main__":
    main()
