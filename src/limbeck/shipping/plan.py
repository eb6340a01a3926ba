"""What `ship` is asked for, checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from limbeck.errors import RequestError, shown, unknown
from limbeck.options import is_list, is_number, is_whole
from limbeck.shipping import formats
from limbeck.shipping.formats import Packing

PLACES = ("inside", "beside")


@dataclass(frozen=True)
class Plan:
    """How files are made and measured.

    Attributes:
        formats: Names of `formats.FORMS`.
        threads: On which everything is run.
        batches: Batch sizes whose latency is measured, smallest first.
        tolerance: By how much the monitor may drop in int8, as a share.
        seconds: For the search of each int8 file.
        packing: What stands inside the files.
        retrain: Whether a network that int8 hurts is trained for int8.
        measure: Whether peak memory is measured, by a process a file.
        samples: Training samples to calibrate with.
    """

    formats: tuple[str, ...] = formats.DEFAULT
    threads: int = 1
    batches: tuple[int, ...] = (1, 32)
    tolerance: float = 0.003
    seconds: float = 60.0
    packing: Packing = field(default_factory=Packing)
    retrain: bool = True
    measure: bool = True
    samples: int = 512

    @property
    def quantises(self) -> bool:
        return "onnx-int8" in self.formats


def made(
    names: Sequence[str] | None,
    *,
    int8: bool,
    threads: int,
    batch: Sequence[int],
    tolerance: float,
    seconds: float,
    preprocessing: str,
    postprocessing: str,
    retrain: bool,
    memory: bool,
    samples: int,
) -> Plan:
    """The plan, from what the user gives; `tolerance` in points, hundredths of the monitor.

    Raises:
        RequestError: Something unknown, out of range or not installed.
    """
    if names is not None and not is_list(names):
        raise RequestError(f"formats is a list of names, such as ['onnx', 'onnx-int8'], not {shown(names)}")
    if not is_list(batch) or not batch:
        raise RequestError(f"batch is a list of at least one batch size, such as [1, 32], not {shown(batch)}")
    chosen = tuple(dict.fromkeys(formats.DEFAULT if names is None else names))
    if not int8:
        chosen = tuple(name for name in chosen if name != "onnx-int8")
    formats.check(chosen)
    needs = [name for name in chosen if name in ("onnx-fp16", "onnx-int8")]
    if needs and "onnx" not in chosen:
        chosen = ("onnx", *chosen)  # what they are made from, and compared with
    for what, number in (("threads", threads), ("samples", samples), *(("batch", size) for size in batch)):
        if not is_whole(number, 1):
            raise RequestError(f"{what} is a whole number of 1 or more, not {shown(number)}")
    if not (is_number(tolerance) and 0 <= tolerance <= 100):
        raise RequestError(f"tolerance is in points between 0 and 100, such as 0.3, not {shown(tolerance)}")
    if not (is_number(seconds) and seconds > 0):
        raise RequestError(f"seconds is a time above 0, not {shown(seconds)}")
    for what, place in (("preprocessing", preprocessing), ("postprocessing", postprocessing)):
        if place not in PLACES:
            raise unknown(what, place, PLACES)
    packing = Packing(preprocessing == "inside", postprocessing == "inside")
    sizes = tuple(sorted(set(batch)))
    return Plan(chosen, threads, sizes, tolerance / 100, seconds, packing, retrain, memory, samples)
