"""From networks to files, and from files to rows of the table: what is judged is always the file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck.errors import RequestError, RunError
from limbeck.quantization import session
from limbeck.quantization.session import Given, Runner
from limbeck.shipping import formats, runners
from limbeck.shipping.chosen import Chosen, choose
from limbeck.shipping.formats import FORMS, Packing
from limbeck.shipping.plan import Plan
from limbeck.shipping.subjects import Case, Subject

REFERENCE = "reference"
"""The folder of the teacher's and the baseline's files."""


@dataclass(eq=False)
class Row:
    """One file, or one network in torch.

    Attributes:
        case: Whose it is.
        subject: The network.
        runtime: "torch", "onnx", …
        precision: "fp32", "fp16" or "int8".
        path: The file; None for a network that is only compared with, in torch.
        run: The file, loaded.
        packing: What stands inside the file.
        figures: More of its figures.
    """

    case: Case
    subject: Subject
    runtime: str
    precision: str
    path: Path | None
    run: Runner
    packing: Packing
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of the file; of a network without one, of its tensors."""
        if self.path is not None:
            weights = self.path.with_suffix(".bin") if self.runtime == "openvino" else None
            return self.path.stat().st_size + (weights.stat().st_size if weights else 0)
        return sum(tensor.numel() * tensor.element_size() for tensor in self.subject.network.state_dict().values())

    def loaded(self, threads: int) -> Runner:
        """The ONNX file loaded anew, or a copy of the network in torch; of another runtime `run` itself."""
        if self.runtime == "torch":
            return runners.module(copy.deepcopy(self.packing.model(self.subject)))
        return session.onnx(self.path, threads) if self.runtime == "onnx" and self.path else self.run

    def read(self, inputs: Any) -> Given:
        """From a batch's inputs to what the file reads."""
        return self.packing.read(self.subject, inputs)


def build(case: Case, plan: Plan, folder: Path, tell: Callable[[str], None]) -> tuple[list[Row], dict[str, Chosen]]:
    """Write all files of a case.

    Args:
        case: The networks.
        plan: The formats.
        folder: Where they go.
        tell: Told what is done.

    Returns:
        The rows, the references' first, and how each network's int8 file was chosen.

    Raises:
        RequestError: A student cannot be written in a format; for a reference that is noted only.
    """
    rows: list[Row] = []
    chosen: dict[str, Chosen] = {}
    for subject in case.references:
        tell(f"{case.name}: {subject.name}")
        target = folder / REFERENCE
        target.mkdir(parents=True, exist_ok=True)
        own = tuple(name for name in plan.formats if name in ("onnx", "onnx-int8"))
        rows.append(_torch(case, subject, plan))
        try:
            made, found = _files(case, subject, own, plan, target)
        except (RequestError, RunError) as error:
            if isinstance(error.__cause__, OSError):  # a full disk is no property of the network
                raise
            case.notes.append(str(error))
            continue
        rows += made
        chosen |= found
    for subject in case.students:
        tell(f"{case.name}: {subject.name}")
        if "safetensors" not in plan.formats:
            rows.append(_torch(case, subject, plan))
        made, found = _files(case, subject, plan.formats, plan, folder)
        rows += made
        chosen |= found
    return rows, chosen


def _torch(case: Case, subject: Subject, plan: Plan) -> Row:
    """A network as it is, in torch."""
    packing = Packing()
    return Row(case, subject, "torch", "fp32", None, runners.module(packing.model(subject)), packing)


def _files(
    case: Case, subject: Subject, names: tuple[str, ...], plan: Plan, folder: Path
) -> tuple[list[Row], dict[str, Chosen]]:
    rows: dict[str, Row] = {}
    chosen: dict[str, Chosen] = {}
    for name in sorted(names, key=list(FORMS).index):
        form = FORMS[name]
        path = folder / f"{subject.stem}{form.ending}"
        if name == "onnx-fp16":
            reason = formats.halve(folder / f"{subject.stem}{FORMS['onnx'].ending}", path, subject)
            if reason is not None:
                case.notes.append(f"{subject.name}: {reason}")
                continue
            run = session.onnx(path, plan.threads)
        elif name == "onnx-int8":
            chosen[subject.name] = choose(case, subject, plan, rows["onnx"].path or path, path)
            if chosen[subject.name].refused:
                continue
            run = session.onnx(path, plan.threads)
        else:
            run = formats.write(name, path, subject, plan.packing, plan.threads)
        rows[name] = Row(case, subject, form.runtime, form.precision, path, run, plan.packing)
    return list(rows.values()), chosen
