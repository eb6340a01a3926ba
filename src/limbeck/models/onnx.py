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

from limbeck.errors import RequestError, reason_of, unknown
from limbeck.models.nodes import add_node
from limbeck.models.onnx_graph import FLOATS, Graph
from limbeck.models.probabilities import Ending
from limbeck.notices import tell
from limbeck.types import Inputs

DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(double)": torch.float64,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
    "tensor(uint8)": torch.uint8,
    "tensor(bool)": torch.bool,
}


class OnnxModel(nn.Module):
    """A model that an ONNX file holds; it teaches like any module, and cannot be trained.

    Every tensor that its graph computes is a tap under the tensor's own name, whether it is an output or not; "." and
    ":" in a name become "/". The file stays as it is. A graph for batches of one fixed size runs in pieces of that
    size. A graph that reads vectors, as scikit-learn's do, gets images flattened.

    Args:
        path: The file.
        logits: The tensor that holds the logits; by default the output "logits", else the first one of real numbers
            and shape (B, C).
        probabilities: That tensor holds probabilities, and its logarithm is taken.
        channels_last: The graph reads images (B, H, W, C), as those from Keras or TensorFlow do; batches stay
            (B, C, H, W).
        fixed: Inputs that are one number whatever the batch, such as {"keep_prob": 1.0}, by name.
        providers: onnxruntime's execution providers; by default CUDA where it is installed, then the CPU.

    Raises:
        RequestError: A file that is missing or damaged, an unknown tensor, no output that could be logits, or the
            extra `onnx` is not installed.
    """

    digest: Tensor

    def __init__(
        self,
        path: str | Path,
        *,
        logits: str | None = None,
        probabilities: bool = False,
        channels_last: bool = False,
        fixed: Mapping[str, float | bool] | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self._graph = Graph.read(path)
        self._providers = providers
        self._ending = Ending(probabilities=probabilities)
        self._channels_last = channels_last
        self._sessions: dict[tuple[str, ...], Any] = {}
        self._alone: int | None = None
        self._fixed = dict(fixed or {})
        self._logits = self._found(logits)
        self._session((self._logits,))
        # In place of the weights, which stay with onnxruntime: whoever compares or fingerprints models sees this.
        digest = hashlib.sha256(
            self._graph.digest + repr((self._logits, probabilities, channels_last, self._fixed)).encode()
        )
        self.register_buffer("digest", torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8))
        self.foreign_parameters = self._graph.parameters
        self._shown = {name: add_node(self, name, node.kind) for name, node in self._graph.tensors.items()}

    def forward(self, x: Tensor | None = None, /, **named: Tensor) -> Tensor:
        """Logits (B, C) in fp32 of a tensor, or of several by the names of the graph's inputs.

        Raises:
            RequestError: Inputs of other names or shapes than the graph's; probabilities in place of logits.
        """
        read = {name: shown for name, shown in self._shown.items() if shown.is_read}
        nodes = self._graph.tensors
        before = {name: nodes[name].reads if shown.shows_inputs else () for name, shown in read.items()}
        inputs = named if x is None else x
        tensors = self._compute((self._logits, *read, *itertools.chain(*before.values())), inputs)
        for name, shown in read.items():
            shown(*(tensors[one] for one in before[name]), output=tensors[name])
        return self._ending(tensors[self._logits])

    def foreign_multiply_adds(self, inputs: Inputs) -> int:
        """Multiply-adds of the convolutions and matrix products in one forward pass."""
        nodes = {name: node for name, node in self._graph.tensors.items() if node.products or node.kind == "MatMul"}
        tensors = self._compute(
            (self._logits, *nodes, *itertools.chain(*(node.reads for node in nodes.values()))), inputs
        )
        return sum(
            tensors[name].numel() * (node.products or (tensors[node.reads[0]].shape[-1] if node.reads else 0))
            for name, node in nodes.items()
        )

    def extra_repr(self) -> str:
        return f"{self._graph.path}, logits={self._logits}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sessions": {}}  # sessions cannot be copied, and are made when they are needed

    def _found(self, logits: str | None) -> str:
        outputs = self._graph.outputs
        name = "logits" if logits is None and "logits" in outputs else logits
        if name in outputs or name in self._graph.tensors:
            return outputs.get(name, name)
        if name is not None:
            raise unknown(f"tensor of {self._graph.path}", name, [*outputs, *self._graph.tensors])
        for output in self._session(tuple(outputs.values())).get_outputs():
            if output.type in FLOATS and len(output.shape) in (0, 2):  # onnxruntime's 0 is: unknown
                return str(output.name)
        raise RequestError(
            f"{self._graph.path} has no output of real numbers and shape (B, C) that could be logits, but "
            f"{', '.join(outputs)}; name a tensor of it: logits='NAME'"
        )

    def _session(self, wanted: tuple[str, ...]) -> Any:
        if wanted not in self._sessions:
            self._sessions[wanted] = self._graph.session(wanted, self._providers)
        return self._sessions[wanted]

    def _compute(self, names: Sequence[str], inputs: Inputs) -> dict[str, Tensor]:
        """The tensors of these names."""
        wanted = tuple(dict.fromkeys(names))
        session = self._session(wanted)
        return self._run(session, wanted, self._fed(session.get_inputs(), inputs))

    def _fed(self, expected: Sequence[Any], inputs: Inputs) -> list[tuple[Any, Tensor]]:
        """Each input of the graph with its tensor."""
        names = [one.name for one in expected if one.name not in self._fixed]
        numbers = [one.name for one in expected if one.name in names and _is_number(one) and len(names) > 1]
        if numbers and not set(numbers) <= (set() if isinstance(inputs, Tensor) else set(inputs)):
            raise RequestError(
                f"input {numbers[0]} of {self._graph.path} is one number and no value a sample: give it once, as "
                f"fixed={{{numbers[0]!r}: 1.0}} with the number that it has when the model is used"
            )
        if isinstance(inputs, Tensor) and len(names) > 1:
            raise RequestError(f"{self._graph.path} reads {len(names)} inputs; give a mapping of {', '.join(names)}")
        given = {names[0]: inputs} if isinstance(inputs, Tensor) else dict(inputs)
        if given.keys() != set(names):
            raise RequestError(f"{self._graph.path} reads {', '.join(names)}, and was given {', '.join(given)}")
        return [(one, self._shaped(given[one.name], one)) for one in expected if one.name in given]

    def _shaped(self, x: Tensor, expected: Any) -> Tensor:
        if self._channels_last and x.dim() >= 4:
            x = x.movedim(1, -1)
        if len(expected.shape) == 2 and x.dim() > 2:
            x = x.flatten(1)
        fits = len(expected.shape) == x.dim() and all(
            size == needed for size, needed in zip(x.shape[1:], expected.shape[1:], strict=True) if type(needed) is int
        )
        if not fits:
            needed = ", ".join(["B", *map(str, expected.shape[1:])])
            hint = "; channels_last=True permutes images" if x.dim() == 4 and not self._channels_last else ""
            raise RequestError(
                f"input {expected.name} of {self._graph.path} has the shape ({needed}), and was given "
                f"{tuple(x.shape)}{hint}"
            )
        if expected.type not in DTYPES:
            raise RequestError(f"input {expected.name} of {self._graph.path} is a {expected.type}, which has no tensor")
        dtype = DTYPES[expected.type]
        if x.is_floating_point() and x.dtype.itemsize < min(dtype.itemsize, 4):
            raise RequestError(
                f"{self._graph.path} computes in its own dtype, and was given {x.dtype}: leave dtype out"
            )
        return x.to(dtype)

    def _run(self, session: Any, wanted: tuple[str, ...], fed: Sequence[tuple[Any, Tensor]]) -> dict[str, Tensor]:
        size, device = len(fed[0][1]), fed[0][1].device
        arrays = {one.name: x.detach().cpu().contiguous().numpy() for one, x in fed}
        fixed = next((one.shape[0] for one, _ in fed if type(one.shape[0]) is int), self._alone)
        try:
            parts = self._parts(session, wanted, arrays, size, fixed or size)
        except Exception as error:
            if size == 1 or fixed or not self._runs_alone(session, wanted, arrays):
                raise RequestError(
                    f"onnxruntime cannot run {self._graph.path} on {size} samples: {reason_of(error)}"
                ) from error
            return self._run(session, wanted, fed)
        whole = fixed in (None, size)
        return {
            name: _as_tensor(values[0] if whole else self._joined(name, values, fixed)[:size], device)
            for name, values in zip(wanted, zip(*parts, strict=True), strict=True)
        }

    def _parts(
        self, session: Any, wanted: tuple[str, ...], arrays: Mapping[str, Any], size: int, length: int
    ) -> list[Any]:
        quiet, fixed = self._graph.quiet(), self._numbers(session)
        parts = [session.run(wanted, {**piece, **fixed}, quiet) for piece in _pieces(arrays, size, length)]
        if self._logits in wanted and size > 1:
            _refuse_other_rows(parts[0][wanted.index(self._logits)], length)
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


def _is_number(expected: Any) -> bool:
    return list(expected.shape) in ([], [1])


def _refuse_other_rows(logits: Any, size: int) -> None:
    """Raise ValueError for logits that are not one row a sample."""
    if isinstance(logits, np.ndarray) and logits.ndim and len(logits) != size:
        raise ValueError(f"it gives logits of shape {logits.shape} for {size} samples")


def _as_tensor(value: Any, device: torch.device) -> Any:
    """An fp32 tensor of real numbers, another tensor of other ones; names of classes stay as they are."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return value
    tensor = torch.from_numpy(value).to(device)
    return tensor.float() if tensor.is_floating_point() else tensor


def _pieces(arrays: Mapping[str, Any], size: int, length: int) -> list[dict[str, Any]]:
    """The arrays cut into batches of exactly `length` samples; the last one is filled up with its last sample."""
    pieces = []
    for start in range(0, size, length):
        piece = {name: array[start : start + length] for name, array in arrays.items()}
        short = length - min(length, size - start)
        if short:
            piece = {name: np.concatenate([part, part[-1:].repeat(short, 0)]) for name, part in piece.items()}
        pieces.append(piece)
    return pieces
