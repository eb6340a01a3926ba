"""The sections of docs/results.md on language models: losses through a head, and codecs of the store."""

from __future__ import annotations

import statistics
from typing import Any


def tokens(content: dict[str, Any]) -> str:
    """Memory and time of losses through a head beside those on all logits."""
    found = content["figures"]
    lines = ["## Language models: losses through the head\n", f"    {content['command']}\n"]
    lines.append(
        f"{found['tokens']:,} tokens over a vocabulary of {found['vocabulary']:,}; hidden states of {found['width']} "
        f"numbers, the teacher's of {found['teacher_width']}. Memory on top of the inputs at its peak, and a forward "
        f"and backward pass. The aim: at most {found['aim']} of the dense form's memory.\n"
    )
    lines += ["| loss | chunked, MB | dense, MB | ratio | chunked, s | dense, s | ratio |", f"|{'---|' * 7}"]
    for row in found["rows"]:
        sizes = [f"{row[f'{form}_extra_bytes'] / 1e6:,.0f}" for form in ("chunked", "dense")]
        times = [f"{row[f'{form}_seconds']:.2f}" for form in ("chunked", "dense")]
        cells = [row["loss"], *sizes, f"{row['bytes_ratio']:.2f}", *times, f"{row['time_ratio']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "The seconds were taken beside other work."])


def codecs(content: dict[str, Any]) -> str:
    """Validation loss and calibration by the form in which the teacher's outputs are stored."""
    found, lines = content["figures"], ["## Language models: codecs of the store\n", f"    {content['command']}\n"]
    aim = found["aim"]
    lines.append(
        f"lm-tiny with a vocabulary of {found['vocabulary']:,}, {found['tokens']:,} tokens, "
        f"{len(found['seeds'])} seeds. Differences of the validation loss to that by dense outputs are "
        f"paired by seed. The aim: at most "
        f"{aim['token_bytes']} bytes a token with an interval that holds 0, and {aim['step_ratio']:.2f} times the step "
        "on labels alone.\n"
    )
    lines += ["| stored | bytes a token | validation loss | − dense | 95 % interval | calibration error | step |"]
    lines += [f"|{'---|' * 7}"]
    for row in found["rows"]:
        size = "" if row["token_bytes"] is None else f"{row['token_bytes']:,.0f}"
        shift = f"{row['difference']:+.4f}" if "difference" in row else ""
        interval = "{:+.4f} to {:+.4f}".format(*row["interval"]) if row.get("interval") else ""
        loss, error = (f"{statistics.mean(row[key]):.4f}" for key in ("loss", "calibration"))
        lines.append(f"| {row['form']} | {size} | {loss} | {shift} | {interval} | {error} | {row['step_ratio']:.2f} |")
    return "\n".join([*lines, "", "The steps were timed beside other work."])
