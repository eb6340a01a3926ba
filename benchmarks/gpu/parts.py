"""The parts of `python -m benchmarks gpu`, each run as: python -m benchmarks.gpu.parts NAME [--dry] FILE.

A part tells the file what it does, a JSON object a line, so that what it has measured outlives it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import CIFAR10, MNIST

from benchmarks import cifar10_tutorial, mnist_mlp, resnet_pair
from benchmarks.gpu import made
from limbeck.compare import compare
from limbeck.data import DataSet, InMemory
from limbeck.models.networks.resnet_cifar import resnet8, resnet8x4, resnet14, resnet32x4
from limbeck.recipes.read import check, read
from limbeck.runs.entry import score
from limbeck.runs.folder import environment
from limbeck.runs.machine import Machine

ROOT = Path(__file__).parent.parent.parent
SEEDS = (0, 1, 2)
STEPS = {64: 200, 512: 100}
"""Steps of an epoch of the resnet pair, by batch size."""


@dataclass(frozen=True)
class Told:
    """What a part is told, and where it tells what it finds."""

    file: Path
    dry: bool = False
    root: Path | None = None

    @property
    def device(self) -> str:
        return "cpu" if self.dry else "cuda"

    def row(self, **values: Any) -> None:
        """A line of the table."""
        self.write(row=values)

    def write(self, **values: Any) -> None:
        """ "data": which data is used; "now": what is begun; "failed": why the part ends."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def machine(told: Told) -> None:
    """Which GPU, torch and driver there are."""
    gpu: dict[str, Any] = {"name": "cpu"}
    if not told.dry:
        if not torch.cuda.is_available():
            raise RuntimeError("torch finds no CUDA device; --dry runs every part on the CPU")
        found = torch.cuda.get_device_properties(0)
        gpu = {
            "name": found.name,
            "memory_bytes": found.total_memory,
            "capability": f"{found.major}.{found.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    told.row(gpu=gpu, environment=environment())


def tests(told: Told) -> None:
    """The tests marked gpu; in a dry run the same ones with the CPU in its place."""
    import pytest

    class Teller:
        def pytest_runtest_logstart(self, nodeid: str) -> None:
            told.write(now=nodeid)

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call" or report.outcome != "passed":
                crash = getattr(report.longrepr, "reprcrash", None)
                reason = {"reason": crash.message.splitlines()[0][:300]} if report.failed and crash else {}
                told.row(what=report.nodeid, outcome=report.outcome, **reason)

    chosen = "not gpu" if told.dry else "gpu"
    where = [str(path) for path in sorted((ROOT / "tests").glob("*/test_gpu*.py"))]
    # Another torch may warn of what this one does not; a warning is no failure here.
    options = ["-m", chosen, "-q", "-p", "no:cacheprovider", "-W", "default", f"--rootdir={ROOT}"]
    code = pytest.main([*options, *(["-x", "-k", "two_precisions"] if told.dry else []), *where], plugins=[Teller()])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {code!r}")
    told.write(now="")
    if code == pytest.ExitCode.TESTS_FAILED:
        told.write(failed="a test failed")


def pair(told: Told, modes: tuple[str | None, ...]) -> None:
    """resnet32x4 → resnet8x4 beside its tuned loop, in these modes of torch.compile."""
    with _captured_only() if told.dry else _nothing():
        for batch, steps in ({4: 2} if told.dry else STEPS).items():
            networks = (resnet14, resnet8) if told.dry else (resnet32x4, resnet8x4)
            some = resnet_pair.Pair.made(batch * steps, networks)
            told.write(data=f"made images of 3×32×32, {some.precision}")
            for online in (True, False):
                for mode in modes:
                    what = f"batch {batch}, {'online' if online else 'stored'}, {MODES[mode]}"
                    told.write(now=what)
                    found = resnet_pair.measured(some, batch, online, mode, rounds=1 if told.dry else 3)
                    told.row(what=what, unit="images/s", beside="hand-tuned loop", other=found.pop("tuned"), **found)
    told.write(now="")


MODES = {None: "eager", "default": "compiled", "reduce-overhead": "CUDA graphs"}


def mnist(told: Told) -> None:
    """An epoch of mnist-mlp beside a plain and a tuned loop."""
    samples = 64 if told.dry else 12800
    data = made.real(read("mnist-mlp").data, told.root, "MNIST")
    images: Dataset[Any]
    if data is not None:
        images = _first(MNIST(told.root, train=True, transform=transforms.ToTensor()), samples)
        data = _part(data, samples)
    else:
        data = made.learnable("MNIST", (1, 28, 28), 10, samples, 100)
        assert isinstance(data.train, InMemory)
        images = made.AsTorchvision(data.train, transforms.ToTensor())
    told.write(data=data.name)
    figures = mnist_mlp.measured(data, images, told.device, 1 if told.dry else 3)
    what = f"an epoch of {samples:,} samples"
    _rows(told, figures, what, {"limbeck run": "hand-tuned loop", "limbeck, online teacher": "plain loop"})


def cifar10(told: Told) -> None:
    """Four students and the teacher of cifar10-tutorial beside plain loops."""
    samples = 16 if told.dry else 12800
    recipe = read("cifar10-tutorial")
    scale = transforms.Normalize(cifar10_tutorial.MEAN, cifar10_tutorial.STD)
    transform = transforms.Compose([transforms.ToTensor(), scale])
    data = made.real(recipe.data, told.root, "cifar-10-batches-py")
    images: Dataset[Any]
    if data is not None:
        images, data = _first(CIFAR10(told.root, train=True, transform=transform), samples), _part(data, samples)
    else:
        data = made.learnable("CIFAR-10", (3, 32, 32), 10, samples, 100)
        assert isinstance(data.train, InMemory)
        images = made.AsTorchvision(data.train, transform)
    told.write(data=data.name)
    plain = DataLoader(images, batch_size=recipe.data.batch_size, shuffle=True)
    machine = Machine(accelerator=told.device, progress=False)
    figures = cifar10_tutorial.measured(recipe, data, plain, machine, 1 if told.dry else 3)
    what = f"of {samples:,} samples"
    _rows(told, figures, what, {"limbeck": "plain loops", "limbeck, teacher": "plain loop, teacher"})


def comparison(told: Told) -> None:
    """Whether kd of resnet32x4 helps resnet8x4 on CIFAR-100 within few epochs."""
    recipe = check(_cifar100(dry=told.dry))
    seeds = SEEDS[:2] if told.dry else SEEDS
    root = told.root or Path()
    if made.real(recipe.data.model_copy(update={"name": "cifar100"}), told.root, "cifar-100-python") is not None:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"name": "cifar100"})})
    machine = Machine(accelerator=told.device, progress=not told.dry)
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, made_samples(told.dry)):
        found = compare(recipe, ["kd"], seeds, root=root, out=Path(folder) / "compare", machine=machine)
    told.write(data=found["data"])
    baseline, kd = found["methods"]["baseline"], found["methods"]["kd"]
    told.row(
        what=f"kd, {recipe.epochs} epochs, seeds {', '.join(map(str, seeds))}",
        verdict=kd["verdict"],
        accuracy=kd["mean"],
        baseline=baseline["mean"],
        teacher=score(found["teacher"][0]),
        difference=kd["difference"],
        interval=kd["interval"],
        seeds=list(seeds),
        seconds={name: one["seconds"] for name, one in found["methods"].items()},
    )


