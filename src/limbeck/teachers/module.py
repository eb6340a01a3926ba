"""An online teacher: a PyTorch module that is run at each step."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.dtensors import is_dtensor
from limbeck.errors import RequestError, unknown
from limbeck.models import move, refuse_lazy
from limbeck.models.foreign.outputs import choose_logits
from limbeck.models.foreign.pieces import Pieces
from limbeck.models.given import check_network
from limbeck.taps import (
    LOGITS,
    NUMBERS,
    Choice,
    Conversion,
    NoOutputError,
    Taps,
    check_choice,
    dtype_of,
    evaluating,
    output_of,
    readable,
    taken_from,
)
from limbeck.taps.wrappers import unwrapped
from limbeck.teachers.identity import identity, settings
from limbeck.teachers.pixels import Found, as_floats, find_pixels
from limbeck.teachers.state import Frozen
from limbeck.types import Batch, Inputs, TeacherOutput, content, each

DTYPES = {str(one).removeprefix("torch."): one for one in (torch.bfloat16, torch.float16, torch.float32)}
"""The dtypes in which a teacher may compute, as recipes call them."""


class ModuleTeacher:
    """A module that teaches: in eval mode and without gradients at every call, whatever mode it is put in.

    Its parameters, statistics and training flags are left as they are, and so are its inputs: it gets a copy. It moves
    to the batch's device when first called. Inputs of a dtype that it cannot read are brought to its own
    (`limbeck.taps.Conversion`); one that takes batches of a single size runs in pieces
    (`limbeck.models.foreign.pieces`).

    Args:
        module: The trained model.
        taps: Names of tensors to give besides the logits.
        dtype: Compute in this dtype, on a copy of the module, such as torch.bfloat16, or as recipes call it,
            "bfloat16", "float16" or "float32"; None keeps its own. What it says is fp32.
        inputs: What prepares its inputs (`limbeck.models`: Preprocess, NamedInputs); None leaves them. Where that sees
            to no pixel values, the range that is read from an ONNX graph or Keras's layers is applied, and said.
        logits: False gives the taps alone: from its second call on the module runs only as deep as they need
            (the hint stage of FitNets, arXiv 1412.6550), and it need not return logits at all.
        classes: Where it returns a tuple, the first tensor (B, classes) in it is its logits; None takes the first
            (B, ...).
        output: Which part of what it returns is its output, as the option of a task: a field's name, a position, or a
            function; None takes a tensor, its field "logits", or a tensor of a tuple.

    Attributes:
        notes: What should be known of how it is run, such as "returns a tuple …"; empty before its first call.

    Raises:
        RequestError: A tap that the module does not have; no logits wanted, and no other tap either; an unknown dtype;
            an `output` that names none.
    """

    def __init__(
        self,
        module: nn.Module,
        taps: Iterable[str] = (),
        *,
        dtype: torch.dtype | str | None = None,
        inputs: nn.Module | None = None,
        logits: bool = True,
        classes: int | None = None,
        output: Choice = None,
    ) -> None:
        check_network("a teacher's module", module)
        check_choice(output)
        if isinstance(dtype, str):
            if dtype not in DTYPES:
                raise unknown("dtype of a teacher", dtype, DTYPES)
            dtype = DTYPES[dtype]
        taps = list(taps)
        if not logits and not set(taps) - {LOGITS}:
            raise RequestError("a teacher without logits has nothing to say without taps; name one, or keep the logits")
        if not logits and LOGITS in taps:
            raise RequestError(f"tap {LOGITS!r} was asked of a teacher without logits; drop one of the two")
        self.module = unwrapped(module) if dtype is None else copy.deepcopy(unwrapped(module)).to(dtype)
        choose_logits(self.module, classes)
        self.dtype = dtype
        self.inputs = inputs
        self.logits = logits
        self.output = output
        self._output = partial(output_of, choice=output, classes=classes)
        self._taps = Taps(module if dtype is None else self.module, taps, "teacher")
        self._device: torch.device | None = None
        self._reads: Conversion | None = None
        self._pixels = Found()
        self._settled = False
        self._frozen = Frozen([self.module])
        self._pieces = Pieces(self.module)
        self._said: list[str | None] = []

    @torch.no_grad()
    def __call__(self, batch: Batch) -> TeacherOutput:
        if not self._settled:
            refuse_lazy(self.module)
        self._move(batch.device)
        with evaluating(self.module), self._frozen.kept(), torch.autocast(batch.device.type, enabled=False):
            tensors = self._run(batch) if self._settled else self._first_run(batch)
        if self.dtype is not None:
            tensors = {name: tensor.float() for name, tensor in tensors.items()}
        return TeacherOutput(tensors.pop(LOGITS, None), tensors)

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of all that its outputs depend on: taps, dtype, `logits`, `output`, and of the module and
        of what prepares its inputs the weights and buffers with their names, the settings, the code and its versions.
        """
        names = sorted(tap.name for tap in self._taps.taps)
        digest = hashlib.sha256(repr((names, self.dtype, self.logits)).encode())
        if self.output is not None:
            digest.update(settings(self.output).encode())
        for module in (self.module, self.inputs):
            if module is not None:
                digest.update(f"{fingerprint(module)} {identity(module)}".encode())
        return digest.hexdigest()[:16]

    @property
    def notes(self) -> list[str]:
        return [note for note in (*self._said, self._frozen.note, self._pieces.note) if note]

    def _run(self, batch: Batch, see: Callable[[Any, dict[str, Tensor]], None] = lambda *_: None) -> dict[str, Tensor]:
        """The tensors for a batch; `see` gets what the module returned too."""

        def run(inputs: Inputs) -> dict[str, Tensor]:
            if not self.logits:
                return self._taps.run_to_last(inputs)
            try:
                output, tensors = self._taps.run(inputs, self._output)
            except NoOutputError as error:
                raise error.of("teacher") from error
            see(output, tensors)
            return tensors

        return self._pieces.run(run, self._prepared(batch.inputs), batch.size, whole=LOGITS)

    def _first_run(self, batch: Batch) -> dict[str, Tensor]:
        """The first run, which finds out how inputs are to be read."""
        taken: list[str | None] = []

        dtype = self.dtype or dtype_of(self.module)

        def run(conversion: Conversion | None) -> dict[str, Tensor]:
            self._reads, self._pixels = conversion, Found()
            taken.clear()
            if conversion is None and as_floats(self.module, batch.inputs):
                self._reads = Conversion(NUMBERS, dtype)
            self._pixels = find_pixels(self.module, self.inputs, batch.inputs, self._prepared(batch.inputs))
            return self._run(batch, see)

        def see(output: Any, tensors: dict[str, Tensor]) -> None:
            if not isinstance(self.output, str | int):
                taken.append(taken_from(output, tensors.get(LOGITS)))

        tensors, _ = readable(run, batch.inputs, dtype)
        if LOGITS in tensors and tensors[LOGITS].shape[:1] != (batch.size,):
            raise RequestError(
                f"the teacher gives outputs of shape {tuple(tensors[LOGITS].shape)} for {batch.size} samples; they are "
                "logits (B, C), or numbers (B,)"
            )
        read = self._reads.note(batch.inputs) if self._reads else None
        self._said = [read, self._pixels.note, *taken[:1], *getattr(self.module, "notes", ())]
        self._settled = True
        return tensors

    def _prepared(self, inputs: Inputs) -> Inputs:
        inputs = each(inputs, Tensor.clone)  # the student reads them too, and a module may write into what it gets
        if self._reads is not None:
            inputs = self._reads.before(inputs)
        if self.inputs is not None:
            inputs = self.inputs(inputs)
        if self._pixels.prepare is not None:
            inputs = self._pixels.prepare(inputs)
        if self._reads is not None:
            inputs = self._reads.after(inputs)
        if self.dtype is None:
            return inputs
        dtype = self.dtype
        return each(inputs, lambda x: _cast(x, dtype))

    def _move(self, device: torch.device) -> None:
        if device != self._device:
            move(self.module, device)
            for prepare in (self.inputs, self._pixels.prepare):
                if prepare is not None:
                    prepare.to(device)
            self._device = device


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def fingerprint(module: nn.Module) -> str:
    """Hexadecimal digest of a module's weights and buffers with their names, shapes and dtypes."""
    digest = hashlib.sha256(type(module).__qualname__.encode())
    for name, value in module.state_dict().items():
        value = value.full_tensor() if is_dtensor(value) else value
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(content(value))
    return digest.hexdigest()[:16]
