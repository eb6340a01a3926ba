"""The main job: a teacher, the student alone (baseline) and the distilled student, compared on the test set."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from limbeck.data import DataSet, InMemory, make_loader
from limbeck.distillers import Distiller, Scheme
from limbeck.engine import Evaluation, evaluate, fit
from limbeck.engine.files import write_json
from limbeck.models import load_weights, parameter_count
from limbeck.recipes import build, schema, teachers
from limbeck.recipes.folder import RESULT, choose, open_folder
from limbeck.recipes.machine import Machine
from limbeck.taps import evaluating
from limbeck.teachers import RememberedTeacher, Teacher, memory_need

TEST_BATCH = 1000
ASKING_BATCH = 500
REMEMBERED_BYTES = 2 * 2**30
"""A teacher's signal for all samples is kept in memory up to this size."""


def run(
    recipe: schema.Recipe,
    *,
    root: Path,
    out: Path | None = None,
    resume: bool = False,
    baseline: bool = True,
    retrain_teacher: bool = False,
    machine: Machine | None = None,
) -> dict[str, Any]:
    """Carry out a recipe.

    Args:
        recipe: What to do.
        root: Folder of the data.
        out: Run folder; runs/NAME by default.
        resume: Go on with the run in `out`.
        baseline: Train the same student without the teacher too: same start, epochs and data order.
        retrain_teacher: Train the teacher even if an earlier run has kept it.
        machine: Devices and display.

    Returns:
        What result.json holds, and "out", the run folder.

    Raises:
        RequestError: Something does not fit; found before anything is written.
        RunError: A training failed.
    """
    machine = machine or Machine()
    fabric = machine.fabric(recipe.precision)
    data = build.data(recipe.data, root)
    found = teachers.candidates(recipe, data)
    student = build.model(recipe.student, data, recipe.seed)
    if recipe.student.weights:
        load_weights(student, recipe.student.weights)
    distiller = build.distiller(copy.deepcopy(student), recipe)
    _rehearse(recipe, distiller, teachers.signal(found, distiller.teacher_taps), data)

    out = Path(fabric.broadcast(choose(out, recipe.name, resume)))
    if fabric.is_global_zero:
        open_folder(out, recipe, resume)
    fabric.barrier()
    for one in found:
        teachers.train(one, recipe, data, machine, out, resume=resume, retrain=retrain_teacher)
    live = teachers.signal(found, distiller.teacher_taps)
    guide, asked = ask_once(live, recipe, data, fabric)
    results: dict[str, Any] = {}
    if baseline:
        alone = Distiller(student, inputs=build.inputs(recipe.student))
        results["baseline"] = _train(alone, "baseline", recipe, data, machine, fabric, out, resume, None)
    results["distilled"] = _train(distiller, "student", recipe, data, machine, fabric, out, resume, guide)
    results["distilled"]["seconds"] = round(results["distilled"]["seconds"] + asked, 3)

    models: dict[str, Scheme] = {"baseline": alone, "distilled": distiller} if baseline else {"distilled": distiller}
    figures = {name: _test(model, data, fabric, live) for name, model in models.items()}
    result = {
        "recipe": recipe.name,
        "data": data.name,
        "seed": recipe.seed,
        "device": fabric.device.type,
        "teacher": _teachers(found, data, fabric),
        **{
            name: {"parameters": parameter_count(student), **_figures(figures[name]), **training}
            for name, training in results.items()
        },
    }
    if fabric.is_global_zero:
        write_json(out / RESULT, result)
    return {**result, "out": str(out)}


def _rehearse(recipe: schema.Recipe, distiller: Distiller, teacher: Teacher, data: DataSet) -> None:
    """Find what does not fit before anything is written or trained."""
    build.optimizer(recipe.optimizer)
    build.schedule(recipe.schedule, recipe.epochs)
    make_loader(data.train, recipe.data.batch_size, drop_last=recipe.data.drop_last)
    example = next(iter(make_loader(data.train, 2)))
    copy.deepcopy(distiller).prepare(example, teacher(example))


