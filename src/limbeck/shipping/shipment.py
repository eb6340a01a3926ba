"""From runs to files for the device, and one table of their scores and speeds there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import limbeck
from limbeck.engine.saving.files import write_json
from limbeck.errors import RequestError, shown
from limbeck.notices import tell
from limbeck.options import is_list
from limbeck.quantization.session import INPUT
from limbeck.quantization.training import outputs_of
from limbeck.report.ship import write_ship_page
from limbeck.shipping import card, devices, early, plan, processor, table
from limbeck.shipping.chosen import Chosen
from limbeck.shipping.own import OwnModel, from_module
from limbeck.shipping.plan import Plan
from limbeck.shipping.rows import Row, build
from limbeck.shipping.score import GROUPS
from limbeck.shipping.staging import MARK, check_place, staged
from limbeck.shipping.subjects import Case, from_run
from limbeck.tasks.classification import counts_samples

FOLDER = "ship"
JACKKNIFE = f"jackknife over {GROUPS} groups of samples"
Shipped = str | Path | OwnModel


def ship(
    runs: Shipped | Sequence[Shipped],
    *,
    out: str | Path | None = None,
    formats: Sequence[str] | None = None,
    int8: bool = True,
    threads: int = 1,
    batch: Sequence[int] = (1, 32),
    tolerance: float = 0.3,
    seconds: float = 60.0,
    preprocessing: str = "inside",
    postprocessing: str = "beside",
    retrain: bool = True,
    memory: bool = True,
    calibration_samples: int = 512,
    root: Path | None = None,
    command: str = "limbeck.ship(…)",
    progress: bool = True,
) -> dict[str, Any]:
    """Write the students of runs as files for a device, and measure each beside its teacher and its baseline.

    Args:
        runs: Folders of finished runs, or networks of your own (`OwnModel`), one or several; of a student with several
            exits, each exit is shipped.
        out: Where it all goes; by default one run's folder "ship". For several runs and own networks it must be given.
        formats: Of `limbeck.shipping.formats.FORMS`; by default safetensors, onnx, onnx-fp16, onnx-int8 and pt2.
        int8: Make int8 files.
        threads: On which everything is measured.
        batch: Batch sizes whose latency is measured.
        tolerance: Points (hundredths of the monitor, such as the accuracy) that int8 may lose; of a monitor of which
            less is better, percent of the fp32 file's. A file that loses more is refused.
        seconds: For the search of one int8 file.
        preprocessing: "inside" the file or "beside" it: subtracting the mean, dividing by the standard deviation.
        postprocessing: "inside" for probabilities, "beside" for logits.
        retrain: Train a network that int8 hurts for int8, for a tenth of its epochs.
        memory: Measure the peak memory of a process a file.
        calibration_samples: Training samples with which int8 is calibrated.
        root: Folder of the data; by default the one that a run had, else the usual one.
        command: What the card and the page say that made the files.
        progress: Say on stderr what is done.

    Returns:
        What ship.json holds, and "out", the folder.

    Raises:
        RequestError: No finished run, data that cannot be read, something unknown, out of range or not installed, a
            network that cannot be written, a folder that cannot; nothing is left half written.
        RunError: A file gives other outputs than its network.
    """
    given = plan.made(
        formats,
        int8=int8,
        threads=threads,
        batch=batch,
        tolerance=tolerance,
        seconds=seconds,
        preprocessing=preprocessing,
        postprocessing=postprocessing,
        retrain=retrain,
        memory=memory,
        samples=calibration_samples,
    )
    several = _several(runs)
    place = _place(several, out)
    cases = [
        from_module(one, given) if isinstance(one, OwnModel) else from_run(Path(one), root, given.samples)
        for one in several
    ]
    given = _for_task(cases, given)
    return carry_out(_with_own_names(cases), given, place, command, tell if progress else lambda line: None)


def carry_out(
    cases: Sequence[Case], given: Plan, place: Path, command: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Make, judge and measure all files, and put the folder in its place."""
    with staged(place) as folder:
        rows: list[Row] = []
        chosen: dict[str, dict[str, Chosen]] = {}
        homes = {case.name: folder if len(cases) == 1 else folder / case.name for case in cases}
        for case in cases:
            made, chosen[case.name] = build(case, given, homes[case.name], say)
            exit = early.policy(case, given)
            rows += [*made, *([exit] if exit else [])]
        say(f"reading the test set for {len(rows)} rows")
        rows = table.judged(rows, chosen)
        busy = table.measured(rows, given, say)
        result = _result(cases, rows, chosen, given, folder, command, busy)
        for case in cases:
            card.write(homes[case.name], case, [row for row in rows if row.case is case], given, command)
        write_json(folder / MARK, result)
        write_ship_page(folder)
    return {**result, "out": str(place)}


