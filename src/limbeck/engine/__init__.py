"""The engine: one training loop, validation, checkpoints, optimizers and schedules."""

from limbeck.imports import version_alone
from limbeck.late_compiler import asked_for_the_class_alone

with version_alone("torchmetrics"):  # of which Fabric asks the version, and whose import takes as long as torch's
    try:
        with asked_for_the_class_alone():
            import lightning_fabric
    except ImportError:  # a Fabric that takes more of the compiler than the one known here
        import lightning_fabric  # noqa: F401

from limbeck.engine.devices.fabric import make_fabric
from limbeck.engine.devices.hardware import Hardware
from limbeck.engine.fit import Run, fit
from limbeck.engine.settings import Saving

__all__ = ["Hardware", "Run", "Saving", "fit", "make_fabric"]
