"""Folders that are given as a model's file: what they are, and the way out."""

from __future__ import annotations

from pathlib import Path


def of_folder(path: Path) -> str:
    """What a folder is that was given in place of a model's file, and what to do with it."""
    if (path / "saved_model.pb").exists() or (path / "saved_model.pbtxt").exists():
        return (
            "it is a SavedModel of TensorFlow, which cannot run on PyTorch: save it as NAME.keras where Keras 3 can "
            "load it, or convert it to ONNX (python -m tf2onnx.convert --saved-model FOLDER --output NAME.onnx), and "
            "give that file"
        )
    if (path / "config.json").exists() and (path / "model.weights.h5").exists():
        return "it is an unpacked .keras archive: give the file NAME.keras, or pack its content as one (zip)"
    files = sorted(file.name for kind in ("*.onnx", "*.keras") for file in path.glob(kind))
    return f"give a file in it, such as {path / files[0]}" if files else "give the file"