def _several(runs: Shipped | Sequence[Shipped]) -> list[Shipped]:
    given: list[Any] = list(runs) if is_list(runs) else [runs]
    for one in given:
        if not isinstance(one, Shipped):
            raise RequestError(f"ship takes folders of finished runs, or OwnModel(network, …), not {shown(one)}")
    if not given:
        raise RequestError("name the folder of at least one finished run")
    return given


def _place(runs: Sequence[Shipped], out: str | Path | None) -> Path:
    first = runs[0]
    if out is None:
        if isinstance(first, OwnModel) or len(runs) > 1:
            raise RequestError(
                "several runs, and networks of your own, are shipped into a folder that --out (out=…) names"
            )
        out = Path(first) / FOLDER
    if not isinstance(out, str | Path):
        raise RequestError(f"out is the path of a folder, not {shown(out)}")
    place = Path(out)
    place = place.resolve() if place.is_symlink() else place
    check_place(place)
    return place


def _for_task(cases: Sequence[Case], given: Plan) -> Plan:
    """The plan for what is learned; students that one table cannot compare are refused, and what has no softmax."""
    judged = dict.fromkeys(
        f"{case.task.name} of {case.students[-1].reading.group} by {case.task.monitor}" for case in cases
    )
    if len(judged) > 1:
        raise RequestError(f"one table compares one task, and these are {', '.join(judged)}: ship them one by one")
    for name in devices.WRITERS.keys() & set(given.formats):
        for reading in (case.students[-1].reading for case in cases):
            if reading.group == "texts":
                raise RequestError(f"{name} takes samples of one shape, and texts have any length; leave it out")
            if reading.names != (INPUT,):
                by_name = ", ".join(reading.names)
                raise RequestError(f"{name} takes one input, and this network reads {by_name} by name; leave it out")
    for case in cases:
        classifies = case.task.classifies_samples and case.students[-1].output_shape != (1,)
        if given.packing.softmax_inside and not classifies:
            raise RequestError(
                f"postprocessing inside is the softmax of a classifier, and {case.name} learned {case.task.name} with "
                f"outputs {('B', *case.students[-1].output_shape)}; leave it beside"
            )
    return replace(given, packing=replace(given.packing, plain=outputs_of(cases[0].task).name))


def _with_own_names(cases: Sequence[Case]) -> list[Case]:
    """The cases, those whose folders have the same name told apart by a number."""
    names = [case.name for case in cases]
    return [
        replace(case, name=f"{case.name}-{number + 1}") if names.count(case.name) > 1 else case
        for number, case in enumerate(cases)
    ]


def _result(
    cases: Sequence[Case],
    rows: Sequence[Row],
    chosen: dict[str, dict[str, Chosen]],
    given: Plan,
    folder: Path,
    command: str,
    busy: float,
) -> dict[str, Any]:
    entries = [_entry(row, folder) for row in rows]
    task = cases[0].task
    table.frontier(entries, task.mode)
    share = counts_samples(task)
    machine = {**processor.described(given.threads), "busy": busy}
    return {
        "limbeck": limbeck.__version__,
        "command": command,
        "task": task.name,
        "monitor": task.monitor,
        "mode": task.mode,
        "intervals": {
            "interval": "Wilson, 95 %" if share else f"{JACKKNIFE}, 95 %",
            "beside_baseline": "difference to the baseline in torch in pairs of test samples, "
            f"{'Bonett and Price' if share else JACKKNIFE}, 95 %",
            "ratio_to_teacher": "times as fast as the teacher: median over rounds in turns, order statistics, 95 %",
        },
        "runs": {case.name: dict(case.origin) for case in cases},
        "rows": entries,
        "machine": machine,
        "slower": table.slower(entries, given.batches[0], machine),
        "chosen": {case: {name: how.as_dict() for name, how in each.items()} for case, each in chosen.items()},
        "notes": [f"{case.name}: {note}" for case in cases for note in case.notes],
    }


def _entry(row: Row, folder: Path) -> dict[str, Any]:
    """A row as ship.json has it."""
    return {
        "run": row.case.name,
        "model": row.subject.name,
        "runtime": row.runtime,
        "precision": row.precision,
        "file": None if row.path is None else row.path.relative_to(folder).as_posix(),
        "bytes": row.bytes,
        **row.figures,
    }
