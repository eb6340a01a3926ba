"""What a killed run leaves half-done is done when it is resumed; the right state is that of a run nobody killed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from limbeck.atomic import is_part
from limbeck.errors import RequestError
from limbeck.recipes.read import check
from limbeck.recipes.schema import Recipe
from limbeck.runs import teachers
from limbeck.runs.cache.in_use import using
from limbeck.runs.folder import choose
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.beforehand import cache
from limbeck.runs.run import run
from limbeck.teachers.shards import Shards

SMALL: dict[str, Any] = {
    "name": "killed",
    "teacher": {"model": "mlp", "hidden": [12], "epochs": 1, "store": "disk"},
    "student": {"model": "mlp", "hidden": [4]},
    "distill": {"terms": [{"loss": "kd"}]},
    "epochs": 1,
}
QUIET = Machine(accelerator="cpu", progress=False)


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """One whose teacher no other test has trained."""
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    return check(SMALL)


def test_the_resumed_run_keeps_its_teacher(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*args: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(teachers, "save_student", die)
        with pytest.raises(Killed):
            run(recipe, root=tmp_path, out=tmp_path / "out", machine=QUIET)
    assert (tmp_path / "out" / "teacher.json").exists()
    result = run(recipe, root=tmp_path, out=tmp_path / "out", resume=True, machine=QUIET)
    assert result["teacher"]["source"] == "trained"
    kept = Path(result["teacher"]["weights"])
    assert kept.read_bytes() == (tmp_path / "out" / "teacher.safetensors").read_bytes()
    assert run(recipe, root=tmp_path, out=tmp_path / "next", machine=QUIET)["teacher"]["source"] == "reused"


def test_what_was_written_halfway_is_swept(recipe: Recipe, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    run(recipe, root=tmp_path, out=out, machine=QUIET)
    (shard,) = cache.glob("teacher_outputs/*/view-0000/*.safetensors")
    shard.unlink()
    folders = [out / "checkpoints", shard.parent, *cache.glob("teachers/*")]
    for folder in folders:
        (folder / ".killed.0123abcd.part").touch()
    for name in ("teacher.json", "result.json"):
        (out / name).unlink()
    run(recipe, root=tmp_path, out=out, resume=True, retrain_teacher=True, machine=QUIET)
    assert len(folders) == 3
    assert [path for path in tmp_path.rglob("*") if is_part(path)] == []


def test_what_is_left_of_a_kept_teachers_training_does_not_count(recipe: Recipe, tmp_path: Path) -> None:
    cache(recipe, root=tmp_path, machine=QUIET)
    (kept,) = (tmp_path / "cache" / "teachers").iterdir()
    training = kept.with_name(f"{kept.name}.training")  # killed while it was deleted
    training.mkdir()
    shutil.copy(kept / "teacher.json", training)
    cache(recipe, root=tmp_path, machine=QUIET)
    assert list(kept.parent.iterdir()) == [kept]


def test_claims_of_killed_processes_are_cleared_away(recipe: Recipe, tmp_path: Path) -> None:
    entry, claims = tmp_path / "cache" / "teachers" / "one", tmp_path / "cache" / "claims"
    claims.mkdir(parents=True)
    (claims / "teachers+one+0123456789abcdef.lock").touch()  # which no process holds
    with using(entry), using(entry):
        assert len(list(claims.glob("*.lock"))) == 2
    assert list(claims.glob("*.lock")) == []


def test_a_folder_with_nothing_whole_in_it_is_free(tmp_path: Path) -> None:
    (tmp_path / ".recipe.yaml.0123abcd.part").touch()
    assert choose(tmp_path, "killed", resume=False) == choose(tmp_path, "killed", resume=True) == tmp_path
    (tmp_path / "notes").touch()
    with pytest.raises(RequestError, match="is not empty"):
        choose(tmp_path, "killed", resume=False)


def test_a_place_that_cannot_be_written_is_found_before_anything_is_trained(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*args: object, **options: object) -> None:
        raise AssertionError("it was trained")

    place = tmp_path / "store"
    place.mkdir()
    monkeypatch.setattr("limbeck.teachers.shards.os.access", lambda path, mode: path != place)
    monkeypatch.setattr(teachers, "train", trained)
    stored = check(SMALL | {"teacher": SMALL["teacher"] | {"store": str(place)}})
    with pytest.raises(RequestError, match="store cannot be written; choose another place"):
        run(stored, root=tmp_path, out=tmp_path / "out", machine=QUIET)
    (place / "teacher_outputs.json").touch()  # what is there already can be read
    Shards(place).check_writable()
