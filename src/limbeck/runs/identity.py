"""What a trained student's figures depend on, recorded beside it, so that figures of two origins are never mixed.

    recipe   every key that has a say in training, the method written out as terms
    code     a digest of each module of the user's own that is involved
    weights  a digest of each teacher's weights, and of a student's given ones
    data     classes, counts, and a digest of every split
    versions of limbeck and torch

Where files lie (`root`, paths of weights) is not part of it: a folder may be copied to another machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

import limbeck
from limbeck.data import DataSet, FromDisk, InMemory
from limbeck.engine.saving.files import write_json
from limbeck.errors import RequestError, as_request, shown
from limbeck.models.build import FILES
from limbeck.recipes import schema
from limbeck.runs.teachers import Candidate, file_of
from limbeck.runs.train import places
from limbeck.runs.written_out import declared
from limbeck.sources import names_in, own_modules
from limbeck.teachers import StoredTeacher
from limbeck.teachers.module import fingerprint

FILE = "identity.json"
FORMAT = 1
Identity = dict[str, Any]
MOST = 4
"""Classes that are named at most."""
_WITHOUT_ROOT = {"digits", "python-docs"}
"""Data that lie in no folder."""
START = "student's start"
"""What a student's given weights are called among all weights."""
_NO_FIGURES = ("name", "save_every")
"""Keys of a recipe that change no figure."""


@dataclass(frozen=True)
class Origins:
    """What the students of a run or comparison have in common.

    Args:
        student: The network, as it begins.
        found: The recipe's teachers.
        data: What is learned from and tested on.
        root: The folder of the data, which is recorded, and decides nothing.
    """

    student: nn.Module
    found: Sequence[Candidate]
    data: DataSet
    root: Path

    def of(self, recipe: schema.Recipe, *, taught: bool = True) -> Identity:
        """The identity of a student that a recipe trains; teachers that are trained first have no weights yet.

        Args:
            recipe: With the student's seed, and its precision decided.
            taught: Whether the recipe's way to distil has a say; the baseline learns from labels.
        """
        before: list[dict[str, Any]] = []
        if taught and (self.found or recipe.stored is not None):
            recipe, before = declared(recipe, lambda: places(recipe, self.student, self.found, self.data))
        content = recipe.model_dump(mode="json")
        if before:
            content["distill"]["stages"] = before
        for key in _NO_FIGURES:
            content.pop(key)
        if not taught:
            content["distill"] = {"scheme": "self"} if recipe.distill.scheme == "self" else None
            if content["quantize"]:
                content["quantize"]["teacher"] = None
        return self._identity(content, [self.student, *(one.module for one in self.found)], self._given(recipe))

    def completed(self, identity: Identity) -> Identity:
        """The same, once all teachers are trained."""
        return {**identity, "weights": {**identity["weights"], **self._trained}}

    def of_teachers(self, recipe: schema.Recipe) -> Identity:
        """The identity of the teachers' own trainings."""
        content = {key: value for key, value in recipe.model_dump(mode="json").items() if key in ("teacher", "data")}
        return self._identity({**content, "student": None, "assistants": []}, [one.module for one in self.found], {})

    def _identity(self, content: dict[str, Any], networks: Sequence[nn.Module], weights: dict[str, str]) -> Identity:
        content["data"] = {key: value for key, value in content["data"].items() if key not in ("root", "workers")}
        # Data in memory are known by their bytes, however they were made.
        name = "" if isinstance(self.data.train, InMemory) else content["data"]["name"]
        names = names_in({**content, "data": [content["data"]["augment"], name]})
        return {
            "format": FORMAT,
            "recipe": _without_paths(content),
            "code": own_modules(names, networks),
            "weights": weights,
            "data": self.described,
            "versions": {"limbeck": limbeck.__version__, "torch": torch.__version__.partition("+")[0]},
        }

    @cached_property
    def described(self) -> dict[str, Any]:
        """The data: where they were found, their classes, and each split's counts a class and digests."""
        splits = {
            name: {
                "counts": self.data.counts(split),
                "digest": split.fingerprint,
                **({"portable": split.portable} if isinstance(split, FromDisk) and split.portable else {}),
            }
            for name, split in self.data.parts
        }
        classes = list(self.data.class_names) or self.data.classes
        root = None if self.data.name in _WITHOUT_ROOT else str(self.root.absolute())
        origin = dict(self.data.origin)
        if self.data.tokenizer is not None:
            origin["tokenizer"] = self.data.tokenizer.digest
        return {"root": root, "classes": classes, "splits": splits, **({"origin": origin} if origin else {})}

    def _given(self, recipe: schema.Recipe) -> dict[str, str]:
        """Of all that came trained."""
        given = {one.name: _weights(one) for one in self.found if one.kept is None}
        if recipe.stored is not None:
            given["teacher"] = StoredTeacher(recipe.stored).fingerprint
        if recipe.student.weights or _is_path(recipe.student.model):
            given[START] = f"{self._start} {_file(recipe.student.model)}".rstrip()
        for number, spec in enumerate(recipe.assistants, start=1):
            if spec.weights:
                with as_request(lambda reason: f"cannot read the weights {spec.weights}: {reason}"):  # noqa: B023
                    given[f"assistant-{number}"] = hashlib.sha256(Path(spec.weights).read_bytes()).hexdigest()[:16]
        return given

    @cached_property
    def _trained(self) -> dict[str, str]:
        return {one.name: _weights(one) for one in self.found}

    @cached_property
    def _start(self) -> str:
        return fingerprint(self.student)


