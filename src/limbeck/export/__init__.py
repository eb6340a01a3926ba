"""From a run folder to what is shipped: a student, or one exit of it, as plain weights and as ONNX."""

from limbeck.export.onnx import write_onnx
from limbeck.export.student import export_run

__all__ = ["export_run", "write_onnx"]
