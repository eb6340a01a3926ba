"""What `limbeck ship` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.cli import printing
from limbeck.report.ship import size_of, when_busy
from limbeck.shipping.score import lost

WIDTH = 160
FEW = 2
"""With more sizes than these the table has no room for p95, which ship.json and ship.html have."""


def shipped(found: Mapping[str, Any]) -> None:
    """The table, how int8 was chosen or refused, and where the files are."""
    console = printing.console(WIDTH)
    batches = list(found["rows"][0]["latency"])
    table = printing.table(f"{', '.join(found['runs'])}: on the test set, and on this machine")
    columns = ["model", "runtime", found["monitor"], "95 % interval", "agreement", "bytes"]
    columns += [_size(batch, few=len(batches) <= FEW) for batch in batches] + ["× teacher", "peak MB"]
    for column in columns:
        table.add_column(column, justify="left" if column in ("model", "runtime") else "right")
    for row in found["rows"]:
        table.add_row(*_cells(row, batches, several=len(found["runs"]) > 1))
    console.print(table)
    for line in _lines(found):
        console.print(line, soft_wrap=True)


def _size(name: str, few: bool) -> str:
    return f"p50/p95 ms, {size_of(name)}" if few else f"ms, {name.replace('x', ' × ')}"


def _cells(row: Mapping[str, Any], batches: list[str], several: bool) -> list[str]:
    name = f"{row['run']}: {row['model']}" if several else row["model"]
    shown = ("p50_ms", "p95_ms") if len(batches) <= FEW else ("p50_ms",)
    times = ["/".join(f"{row['latency'][batch][name]:.3f}" for name in shown) for batch in batches]
    ratio, memory = row["ratio_to_teacher"].get(batches[0]), row["peak_memory_bytes"]
    return [
        name,
        f"{row['runtime']} {row['precision']}",
        f"{row['score']:.4f}",
        "{:.4f}–{:.4f}".format(*row["interval"]),
        printing.cell(row["agreement"], ".4f"),
        f"{row['bytes']:,}",
        *times,
        "–" if ratio is None else f"{ratio['ratio']:.2f}",
        "–" if memory is None else f"{memory / 1e6:.0f}",
    ]


def _lines(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for run, each in found["chosen"].items():
        for name, how in each.items():
            what = f"int8 of {name}, {run}"
            if how["refused"]:
                late = "; the time ran out before all was tried: --seconds gives more" if how["time_ran_out"] else ""
                lines.append(f"{what}: refused: {how['refused']}{late}")
                continue
            left = f"; in fp32 stay {', '.join(how['left_out'])}" if how["left_out"] else ""
            drops = [lost(how[f"{split}_drop"], found["mode"]) for split in ("validation", "test")]
            where = f"chosen on {how['chosen_on']}: loses {drops[0]} there, {drops[1]} on the test set"
            lines.append(f"{what}: {how['scheme']}{left}; {where}")
    if len(found["rows"][0]["latency"]) > FEW:
        lines.append("ms: the median of a batch, of texts with the tokens of each; p95 stands in ship.json")
    lines += [*when_busy(found["machine"]), *found["slower"], *found["notes"]]
    out = found["out"]
    where = f"in {out}" if len(found["runs"]) == 1 else f"in the folder of each run in {out}"
    page = Path(out, "ship.html")
    lines.append(f"figures: {out}/ship.json   page: {printing.drawn_at(page if page.exists() else None)}")
    return [*lines, f"card: README.md and, for a device build, limbeck.json, {where}"]