def made_samples(dry: bool) -> dict[str, str]:
    """The environment that makes the made data set small."""
    return {made.SAMPLES_BY_NAME: "200 100"} if dry else {}


def _cifar100(*, dry: bool) -> dict[str, Any]:
    teacher, student = ("resnet14", "resnet8") if dry else ("resnet32x4", "resnet8x4")
    scale = {"mean": list(resnet_pair.MEAN), "std": list(resnet_pair.STD)}
    sgd = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
    training = {"optimizer": sgd, "schedule": {"name": "cosine", "warmup_epochs": 0.5}}
    return {
        "name": "cifar100-gpu",
        "data": {
            "name": "benchmarks.gpu.made:cifar100",
            "batch_size": 128,
            "augment": ["crop", "flip"],
        },
        "teacher": {"model": teacher, "epochs": 1 if dry else 6, **training, **scale},
        "student": {"model": student, **scale},
        "distill": {"method": "kd"},
        "epochs": 1 if dry else 5,
        **training,
    }


def _rows(told: Told, figures: dict[str, Any], what: str, pairs: dict[str, str]) -> None:
    """A row for each of limbeck's times, beside the one that it is compared with."""
    for own, other in pairs.items():
        ours, theirs = figures["seconds"][own], figures["seconds"][other]
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        medians = {"limbeck": statistics.median(ours), "other": statistics.median(theirs)}
        told.row(what=f"{own}: {what}", unit="s", beside=other, ratio=ratio, **medians)


def _part(data: DataSet, samples: int) -> DataSet:
    return replace(data, train=data.train.subset(torch.arange(samples)))


def _first(dataset: Dataset[Any], samples: int) -> Dataset[Any]:
    return torch.utils.data.Subset(dataset, range(samples))


@contextmanager
def _captured_only() -> Iterator[None]:
    """Graphs are captured, and not compiled, which takes a minute on a CPU."""
    whole = torch.compile

    def capture(model: Any, *, mode: str | None = None, **options: Any) -> Any:
        return whole(model, backend="eager", **options)

    with patch.object(torch, "compile", capture):
        yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield


PARTS: dict[str, Callable[[Told], None]] = {
    "machine": machine,
    "tests": tests,
    "pair-eager": partial(pair, modes=(None,)),
    "mnist-mlp": mnist,
    "cifar10-tutorial": cifar10,
    "cifar100-compare": comparison,
    "pair-compiled": partial(pair, modes=("default",)),
    "pair-graphs": partial(pair, modes=("reduce-overhead",)),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=PARTS)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    told = Told(given.file, given.dry, given.data_root)
    try:
        PARTS[given.name](told)
    except Exception as error:
        traceback.print_exc()
        first = next(iter(str(error).splitlines()), "")
        told.write(failed=f"{type(error).__name__}: {first}"[:300])
        sys.exit(1)


if __name__ == "__main__":
    main()