def ask_once(teacher: Teacher, recipe: schema.Recipe, data: DataSet, fabric: Fabric) -> tuple[Teacher, float]:
    """The teacher, asked once about every sample if that is possible and pays; and the seconds that it took.

    It is possible where the samples lie in memory without augmentation, and their signal fits beside them.
    """
    if not isinstance(data.train, InMemory) or recipe.epochs == 1:
        return teacher, 0.0
    loader = make_loader(data.train, ASKING_BATCH, device=fabric.device)
    if memory_need(teacher, next(iter(loader)).first(2), len(data.train)) > REMEMBERED_BYTES:
        return teacher, 0.0
    began = time.perf_counter()
    remembered = RememberedTeacher(teacher, loader, len(data.train))
    return remembered, time.perf_counter() - began


def _train(
    scheme: Scheme,
    phase: str,
    recipe: schema.Recipe,
    data: DataSet,
    machine: Machine,
    fabric: Fabric,
    out: Path,
    resume: bool,
    teacher: Teacher | None,
) -> dict[str, Any]:
    """Train one student as the recipe says; with `resume`, from where it stood."""
    finished = out / f"{phase}.json"
    if resume and finished.exists():
        scheme.to(fabric.device)
        load_weights(scheme.student, out / f"{phase}.safetensors")
        return dict(json.loads(finished.read_text(encoding="utf-8"))["training"])
    place = machine.place(fabric)
    options: dict[str, Any] = {"seed": recipe.seed, "workers": recipe.data.workers}
    size = recipe.data.batch_size
    train = make_loader(data.train, size, shuffle=True, drop_last=recipe.data.drop_last, **options, **place)
    val = make_loader(data.validation, TEST_BATCH, device=fabric.device) if data.validation else None
    done = fit(
        scheme,
        train,
        teacher=teacher,
        val=val,
        epochs=recipe.epochs,
        optimizer=build.optimizer(recipe.optimizer),
        schedule=build.schedule(recipe.schedule, recipe.epochs),
        accumulate=recipe.accumulate,
        clip=recipe.clip,
        keep=recipe.keep,
        fabric=fabric,
        out=out,
        resume=resume,
        phase=phase,
        about=build.about(recipe.student, data),
        seed=recipe.seed,
        progress=machine.progress,
        loggers=machine.loggers,
    )
    return {"epochs": recipe.epochs, "seconds": round(done.seconds, 3)}


def _test(scheme: Scheme, data: DataSet, fabric: Fabric, teacher: Teacher | None = None) -> Evaluation:
    """The one look at the test set."""
    scheme.to(fabric.device)
    loader = make_loader(data.test, TEST_BATCH, device=fabric.device)
    with evaluating(scheme):
        return evaluate(scheme.predict, loader, device=fabric.device, teacher=teacher)


def _teachers(
    found: Sequence[teachers.Candidate], data: DataSet, fabric: Fabric
) -> dict[str, Any] | list[dict[str, Any]]:
    entries = []
    for one in found:
        figures = _test(Distiller(one.module, inputs=build.inputs(one.spec)), data, fabric)
        entries.append(
            {"parameters": parameter_count(one.module)}
            | _figures(figures)
            | {"epochs": one.epochs, "seconds": one.seconds, "source": one.source}
            | {"weights": one.spec.weights or (str(one.kept / "teacher.safetensors") if one.kept else None)}
        )
    return entries[0] if len(entries) == 1 else entries


def _figures(figures: Evaluation) -> dict[str, Any]:
    return {f"test_{name}": value for name, value in _named(figures).items() if value is not None}


def _named(figures: Evaluation) -> dict[str, Any]:
    return {
        "accuracy": figures.top1,
        "top5": figures.top5,
        "loss": figures.loss,
        "calibration_error": figures.calibration_error,
        "agreement": figures.agreement,
    }
