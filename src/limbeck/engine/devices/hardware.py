"""What a training computes on, and in which form, as `fit` is given it."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_fabric import Fabric

from limbeck.distillers import Scheme
from limbeck.engine.devices.compiling import check_compile
from limbeck.engine.devices.fabric import AUTO, choose_precision, make_fabric
from limbeck.errors import RequestError, shown
from limbeck.models import device_of
from limbeck.types import Batch


@dataclass(frozen=True)
class Hardware:
    """Devices, processes, torch.compile and memory layout of a training.

    `fit(…, hardware=Hardware("gpu", devices=2, strategy="fsdp"))`

    Attributes:
        accelerator: "cpu", "gpu", "mps", or "auto" for a GPU where there is one; this and the next two as Lightning
            Fabric takes them.
        devices: How many, or which.
        strategy: "ddp", "fsdp", or "auto": one process a device.
        fabric: A launched Fabric to use instead of those three; then its precision counts.
        compile: torch.compile's mode for the student's training passes, such as "default" or "reduce-overhead" (CUDA
            graphs); None runs them as they are; "auto" tries it on GPUs, where they take five minutes or more in all,
            and keeps it if it pays for itself (`limbeck.engine.devices.compiling.choose_compile`).
        layout: Order of a network's maps in memory while it is trained: "channels_last", "contiguous", or "auto" for
            channels-last on CPUs and NVIDIA GPUs where gradients are right in it (`limbeck.models.layout.lay_out`).
    """

    accelerator: str = "auto"
    devices: int | str | list[int] = 1
    strategy: str = "auto"
    fabric: Fabric | None = None
    compile: str | None = AUTO
    layout: str = AUTO

    def check(self, scheme: Scheme, accumulate_steps: int) -> None:
        """Raise RequestError for what is no Fabric, and for a mode of torch.compile that the scheme cannot do."""
        if self.fabric is not None and not isinstance(self.fabric, Fabric):
            raise RequestError(f"Hardware(fabric=…) takes a launched lightning Fabric, not {shown(self.fabric)}")
        check_compile(self.compile, scheme, accumulate_steps)

    def launched(self, scheme: Scheme, example: Batch, precision: str) -> Fabric:
        """The devices and processes that are asked for, in a precision that suits the student."""
        if self.fabric is not None:
            return self.fabric
        if precision == AUTO:
            precision = self.student_precision(scheme, example)
        return make_fabric(precision, self.accelerator, self.devices, self.strategy)

    def student_precision(self, scheme: Scheme, example: Batch) -> str:
        """What `limbeck.engine.devices.fabric.choose_precision` says of the student on this batch."""
        try:
            one = scheme.prepared(example.first(1).to(device_of(scheme.student)).inputs)
            return choose_precision(scheme.student, one, example.size, self.accelerator)
        except Exception:  # it cannot be counted
            return "32-true"


def chosen(given: object) -> Hardware:
    """What is given, or the usual.

    Raises:
        RequestError: It is something else, such as a number of devices.
    """
    if given is not None and not isinstance(given, Hardware):
        raise RequestError(
            f"hardware is limbeck.Hardware, such as Hardware(devices=2) or Hardware(fabric=fabric), not {shown(given)}"
        )
    return given or Hardware()
