"""Keras itself, and models that it has saved: read without running code from them."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

from limbeck.errors import RequestError, reason_of, shown
from limbeck.models.foreign.folders import of_folder

_PARTS = (
    r"builtins|keras(\.src)?(\.(activations|applications|constraints|dtype_policies|initializers|layers|losses|metrics|"
    r"models|ops|optimizers|quantizers|random|regularizers)(\.\w+)*)?"
)
"""The modules of Keras that hold parts of models: a file that names others could have any function called."""


def keras_on_torch() -> Any:
    """Keras, on PyTorch where nobody has chosen a backend before.

    Raises:
        RequestError: It is not installed, or runs on another backend.
    """
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        keras = importlib.import_module("keras")
    except ModuleNotFoundError:
        raise RequestError("Keras models need the extra: pip install 'limbeck[keras]'") from None
    if keras.backend.backend() != "torch":
        raise RequestError(
            f"Keras runs on {keras.backend.backend()}, and limbeck needs it on PyTorch: set the environment variable "
            "KERAS_BACKEND=torch before keras is imported for the first time"
        )
    return keras


def saved_model(path: Path) -> Any:
    """The model that a file NAME.keras holds.

    Raises:
        RequestError: The file is missing, damaged or unsafe; the extra `keras` is not installed.
    """
    keras = keras_on_torch()
    if path.is_dir():
        raise RequestError(f"{path} is a folder, and no Keras file; {of_folder(path)}")
    if not path.is_file():
        raise RequestError(f"there is no Keras file {path}")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):  # of others, Keras's safe mode is not always kept
        raise RequestError(
            f"cannot read the Keras file {path}: it is no archive NAME.keras; load it in Keras, and save it as one"
        )
    try:
        _check_modules(path)
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        cause = _without_advice(cause_of(error))
        raise RequestError(f"cannot read the Keras file {path}: {cause}{_remedy(path, keras, str(error))}") from error


def cause_of(error: Exception) -> str:
    """What an error of Keras says in the end: its first lines may only say which call it was that failed."""
    said = re.sub(r"\x1b\[[\d;]*m", "", str(error))
    inner = said.rpartition("Exception encountered: ")[2]  # of parts within parts, the innermost comes last
    lines = [line.strip() for line in inner.splitlines() if line.strip()]
    if len(lines) > 1 and re.match(r"Exception encountered when calling|<class |A total of \d+ objects", lines[0]):
        return lines[1].partition(" Target variable:")[0]
    return lines[0].partition(" Full object config:")[0] if lines else reason_of(error)


def _without_advice(cause: str) -> str:
    """Without what Keras advises to give to calls that are limbeck's here."""
    return re.split(r"\. (?:If you trust|If they are already decorated|Make sure custom)", cause)[0]


def _remedy(path: Path, keras: Any, cause: str) -> str:
    """What helps where Keras cannot read a file; "" where nobody knows."""
    if "Lambda" in cause:
        return "; if you trust the file, load it in Python with safe_mode=False, and give KerasModel(model)"
    if "register_keras_serializable" in cause:
        return "; load it in Python where that class is defined, and give KerasModel(model)"
    try:
        with zipfile.ZipFile(path) as archive:
            written = str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile):
        return ""
    if written == keras.__version__:
        return ""
    return f"; Keras {shown(written)} wrote it, and {keras.__version__} is installed: install the same"


def _check_modules(path: Path) -> None:
    """Raise RequestError for a file that names what is no part of a model: Keras imports what it names."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    todo = [config]
    while todo:
        value = todo.pop()
        todo += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        module = value.get("module") if isinstance(value, dict) else None
        if module is not None and not re.fullmatch(_PARTS, str(module)):
            raise RequestError(
                f"it names {shown(module)}, which is no part of a model; load it in Python, and give that"
            )
