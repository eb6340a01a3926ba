"""limbeck cache, and what a recipe's store decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.compare import compare
from limbeck.errors import RequestError
from limbeck.recipes.read import check
from limbeck.runs import components, teachers
from limbeck.runs.machine import Machine
from limbeck.runs.outputs import keeping
from limbeck.runs.outputs.asking import Asking
from limbeck.runs.outputs.beforehand import cache, stored_at
from limbeck.runs.outputs.keeping import keep
from limbeck.runs.run import run
from limbeck.runs.train import Job

SMALL: dict[str, Any] = {
    "name": "small",
    "teacher": {"model": "mlp", "hidden": [32], "epochs": 1, "optimizer": {"lr": 0.01}},
    "student": {"model": "mlp", "hidden": [8]},
    "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5}]},
    "epochs": 4,
}
QUIET = Machine(accelerator="cpu", progress=False)
AUGMENTED = {"name": "digits", "augment": ["crop"], "views": 2}


def recipe(store: Any = "auto", **changes: Any) -> Any:
    return check(SMALL | {"teacher": SMALL["teacher"] | {"store": store}} | changes)


def asking(made: Any, root: Path) -> tuple[Asking, Any]:
    data = components.data(made.data, root)
    found = teachers.candidates(made, data)
    return Asking(made, data, QUIET.fabric("32-true"), found[0].spec.store), teachers.as_one(found)


def test_the_student_of_a_stored_teacher_output_is_that_of_a_live_teacher(tmp_path: Path) -> None:
    losses = {}
    for where in ("never", "memory", {"where": "disk", "dtype": "float32"}, {"where": str(tmp_path / "mine")}):
        out = tmp_path / f"run{len(losses)}"
        result = run(recipe(where), root=tmp_path, out=out, machine=QUIET, baseline=False)
        losses[str(where)] = result["distilled"]["test"]["loss"]
    online, memory, disk, half = losses.values()
    # The last batch of digits is smaller than the others, which moves the teacher's last bits there.
    assert memory == pytest.approx(online, rel=1e-5)
    assert disk == memory
    assert half == pytest.approx(online, rel=1e-2)
    assert (tmp_path / "mine" / "teacher_outputs.json").exists()


@pytest.mark.parametrize(
    ("store", "changes", "trainings", "where", "reason"),
    [
        ("auto", {}, 1, "memory", "precomputed for 1,437 samples: 57.5 kB kept in memory"),
        ("auto", {"epochs": 1}, 1, "online", "saves nothing: 1 epoch in all, and 1 view of"),
        ("auto", {"epochs": 1}, 3, "memory", "precomputed"),
        ("auto", {"data": {"name": "digits", "augment": ["crop"]}}, 1, "online", "4 epochs in all, and 4 views of"),
        ("auto", {"data": AUGMENTED}, 1, "memory", "1,437 samples in 2 views: 115.0 kB"),
        ("never", {}, 9, "online", "as the recipe says"),
    ],
)
def test_what_auto_decides_and_says(
    tmp_path: Path, store: str, changes: dict[str, Any], trainings: int, where: str, reason: str
) -> None:
    kept = keep(*asking(recipe(store, **changes), tmp_path), trainings)
    assert kept.where == where
    assert reason in kept.reason


def test_auto_goes_to_disk_where_the_memory_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "MEMORY_BYTES", 0)
    monkeypatch.setattr(keeping, "seconds_per_sample", lambda asking, teacher: 1e-3)
    asked = asking(recipe(), tmp_path)
    kept = keep(*asked)
    assert Path(kept.where).is_dir()
    assert "stored in" in kept.reason
    assert "found in" in keep(*asked).reason  # by a later run, without being told
    monkeypatch.setattr(keeping, "seconds_per_sample", lambda asking, teacher: 1e-12)
    fresh = asking(
        recipe(epochs=5, data={"name": "digits", "batch_size": 16, "augment": ["flip"], "views": 1}), tmp_path
    )
    assert keep(*fresh).where == "online"


def test_the_command_stores_verifies_and_refuses(tmp_path: Path) -> None:
    path, place = tmp_path / "small.yaml", tmp_path / "outputs"
    path.write_text(
        "teacher: {model: mlp, hidden: [32], epochs: 1}\nstudent: {model: mlp, hidden: [8]}\n"
        "distill: {terms: [{loss: kd}]}\ndata: {name: digits, augment: [flip]}\nepochs: 3\n"
    )
    command = ["cache", str(path), "--where", str(place), "--views", "2"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "1,437 samples × 2" in done.output
    assert "largest error 0.0" in CliRunner().invoke(app, [*command, "--verify"]).output
    stale = CliRunner().invoke(app, [*command, "--set", "data.view_seed=1"])
    assert isinstance(stale.exception, RequestError)
    assert "stale, made with another views" in str(stale.exception)


def test_of_many_teacher_outputs_the_last_two_are_held(tmp_path: Path) -> None:
    made = recipe("memory")
    asked, _ = asking(made, tmp_path)
    job = Job(made, asked.data, QUIET, asked.fabric, tmp_path)
    found = teachers.candidates(made, asked.data)
    for taps in ([], ["1"], [], ["2"], []):
        job.precompute(teachers.as_one(found, taps), found)
    assert [list(kept.teacher._tables) for kept in job.memory.values()] == [["2"], []]
    assert len(job.outputs.entries()) == 3


def test_nothing_is_trained_to_be_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RequestError, match="nothing can be verified: the recipe's teacher is not trained yet"):
        cache(recipe("disk"), root=tmp_path, machine=QUIET, check=True)
    assert not (tmp_path / "cache").exists()


def test_methods_with_other_taps_share_a_place_of_ones_own(tmp_path: Path) -> None:
    cnns = {"teacher": {"model": "cnn", "channels": [4, 6], "epochs": 1, "store": str(tmp_path / "mine")},
            "student": {"model": "cnn", "channels": [2, 4]}, "epochs": 2}  # fmt: skip
    compare(recipe(**cnns), ["kd", "fitnet", "born-again"], [0], root=tmp_path, out=tmp_path / "out", machine=QUIET)
    assert (tmp_path / "mine" / "teacher_outputs.json").exists()
    assert len(list((tmp_path / "mine").glob("taps-*/teacher_outputs.json"))) == 1


def test_a_mistyped_place_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="choose auto, memory, disk, never, or a place with a slash"):
        recipe("always")


def test_an_interrupted_teacher_goes_on_at_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe("disk", teacher=SMALL["teacher"] | {"epochs": 3, "seed": 11, "store": "disk"})
    epochs = []
    from limbeck.engine.loop import Loop

    epoch = Loop.epoch

    def once(self: Any, state: Any) -> Any:
        if len(epochs) == 1:
            epochs.append("stopped")
            raise KeyboardInterrupt
        epochs.append(state.epoch)
        return epoch(self, state)

    monkeypatch.setattr(Loop, "epoch", once)
    with pytest.raises(KeyboardInterrupt):
        cache(made, root=tmp_path, machine=QUIET)
    done = cache(made, root=tmp_path, machine=QUIET)
    assert epochs == [0, "stopped", 1, 2]
    assert Path(done["place"]).is_dir()


def test_several_teachers_are_stored_as_one_teacher_output(tmp_path: Path) -> None:
    two = [SMALL["teacher"], SMALL["teacher"] | {"seed": 1}]
    made = stored_at(check(SMALL | {"teacher": two}), where=str(tmp_path / "both"))
    assert cache(made, root=tmp_path, machine=QUIET)["samples"] == 1437
    with pytest.raises(RequestError, match="no teacher outputs to store"):
        stored_at(check({"student": {"model": "mlp", "hidden": [8]}, "distill": {"scheme": "mutual"}}), where="disk")


def test_views_without_augmentation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"there is no data\.augment"):
        cache(recipe(data={"name": "digits", "views": 4}), root=tmp_path, machine=QUIET)


def test_without_a_teacher_there_is_nothing_to_store(tmp_path: Path) -> None:
    made = check({"student": {"model": "mlp", "hidden": [8]}, "distill": {"scheme": "mutual"}})
    with pytest.raises(RequestError, match="no teacher outputs to store"):
        cache(made, root=tmp_path, machine=QUIET)
