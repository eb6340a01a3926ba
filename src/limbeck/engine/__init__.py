"""The engine: one training loop, validation, checkpoints, optimizers and schedules."""

from limbeck.imports import version_alone

with version_alone("torchmetrics"):  # of which Fabric asks the version, and whose import takes as long as torch's
    import lightning_fabric  # noqa: F401

from limbeck.engine.devices import make_fabric
from limbeck.engine.fit import Run, fit

__all__ = ["Run", "fit", "make_fabric"]
