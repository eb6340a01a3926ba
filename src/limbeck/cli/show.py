"""What the commands print on stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from limbeck.cli.printing import cell as _cell
from limbeck.cli.printing import console as _console
from limbeck.cli.printing import document, drawn_at
from limbeck.cli.printing import table as _table
from limbeck.runs.entry import advantage, in_int8, label, metric, score

if TYPE_CHECKING:
    from limbeck.models.inspect import Inspected


def result(result: Mapping[str, Any]) -> None:
    """The table at the end of a run."""
    table = _table(f"{result['recipe']} on {result['data']}, seed {result['seed']}, {result['device']}")
    table.add_column("model")
    teachers = result["teacher"] if isinstance(result["teacher"], list) else [result["teacher"]]
    rows = {f"teacher ({one['source']})": one for one in teachers}
    if len(teachers) > 1:
        rows = {f"teacher {n} ({one['source']})": one for n, one in enumerate(teachers)}
    rows |= {"baseline": result["baseline"]} if "baseline" in result else {}
    rows["distilled student"] = result["distilled"]
    rows |= in_int8(result)
    if "ensemble" in result:
        rows["all generations"] = result["ensemble"]
    monitor = result["distilled"]["monitor"]
    top5 = any(metric(row, "top5") is not None for row in rows.values())
    for column in ("parameters", f"test {label(monitor)}", *(["top-5"] if top5 else []), "epochs", "seconds"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        cells = [_cell(row.get("parameters"), ","), _cell(score(row), ".4f")]
        cells += [_cell(metric(row, "top5"), ".4f")] if top5 else []
        table.add_row(name, *cells, _cell(row.get("epochs"), ""), _cell(row.get("seconds"), ".1f"))
    console = _console()
    console.print(table)
    if "baseline" in result:
        console.print(
            f"distilled − baseline: {_difference(result['distilled'], result['baseline'])} {_budget(result)}. Another "
            "seed gives another difference: limbeck compare trains several",
            soft_wrap=True,
        )
    int8(console, result)
    outputs(console, result)
    console.print(
        f"student: {result['out']}/student.safetensors   figures: {result['out']}/result.json", soft_wrap=True
    )


def int8(console: Console, result: Mapping[str, Any]) -> None:
    """What int8 cost the distilled student, and what is left of its gain over the baseline in fp32."""
    if "int8" not in result:
        return
    file = result["int8"]["distilled"]
    sides = {
        "in fp32": result["distilled"],
        **({"baseline in fp32": result["baseline"]} if "baseline" in result else {}),
    }
    beside = ", ".join(f"− {name}: {_difference(file, one)}" for name, one in sides.items())
    console.print(f"distilled in int8 {beside}   file: {result['out']}/{file['file']}", soft_wrap=True)


def _budget(result: Mapping[str, Any]) -> str:
    """What baseline and student had in common; early stopping may end one before the other."""
    ours, theirs = result["distilled"], result["baseline"]
    if ours.get("stopped_early") or theirs.get("stopped_early"):
        return f"after {ours['epochs']} and {theirs['epochs']} epochs (early stopping), at equal start and data order"
    return "at equal epochs, start and data order"


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The difference of two models' scores in words."""
    difference = score(one) - score(other)
    if difference == 0:
        return "no difference"
    if one["monitor"] == "accuracy":
        return f"{100 * difference:+.2f} points"
    better = "better" if advantage(one, other) > 0 else "worse"
    digits = f"{difference:+.4f}" if abs(difference) >= 5e-5 else f"{difference:+.1e}"  # not +0.0000, and yet worse
    return f"{label(one['monitor'])} {digits} ({better})"


def outputs(console: Console, found: Mapping[str, Any]) -> None:
    """Which teacher outputs came from a store, and what that changes."""
    from limbeck.runs.outputs.ledger import table_line

    for line in filter(None, map(table_line, found.get("teacher_outputs", ()))):
        console.print(line, soft_wrap=True)


def diagnosis(found: Mapping[str, Any], as_json: bool = False) -> None:
    """What a recipe's teacher has to teach, as a table or as JSON."""
    if as_json:
        document(found)
        return
    figures = found["diagnosis"]
    held_out, at = figures["held_out"], f"at temperature {figures['temperature']:g}"
    table = _table(f"teacher of {found['recipe']} on {found['data']}, {figures['samples']:,} training samples")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row("training accuracy", f"{figures['train_accuracy']:.4f}")
    table.add_row(f"{held_out} accuracy", f"{figures['held_out_accuracy']:.4f}")
    table.add_row(f"calibration error, {held_out}", f"{figures['calibration_error']:.4f}")
    table.add_row(f"entropy of its soft labels {at}, training", f"{figures['entropy']:.4f} nats")
    table.add_row(f"the same, {held_out}", f"{figures['held_out_entropy']:.4f} nats")
    table.add_row("maximum entropy", f"{figures['maximum_entropy']:.4f} nats")
    _console().print(table)


