"""Every method by its name, at the protocol's rate on real data: are its losses finite, and how strong is each?

    python -m benchmarks methods --data-root DIR [--only NAMES] [--save]

resnet14, trained for as many steps, teaches resnet8 on CIFAR-10 by each method and setting: SGD at 0.05, momentum 0.9,
weight decay 5e-4, batches of 64 with crop and flip, a stage before the student's own training for as many steps again.
Said of each: the weighted loss of each term on the first batch, the norm of its gradient over the task loss's (on the
weights of the student that both reach), and the whole loss at the first step and over the last tenth of the steps.
The data root holds CIFAR-10 as torchvision reads it, or train/ and test/ folders of its images. With `--only`, rows of
the comma-separated methods take the place of those that are recorded; all others stay as they are recorded.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck.data import DataSet, make_loader
from limbeck.distillers import Distiller
from limbeck.engine.first.balance import balance
from limbeck.recipes import schema
from limbeck.recipes.methods import METHODS
from limbeck.recipes.read import check
from limbeck.runs import components
from limbeck.runs.stages import assemble, losses_of
from limbeck.runs.teachers import Candidate
from limbeck.runs.train import places
from limbeck.runs.written_out import parts_of, setting_of
from limbeck.types import Batch

STEPS, FEW = 300, 3
RECORD = Path(__file__).parent / "results" / "methods.json"
RATE: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
RECIPE: dict[str, Any] = {
    "data": {"name": "cifar10", "batch_size": 64, "augment": ["crop", "flip"]},
    "teacher": {"model": "resnet14", "epochs": 1},
    "student": {"model": "resnet8"},
    "epochs": 240,
}


def main(data_root: Path, quick: bool = False, only: Sequence[str] = ()) -> dict[str, Any]:
    """Train, print and return a row for each part of each method; with `only`, of these and of what is recorded."""
    steps = FEW if quick else STEPS
    for name in only:
        setting_of(name)
    folders = (data_root / "train").is_dir()
    base = RECIPE | ({"data": RECIPE["data"] | {"name": "image-folder"}} if folders else {})
    recipe = check({**base, "distill": {"method": "kd"}})
    data = components.data(recipe.data, data_root)
    teacher = Candidate(recipe.teachers[0], "teacher", components.model(recipe.teachers[0], data, 0))
    _train(Distiller(teacher.module), data, recipe, None, steps)
    rows = _recorded(steps, only) if only else []
    for name in only or names():
        for row in _rows(check({**base, "distill": {"method": name}}), name, teacher, data, steps):
            rows.append(row)
            print(_line(row), flush=True)
    order = names()
    rows.sort(key=lambda row: order.index(row["method"]))
    return {"steps": steps, "rows": rows, "finite": all(row["finite"] for row in rows)}


def names() -> list[str]:
    """Each method by its name, and with each of its other settings."""
    found = []
    for name, method in METHODS.items():
        _, *others = method.settings
        found += [name, *(f"{name}:{setting}" for setting in others)]
    return found


def _recorded(steps: int, but: Sequence[str]) -> list[dict[str, Any]]:
    """The recorded rows of as many steps, but for some methods, and for those that there are no more."""
    if not RECORD.exists():
        return []
    figures = json.loads(RECORD.read_text(encoding="utf-8"))["figures"]
    stay = set(names()) - set(but)
    return [row for row in figures["rows"] if row["method"] in stay] if figures["steps"] == steps else []


def _rows(recipe: schema.Recipe, name: str, teacher: Candidate, data: DataSet, steps: int) -> Iterator[dict[str, Any]]:
    student = components.model(recipe.student, data, recipe.seed)
    parts, rest = parts_of(recipe, lambda: places(recipe, student, [teacher], data))
    kept: Mapping[str, nn.Module] = {}
    for phase, part in (*((part.phase, part.recipe) for part in parts), ("student", rest)):
        _, scheme, online = assemble(part, student, [teacher], data, kept)
        first = next(_batches(data, part))
        teacher_output = online(first) if online else None
        scheme.prepare(first, teacher_output)
        pulls = balance(scheme, first, teacher_output, nullcontext, part.epochs)
        losses = _train(scheme, data, part, online, steps)
        kept = {**kept, **losses_of(scheme)}
        last = losses[-max(1, len(losses) // 10) :]
        yield {
            "method": name,
            "part": phase,
            "terms": [{"name": pull.name, "loss": pull.loss, "share": pull.share} for pull in pulls],
            "first": losses[0],
            "last": sum(last) / len(last),
            "finite": all(map(math.isfinite, losses)),
        }


def _train(scheme: Any, data: DataSet, recipe: schema.Recipe, teacher: Any, steps: int) -> list[float]:
    """A plain loop; the whole loss at each step. Ramps are over: the last epoch's weights count."""
    scheme.train()
    scheme.at(recipe.epochs - 1)
    trained = [weight for weight in scheme.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, **RATE)
    losses = []
    torch.manual_seed(0)
    for batch in itertools.islice(_batches(data, recipe), steps):
        loss = scheme(batch, teacher(batch) if teacher else None).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def _batches(data: DataSet, recipe: schema.Recipe) -> Iterator[Batch]:
    views = components.views(recipe.data, data)
    while True:
        yield from make_loader(data.train, recipe.data.batch_size, shuffle=True, drop_last=True, seed=0, views=views)


def _line(row: dict[str, Any]) -> str:
    terms = ", ".join(
        f"{term['name']} {term['loss']:.3g}" + ("" if term["share"] is None else f" (×{term['share']:.2g})")
        for term in row["terms"]
    )
    state = "" if row["finite"] else "  NOT FINITE"
    return f"{row['method']:18} {row['part']:14} {row['first']:9.4g} → {row['last']:9.4g}{state}  {terms}"
