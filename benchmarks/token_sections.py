"""The sections of docs/results.md on language models: losses through a head, and codecs of the store."""

from __future__ import annotations

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
