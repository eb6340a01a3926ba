"""Storing a recipe's teacher outputs before any student is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.recipes import schema
from limbeck.recipes.read import check as check_recipe
from limbeck.runs import components, teachers
from limbeck.runs.cache.in_use import using
from limbeck.runs.checks import dry_run
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.asking import Asking, form_of
from limbeck.runs.outputs.keeping import seconds_per_sample, store_outputs
from limbeck.runs.settled import settled
from limbeck.runs.stages import assemble
from limbeck.teachers import StoredTeacher, Teacher
from limbeck.teachers.stored import describe, verify
from limbeck.types import TeacherOutput


@dataclass(frozen=True)
class Estimate:
    """What storing teacher outputs will take.

    Attributes:
        place: Where it goes.
        samples: Number of samples.
        views: Number of views.
        bytes: Size on disk.
        seconds: The teacher's time, by a probe of some batches.
        token_bytes: Of logits (B, L, V) what a token takes, with all that is stored beside; None of others.
    """

    place: str
    samples: int
    views: int
    bytes: int
    seconds: float
    token_bytes: float | None = None


def cache(
    recipe: schema.Recipe,
    *,
    root: Path,
    machine: Machine | None = None,
    check: bool = False,
    tell: Callable[[Estimate], None] = lambda estimate: None,
    after_shard: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Train the recipe's teacher if no earlier run has kept it, and store its outputs, or check what is stored.

    Args:
        recipe: Whose teacher, data, views and taps; `teacher.store` says where and how.
        root: Folder of the data.
        machine: Devices and display.
        check: Verify what is stored: every byte, and a sample of it by asking again.
        tell: Told what it will take, before anything is written.
        after_shard: Told the number of shards that are done, and that of all.

    Returns:
        "place", "samples", "views", "bytes", "seconds"; with `check` "shards", "samples" asked and "error".

    Raises:
        RequestError: The recipe has no teacher, the teacher outputs do not fit the disk, or what is stored is stale.
        RunError: It cannot be written.
    """
    if recipe.distill.scheme not in schema.TAUGHT:
        raise RequestError(f"recipe {recipe.name} has no trained teacher, so there are no teacher outputs to store")
    if recipe.stored is not None:
        raise RequestError(f"the recipe's teacher is what is stored in {recipe.stored} already")
    if recipe.distill.scheme == "on-policy":
        raise RequestError("the scheme on-policy asks its teacher about the student's own texts: nothing can be stored")
    machine = machine or Machine()
    data = components.data(recipe.data, root)
    found = teachers.candidates(recipe, data, machine)
    student = components.model(recipe.student, data, recipe.seed)
    dry_run(recipe, student, found, data)
    recipe = settled(recipe, student, data, machine)
    fabric = machine.fabric(recipe.precision)
    if check and any(one.kept and not one.is_kept() for one in found):
        raise RequestError("nothing can be verified: the recipe's teacher is not trained yet; limbeck cache does both")
    teachers.train_apart(found, recipe, data, machine)
    recipe, _, online = assemble(recipe, student, found, data)
    if online is None:
        raise RequestError(f"recipe {recipe.name} has no teacher that is asked")
    asking = Asking(recipe, data, fabric, recipe.teachers[0].store)
    if check:
        place = asking.place(online)
        with using(place):
            StoredTeacher(place, asking.made_of(online))
            return {"place": place, **verify(place, _asker(asking, online))}
    estimate = estimated(asking, online)
    if fabric.is_global_zero:
        tell(estimate)
    kept = store_outputs(asking, online, after_shard)
    size: dict[str, Any] = {"samples": estimate.samples, "views": estimate.views, "bytes": estimate.bytes}
    size |= {"token_bytes": estimate.token_bytes} if estimate.token_bytes else {}
    return {"place": kept.where, **size, "seconds": round(kept.seconds, 3)}


