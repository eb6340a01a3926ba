"""The schemes that `limbeck compare --methods` knows, with their constants."""

from __future__ import annotations

from typing import Any

from limbeck.recipes.methods.declaration import TermDict

KD: TermDict = {"loss": "kd", "weight": 0.9, "temperature": 4.0}
SCHEME_EPOCHS = 180
"""The length of the runs that a scheme's ramp is from, mean teacher's; a shorter run has it in the same share."""
SCHEMES: dict[str, dict[str, Any]] = {
    "mutual": {"scheme": "mutual"},
    "class-wise": {"scheme": "class-wise"},
    "mean-teacher": {  # the authors' PyTorch code, CIFAR-10 in 180 epochs
        "scheme": "mean-teacher",
        "options": {"decay": 0.97, "other_view": True},
        "terms": [{"loss": "probability_mse", "weight": 100.0, "ramp": 5, "ramp_shape": "exponential"}],
    },
    "teacher-free": {
        "scheme": "teacher-free",
        "task_weight": 0.9,
        "options": {"softens": "probabilities"},
        "terms": [{"loss": "kd", "weight": 0.1, "temperature": 1.0, "teacher_temperature": 20.0, "scale": False}],
    },
    "born-again": {"scheme": "born-again", "task_weight": 0.1, "terms": [KD]},
    "on-policy": {  # GKD
        "scheme": "on-policy",
        "task_weight": 0.0,
        "options": {"share": 0.5},
        "terms": [{"loss": "jsd", "weight": 1.0, "temperature": 1.0, "beta": 0.5}],
    },
    "assistant": {"scheme": "assistant", "task_weight": 0.1, "terms": [KD]},
    "two-stage": {"scheme": "two-stage", "task_weight": 0.1, "terms": [KD]},
}
"""What each name stands for in `distill`."""
