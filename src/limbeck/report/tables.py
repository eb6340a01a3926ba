"""A table of students as text for a document: CSV, Markdown or LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from limbeck.compare.table import Row, Table
from limbeck.runs.entry import span

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": r"$-$", "–": "--",
}  # fmt: skip


def cells(found: Table) -> tuple[list[str], list[list[str]]]:
    """The head and the rows as people read them: a mean with its standard deviation, and columns for what differs."""
    judged = any("difference" in row.verdict for row in found.rows)
    several = len({row.folder for row in found.rows}) > 1
    head = ["method", f"test {found.rows[0].figure}", "seeds"]
    head += ["− baseline", "95 % interval", "simultaneous", "verdict"] if judged else []
    head += [*found.differ, *(["folder"] if several else [])]
    rows = []
    for row in found.rows:
        spread = "" if row.std is None else f" ± {row.std:.4f}"
        one = [row.label or row.method, f"{row.mean:.4f}{spread}", ", ".join(map(str, row.values))]
        one += _judged(row.verdict) if judged else []
        one += [_plain(row, key) for key in found.differ]
        rows.append(one + ([row.folder] if several else []))
    return head, rows


def as_csv(found: Table) -> str:
    """One figure a column, for programs that read tables."""
    content = found.as_dict()["rows"]
    names = dict.fromkeys(key for row in content for key in row if key != "values")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for row in content:
        writer.writerow([_cell(row.get(name)) for name in names])
    return buffer.getvalue()


def as_markdown(found: Table) -> str:
    """A table as Markdown has it."""
    head, rows = cells(found)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def as_latex(found: Table) -> str:
    """A tabular with the rules of booktabs."""
    head, rows = cells(found)
    lines = [" & ".join(map(_latex, line)) + r" \\" for line in (head, *rows)]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    return f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}\n{body}\n\\end{{tabular}}\n"


WRITERS: Mapping[str, Callable[[Table], str]] = {"csv": as_csv, "markdown": as_markdown, "latex": as_latex}


def _judged(verdict: Mapping[str, Any]) -> Sequence[str]:
    if "difference" not in verdict:
        return [""] * 4
    return [
        f"{verdict['difference']:+.4f}",
        span(verdict.get("interval")),
        span(verdict.get("simultaneous")),
        verdict["verdict"],
    ]


def _plain(row: Row, key: str) -> str:
    value = row.made_of.get(key, "not recorded")
    return "none" if value is None else str(value)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
