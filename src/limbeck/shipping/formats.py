"""The forms in which a network is written: each file is loaded back, and compared, before it counts."""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from limbeck.engine.saving.checkpoint import save_student
from limbeck.engine.saving.files import write_bytes
from limbeck.errors import RequestError, RunError, as_request, unknown
from limbeck.export.onnx import difference
from limbeck.models.logits import to_logits
from limbeck.models.onnx_writer import check_packages, exported
from limbeck.notices import tools_silenced
from limbeck.quantization import session
from limbeck.quantization.session import INPUT, Array, Given, Runner
from limbeck.quantization.training import metadata
from limbeck.shipping import devices, runners
from limbeck.shipping.score import distance
from limbeck.shipping.subjects import Subject
from limbeck.taps.wrappers import unwrapped

HALF_DISTANCE = 1e-3
"""Most by which fp16 may change the outputs, of their variance."""
PAYS = 0.75
"""A file in fp16 pays below this share of the fp32 file's bytes."""


@dataclass(frozen=True)
class Packing:
    """What stands inside a file, besides the network.

    Attributes:
        normalised_inside: The file reads pixels from 0 to 1; else what reads it subtracts the mean and divides.
        softmax_inside: The file gives probabilities; else what the network gives.
        plain: What the network gives: "logits", or "outputs".
    """

    normalised_inside: bool = True
    softmax_inside: bool = False
    plain: str = "logits"

    @property
    def output(self) -> str:
        """What the files' output is called."""
        return "probabilities" if self.softmax_inside else self.plain

    def input(self, subject: Subject) -> dict[str, Any]:
        """The input as the file reads it."""
        given = subject.about["input"]
        return dict(given) if self.normalised_inside else {**given, "mean": None, "std": None}

    def model(self, subject: Subject) -> nn.Module:
        """The network with what stands inside the file before and behind it."""
        return subject.reading.model(self.network(subject), self.input(subject)).eval()

    def network(self, subject: Subject) -> nn.Module:
        """The network with what stands behind it."""
        plain = to_logits(unwrapped(subject.network).eval(), subject.output)
        return _Probabilities(plain).eval() if self.softmax_inside else plain

    def logits(self, run: Runner) -> Runner:
        """A file as a function to logits, which of probabilities are their logarithms."""
        return (lambda given: np.log(np.maximum(run(given), 1e-12))) if self.softmax_inside else run

    def read(self, subject: Subject, inputs: Any) -> Given:
        """From a batch's inputs to what the file reads."""
        beside = {} if self.normalised_inside else subject.about["input"]
        return subject.reading.read(inputs, beside)


class _Probabilities(nn.Module):
    """A network with a softmax behind its logits."""

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.plain, self.softmax = plain, nn.Softmax(-1)

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        found: Tensor = self.softmax(self.plain(*inputs, **named))
        return found


@dataclass(frozen=True)
class Form:
    """A form of file.

    Attributes:
        runtime: What runs it.
        precision: "fp32", "fp16" or "int8".
        ending: Of the file's name.
        packages: What must be installed, and by which extra of limbeck.
        extra: The extra that brings them.
    """

    runtime: str
    precision: str
    ending: str
    packages: tuple[str, ...] = ()
    extra: str = ""


_ONNX = ("onnx", "onnxscript", "onnxruntime")
FORMS: Mapping[str, Form] = {
    "safetensors": Form("torch", "fp32", ".safetensors"),
    "onnx": Form("onnx", "fp32", ".onnx", _ONNX, "onnx"),
    "onnx-fp16": Form("onnx", "fp16", "-fp16.onnx", _ONNX, "onnx"),
    "onnx-int8": Form("onnx", "int8", "-int8.onnx", _ONNX, "onnx"),
    "pt2": Form("torch.export", "fp32", ".pt2"),
    "openvino": Form("openvino", "fp32", ".xml", ("openvino",), "openvino"),
    "executorch": Form("executorch", "fp32", ".pte", ("executorch",), "executorch"),
    "litert": Form("litert", "fp32", ".tflite", ("litert_torch", "ai_edge_litert"), "litert"),
}
DEFAULT = ("safetensors", "onnx", "onnx-fp16", "onnx-int8", "pt2")


def check(names: tuple[str, ...]) -> None:
    """Raise RequestError for an unknown form, or one whose packages are not installed."""
    if not names:
        raise RequestError(f"name at least one format of {', '.join(FORMS)}")
    for name in names:
        if name not in FORMS:
            raise unknown("format", name, FORMS)
        form = FORMS[name]
        missing = [package for package in form.packages if importlib.util.find_spec(package) is None]
        if missing:
            raise RequestError(
                f"format {name} needs {', '.join(missing)}: pip install 'limbeck[{form.extra}]'; "
                "or leave it out with --formats"
            )


