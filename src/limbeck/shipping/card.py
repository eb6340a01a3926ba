"""What lies beside the files: limbeck.json for a device build, a script of ten lines, and the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import limbeck
from limbeck.engine.files import write_json, write_text
from limbeck.recipes.read import dump
from limbeck.shipping.kinds import kind
from limbeck.shipping.plan import Plan
from limbeck.shipping.rows import Row
from limbeck.shipping.runners import INPUT
from limbeck.shipping.subjects import Case, Subject
from limbeck.tasks import Classification

ABOUT, SCRIPT, CARD, RECIPE = "limbeck.json", "run_onnx.py", "README.md", "recipe.yaml"

SCRIPT_TEXT = '''"""Run the file with onnxruntime and NumPy alone: python run_onnx.py SAMPLES.npy [FILE.onnx]"""
import json, sys, numpy as np, onnxruntime  # noqa: E401
about = json.load(open("limbeck.json", encoding="utf-8"))
x = np.load(sys.argv[1])  # (B, *shape), pixels from 0 to 255 in uint8 or from 0 to 1 in floating point
x = x.astype(np.float32) / (255 if x.dtype == np.uint8 else 1)
before = about["input"]["normalise_before"]
if before:
    x = ((x - np.reshape(before["mean"], (-1, 1, 1))) / np.reshape(before["std"], (-1, 1, 1))).astype(np.float32)
session = onnxruntime.InferenceSession((sys.argv[2:] or [about["file"]])[0], providers=["CPUExecutionProvider"])
outputs, classes = session.run(None, {about["input"]["name"]: x})[0], about["classes"]
print(*SHOWN, sep="\\n")
'''


def write(folder: Path, case: Case, rows: Sequence[Row], plan: Plan, command: str) -> None:
    """Write limbeck.json, the script and the card of one case into its folder.

    Args:
        folder: The case's.
        case: What is shipped.
        rows: Its rows, with their figures.
        plan: How they were made.
        command: The command that made them.
    """
    shipped = [row for row in rows if row.path is not None and row.path.parent == folder]
    about = described(case, shipped, plan)
    write_json(folder / ABOUT, about)
    if about["file"] is not None:
        write_text(folder / SCRIPT, SCRIPT_TEXT.replace("SHOWN", kind(case.task).shown))
    if case.finished is not None:
        write_text(folder / RECIPE, dump(case.finished.recipe))
    write_text(folder / CARD, _card(case, rows, about, command))


def described(case: Case, shipped: Sequence[Row], plan: Plan) -> dict[str, Any]:
    """What a device build must know."""
    last = case.students[-1]
    own = [row for row in shipped if row.subject.name == last.name]
    given = last.about["input"]
    normalises = given.get("mean") is not None or given.get("std") is not None
    values = _normalisation(given, last.shape[0])
    inside = plan.packing.normalised_inside
    return {
        "limbeck": limbeck.__version__,
        "run": case.told.get("fingerprint"),
        "file": _default(own),
        "files": {row.path.name: _file(row) for row in shipped if row.path is not None},
        "input": {
            "name": INPUT,
            "shape": ["batch", *last.shape],
            "dtype": "float32",
            "range": given.get("range"),
            "layout": "NCHW" if len(last.shape) == 3 else "batch first",
            "resize": last.size,
            "normalisation": values if normalises else None,
            "normalise_before": values if normalises and not inside else None,
        },
        "task": case.task.name,
        "output": {"name": plan.packing.output, "shape": ["batch", *last.output_shape]},
        "classes": _classes(case, last),
    }


def _classes(case: Case, subject: Subject) -> list[str]:
    """What the classes or labels are called; none where the outputs are of no classes."""
    count = max(int(subject.about["classes"]), 2 if isinstance(case.task, Classification) else 1)
    return list(subject.about.get("class_names") or map(str, range(count))) if kind(case.task).named else []


def _normalisation(given: Mapping[str, Any], channels: int) -> dict[str, list[float]]:
    return {"mean": list(given.get("mean") or [0.0] * channels), "std": list(given.get("std") or [1.0] * channels)}


def _default(rows: Sequence[Row]) -> str | None:
    """The file that the script runs: int8 where that was kept, else fp32."""
    by_precision = {row.precision: row.path.name for row in rows if row.runtime == "onnx" and row.path is not None}
    return by_precision.get("int8", by_precision.get("fp32"))


def _file(row: Row) -> dict[str, Any]:
    return {"model": row.subject.name, "runtime": row.runtime, "precision": row.precision, "bytes": row.bytes}


def _card(case: Case, rows: Sequence[Row], about: Mapping[str, Any], command: str) -> str:
    told = case.told
    data = told.get("data", "data of the user's own")
    told_kind = kind(case.task)
    task = told_kind.images if len(case.students[-1].shape) == 3 else told_kind.other
    monitor = case.task.monitor
    best = next((row for row in rows if row.path is not None and row.path.name == about["file"]), rows[-1])
    front = [
        "---",
        'license: ""  # to fill: of the weights',
        'base_model: ""  # to fill: the teacher, where it is published',
        "library_name: onnx",
        f"pipeline_tag: {task}",
        "tags: [knowledge-distillation, limbeck, onnx]",
        f"datasets: [{json.dumps(data)}]",
        f"metrics: [{monitor}]",
        "model-index:",
        f"  - name: {json.dumps(case.name)}",
        "    results:",
        f"      - task: {{type: {task}}}",
        f"        dataset: {{type: {json.dumps(data)}, name: {json.dumps(data)}, split: test}}",
        f"        metrics: [{{type: {monitor}, value: {best.told['score']:.4f}, name: {json.dumps(about['file'])}}}]",
        "---",
    ]
    return "\n".join(front) + "\n\n" + _text(case, rows, about, command)


def _text(case: Case, rows: Sequence[Row], about: Mapping[str, Any], command: str) -> str:
    told, given = case.told, about["input"]
    shape = " × ".join(map(str, given["shape"][1:]))
    where = "beside the file" if given["normalise_before"] else "inside the file"
    normalised = f"normalisation {where}" if given["normalisation"] else "no normalisation"
    teachers = ", ".join(told.get("teacher_models", ())) or "none"
    made = f"limbeck run {RECIPE}" if case.finished is not None else "# a network of the user's own"
    samples = f"{told['training_samples']:,} training and {told['test_samples']:,} test samples" if told else ""
    lines = "\n".join(_line(row) for row in rows)
    notes = "".join(f"- {note}\n" for note in case.notes)
    ranged = " from {} to {}".format(*given["range"]) if given["range"] else ""
    outputs = " × ".join(map(str, about["output"]["shape"][1:]))
    classes = f" Classes: {', '.join(about['classes'])}." if about["classes"] else ""
    return f"""# {case.name}

