"""What lies beside the files: limbeck.json for a device build, a script of ten lines, a tokenizer, the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import limbeck
from limbeck.data.text.device import for_device
from limbeck.data.text.tokenizers import FILE
from limbeck.engine.saving.files import write_json, write_text
from limbeck.recipes.read import dump
from limbeck.shipping.kinds import class_count, kind
from limbeck.shipping.plan import Plan
from limbeck.shipping.rows import Row
from limbeck.shipping.subjects import Case, Subject

ABOUT, SCRIPT, CARD, RECIPE = "limbeck.json", "run_onnx.py", "README.md", "recipe.yaml"


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
        write_text(folder / SCRIPT, case.students[-1].reading.script.replace("SHOWN", kind(case.task).shown))
    if case.tokenizer is not None:
        length, framed = case.students[-1].reading.shape[0], kind(case.task).framed
        write_text(folder / FILE, for_device(case.tokenizer, length, framed=framed))
    if case.finished is not None:
        write_text(folder / RECIPE, dump(case.finished.recipe))
    write_text(folder / CARD, _card(case, rows, about, command))


def described(case: Case, shipped: Sequence[Row], plan: Plan) -> dict[str, Any]:
    """What a device build must know."""
    last = case.students[-1]
    own = [row for row in shipped if row.subject.name == last.name]
    return {
        "limbeck": limbeck.__version__,
        "run": case.origin.get("fingerprint"),
        "file": _default(own),
        "files": {row.path.name: _file(row) for row in shipped if row.path is not None},
        "input": last.reading.described(last.about["input"], plan.packing.normalised_inside, case.tokenizer),
        "task": case.task.name,
        "output": {"name": plan.packing.output, "shape": ["batch", *last.reading.output(last.output_shape)]},
        "classes": _classes(case, last),
    }


def _classes(case: Case, subject: Subject) -> list[str]:
    """What the classes or labels are called; none where the outputs are of no classes."""
    count = class_count(case.task, int(subject.about["classes"]))
    return list(subject.about.get("class_names") or map(str, range(count))) if kind(case.task).named else []


def _default(rows: Sequence[Row]) -> str | None:
    """The file that the script runs: int8 where that was kept, else fp32."""
    by_precision = {row.precision: row.path.name for row in rows if row.runtime == "onnx" and row.path is not None}
    return by_precision.get("int8", by_precision.get("fp32"))


def _file(row: Row) -> dict[str, Any]:
    return {"model": row.subject.name, "runtime": row.runtime, "precision": row.precision, "bytes": row.bytes}


def _card(case: Case, rows: Sequence[Row], about: Mapping[str, Any], command: str) -> str:
    origin = case.origin
    data = origin.get("data", "data of the user's own")
    of_task = kind(case.task)
    task = of_task.tags[case.students[-1].reading.group]
    monitor = case.task.monitor
    best = next((row for row in rows if row.path is not None and row.path.name == about["file"]), rows[-1])
    score = best.figures["score"]
    front = [
        "---",
        "# license: to fill: of the weights, such as apache-2.0",
        "# base_model: to fill: the teacher, where it is published, such as timm/resnet34.a1_in1k",
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
        f"        metrics: [{{type: {monitor}, value: {score:.4f}, name: {json.dumps(about['file'])}}}]",
        "---",
    ]
    return "\n".join(front) + "\n\n" + _text(case, rows, about, command)


def _text(case: Case, rows: Sequence[Row], about: Mapping[str, Any], command: str) -> str:
    origin, reading = case.origin, case.students[-1].reading
    teachers = ", ".join(origin.get("teacher_models", ())) or "none"
    made = f"limbeck run {RECIPE}" if case.finished is not None else "# a network of the user's own"
    samples = f"{origin['training_samples']:,} training and {origin['test_samples']:,} test samples" if origin else ""
    lines = "\n".join(_line(row) for row in rows)
    notes = "".join(f"- {note}\n" for note in case.notes)
    outputs = " × ".join(map(str, about["output"]["shape"][1:]))
    classes = f" Classes: {', '.join(about['classes'])}." if about["classes"] else ""
    return f"""# {case.name}

A distilled student by [limbeck](https://pypi.org/project/limbeck/) {about["limbeck"]}.

## Use

    python {SCRIPT} {reading.samples}

Intended input: {reading.sentence(about["input"])}. Output:
`{about["output"]["name"]}`, {outputs} ({about["task"]}).{classes} `{ABOUT}` says the same for programs.

## Figures

| model | runtime | precision | bytes | {case.task.monitor} | 95 % interval | agreement with the teacher |
|---|---|---|---|---|---|---|
{lines}

On the test set of {origin.get("data", "the user's data")}{f" ({samples})" if samples else ""}.

## How it was made

    {made}
    {command}

Teacher: {teachers}. Epochs: {origin.get("epochs", "")}. Seed: {origin.get("seed", "")}.
{notes}
## To fill

- Intended use and what it must not be used for:
- Licence of the data, of the teacher and of these weights:
"""


def _line(row: Row) -> str:
    low, high = row.figures["interval"]
    agreement = "" if row.figures["agreement"] is None else f"{row.figures['agreement']:.4f}"
    figures = f"{row.bytes:,} | {row.figures['score']:.4f} | {low:.4f} to {high:.4f} | {agreement}"
    return f"| {row.subject.name} | {row.runtime} | {row.precision} | {figures} |"
