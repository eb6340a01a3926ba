"""limbeck: knowledge distillation for PyTorch.

A teacher and a student in, a small plain model out, and an honest word on what distillation gained.
Names load when they are first used, so that `import limbeck` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck import losses, models, taps, tasks
    from limbeck.distillers import (
        ClassWise,
        Distiller,
        MeanTeacher,
        MutualDistiller,
        OnPolicyDistiller,
        OnPolicyTokenDistiller,
        Scheme,
        SelfDistiller,
        Term,
        TokenDistiller,
        ramp,
    )
    from limbeck.engine.callbacks.early_stopping import EarlyStopping
    from limbeck.engine.callbacks.hooks import Callback, LogTo
    from limbeck.engine.devices.hardware import Hardware
    from limbeck.engine.fit import Run, fit
    from limbeck.engine.settings import Saving
    from limbeck.errors import RequestError, RunError
    from limbeck.measure.diagnosis import Diagnosis, diagnose
    from limbeck.measure.evaluation import Evaluation, evaluate
    from limbeck.models import KerasModel, NamedInputs, OnnxModel, Preprocess
    from limbeck.models.load import load_model
    from limbeck.shipping import ship
    from limbeck.teachers import EnsembleTeacher, FunctionTeacher, ModuleTeacher, Teacher, VirtualTeacher
    from limbeck.types import Batch, Step, TeacherOutput

__version__ = "0.1.0"

_HOMES = {
    "Batch": "types",
    "Callback": "engine.callbacks.hooks",
    "ClassWise": "distillers",
    "Diagnosis": "measure",
    "Distiller": "distillers",
    "EarlyStopping": "engine.callbacks.early_stopping",
    "EnsembleTeacher": "teachers",
    "Evaluation": "measure",
    "FunctionTeacher": "teachers",
    "Hardware": "engine",
    "KerasModel": "models",
    "LogTo": "engine.callbacks.hooks",
    "MeanTeacher": "distillers",
    "ModuleTeacher": "teachers",
    "MutualDistiller": "distillers",
    "NamedInputs": "models",
    "OnPolicyDistiller": "distillers",
    "OnPolicyTokenDistiller": "distillers",
    "OnnxModel": "models",
    "Preprocess": "models",
    "RequestError": "errors",
    "Run": "engine",
    "RunError": "errors",
    "Saving": "engine",
    "Scheme": "distillers",
    "SelfDistiller": "distillers",
    "Step": "types",
    "Teacher": "teachers",
    "TeacherOutput": "types",
    "Term": "distillers",
    "TokenDistiller": "distillers",
    "VirtualTeacher": "teachers",
    "diagnose": "measure",
    "evaluate": "measure",
    "fit": "engine",
    "load_model": "models.load",
    "ramp": "distillers",
    "ship": "shipping",
}
_MODULES = ("losses", "models", "taps", "tasks")

__all__ = [
    "Batch",
    "Callback",
    "ClassWise",
    "Diagnosis",
    "Distiller",
    "EarlyStopping",
    "EnsembleTeacher",
    "Evaluation",
    "FunctionTeacher",
    "Hardware",
    "KerasModel",
    "LogTo",
    "MeanTeacher",
    "ModuleTeacher",
    "MutualDistiller",
    "NamedInputs",
    "OnPolicyDistiller",
    "OnPolicyTokenDistiller",
    "OnnxModel",
    "Preprocess",
    "RequestError",
    "Run",
    "RunError",
    "Saving",
    "Scheme",
    "SelfDistiller",
    "Step",
    "Teacher",
    "TeacherOutput",
    "Term",
    "TokenDistiller",
    "VirtualTeacher",
    "diagnose",
    "evaluate",
    "fit",
    "load_model",
    "losses",
    "models",
    "ramp",
    "ship",
    "taps",
    "tasks",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"limbeck.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"limbeck.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'limbeck' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
