"""limbeck: knowledge distillation for PyTorch.

A teacher and a student in, a small plain model out, and an honest word on what distillation gained.
Names load when they are first used, so that `import limbeck` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck import losses, models, taps
    from limbeck.distillers import (
        ClassWise,
        Distiller,
        MeanTeacher,
        MutualDistiller,
        Scheme,
        SelfDistiller,
        Term,
        ramp,
    )
    from limbeck.engine.evaluate import Evaluation, evaluate
    from limbeck.engine.fit import Run, fit
    from limbeck.errors import RequestError, RunError
    from limbeck.models import NamedInputs, Preprocess
    from limbeck.teachers import EnsembleTeacher, ModuleTeacher, Teacher, VirtualTeacher
    from limbeck.types import Batch, Signal, Step

__version__ = "0.1.0"

_HOMES = {
    "Batch": "types",
    "ClassWise": "distillers",
    "Distiller": "distillers",
    "EnsembleTeacher": "teachers",
    "Evaluation": "engine",
    "MeanTeacher": "distillers",
    "ModuleTeacher": "teachers",
    "MutualDistiller": "distillers",
    "NamedInputs": "models",
    "Preprocess": "models",
    "RequestError": "errors",
    "Run": "engine",
    "RunError": "errors",
    "Scheme": "distillers",
    "SelfDistiller": "distillers",
    "Signal": "types",
    "Step": "types",
    "Teacher": "teachers",
    "Term": "distillers",
    "VirtualTeacher": "teachers",
    "evaluate": "engine",
    "fit": "engine",
    "ramp": "distillers",
}
_MODULES = ("losses", "models", "taps")

__all__ = [
    "Batch",
    "ClassWise",
    "Distiller",
    "EnsembleTeacher",
    "Evaluation",
    "MeanTeacher",
    "ModuleTeacher",
    "MutualDistiller",
    "NamedInputs",
    "Preprocess",
    "RequestError",
    "Run",
    "RunError",
    "Scheme",
    "SelfDistiller",
    "Signal",
    "Step",
    "Teacher",
    "Term",
    "VirtualTeacher",
    "evaluate",
    "fit",
    "losses",
    "models",
    "ramp",
    "taps",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"limbeck.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"limbeck.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'limbeck' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
