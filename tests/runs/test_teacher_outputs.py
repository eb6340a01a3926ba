"""Whether something is cached changes no figure, or the result says so; a resumed run keeps to what was decided."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from limbeck.cli import compared as printed
from limbeck.cli import show
from limbeck.compare import compare
from limbeck.errors import RequestError
from limbeck.recipes import schema
from limbeck.recipes.read import check
from limbeck.runs import components, teachers, train
from limbeck.runs.machine import Machine
from limbeck.runs.outputs import keeping
from limbeck.runs.outputs.asking import Asking
from limbeck.runs.outputs.beforehand import as_cached, cache, stored_at, taken_by
from limbeck.runs.outputs.keeping import keep
from limbeck.runs.outputs.ledger import table_line
from limbeck.runs.run import run

SMALL: dict[str, Any] = {
    "name": "small",
    "teacher": {"model": "mlp", "hidden": [32], "epochs": 1, "optimizer": {"lr": 0.01}},
    "student": {"model": "mlp", "hidden": [8]},
    "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5}]},
    "epochs": 2,
}
QUIET = Machine(accelerator="cpu", progress=False)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: None) -> Path:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recipe(store: Any = "auto", **changes: Any) -> schema.Recipe:
    return check(SMALL | {"teacher": SMALL["teacher"] | {"store": store}} | changes)


def go(out: Path, store: Any = "auto", **options: Any) -> dict[str, Any]:
    result = run(recipe(store), root=out.parent, out=out, machine=QUIET, baseline=False, **options)
    assert json.loads((out / "result.json").read_text()) == {key: result[key] for key in result if key != "out"}
    return result


def kept(made: schema.Recipe, root: Path) -> keeping.Kept:
    data = components.data(made.data, root)
    found = teachers.candidates(made, data)
    teachers.train_apart(found, made, data, QUIET)
    asking = Asking(made, data, QUIET.fabric("32-true"), found[0].spec.store)
    return keep(asking, teachers.as_one(found))


def test_what_is_cached_changes_no_student_under_auto(tmp_path: Path) -> None:
    entries = []
    for number, stored in enumerate((None, stored_at(recipe(), where="disk"), as_cached(recipe()))):
        if stored is not None:
            cache(stored, root=tmp_path, machine=QUIET)
        entries += go(tmp_path / f"run{number}")["teacher_outputs"]
    none, half, exact = entries
    assert none["where"] == half["where"] == "memory"
    assert "found" not in none["reason"] + half["reason"]
    assert (exact["where"], exact["found"], exact["dtype"], exact["top_k"]) == ("disk", True, "float32", None)
    assert Path(exact["place"]).is_relative_to(tmp_path / "cache")
    first, *others = ((tmp_path / f"run{number}" / "student.safetensors").read_bytes() for number in range(3))
    assert [first] * 2 == others


def test_rounded_outputs_are_said_in_result_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, found = go(tmp_path / "one", "disk"), go(tmp_path / "two", "disk")
    for result, there, word in ((made, False, "stored"), (found, True, "found")):
        (entry,) = result["teacher_outputs"]
        assert (entry["where"], entry["found"], entry["dtype"]) == ("disk", there, "float16")
        show.result(result)
        said = capsys.readouterr().out
        line = f"teacher outputs: {word} in {entry['place']} as float16: rounded, so figures differ from those with"
        assert line in said
    assert made["distilled"]["test"]["loss"] == found["distilled"]["test"]["loss"]
    exact = go(tmp_path / "exact", {"where": "disk", "dtype": "float32"})
    show.result(exact)
    assert "as float32\n" in capsys.readouterr().out
    show.result(go(tmp_path / "memory", "memory"))
    assert "teacher outputs" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"top_k": 8, "bits": 8}, "the 8 likeliest, 8 bits: rounded"),
        ({"top_k": 8, "draws": None}, "the 8 likeliest: rounded"),  # as earlier versions wrote it
        ({"top_k": None, "draws": 9}, "9 draws: rounded"),
        ({"top_k": None, "draws": 9, "bits": 12, "power": 0.5}, "9 draws from p^0.5, 12 bits: rounded"),
    ],
)
def test_a_table_says_in_what_form_outputs_are_stored(form: dict[str, Any], words: str) -> None:
    entry = {"where": "disk", "found": False, "place": "there", "dtype": "float16", **form}
    assert table_line(entry).startswith(f"teacher outputs: stored in there as {words}")


def test_a_comparison_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = recipe({"where": "disk", "top_k": 4}, epochs=1)
    result = compare(made, ["recipe"], [0, 1], root=tmp_path, out=tmp_path / "out", machine=QUIET)
    (entry,) = json.loads((tmp_path / "out" / "compare.json").read_text())["teacher_outputs"]
    assert (entry["found"], entry["dtype"], entry["top_k"]) == (False, "float16", 4)
    printed.comparison(result, None)
    assert (
        f"teacher outputs: stored in {entry['place']} as the 4 likeliest, 16 bits: rounded" in capsys.readouterr().out
    )


def test_auto_finds_only_what_has_the_very_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache(as_cached(recipe()), root=tmp_path, machine=QUIET)
    assert Path(kept(recipe(), tmp_path).where).is_dir()
    assert kept(recipe(data={"name": "digits", "batch_size": 16}), tmp_path).where == "memory"
    assert kept(recipe(epochs=1), tmp_path).outputs.found  # it is there, and spares the teacher's passes
    rounded = {"where": "auto", "dtype": "bfloat16"}  # of what does not fit the memory
    cache(stored_at(recipe(rounded), where="auto"), root=tmp_path, machine=QUIET)
    assert kept(recipe(rounded), tmp_path).where == "memory"
    monkeypatch.setattr(Asking, "_kernels", lambda self: "another machine")
    assert kept(recipe(), tmp_path).where == "memory"


@pytest.mark.parametrize("store", ["auto", "OWN"])
def test_a_resumed_run_keeps_what_was_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    store = store.replace("OWN", str(tmp_path / "own"))
    fit = train.fit

    def stopped(*given: Any, **options: Any) -> Any:
        if options["saving"].phase == "student":
            raise KeyboardInterrupt
        return fit(*given, **options)

    monkeypatch.setattr(train, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "run", store)
    monkeypatch.setattr(train, "fit", fit)
    cache(as_cached(recipe(store)), root=tmp_path, machine=QUIET)  # which a new run would find
    (entry,) = go(tmp_path / "run", store, resume=True)["teacher_outputs"]
    assert (entry["where"], entry["found"]) == ("memory" if store == "auto" else "disk", False)
    (entry,) = go(tmp_path / "new", store)["teacher_outputs"]
    assert (entry["where"], entry["found"]) == ("disk", True)


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    go(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "teacher_outputs.json").write_text('{"a": {"place": 1, "elsewhere": 2}}')
    with pytest.raises(RequestError, match=r"teacher_outputs\.json is damaged .*delete it"):
        go(tmp_path / "run", resume=True)


def test_the_command_stores_what_runs_take() -> None:
    auto, own = recipe(), recipe("./outputs")
    assert as_cached(auto) == as_cached(auto, dtype="float32") == auto
    assert taken_by(auto, as_cached(auto)) == "runs of this recipe take it"
    assert as_cached(own) == own
    half = as_cached(auto, dtype="float16")
    assert half.teachers[0].store == schema.Store(where="disk", dtype="float16")
    assert taken_by(auto, half) == "runs take it with teacher.store={where: disk, dtype: float16}"
    assert as_cached(auto, where="s3://bucket/x", top_k=3).teachers[0].store.where == "s3://bucket/x"
    assert as_cached(recipe("memory")).teachers[0].store.where == "disk"


def test_a_run_killed_after_its_store_was_written_does_not_take_it_for_found(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole", "disk")["teacher_outputs"]
    shutil.rmtree(tmp_path / "cache" / "teacher_outputs")

    def killed(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(keeping, "StoredTeacher", killed)  # the store is whole by then
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "run", "disk")
    resumed = go(tmp_path / "run", "disk", resume=True)["teacher_outputs"]
    assert resumed == whole
    assert [one["found"] for one in resumed] == [False]
    assert [one["found"] for one in go(tmp_path / "again", "disk")["teacher_outputs"]] == [True]
