"""Records of text files: plain text, JSON lines, TSV, CSV, Parquet, and folders of Hugging Face's datasets."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.errors import RequestError, as_request, shown, unknown

FOLDER = "text"
"""The folder of the data root in which files are looked for too."""
TEXT = "text"
"""The column of a plain file's content."""
Record = Mapping[str, Any]
Files = str | list[str]
"""Names of files, also patterns."""


def located(root: Path, names: str | Sequence[str]) -> list[Path]:
    """The files of some names: in the data root, or in its folder `text`; a pattern such as "books/*.txt" for several.

    Raises:
        RequestError: There is none of a name.
    """
    found: list[Path] = []
    for name in [names] if isinstance(names, str) else names:
        files = next(filter(None, (_named(place / name) for place in (root, root / FOLDER))), [])
        if not files:
            raise RequestError(
                f"there is no file {name} in {root} or {root / FOLDER}; name the folder that holds it with --data-root "
                "or LIMBECK_DATA"
            )
        found += files
    return found


def _named(path: Path) -> list[Path]:
    """The file or folder of this name, else those that fit it as a pattern."""
    with as_request(lambda reason: f"{path} names no file: {reason}"):
        return [path] if path.exists() else sorted(path.parent.glob(path.name))


def records(path: Path, columns: Sequence[str] = ()) -> list[Record]:
    """The records that a file holds, by its ending; a plain file is one record with the column "text".

    Args:
        path: .jsonl, .tsv, .csv, .parquet, a folder that `datasets.Dataset.save_to_disk` wrote, or plain text.
        columns: The columns of a .tsv or .csv file whose first line does not name them.

    Raises:
        RequestError: The file cannot be read.
    """
    reader = _folder if path.is_dir() else _READERS.get(path.suffix.lower(), _plain)
    with as_request(lambda reason: f"cannot read {path}: {reason}"):
        return list(reader(path, columns))


def column(some: Sequence[Record], name: str, path: Path) -> list[Any]:
    """One column of a file's records; None where a record has no value.

    Raises:
        RequestError: No record has it.
    """
    if some and not any(name in one for one in some):
        raise unknown(f"column of {path}", name, dict.fromkeys(key for one in some for key in one))
    return [one.get(name) for one in some]


def text_column(some: Sequence[Record], name: str, path: Path) -> list[str | None]:
    """One column as texts; None where a record has no value.

    Raises:
        RequestError: No record has it, or it holds a list or another thing that is no text.
    """
    found = column(some, name, path)
    for number, value in enumerate(found, start=1):
        if isinstance(value, list | tuple | dict | bytes):
            raise RequestError(f"{path}, record {number}: {name} is {shown(value)}, and no text; name another column")
    return [None if value is None else str(value) for value in found]


def rows(path: Path, name: str = TEXT, columns: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """The texts of a file, each with its number from 1: its lines that are not empty, or a column.

    Args:
        path: As for `records`.
        name: The column of the texts.
        columns: The columns of a .tsv or .csv file whose first line does not name them.

    Raises:
        RequestError: The file cannot be read, has no such column, or holds no text.
    """
    if path.suffix.lower() in _READERS or path.is_dir():
        values = text_column(records(path, columns), name, path)
    else:  # not splitlines, for which more ends a line than a file's own line ends
        values = [line for record in records(path) for line in record[TEXT].split("\n")]
    found = [(f"{path}:{at}", value) for at, value in enumerate(values, start=1) if value and value.strip()]
    if not found:
        raise RequestError(f"{path} holds no text")
    yield from found


def is_dataset(path: Path) -> bool:
    """Whether a folder is one that `datasets.Dataset.save_to_disk` wrote, or `DatasetDict`'s."""
    return any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))


def texts(paths: Sequence[Path], name: str, columns: Sequence[str] = ()) -> list[str]:
    """One column of several files as texts; those without one are left out."""
    found = (value for path in paths for value in text_column(records(path, columns), name, path))
    return [value for value in found if value is not None]


def _plain(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    yield {TEXT: path.read_text(encoding="utf-8-sig")}


def _json_lines(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError as error:
                    raise RequestError(f"{path}, line {number}, is no JSON: {error.msg}") from error
                if not isinstance(record, dict):
                    raise RequestError(f"{path}, line {number}, is no JSON object")
                yield record


def _table(path: Path, columns: Sequence[str], **form: Any) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, **form)
        names = list(columns) or next(lines, [])
        for row in lines:
            if not row:
                continue
            if columns and sorted(row) == sorted(names):
                raise RequestError(
                    f"{path}, line {lines.line_num}, names the columns; leave columns out, which is for files whose "
                    "first line does not"
                )
            if len(row) != len(names):
                raise RequestError(
                    f"{path}, line {lines.line_num}, has {len(row)} cells for the columns {', '.join(names)}; columns "
                    "names those of a file whose first line does not"
                )
            yield dict(zip(names, row, strict=True))


def _tsv(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    return _table(path, columns, delimiter="\t", quoting=csv.QUOTE_NONE)


def _csv(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    return _table(path, columns)


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    rows: list[Record] = _package("pyarrow.parquet", "Parquet files").read_table(path).to_pylist()
    return iter(rows)


def _folder(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    found = _package("datasets", "folders of Hugging Face's datasets").load_from_disk(str(path))
    if isinstance(found, dict):
        raise RequestError(f"{path} holds several splits; name one of them, such as {path / next(iter(found))}")
    return iter(found)


def _package(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise RequestError(f"{what} need the extra: pip install 'limbeck[text]'") from None


ENDINGS = (".txt", ".jsonl", ".ndjson", ".tsv", ".csv", ".parquet")
"""How the names of files of texts end."""
_READERS: Mapping[str, Callable[[Path, Sequence[str]], Iterator[Record]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".tsv": _tsv,
    ".csv": _csv,
    ".parquet": _parquet,
}
