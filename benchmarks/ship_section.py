"""The section of docs/results.md on `limbeck ship`."""

from __future__ import annotations

from typing import Any

BEFORE = (
    "Every row is a file on disk, run by the runtime that is named: accuracy on the test set with Wilson's 95 % "
    "interval; the difference to the baseline in torch in pairs of test samples; latency on one thread, files in turns "
    "in one process. What stands for `× teacher` is the speed beside the teacher's fp32 ONNX file, with its 95 % "
    "interval. The times were taken beside other work: the ratios count."
)


def section(content: dict[str, Any]) -> str:
    """A table for each run, how int8 was chosen, and what the buyer asks: distilled int8 against baseline fp32."""
    lines = ["## Ship: files for a device\n", f"    {content['command']}\n", BEFORE + "\n"]
    for name, found in content["figures"].items():
        lines += _run(name, found)
    return "\n".join(lines)


def _run(name: str, found: dict[str, Any]) -> list[str]:
    machine = found["machine"]
    lines = [f"### {name} ({found['data']}, {found['epochs']} epochs)\n"]
    lines += ["| model | file | bytes | accuracy | − baseline | agreement | p50 / p95, ms | × teacher | peak, MB |"]
    lines += [f"|{'---|' * 9}"]
    lines += [_row(row) for row in found["rows"]]
    lines += ["", _question(found["rows"])]
    lines += [f"- int8 of {model}: {_how(how)}" for model, how in found["chosen"].items()]
    lines += [f"- {line}" for line in found["slower"]]
    both = "; ".join(f"{one} {a:.2f} and {b:.2f}" for one, (a, b) in found["ratios_of_two_calls"].items())
    if both:
        lines.append(f"- × teacher in two calls: {both}")
    flags = ", ".join(machine["flags"])
    return [*lines, "", f"{machine['processor']} ({flags}), onnxruntime {machine['onnxruntime']}.\n"]


def _row(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    beside = row["beside_baseline"]
    shift = "" if beside is None else "{:+.4f} ({:+.4f} to {:+.4f})".format(beside["difference"], *beside["interval"])
    agreement = "" if row["agreement"] is None else f"{row['agreement']:.4f}"
    times = "; ".join(f"{one['p50_ms']:.3f} / {one['p95_ms']:.3f} at {size}" for size, one in row["latency"].items())
    ratio = row["ratio_to_teacher"].get("1")
    speed = "" if ratio is None else "{:.2f} ({:.2f} to {:.2f})".format(ratio["ratio"], *ratio["interval"])
    memory = "" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 1e6:.0f}"
    figures = f"{row['bytes']:,} | {row['score']:.4f} ({low:.4f} to {high:.4f}) | {shift} | {agreement}"
    return f"| {row['model']} | {row['runtime']} {row['precision']} | {figures} | {times} | {speed} | {memory} |"


def _question(rows: list[dict[str, Any]]) -> str:
    own = next((row for row in rows if (row["model"], row["precision"]) == ("distilled", "int8")), None)
    if own is None:
        return "- Distilled int8 against baseline fp32: there is no int8 file, it was refused."
    low, high = own["beside_baseline"]["interval"]
    verdict = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    difference = own["beside_baseline"]["difference"]
    return f"- Distilled int8 against baseline fp32: {difference:+.4f} ({low:+.4f} to {high:+.4f}): {verdict}."


def _how(how: dict[str, Any]) -> str:
    worst = max(how["attempts"], key=lambda one: one["drop"])
    tried = f"tried {len(how['attempts'])}, of which {worst['scheme']} lost {100 * worst['drop']:.2f} points"
    said = f"refused: {how['refused']}" if how["refused"] else f"{how['scheme']}"
    left = f", {', '.join(how['left_out'])} in fp32" if how["left_out"] and not how["refused"] else ""
    lost = f"; lost {100 * how['validation_drop']:.2f} points on validation"
    lost += "" if how["test_drop"] is None else f" and {100 * how['test_drop']:.2f} on the test set"
    trained = how["retraining"]
    more = ""
    if trained and "recovered" in trained:
        more = f"; training for int8 ({trained['epochs']:.2g} epochs) recovered {trained['recovered']:.0%} of the loss"
    return f"{said}{left}{lost}; {tried}{more}."
