"""An ONNX file as a module, computed by onnxruntime: a teacher from any framework."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.errors import RequestError, unknown
from limbeck.models.foreign.nodes import add_node
from limbeck.models.foreign.onnx_causes import cause_of
from limbeck.models.foreign.onnx_graph import FLOATS, Graph, runtime_version
from limbeck.models.foreign.onnx_inputs import DTYPES, Feed
from limbeck.models.foreign.onnx_pieces import as_tensor, pieces, refuse_other_rows
from limbeck.models.foreign.outputs import Outputs, flattened
from limbeck.models.pixels import Pixels, measured
from limbeck.models.probabilities import Ending
from limbeck.notices import tell
from limbeck.types import Inputs


class OnnxModel(nn.Module):
    """A model that an ONNX file holds; it teaches like any module, and cannot be trained.

    Every tensor that its graph computes is a tap under the tensor's own name, whether it is an output or not; "." and
    ":" in a name become "/". The file stays as it is. A graph for batches of one fixed size runs in pieces of that
    size. A graph that reads vectors, as scikit-learn's do, gets images flattened.

    Args:
        path: The file.
        logits: The tensor that holds the logits; by default the output "logits", else the only one of real numbers
            and shape (B, C) or (B, C, 1, 1). Codes of a known scale are read as the numbers that they stand for.
        probabilities: That tensor holds probabilities, and its logarithm is taken.
        channels_last: The graph reads images (B, H, W, C), or signals (B, L, C), as those from Keras or TensorFlow
            do; batches stay (B, C, H, W), or (B, C, L).
        fixed: Inputs that are one number whatever the batch, such as {"keep_prob": 1.0}, by name.
        providers: onnxruntime's execution providers; by default CUDA where it is installed, then the CPU.
        classes: How many the logits are, to choose between several outputs; None leaves that to who teaches with it.

    Raises:
        RequestError: A file that is missing or damaged, an unknown tensor, no output that could be logits, or the
            extra `onnx` is not installed.
    """

    digest: Tensor
    shows_operations = False
    """Taps are the graph's tensors, and nothing between them (`limbeck.taps`)."""

    def __init__(
        self,
        path: str | Path,
        *,
        logits: str | None = None,
        probabilities: bool = False,
        channels_last: bool = False,
        fixed: Mapping[str, float | bool] | None = None,
        providers: Sequence[str] | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        self._graph = Graph.read(path)
        self._providers = providers
        self._ending = Ending(probabilities=probabilities)
        self._feed = Feed(self._graph.path, channels_last, self._graph.whole, frozenset(fixed or ()))
        self._sessions: dict[tuple[str, ...], Any] = {}
        self._alone: int | None = None
        self._fixed = dict(fixed or {})
        self._settle(self._found(logits))
        self.choose_logits(classes)
        self.foreign_parameters = self._graph.parameters
        self._shown = {name: add_node(self, name, node.kind) for name, node in self._graph.tensors.items()}

    def forward(self, x: Tensor | None = None, /, **named: Tensor) -> Tensor:
        """Logits (B, C) in fp32 of a tensor, or of several by the names of the graph's inputs.

        Raises:
            RequestError: Inputs of other names, shapes or kinds than the graph's; probabilities in place of logits;
                several outputs that could be logits.
        """
        if self._logits is None:
            raise self._outputs().several()
        read = {name: shown for name, shown in self._shown.items() if shown.is_read}
        nodes = self._graph.tensors
        before = {name: nodes[name].reads if shown.shows_inputs else () for name, shown in read.items()}
        inputs = named if x is None else x
        tensors = self._compute((self._logits, *read, *itertools.chain(*before.values())), inputs)
        for name, shown in read.items():
            shown(*(tensors[one] for one in before[name]), output=tensors[name])
        return self._ending(flattened(self._real(self._logits, tensors[self._logits])))

    @property
    def notes(self) -> list[str]:
        """What should be known of how it is read, a line each."""
        return self._ending.notes

    def _real(self, name: str, values: Tensor) -> Tensor:
        scale = self._graph.scales.get(name)
        return values if scale is None or values.is_floating_point() else scale.real(values)

    def foreign_multiply_adds(self, inputs: Inputs) -> int:
        """Multiply-adds of the convolutions and matrix products in one forward pass."""
        nodes = {name: node for name, node in self._graph.tensors.items() if node.products or node.kind in _PRODUCTS}
        first = next(iter(self._graph.outputs.values()))  # some tensor, where there is no product
        tensors = self._compute((first, *nodes, *itertools.chain(*(node.reads for node in nodes.values()))), inputs)
        return sum(
            tensors[name].numel() * (node.products or (tensors[node.reads[0]].shape[-1] if node.reads else 0))
            for name, node in nodes.items()
        )

    @property
    def reads_floats(self) -> bool:
        """Whether it reads no whole numbers."""
        read, *others = self._read()
        return not others and read.type in FLOATS and read.name not in self._graph.whole

    def expected_pixels(self, images: Tensor) -> Pixels | None:
        """The range of pixels that the graph is made for, by its input's type or its first nodes; None for any."""
        read, *others = self._read()
        if others:
            return None
        channels, dtype = images.shape[1], DTYPES.get(read.type)
        if dtype is not None and (not dtype.is_floating_point or read.name in self._graph.whole):
            least = -128 if dtype == torch.int8 else 0
            return Pixels.up_to_255(channels, f"its input {read.name} is of whole numbers ({read.type})", least)
        first = self._graph.first_weighted()
        if first is None:
            return None
        try:
            zero, one = (self._compute((first,), torch.full_like(images[:1], value))[first] for value in (0.0, 1.0))
        except RequestError:  # whoever really runs it will say so
            return None
        return measured(zero, one, channels, f"its nodes before {first} scale them down")

    def extra_repr(self) -> str:
        return f"{self._graph.path}, logits={self._logits}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sessions": {}}  # sessions cannot be copied, and are made when they are needed

    def choose_logits(self, classes: int | None) -> None:
        """Decide between several outputs that could be logits, where nobody has: the one of this many classes.

        Raises:
            RequestError: None of them has so many, or several.
        """
        if self._logits is None and classes is not None:
            chosen = self._outputs().chosen(classes)
            self._settle(chosen and self._graph.outputs[chosen])

    def _found(self, logits: str | None) -> str | None:
        """The tensor of the logits; None where several outputs could be them."""
        outputs = self._graph.outputs
        if logits is None:
            chosen = self._outputs().chosen(None)
            return chosen and outputs[chosen]
        if logits not in outputs and logits not in self._graph.tensors:
            raise unknown(f"tensor of {self._graph.path}", logits, [*outputs, *self._graph.tensors])
        tensor = outputs.get(logits, logits)
        (found,) = self._session((tensor,)).get_outputs()
        if found.type not in FLOATS and tensor not in self._graph.scales:
            raise RequestError(
                f"tensor {logits} of {self._graph.path} is a {found.type} of unknown scale, and no logits; name one of "
                f"{self._outputs()}"
            )
        return tensor

    def _outputs(self) -> Outputs:
        """The graph's outputs; of whole numbers only those whose scale is known could be logits."""
        tensors = self._graph.outputs
        found = dict(zip(tensors, self._session(tuple(tensors.values())).get_outputs(), strict=True))
        real = {name for name, one in found.items() if one.type in FLOATS or tensors[name] in self._graph.scales}
        return Outputs(
            str(self._graph.path),
            {name: one.shape for name, one in found.items() if name in real},
            {name: f"is a {one.type}" for name, one in found.items() if name not in real},
        )

    def _read(self) -> list[Any]:
        """The inputs that a batch gives."""
        session = self._session(tuple(self._graph.outputs.values()))
        return [one for one in session.get_inputs() if one.name not in self._fixed]

    def _settle(self, tensor: str | None) -> None:
        """Take a tensor as the logits."""
        self._logits = tensor
        settings = (tensor, self._ending.probabilities, self._feed.channels_last, self._fixed, self._providers)
        # In place of the weights, which stay with onnxruntime: whoever compares or fingerprints models sees this.
        digest = hashlib.sha256(self._graph.digest + repr((*settings, runtime_version())).encode())
        self.register_buffer("digest", torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8))

    def _session(self, wanted: tuple[str, ...]) -> Any:
        if wanted not in self._sessions:
            self._sessions[wanted] = self._graph.session(wanted, self._providers)
        return self._sessions[wanted]

    def _compute(self, names: Sequence[str], inputs: Inputs) -> dict[str, Tensor]:
        """The tensors of these names."""
        wanted = tuple(dict.fromkeys(names))
        session = self._session(wanted)
        return self._run(session, wanted, self._feed(session.get_inputs(), inputs))

    def _run(self, session: Any, wanted: tuple[str, ...], fed: Sequence[tuple[Any, Tensor]]) -> dict[str, Tensor]:
        size, device = len(fed[0][1]), fed[0][1].device
        arrays = {one.name: x.detach().cpu().contiguous().numpy() for one, x in fed}
        fixed = next((one.shape[0] for one, _ in fed if type(one.shape[0]) is int), self._alone)
        try:
            parts = self._parts(session, wanted, arrays, size, fixed or size)
        except Exception as error:
            if size == 1 or fixed or not self._runs_alone(session, wanted, arrays):
                raise RequestError(
                    f"onnxruntime cannot run {self._graph.path} on {size} samples: {cause_of(error)}"
                ) from error
            return self._run(session, wanted, fed)
        whole = fixed in (None, size)
        return {
            name: as_tensor(values[0] if whole else self._joined(name, values, fixed)[:size], device)
            for name, values in zip(wanted, zip(*parts, strict=True), strict=True)
        }

    def _parts(
        self, session: Any, wanted: tuple[str, ...], arrays: Mapping[str, Any], size: int, length: int
    ) -> list[Any]:
        quiet, fixed = self._graph.quiet(), self._numbers(session)
        parts = [session.run(wanted, {**piece, **fixed}, quiet) for piece in pieces(arrays, size, length)]
        if self._logits in wanted and size > 1:
            refuse_other_rows(parts[0][wanted.index(self._logits)], length)
        return parts

    def _numbers(self, session: Any) -> dict[str, Any]:
        """The inputs that are the same for every batch."""
        expected = {one.name: one for one in session.get_inputs()}
        odd = next((name for name in self._fixed if name not in expected), None)
        if odd is not None:
            raise unknown(f"input of {self._graph.path}", odd, expected)
        return {
            name: torch.full([1] * len(expected[name].shape), value, dtype=DTYPES[expected[name].type]).numpy()
            for name, value in self._fixed.items()
        }

    def _runs_alone(self, session: Any, wanted: tuple[str, ...], arrays: Mapping[str, Any]) -> bool:
        """Whether the graph, which failed on several samples, runs on one: it was exported with one, and holds that."""
        try:
            self._parts(session, wanted, {name: array[:1] for name, array in arrays.items()}, 1, 1)
        except Exception:
            return False
        self._alone = 1
        tell(
            f"{self._graph.path} takes one sample at a time, whatever its input says, and is run so; export it with a "
            "free batch size to have it faster"
        )
        return True

    def _joined(self, name: str, values: Sequence[Any], fixed: int | None) -> Any:
        """What the pieces of `fixed` samples gave, as one."""
        if any(value.shape[:1] != (fixed,) for value in values):
            raise RequestError(
                f"tensor {name} of {self._graph.path} is not one value a sample, and the graph is for batches of "
                f"{fixed}; export it for any batch size"
            )
        return np.concatenate(values)


_PRODUCTS = ("MatMul", "MatMulInteger", "QLinearMatMul")
"""Nodes that multiply tensors which the graph computes, as attention does."""