def digest(identity: Identity) -> str:
    """Hexadecimal digest of an identity, which a result carries; where the data lie, plays no part."""
    content = {**identity, "data": {**identity["data"], "root": None}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def write(folder: Path, identity: Identity) -> None:
    """Record the identity of what a folder holds."""
    write_json(folder / FILE, identity)


def read(folder: Path) -> Identity | None:
    """The identity that a folder records; None where it records none.

    Raises:
        RequestError: The file is damaged.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RequestError(f"{path} is damaged, or of another limbeck")
    return content


def data_root(run: Path) -> Path | None:
    """The folder in which a run found its data, where that is recorded and still there."""
    found = read(run)
    root = found["data"]["root"] if found else None
    return Path(root) if root is not None and Path(root).is_dir() else None


def differences(before: Identity, now: Identity) -> list[str]:
    """What differs between two identities, each in a few words; a teacher not yet trained is not compared."""
    found = recipe_differences(before, now)
    found += [f"the code of {name} changed" for name, _, _ in _changed(before["code"], now["code"])]
    here = sorted(now["weights"].keys() & before["weights"].keys())
    found += [f"the {name} has other weights" for name in here if before["weights"][name] != now["weights"][name]]
    found += data_differences(before["data"], now["data"])
    versions = _changed(before["versions"], now["versions"])
    return found + [f"{name} {a} made it, and this is {b}" for name, a, b in versions]


def recipe_differences(before: Identity, now: Identity) -> list[str]:
    """The keys of the recipe that differ, each with both values."""
    changed = _changed(before["recipe"], now["recipe"])
    return [f"{key} was {_value(a)} and is {_value(b)}" for key, a, b in changed]


def data_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs in the data, each in a few words."""
    if before["classes"] != now["classes"]:
        return [f"the data had the classes {_classes(before)} and have {_classes(now)}"]
    origins = _changed(before.get("origin", {}), now.get("origin", {}))
    found = [f"the data's {name} was {_value(a)} and is {_value(b)}" for name, a, b in origins]
    for part in ("train", "validation", "test"):
        one, other = before["splits"].get(part), now["splits"].get(part)
        name = "training" if part == "train" else part
        if one is None or other is None:
            if one is not other:
                found.append(f"the data have {'no' if other is None else 'a'} {name} set now")
        elif one["counts"] != other["counts"]:
            a, b = sum(one["counts"]), sum(other["counts"])
            found.append(
                f"there were {a:,} {name} samples and are {b:,}" if a != b else f"{name} samples have other labels"
            )
        elif not _same_content(one, other, before["root"] != now["root"]):
            found.append(f"the {name} samples have other content")
    return found


def _weights(one: Candidate) -> str:
    """Digests of a teacher's weights, and of its file, which holds code too; half precision is told apart."""
    return f"{fingerprint(one.module)} {one.spec.dtype} {_file(one.spec.model)}".rstrip()


def _file(model: str) -> str:
    return file_of(model) if _is_path(model) else ""


def has_weights(one: Candidate, recorded: str) -> bool:
    """Whether a teacher has the weights, and the file, that are recorded; it may compute in another precision."""
    before, now = recorded.split(" "), _weights(one).split(" ")
    return (before[0], before[2:]) == (now[0], now[2:])


def _same_content(one: Mapping[str, Any], other: Mapping[str, Any], elsewhere: bool) -> bool:
    """Whether two splits hold the same; in another folder, the files' times may differ."""
    if one["digest"] == other["digest"]:
        return True
    return elsewhere and "portable" in one and one["portable"] == other.get("portable")


def _without_paths(content: dict[str, Any]) -> dict[str, Any]:
    """A recipe's keys without the places of files, whose content is known by its digest."""
    teachers = content["teacher"] if isinstance(content["teacher"], list) else [content["teacher"]]
    if content["teacher"] and "model" not in teachers[0]:  # stored outputs without their teacher
        content["teacher"], teachers = {"store": "given"}, []
    for spec in filter(None, (*teachers, content["student"], *content["assistants"])):
        spec["weights"] = spec["weights"] and "given"
        if _is_path(spec["model"]):
            kind, _, path = spec["model"].partition(":")
            spec["model"] = f"{kind}:{Path(path).name}"
    return content


def _is_path(model: str) -> bool:
    """Whether a model is named by a file, such as "keras:folder/net.keras"."""
    kind, _, name = model.partition(":")
    return kind in FILES and bool(name)


def _changed(before: Any, now: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Every place where two pieces of JSON differ, by its dotted path, and what stands there."""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        before, now = dict(enumerate(before)), dict(enumerate(now))
    if isinstance(before, dict) and isinstance(now, dict):
        keys: Iterable[Any] = dict.fromkeys([*before, *now])
        inner = (_changed(before.get(key), now.get(key), f"{path}.{key}" if path else str(key)) for key in keys)
        return [change for changes in inner for change in changes]
    return [] if before == now else [(path, before, now)]


def _value(value: Any) -> str:
    return "nothing" if value is None else shown(value, most=40)


def _classes(data: Mapping[str, Any]) -> str:
    classes = data["classes"]
    if isinstance(classes, int):
        return str(classes)
    return f"{', '.join(classes[:MOST])}{', …' if len(classes) > MOST else ''} ({len(classes):,})"
