"""The students of a comparison, one a method and seed: which there are, how each is trained, and what it is made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.engine.callbacks.progress import tell
from limbeck.errors import RequestError, unknown
from limbeck.models.networks.multi_exit import MultiExit
from limbeck.recipes import schema
from limbeck.recipes.methods import METHODS, QUANTISED, SCHEMES
from limbeck.recipes.read import parted, read_variants, variants
from limbeck.runs import identity
from limbeck.runs.folder import RESULT, student_folder
from limbeck.runs.identity import Identity, Origins
from limbeck.runs.same import changes, reasons
from limbeck.runs.teachers import Candidate
from limbeck.runs.written_out import by_name, distilled_by, setting_of

BASELINE = "baseline"
OWN = "recipe"
BACKBONE = "backbone"
_NAMES = (*METHODS, *SCHEMES, *QUANTISED, BASELINE, OWN, BACKBONE)


@dataclass(frozen=True)
class Cell:
    """A student of a comparison.

    Attributes:
        method: Its method's name.
        seed: Of its start, data order and dropout.
        recipe: How it is trained.
        made_of: What its figures depend on.
    """

    method: str
    seed: int
    recipe: schema.Recipe
    made_of: Identity

    @property
    def name(self) -> str:
        """What its folder is called."""
        return student_folder(self.method, self.seed)


def named(methods: Sequence[str], varied: Mapping[str, Any]) -> list[str]:
    """The methods that are asked for, "baseline" first; a variant has a colon before its name where a method shares it.

    Raises:
        RequestError: A name that nothing has, or that two things have; no method besides the baseline.
    """
    names = [BASELINE]
    for name in methods:
        bare = name.removeprefix(":")
        if name in _NAMES and name in varied:
            raise RequestError(
                f"both a method and a variant of the recipe are called {name}; write :{name} for the variant, or give "
                "the variant another name"
            )
        if bare not in varied and not is_method(name):
            raise unknown("method", name, [*_NAMES, *varied])
        names.append(name if bare in _NAMES or is_method(bare) else bare)
    names = list(dict.fromkeys(names))
    if len(names) == 1:
        raise RequestError("nothing to compare: name at least one method besides the baseline")
    return names


def is_method(name: str) -> bool:
    """Whether a name is not that of a variant: a method's, alone or with its setting, or one of the other names.

    Raises:
        RequestError: A method's name with a setting that it does not have.
    """
    if name.partition(":")[0] in METHODS:
        setting_of(name)
        return True
    return name in _NAMES


def students_in(folder: Path) -> list[tuple[str, int]]:
    """Method and seed of every finished student in a comparison's folder."""
    found = []
    for path in sorted(folder.glob(f"*-seed*/{RESULT}")):
        result = _json(path)
        if isinstance(result.get("method"), str) and isinstance(result.get("seed"), int):
            found.append((result["method"], result["seed"]))
    return found


def chosen_variants(
    source: str, methods: Sequence[str], folder: Path | None, overrides: Iterable[str] = (), epochs: int | None = None
) -> dict[str, schema.Recipe]:
    """The variants of a recipe that are named, and those that have students in a comparison's folder.

    Args:
        source: The recipe's name or file; a variant of it has no variants of its own.
        methods: The names.
        folder: The folder of a comparison that is gone on with.
        overrides: Of the recipe; a variant keeps the keys that it gives.
        epochs: The length of all but variants that give their own.

    Raises:
        RequestError: The recipe or one of these variants cannot be read.
    """
    if parted(source)[1]:
        return {}
    names = {*methods, *(method for method, _ in (students_in(folder) if folder else []))}
    wanted = {name.removeprefix(":") for name in names} & {*variants(source)}
    return read_variants(source, sorted(wanted), overrides, epochs) if wanted else {}


def recipe_of(
    recipe: schema.Recipe, name: str, varied: Mapping[str, schema.Recipe], student: nn.Module
) -> schema.Recipe:
    """The recipe with a method's way of distilling; with a variant's, if it changes no more than that and `quantize`.

    Raises:
        RequestError: The method does not fit the recipe, or the variant changes more.
    """
    if name in (OWN, BASELINE):
        return recipe
    if name == BACKBONE:
        if not isinstance(student, MultiExit):
            raise RequestError(f"{BACKBONE} is a deepest exit alone, and {recipe.student.model} has a single exit")
        deepest = recipe.student.model_copy(update={"exit": len(student.trunk)})
        return recipe.model_copy(update={"student": deepest})
    if is_method(name):
        return by_name(recipe, name)
    if name.removeprefix(":") not in varied:
        raise RequestError(
            f"this comparison has students of {name}, which the recipe does not have any more; delete their folders "
            f"({student_folder(name, 0)}, …), or choose another --out"
        )
    variant = varied[name.removeprefix(":")]
    changed = [key for key in type(recipe).model_fields if getattr(recipe, key) != getattr(variant, key)]
    if unequal := [key for key in changed if key not in ("name", "distill", "quantize")]:
        raise RequestError(
            f"variant {name} changes {', '.join(unequal)} too, so it cannot be compared at an equal budget; compare it "
            "by itself: limbeck compare RECIPE:VARIANT"
        )
    return distilled_by(recipe, variant.distill).model_copy(update={"quantize": variant.quantize})


def cells(recipes: Mapping[str, schema.Recipe], students: Sequence[tuple[str, int]], origins: Origins) -> list[Cell]:
    """The students by method, and by seed within a method; their teachers may have no weights yet."""
    made_of = {name: origins.of(one, taught=name not in (BASELINE, BACKBONE)) for name, one in recipes.items()}
    order = list(recipes)
    found = []
    for method, seed in sorted(set(students), key=lambda one: (order.index(one[0]), one[1])):
        whole = {**made_of[method], "recipe": {**made_of[method]["recipe"], "seed": seed}}
        found.append(Cell(method, seed, recipes[method].model_copy(update={"seed": seed}), whole))
    return found


def completed(found: Sequence[Cell], origins: Origins) -> list[Cell]:
    """The same cells, once all teachers are trained."""
    return [replace(cell, made_of=origins.completed(cell.made_of)) for cell in found]


def weed(folder: Path, found: Sequence[Cell], redo: bool) -> None:
    """Refuse students in the folder that were made of something else; with `redo` delete them, to be trained again.

    Raises:
        RequestError: There are some; what changed is named.
    """
    stale = [(cell, changed) for cell in found if (changed := _changes(folder / cell.name, cell.made_of))]
    for cell, changed in stale if redo else ():
        tell(f"{cell.method}, seed {cell.seed}, is trained again: {reasons(changed)}")
        shutil.rmtree(folder / cell.name)
    if stale and not redo:
        first, changed = stale[0]
        more = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
        raise RequestError(
            f"{folder / first.name}{more}: made of something else ({reasons(changed)}); --redo trains what changed "
            "again, or choose another --out"
        )


def weed_teachers(folder: Path, found: Sequence[Candidate], made_of: Identity) -> None:
    """Forget the teachers whose training began in the folder from something else, and record what they are made of."""
    before = identity.read(folder)
    if before is not None and identity.differences(before, made_of):
        for one in found:
            for suffix in (".json", ".safetensors"):
                (folder / f"{one.name}{suffix}").unlink(missing_ok=True)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    identity.write(folder, made_of)


def _changes(folder: Path, now: Identity) -> list[str]:
    before = identity.read(folder) if folder.exists() else None
    result = _json(folder / RESULT)
    if before is not None and result and result.get("identity") != identity.digest(before):
        return ["its result.json is that of another student"]
    return changes(folder, now)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
