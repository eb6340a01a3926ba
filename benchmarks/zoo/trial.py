"""What is tried with one network, as a process: python -m benchmarks.zoo.trial NETWORK FILE.

The network, with ten classes, is built as a recipe builds it, and meets a small one as its student and as its teacher:
one epoch with soft labels and, where a layer pair is proposed, with a hint. Each step tells the file its outcome, so
that a step that fails, or ends the process, leaves the others known.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Distiller, Hardware, Term, fit, losses
from limbeck.engine.saving.checkpoint import save_student
from limbeck.errors import RequestError
from limbeck.export import write_onnx
from limbeck.models import load_weights, parameter_count
from limbeck.models.build import build
from limbeck.taps import TapInfo, Taps, trace
from limbeck.taps.pairs import match

CLASSES, BATCH, BATCHES = 10, 4, 2
SIZES = (64, 128, 192, 224, 240, 256)
"""Heights of the images, of which the first that a network reads is taken; after them its own."""
ROUNDING = 1e-4
ONNX_SECONDS = 200
"""What torch's exporter may take."""
OTHER = 3
"""A batch of another size, to tell the dimension of the batch from others."""


class Trial:
    """The steps, and what one leaves to the next.

    Args:
        name: The network, as `limbeck.models.build` takes it.
        tell: Gets what a step has found.
    """

    def __init__(self, name: str, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self.name, self.tell = name, tell
        self.size = 0
        self.network: nn.Module = nn.Identity()
        self.trained: nn.Module | None = None

    def build(self) -> str:
        torch.manual_seed(0)
        tried = ""
        for size in dict.fromkeys([*SIZES, *_own_size(self.name)]):
            network = self._made(size)
            try:
                _runs(network, size)
            except Exception as error:
                tried = f"{size} pixels: {_line(error)}"
                continue
            self.size, self.network = size, network
            self.tell({"parameters": parameter_count(network), "size": size})
            return f"{size} pixels"
        raise ValueError(tried)

    def taps(self) -> str:
        """Every tap that `trace` lists is read, and has the shape that it says."""
        x = _images(self.size, BATCH)
        found = trace(self.network, x, operations=True)
        few = _spread(found, 12)
        with torch.no_grad():
            _, read = Taps(copy.deepcopy(self.network).eval(), [tap.name for tap in few]).run(x)
        for tap in few:
            if tuple(read[tap.name].shape) != tap.shape:
                raise ValueError(f"{tap.name} is {tuple(read[tap.name].shape)}, listed as {tap.shape}")
        return f"{len(found)}"

    def pairs(self) -> str:
        """Layer pairs are proposed both ways, each with the batch first."""
        taught, learned = self._pairs(teacher=self.network), self._pairs(student=self.network)
        others = {tap.name: tap.shape[0] for tap in trace(self.network, _images(self.size, OTHER))}
        for tap in [*(t for t, _ in taught), *(s for _, s in learned)]:
            if (tap.shape[0], others[tap.name]) != (BATCH, OTHER):
                raise ValueError(f"{tap.name} of shape {tap.shape} is proposed, and its batch is not first")
        return f"{len(taught)} / {len(learned)}"

    def teaches(self) -> str:
        """It teaches a small network, and is left as it was."""
        before = copy.deepcopy(self.network.state_dict())
        used = self._distil(small(), self.network, self._pairs(teacher=self.network))
        for name, value in self.network.state_dict().items():
            if not torch.equal(value, before[name]):
                raise ValueError(f"{name} of the teacher has changed")
        return used

    def learns(self) -> str:
        """It is taught by a small network, and changes."""
        student = copy.deepcopy(self.network)
        used = self._distil(student, small(), self._pairs(student=self.network))
        pairs = zip(student.parameters(), self.network.parameters(), strict=True)
        if all(torch.equal(new, old) for new, old in pairs):
            raise ValueError("no weight has changed")
        self.trained = student
        return used

    def weights(self) -> str:
        """What was trained comes back from its file in a network that was built anew, with the same answers."""
        trained, again = (self.trained or self.network).eval(), self._made(self.size).eval()
        with tempfile.TemporaryDirectory() as folder:
            load_weights(again, save_student(Path(folder), "student", trained, {}))
        for name, value in trained.state_dict().items():
            if not torch.equal(value, again.state_dict()[name]):
                raise ValueError(f"{name} differs")
        with torch.no_grad():
            x = _images(self.size, BATCH)
            expected = trained(x)
            difference = float((again(x) - expected).abs().max() / expected.abs().max())
        if not difference < ROUNDING:  # its maps lie in another order
            raise ValueError(f"the answers differ by {difference:.1e} of the largest")
        return "equal"

    def onnx(self) -> str:
        """It is written as ONNX, whose answers `write_onnx` compares, or refused: torch cannot write every network.

        With some, as those that attend within blocks, torch's exporter does not come to an end in minutes, and no
        signal interrupts it: so it is a process that can be killed.
        """
        fork = multiprocessing.get_context("fork")
        receiver, sender = fork.Pipe(duplex=False)
        with tempfile.TemporaryDirectory() as folder:
            exporter = fork.Process(target=self._write_onnx, args=(Path(folder) / "x.onnx", sender), daemon=True)
            exporter.start()
            sender.close()
            try:
                if not receiver.poll(ONNX_SECONDS):
                    return f"torch's exporter takes longer than {ONNX_SECONDS} s"
                return str(receiver.recv())
            except EOFError as error:
                exporter.join()
                raise RuntimeError(f"the exporter ends with {exporter.exitcode}") from error
            finally:
                exporter.kill()
                exporter.join()

    def _write_onnx(self, path: Path, sender: Connection) -> None:
        network = (self.trained or self.network).eval()
        try:
            told = write_onnx(path, network, {"shape": (3, self.size, self.size)})
        except RequestError as error:
            sender.send(f"refused: {error}"[:200])
        else:
            sender.send(f"{told['largest_difference']:.0e}")

    def _made(self, size: int) -> nn.Module:
        """The network for images of this size, where it takes one."""
        given: dict[str, Any] = {"input_shape": (3, size, size), "classes": CLASSES}
        try:
            return (
                build(self.name, **given, img_size=size) if self.name.startswith("timm:") else build(self.name, **given)
            )
        except Exception:  # it takes no size
            return build(self.name, **given)

    def _pairs(
        self, teacher: nn.Module | None = None, student: nn.Module | None = None
    ) -> list[tuple[TapInfo, TapInfo]]:
        x = _images(self.size, BATCH)
        return match(trace(teacher or small(), x), trace(student or small(), x))

    def _distil(self, student: nn.Module, teacher: nn.Module, pairs: list[tuple[TapInfo, TapInfo]]) -> str:
        """An epoch; gives the hint's layers, or says that there is none."""
        terms = [Term(losses.kd, temperature=4)]
        if pairs:
            (t, s), *_ = pairs
            terms.append(Term(losses.mse, student=s.name, teacher=t.name, adapter="auto"))
        x = _images(self.size, BATCH * BATCHES)
        data = DataLoader(TensorDataset(x, torch.arange(len(x)) % CLASSES), batch_size=BATCH)
        run = fit(
            Distiller(student, terms, task_weight=0.5), data, teacher=teacher, epochs=1, progress=False,
            optimizer=partial(torch.optim.SGD, lr=0.01), hardware=Hardware("cpu"),
            precision="32-true", max_grad_norm=1.0,
        )  # fmt: skip
        if not run.metrics:
            raise ValueError("no epoch is recorded")
        return f"kd and {pairs[0][0].name} → {pairs[0][1].name}" if pairs else "kd; no pair"


STEPS = ("build", "taps", "pairs", "teaches", "learns", "weights", "onnx")


def small() -> nn.Module:
    """A network of four stages and few weights, the same at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        stages = [
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in ((3, 8), (8, 16), (16, 24), (24, 32))
        ]
        return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES))


def try_network(
    name: str,
    tell: Callable[[Mapping[str, Any]], None],
    now: Callable[[str], None] = lambda _: None,
    steps: Sequence[str] = STEPS,
) -> None:
    """Try every step; what one tells is {step: its outcome}, or {step: "FAILED: reason"}.

    Args:
        name: The network.
        tell: Gets each step's outcome, and the network's size.
        now: Gets the name of each step before it begins.
        steps: Those of `STEPS` that are tried.
    """
    trial = Trial(name, tell)
    for step in steps:
        now(step)
        try:
            tell({step: getattr(trial, step)()})
        except Exception as error:
            traceback.print_exc()
            tell({step: f"FAILED: {_line(error)}"})
            if step == "build":
                break
    now("")


def _images(size: int, samples: int) -> Tensor:
    return torch.rand(samples, 3, size, size, generator=torch.Generator().manual_seed(2))


def _runs(network: nn.Module, size: int) -> None:
    """Run a copy in training, as batch norm demands more of its maps then, and in evaluation.

    Raises:
        Exception: What the network raises, or that its answers are not finite.
    """
    copied = copy.deepcopy(network)
    x = _images(size, BATCH)
    copied.train()(x)
    with torch.no_grad():
        logits = copied.eval()(x)
    if logits.shape != (BATCH, CLASSES) or not torch.isfinite(logits).all():
        raise ValueError(f"its answers are of shape {tuple(logits.shape)}, or not finite")


def _own_size(name: str) -> list[int]:
    """The height that the network was made for, where the package says it."""
    source, _, rest = name.partition(":")
    if source != "timm":
        return [299]
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(rest)
    return [config.input_size[-1]] if config else []


def _spread(taps: list[TapInfo], most: int) -> list[TapInfo]:
    """Some taps from the first to the last."""
    return taps if len(taps) <= most else [taps[round(i * (len(taps) - 1) / (most - 1))] for i in range(most)]


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:300]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # networks warn of their own plans

    def write(**values: Any) -> None:
        with given.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    try_network(given.name, lambda found: write(row=dict(found)), lambda step: write(now=step))


if __name__ == "__main__":
    main()