A distilled student by [limbeck](https://pypi.org/project/limbeck/) {about["limbeck"]}.

## Use

    python {SCRIPT} SAMPLES.npy

Intended input: `{given["name"]}`, {shape} in float32{ranged}, batch first; {normalised}. Output:
`{about["output"]["name"]}`, {outputs} ({about["task"]}).{classes} `{ABOUT}` says the same for programs.

## Figures

| model | runtime | precision | bytes | {case.task.monitor} | 95 % interval | agreement with the teacher |
|---|---|---|---|---|---|---|
{lines}

On the test set of {told.get("data", "the user's data")}{f" ({samples})" if samples else ""}.

## How it was made

    {made}
    {command}

Teacher: {teachers}. Epochs: {told.get("epochs", "")}. Seed: {told.get("seed", "")}.
{notes}
## To fill

- Intended use and what it must not be used for:
- Licence of the data, of the teacher and of these weights:
"""


def _line(row: Row) -> str:
    low, high = row.told["interval"]
    agreement = "" if row.told["agreement"] is None else f"{row.told['agreement']:.4f}"
    figures = f"{row.bytes:,} | {row.told['score']:.4f} | {low:.4f} to {high:.4f} | {agreement}"
    return f"| {row.subject.name} | {row.runtime} | {row.precision} | {figures} |"
