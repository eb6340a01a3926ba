"""The student of a run, or one of its exits, as files of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck.data.splits import SEVERAL
from limbeck.data.text.tokenizers import FILE
from limbeck.engine.saving.checkpoint import save_student
from limbeck.errors import RequestError
from limbeck.export.onnx import write_onnx
from limbeck.export.texts import text_inputs, write_text_onnx
from limbeck.models import multiply_adds, parameter_count
from limbeck.models.load import load_network, read_description
from limbeck.models.logits import to_logits
from limbeck.models.networks.multi_exit import MultiExit, exit_network
from limbeck.runs.folder import read_result
from limbeck.runs.texts import of_texts, tokenizer_of


def export_run(run: Path, *, exit: int | None = None, out: Path | None = None, onnx: bool = False) -> dict[str, Any]:
    """Write a run's student, or one of its exits, as NAME.safetensors and NAME.json; as NAME.onnx too if wanted.

    NAME is "student", or "exit-K". `limbeck.load_model(NAME.json)` gives the model back; as the JSON file says under
    "model" and "options", a recipe can build it too.

    Args:
        run: The folder of a finished run, or of one student of a comparison.
        exit: Number of the exit, 1 for the shallowest; needed where the student has several, and only there.
        out: Where the files go; the folder "export" of the run by default.
        onnx: Write ONNX, and check with onnxruntime that it gives the same logits.

    Returns:
        "json", the path of NAME.json, what was written beside it, and the model's size and test accuracy.

    Raises:
        RequestError: No finished run, an exit that is not there, a student of several inputs by name, or a network
            that cannot be written as ONNX.
        RunError: The ONNX file gives other logits, or a file cannot be written.
    """
    tested = read_result(run)
    tested = tested.get("distilled", tested)
    about = read_description(run / "student.json")
    if (about["input"].get("sample") or {}).get("dtype") == SEVERAL:
        raise RequestError(f"the student of {run} reads several inputs by name: limbeck ship {run} writes its files")
    whole = load_network(run / "student.json")
    network, prediction = _chosen(whole, exit, about["model"])
    monitor = tested["monitor"]
    shape = tuple(about["input"]["shape"])
    words, zeros = of_texts(about), torch.zeros(1, *shape)
    described: dict[str, Any] = {
        "model": about["model"],
        **({"output": about["output"]} if "output" in about else {}),
        "options": about["options"] if exit is None else {**about["options"], "exit": exit},
        "classes": about["classes"],
        **({"class_names": about["class_names"]} if "class_names" in about else {}),
        "input": about["input"],
        "monitor": monitor,
        f"test_{monitor}": tested.get(f"test_{monitor}{prediction}"),
        "multiply_adds": multiply_adds(network, text_inputs(words["inputs"], 1, 1, *shape) if words else zeros),
    }
    out = run / "export" if out is None else out
    name = "student" if exit is None else f"exit-{exit}"
    if onnx:
        described["onnx"] = (write_text_onnx if words else write_onnx)(
            out / f"{name}.onnx", to_logits(network, about.get("output")), described["input"]
        )
    weights = save_student(out, name, network, described)
    files = [str(weights), *([str(out / f"{name}.onnx")] if onnx else [])]
    if words:
        tokenizer_of(run).save(out)
        files.append(str(out / FILE))
    return {"json": str(out / f"{name}.json"), "files": files, "parameters": parameter_count(network), **described}


def _chosen(whole: nn.Module, exit: int | None, name: str) -> tuple[nn.Module, str]:
    """The network to write, and what follows the monitor in the name under which the run keeps its test score."""
    if not isinstance(whole, MultiExit):
        if exit is not None:
            raise RequestError(f"the student {name} has a single exit; leave --exit out")
        return whole, ""
    last = len(whole.trunk)
    if exit is None:
        raise RequestError(
            f"the student {name} has {last} exits: choose one with --exit, 1 (shallowest) to {last} (deepest); "
            "limbeck exits RUN says how accurate each is"
        )
    return exit_network(whole, exit), f"/exit {exit}/{last}"
