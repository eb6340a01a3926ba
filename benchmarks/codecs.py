"""Codecs of stored teacher outputs: what a student of a small language model loses by them, and what they cost.

    python -m benchmarks codecs           # about half an hour on two cores
    python -m benchmarks codecs --quick   # a minute or two: one seed, few steps, to see that it works

The texts, the teacher and the student are those of the recipe `lm-tiny`, with a vocabulary of 2,048. The teacher's
outputs are stored in each form; students with the same starts and data order learn from them beside the labels, through
the head in chunks. Validation loss in nats a token, the expected calibration error of the likeliest token in fifteen
bins, and seconds a step beside a student that learns the labels alone, the forms in turns seed by seed; intervals are
of differences to dense outputs, paired by seed.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck import Batch, ModuleTeacher, Term, TokenDistiller, fit, losses
from limbeck.compare import difference
from limbeck.data import DataSet, make_loader
from limbeck.measure import evaluate
from limbeck.recipes.read import read
from limbeck.recipes.schema import Recipe
from limbeck.runs import components, learners
from limbeck.taps import evaluating
from limbeck.teachers import StoredTeacher
from limbeck.teachers.coding import Coding
from limbeck.teachers.stored import store
from limbeck.types import IGNORED

SEEDS = (0, 1, 2, 3, 4)
BINS = 15
TASK_WEIGHT = 0.5
ALONE, DENSE = "labels alone", "dense"
AIM = {"token_bytes": 48, "step_ratio": 1.10}
FORMS: Mapping[str, Coding] = {
    DENSE: Coding("float16"),
    "topk 8": Coding(top_k=8, bits=8),
    "topk 18": Coding(top_k=18, bits=8),
    "topk 46": Coding(top_k=46, bits=8),
    "topk 125": Coding(top_k=125, bits=8),
    "sampled 16": Coding(draws=16),
    "sampled 34": Coding(draws=34),
    "sampled 82": Coding(draws=82),
    "sampled 218": Coding(draws=218),
    "sampled 16, p^0.8": Coding(draws=16, bits=12, power=0.8),
}
"""Of indices of 11 bits; budgets of about 22, 48, 114 and 300 bytes a token."""


def main(quick: bool = False) -> dict[str, Any]:
    """Measure, print and return a row for each form."""
    part, seeds = (0.05, SEEDS[:1]) if quick else (0.5, SEEDS)
    forms = {name: FORMS[name] for name in (DENSE, "topk 18", "sampled 34")} if quick else FORMS
    recipe = read("lm-tiny", [f"data.options={{vocab: 2048, part: {part}}}", *(["teacher.epochs=1"] if quick else [])])
    data = components.data(recipe.data, Path())
    teacher = ModuleTeacher(_teacher(recipe, data))
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        known: dict[str, StoredTeacher | None] = {ALONE: None}
        for name, coding in forms.items():
            known[name] = _stored(teacher, data, recipe.data.batch_size, Path(folder) / name, coding)
        for seed, (name, one) in product(seeds, known.items()):
            student = _student(recipe, data, one, seed, 1 if quick else recipe.epochs)
            found.setdefault(name, []).append(student)
            print(
                f"seed {seed}  {name:20}", "  ".join(f"{key} {value:.4f}" for key, value in student.items()), flush=True
            )
        sizes = {
            name: one and one.description.about["sample_bytes"] / data.input_shape[0] for name, one in known.items()
        }
    rows: list[dict[str, Any]] = [
        {"form": name, "token_bytes": sizes[name], **{key: [student[key] for student in each] for key in each[0]}}
        for name, each in found.items()
    ]
    _compare(rows)
    shape = {"vocabulary": data.classes, "tokens": len(data.train) * data.input_shape[0], "seeds": list(seeds)}
    return {"rows": rows, "aim": AIM, **shape}


def _teacher(recipe: Recipe, data: DataSet) -> torch.nn.Module:
    spec = recipe.teachers[0]
    scheme = learners.on_labels(components.model(spec, data, spec.seed), spec, recipe, data)
    epochs = spec.epochs or 1
    fit(
        scheme,
        make_loader(data.train, recipe.data.batch_size, shuffle=True),
        epochs=epochs,
        optimizer=components.optimizer(spec.optimizer),
        schedule=components.schedule(spec.schedule, epochs),
        progress=False,
    )
    return scheme.student


def _stored(teacher: ModuleTeacher, data: DataSet, size: int, place: Path, coding: Coding) -> StoredTeacher:
    loader = make_loader(data.train, size)

    def batches(view: int, start: int, stop: int) -> Iterable[Batch]:
        return islice(loader.starting_at(start // size), -(-(stop - start) // size))

    store(teacher, batches, place, samples=len(data.train), views=1, batch_size=size, made_of={}, coding=coding)
    return StoredTeacher(place)


def _student(recipe: Recipe, data: DataSet, teacher: StoredTeacher | None, seed: int, epochs: int) -> dict[str, float]:
    """Validation loss, calibration error and seconds a step of one student."""
    network = components.model(recipe.student, data, seed)
    terms = [Term(losses.kd, weight=1 - TASK_WEIGHT, temperature=1.0)] if teacher else []
    task = components.task(recipe, data)
    scheme = TokenDistiller(network, terms, task=task, task_weight=TASK_WEIGHT if teacher else 1.0)
    loader = make_loader(data.train, recipe.data.batch_size, shuffle=True, seed=seed)
    run = fit(
        scheme,
        loader,
        teacher=teacher,
        epochs=epochs,
        optimizer=components.optimizer(recipe.optimizer),
        schedule=components.schedule(recipe.schedule, epochs),
        max_grad_norm=recipe.max_grad_norm,
        seed=seed,
        measure_balance=False,
        progress=False,
    )
    held_out = data.validation or data.test
    judged = partial(make_loader, held_out, recipe.data.batch_size)
    with evaluating(scheme), torch.no_grad():
        loss = float(evaluate(scheme.predict, judged(), task=task)["loss"])
        pairs = [_sure(scheme.predict(batch.inputs), batch.targets) for batch in judged()]
    return {"loss": loss, "calibration": _calibration(pairs), "step": run.seconds / epochs / len(loader)}


def _sure(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The probability of the likeliest token where one is to be predicted, and whether it is right."""
    known = targets != IGNORED
    best = logits[known].softmax(-1).max(-1)
    return best.values, (best.indices == targets[known]).float()


def _calibration(pairs: list[tuple[Tensor, Tensor]]) -> float:
    """The expected calibration error: Σ share of a bin · |accuracy − confidence| (Guo et al., ICML 2017)."""
    sure, right = (torch.cat(one) for one in zip(*pairs, strict=True))
    at = (sure * BINS).long().clamp(max=BINS - 1)
    apart = torch.zeros(BINS).scatter_add_(0, at, right - sure)
    return float(apart.abs().sum() / len(sure))


def _compare(rows: list[dict[str, Any]]) -> None:
    """Add to each row what differs from dense outputs, and its time beside a step on labels alone."""
    dense = next(row for row in rows if row["form"] == DENSE)
    for row in rows:
        ratios = [step / alone for step, alone in zip(row["step"], rows[0]["step"], strict=True)]
        row["step_ratio"] = statistics.median(ratios)
        pairs = [one - other for one, other in zip(row["loss"], dense["loss"], strict=True)]
        row |= difference(pairs, mode="min") if len(pairs) > 1 and row is not dense else {}