def stored_at(recipe: schema.Recipe, **store: Any) -> schema.Recipe:
    """The recipe with its teacher outputs stored as these keys of `teacher.store` say.

    Draws take the place of the likeliest classes, and these that of draws, with all that is said of their form.

    Raises:
        RequestError: It has no teacher.
    """
    if not recipe.teachers:
        raise RequestError(f"recipe {recipe.name} has no trained teacher, so there are no teacher outputs to store")
    content = recipe.model_dump()
    first = content["teacher"][0] if isinstance(recipe.teacher, list) else content["teacher"]
    given = {key: value for key, value in store.items() if value is not None}
    if any(name in given and first["store"][other] for name, other in (("top_k", "draws"), ("draws", "top_k"))):
        first["store"] |= schema.Store().model_dump(include={"top_k", "draws", "codec", "bits", "power"})
    first["store"] |= given
    return check_recipe(content, recipe.name)


def as_cached(
    recipe: schema.Recipe, where: str | None = None, dtype: str | None = None, **form: int | None
) -> schema.Recipe:
    """The recipe with its teacher outputs on disk: by itself where its runs look for them, in the form that they take.

    Under `store: auto` runs take unasked only what changes no figure, so that another form is for `store: disk`.

    Args:
        recipe: The recipe.
        where: Where they go; None for where runs look.
        dtype: Of values.
        **form: `top_k`, `draws` and `bits` in place of the recipe's.

    Raises:
        RequestError: It has no teacher.
    """
    store = recipe.teachers[0].store if recipe.teachers else schema.Store()
    exact = {dtype, store.dtype} <= {None, "float32"} and not any(form.values()) and not form_of(store)
    if recipe.teachers and store.where == "auto" and where is None and exact:
        return recipe
    own = store.where if store.where not in schema.PLACES else "disk"
    return stored_at(recipe, where=where or own, dtype=dtype, **form)


def taken_by(recipe: schema.Recipe, stored: schema.Recipe) -> str:
    """Which runs take what is stored, in one line."""
    ours, form = recipe.teachers[0].store, stored.teachers[0].store
    if ours == form:
        return "runs of this recipe take it"
    keys = form.model_dump(exclude_defaults=True)
    return f"runs take it with teacher.store={{{', '.join(f'{key}: {value}' for key, value in keys.items())}}}"


def estimated(asking: Asking, teacher: Teacher) -> Estimate:
    """What storing a teacher's output will take."""
    samples, views = len(asking.data.train), asking.views
    teacher_output = teacher(next(iter(asking.batches(0))).first(2))
    held = describe(teacher_output, samples, views, asking.batch_size, {}, asking.coding(teacher))
    size = samples * views * int(held.about["sample_bytes"])
    seconds = samples * views * seconds_per_sample(asking, teacher)
    output = teacher_output.output
    tokens = output.shape[1] if output is not None and output.dim() == 3 else 0
    token_bytes = held.about["sample_bytes"] / tokens if tokens else None
    return Estimate(asking.place(teacher), samples, views, size, seconds, token_bytes)


def _asker(asking: Asking, teacher: Teacher) -> Callable[[int, Tensor], TeacherOutput]:
    def ask(view: int, index: Tensor) -> TeacherOutput:
        wanted = set(index.tolist())
        said: list[tuple[Tensor, TeacherOutput]] = []
        size = asking.batch_size
        for start in sorted({i // size * size for i in wanted}):
            for batch in asking.batches(view, start, min(start + size, len(asking.data.train))):
                at = torch.tensor([i for i, one in enumerate(batch.index.tolist()) if one in wanted])
                said.append((at, teacher(batch)))
        return _joined(said)

    return ask


def _joined(said: list[tuple[Tensor, TeacherOutput]]) -> TeacherOutput:
    logits = [teacher_output.output[at].cpu() for at, teacher_output in said if teacher_output.output is not None]
    names = said[0][1].features
    features = {
        name: torch.cat([teacher_output.features[name][at].cpu() for at, teacher_output in said]) for name in names
    }
    return TeacherOutput(torch.cat(logits) if logits else None, features)