def evaluation(figures: Mapping[str, Any]) -> None:
    """One model's figures."""
    table = _table("test set")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        if value is not None:
            table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:.4f}")
    _console().print(table)


def exported(exported: Mapping[str, Any]) -> None:
    """What was written, its size, and how it is loaded."""
    figures = {
        "parameters": f"{exported['parameters']:,}",
        "multiply-adds": f"{exported['multiply_adds']:,}",
        f"test {label(exported['monitor'])}": _cell(exported[f"test_{exported['monitor']}"], ".4f"),
    }
    if "onnx" in exported:
        figures["ONNX: largest difference of a logit"] = f"{exported['onnx']['largest_difference']:.1e}"
    table = _table(f"{exported['model']}, {', '.join(f'{k} {v}' for k, v in exported['options'].items()) or 'whole'}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, value)
    console = _console()
    console.print(table)
    console.print(f"written: {', '.join([exported['json'], *exported['files']])}", soft_wrap=True)
    sample = exported["input"].get("sample") or {}
    read = " and ".join(sample.get("inputs", ())) or "images on the scale 0–1"
    console.print(f'in Python: limbeck.load_model("{exported["json"]}") reads {read}', soft_wrap=True)


def exits(found: Mapping[str, Any], page: Path | None) -> None:
    """Each exit, the curve of early exit, and the threshold that was chosen."""
    console = _console()
    table = _table(f"{found['recipe']} on {found['data']}, seed {found['seed']}: each exit as a network of its own")
    for column in ("exit", "parameters", "multiply-adds", "validation accuracy", "test accuracy"):
        table.add_column(column, justify="left" if column == "exit" else "right")
    for name, row in {**found["exits"], "ensemble": found["ensemble"]}.items():
        accuracies = [_cell(row.get(f"{split}_accuracy"), ".4f") for split in ("validation", "test")]
        table.add_row(name, f"{row['parameters']:,}", f"{row['multiply_adds']:,}", *accuracies)
    console.print(table)
    split = found["curve"]["split"]
    table = _table(f"early exit, {split} set")
    for column in ("threshold", "accuracy", "mean multiply-adds", f"leave at {', '.join(found['exits'])}"):
        table.add_column(column, justify="right")
    for point in found["curve"]["points"]:
        shares = "  ".join(f"{share:6.1%}" for share in point["shares"])
        table.add_row(f"{point['threshold']:g}", f"{point['accuracy']:.4f}", f"{point['multiply_adds']:,.0f}", shares)
    console.print(table)
    console.print(_choice(found), soft_wrap=True)
    where = f"{found['out']}/exits.json"
    console.print(f"figures: {where}   page: {drawn_at(page)}", soft_wrap=True)


def _choice(found: Mapping[str, Any]) -> str:
    chosen = found["chosen"]
    if chosen is None:
        return "no validation split, so this curve is the test set's; it is no place to choose a threshold"
    if chosen["threshold"] is None:
        return f"no threshold keeps within {chosen['within']:g} of the deepest exit on validation; try higher ones"
    deepest = list(found["exits"].values())[-1]
    test = chosen["test"]
    share = test["multiply_adds"] / deepest["multiply_adds"]
    return (
        f"chosen on validation, within {chosen['within']:g} of the deepest exit: threshold {chosen['threshold']:g}. "
        f"Test set: {test['accuracy']:.4f} with {test['multiply_adds']:,.0f} multiply-adds a sample, "
        f"{share:.0%} of the deepest exit's; the deepest exit alone has {deepest['test_accuracy']:.4f}"
    )


def models(inspected: Sequence[Inspected]) -> None:
    """Each model's taps, and for two models the pairs that a feature loss could compare."""
    from limbeck.taps import match

    console = _console()
    for one in inspected:
        table = _table(f"{one.name}: {one.parameters:,} parameters, {one.multiply_adds:,} multiply-adds a sample")
        for column, justify in (
            ("tap", "left"),
            ("kind", "left"),
            ("shape", "right"),
            ("parameters", "right"),
        ):
            table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for tap in one.taps:
            table.add_row(tap.name, tap.kind, _shape(tap.shape), f"{tap.parameters:,}")
        console.print(table)
    if len(inspected) == 2:
        teacher, student = inspected
        table = _table(f"proposed pairs of taps, teacher {teacher.name}, student {student.name}")
        for column in ("teacher tap", "shape", "student tap", "shape", "adapter"):
            table.add_column(column, overflow="fold")
        for t, s in match(teacher.taps, student.taps):
            table.add_row(t.name, _shape(t.shape), s.name, _shape(s.shape), "none" if t.shape == s.shape else "auto")
        console.print(table)


def names(kinds: Mapping[str, Mapping[str, str]]) -> None:
    """Names by kind, with one line on each."""
    for kind, entries in kinds.items():
        table = Table(title=kind, title_justify="left", box=None, show_header=False, padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column()
        for name, line in entries.items():
            table.add_row(name, line)
        _console().print(table)


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape[1:]))