def write(name: str, path: Path, subject: Subject, packing: Packing, threads: int) -> Runner:
    """Write a network in one form, and load it back.

    Args:
        name: A form that is made from the network itself: all but onnx-fp16 and onnx-int8.
        path: The file.
        subject: The network.
        packing: What stands in the file besides.
        threads: On which it is run.

    Returns:
        The file, ready to run.

    Raises:
        RequestError: The network cannot be written so.
        RunError: What was loaded back gives other outputs.
    """
    with as_request(lambda reason: f"the {subject.name} cannot be written as {name}: {reason}"):
        return _WRITERS[name](path, subject, packing, threads)


def _safetensors(path: Path, subject: Subject, packing: Packing, threads: int) -> Runner:
    save_student(path.parent, subject.stem, subject.network, subject.about)
    written = load_file(path)
    held = subject.network.state_dict()
    if not all(torch.equal(written[name], value) for name, value in held.items() if name in written):
        raise RunError(f"{path.name} does not hold the network's weights; it was not kept")
    return runners.module(packing.model(subject))


def _onnx(path: Path, subject: Subject, packing: Packing, threads: int) -> Runner:
    check_packages()
    reading, model = subject.reading, packing.model(subject)
    example = tuple(reading.example((2, None), seed=0).values())
    said = metadata(subject.about, packing.normalised_inside)
    content, _ = exported(model, example, list(reading.names), packing.output, reading.axes, said)
    _compare(session.onnx(content, threads), runners.module(model), subject, path)
    write_bytes(path, content)
    return session.onnx(path, threads)


def _pt2(path: Path, subject: Subject, packing: Packing, threads: int) -> Runner:
    model, reading = packing.model(subject), subject.reading
    example = tuple(reading.example((2, None), seed=0).values())
    with warnings.catch_warnings(), tools_silenced():
        warnings.simplefilter("ignore")  # torch.export warns of its own internals
        content = io.BytesIO()  # torch itself writes a file by C++, which ends the process on a full disk
        torch.export.save(torch.export.export(model, example, dynamic_shapes=reading.axes), content)
        write_bytes(path, content.getbuffer())
        loaded = runners.program(path)
    _compare(loaded, runners.module(model), subject, path)
    return loaded


def _device(name: str) -> Callable[[Path, Subject, Packing, int], Runner]:
    """A writer for a device's own runtime."""

    def write_for(path: Path, subject: Subject, packing: Packing, threads: int) -> Runner:
        model = packing.model(subject)
        run = devices.write(name, model, subject.shape, path, threads)

        def loaded(given: Given) -> Array:
            return run(given[INPUT])

        _compare(loaded, runners.module(model), subject, path)
        return loaded

    return write_for


def _compare(loaded: Runner, network: Runner, subject: Subject, path: Path) -> None:
    """Raise RunError where a file gives other outputs than its network, at one of several sizes."""
    for size in subject.reading.trials:
        given = _arrays(subject.reading.example(size))
        difference(torch.from_numpy(loaded(given)), torch.from_numpy(network(given)), path.name, "kept")


def _arrays(example: Mapping[str, Tensor]) -> Given:
    return {name: x.numpy() for name, x in example.items()}


_WRITERS: dict[str, Callable[[Path, Subject, Packing, int], Runner]] = {
    "safetensors": _safetensors,
    "onnx": _onnx,
    "pt2": _pt2,
    **{name: _device(name) for name in devices.WRITERS},
}


def halve(path: Path, to: Path, subject: Subject) -> str | None:
    """Write an ONNX file in fp16, its inputs and outputs in fp32, where that pays.

    Returns:
        None, or why there is no such file.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers too small for fp16
        halved = convert_float_to_float16(onnx.load(path), keep_io_types=True)
    content = halved.SerializeToString()
    if len(content) > PAYS * path.stat().st_size:
        return f"fp16 does not pay: {len(content):,} bytes instead of {path.stat().st_size:,}"
    given = _arrays(subject.reading.example((16, None)))
    changed = distance(session.onnx(content)(given), session.onnx(path)(given))
    if not changed <= HALF_DISTANCE:
        return f"fp16 changes the outputs by {changed:.1%} of their variance"
    write_bytes(to, content)
    return None
