"""Archives of PyTorch's programs, looked through before PyTorch reads them: a file must not run code of its own."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from limbeck.errors import RequestError, shown

KINDS = {"torchscript": ("code/",), "pt2": ("models/", "serialized_exported_program.json")}
"""Programs, under the names by which recipes build them, with what their archives hold and others do not."""
PACKED = 2**26
"""Bytes of code that TorchScript may hold compressed: a small file shall not fill the memory."""
_WORDS = {"torchscript": "TorchScript", "pt2": "program of torch.export"}
_SPACES = "aten|prims|prim|torchvision|quantized|quantized_decomposed|higher_order"
_ARITHMETIC = (
    "add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|getitem|index|lshift|rshift"
)
_OPERATIONS = re.compile(
    rf"torch\.ops\.({_SPACES})\.(?!__|from_file|save)\w+(\.(?!__)\w+)?|_operator\.({_ARITHMETIC})|math\.\w+|"
    r"torch\._?sym_\w+(\.\w+)?"
)
_FORMULA = re.compile(r"(?:[A-Za-z]\w*|'\w+'|[\d\s()+\-*/%,=<>]|\.\d)*")
_NAME = re.compile(r"[\w.:/,;+\- ]*")
_FREE = {"stack_trace", "nn_module_stack", "torch_fn", "in_spec", "out_spec", "custom", "from_node", "source_fn_stack"}
"""Parts that PyTorch keeps as text, or reads as JSON."""
_NEVER = ("opaque_obj", "custom_obj")
"""What the names of files with pickled objects begin with."""


def kind_of(path: Path) -> str | None:
    """Under which name a model that a file holds is built, "torchscript" or "pt2"; None for other files."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return next((kind for kind, inside in KINDS.items() if _holds(names, inside)), None)


def check_archive(path: Path, kind: str) -> None:
    """Raise RequestError where a file is no archive of this kind, one of `KINDS`."""
    what = _WORDS[kind]
    if not path.is_file():
        raise RequestError(f"there is no file {path} of a {what}")
    if not zipfile.is_zipfile(path):
        raise RequestError(f"{path} is no {what}: it is no archive; weights alone are given as weights: FILE")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    packed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if sum(entry.file_size for entry in packed) > PACKED or any("/code/" not in one.filename for one in packed):
        raise RequestError(f"{path} is a compressed archive, which PyTorch does not write")
    if not _holds([entry.filename for entry in entries], KINDS[kind]):
        raise RequestError(f"{path} is no {what}; weights alone are given as weights: FILE")


def _holds(names: list[str], inside: tuple[str, ...]) -> bool:
    return any(f"/{one}" in f"/{name}" for name in names for one in inside)


def check_program(path: Path) -> None:
    """Raise RequestError for a .pt2 file that names more than PyTorch's own operations, or holds compiled code.

    PyTorch would unpickle objects that it names, look functions up by their names, and compute formulas as Python.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        for name in names:
            _, _, inner = name.partition("/")
            if "aotinductor/" in name or inner.rpartition("/")[2].startswith(_NEVER):
                raise RequestError(f"{path} holds {shown(name)}, compiled code or a pickled object, which is never run")
        for name in names:
            if name.endswith(".json"):
                _check(path, json.loads(archive.read(name)))


def _check(path: Path, content: Any) -> None:
    for key, text in _texts(content):
        if key in ("target", "as_operator", "operator"):
            if not _OPERATIONS.fullmatch(text):
                raise RequestError(
                    f"{path} names {shown(text)}, which is none of PyTorch's operations; load it in Python, and give "
                    "that as teacher"
                )
        elif key == "expr_str":
            if "__" in text or not _FORMULA.fullmatch(text) or re.search(r"\b[a-z]\w*\s*\(", text):
                raise RequestError(f"{path} holds {shown(text)} in place of a formula of sizes")
        elif key not in _FREE and not _NAME.fullmatch(text):
            raise RequestError(f"{path} holds {shown(text)} in place of a name")


def _texts(content: Any) -> Iterator[tuple[str, str]]:
    """Every text in mappings and lists with the key that it stands under, and every key as a text of its own."""
    todo: list[tuple[str, Any]] = [("", content)]
    while todo:
        key, value = todo.pop()
        if isinstance(value, dict):
            yield from (("", name) for name in value)
            todo += value.items()
        elif isinstance(value, list):
            todo += ((key, one) for one in value)
        elif isinstance(value, str):
            yield key, value
