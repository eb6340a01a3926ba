"""The section of docs/results.md on sentence embeddings."""

from __future__ import annotations

import statistics
from typing import Any


def section(content: dict[str, Any]) -> str:
    """The section of docs/results.md."""
    found = content["figures"]
    aim, sizes = found["aim"], found["sentences"]
    lines = ["## Sentence embeddings: a pretrained encoder\n", f"    {content['command']}\n"]
    lines.append(
        f"Teacher: {found['teacher']['name']}, {found['teacher']['parameters']:,} parameters. Student: text-embed, "
        f"{found['parameters']:,} parameters, {found['epochs']} epochs on {sizes['train']:,} unlabelled texts: TREC's "
        "questions, movie reviews and Python's documentation, with words and pieces of them, "
        f"seed {', '.join(map(str, found['seeds']))}; means over {sizes['test']:,} test sentences. The aim: a "
        f"Spearman correlation of {aim['spearman']} with the teacher's similarities, whose own is 1; "
        f"{aim['times_as_fast']} times its speed; at most {aim['int8_bytes'] / 1e6:.0f} MB in int8.\n"
    )
    lines += ["| student | bytes | Spearman | top-10 overlap | cosine |", f"|{'---|' * 5}"]
    for kind in ("fp32", "int8"):
        size = f"{found['rows'][0]['bytes'][kind]:,}"
        cells = []
        for name in ("spearman", "top10_overlap", "cosine"):
            values = [row[kind][name] for row in found["rows"]]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread}")
        lines.append(f"| {kind} | {size} | {' | '.join(cells)} |")
    threads = found["threads"]
    lines += [
        "",
        f"From text to embedding, the tokenizer's work included, {found['timed']} sentences in batches of "
        f"{found['batch']} sorted by length, in turns on {threads} thread{'s' if threads > 1 else ''}, beside "
        "other work:",
        "",
        "| reader | sentences a second | times as fast |",
        f"|{'---|' * 3}",
    ]
    for name, rate in found["sentences_a_second"].items():
        lines.append(f"| {name} | {rate:,.0f} | {found['times_as_fast'][name]:.1f} |")
    return "\n".join(lines)
