"""Every scheme runs from a recipe, goes on after a kill, and leaves a plain student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import RequestError
from limbeck.models import cnn, load_weights
from limbeck.recipes.read import check, names, read
from limbeck.runs.finished.read import evaluate_run
from limbeck.runs.machine import Machine
from limbeck.runs.run import run

pytestmark = pytest.mark.usefixtures("few_digits")
QUIET = Machine(accelerator="cpu", progress=False)
KD = [{"loss": "kd", "weight": 0.5, "temperature": 2}]
BASE: dict[str, Any] = {
    "name": "scheme",
    "data": {"batch_size": 16},
    "student": {"model": "cnn", "channels": [4, 6]},
    "epochs": 2,
    "optimizer": {"lr": 0.01},
}
TEACHER = {"model": "cnn", "channels": [8, 12, 16], "epochs": 2, "optimizer": {"lr": 0.01}}
SCHEMES: dict[str, dict[str, Any]] = {
    "mutual": {"distill": {"scheme": "mutual", "options": {"peers": 3}}},
    "class-wise": {"distill": {"scheme": "class-wise"}},
    "mean-teacher": {"distill": {"scheme": "mean-teacher", "terms": KD, "options": {"decay": 0.9}}},
    "teacher-free": {"distill": {"scheme": "teacher-free", "terms": KD}},
    "born-again": {"distill": {"scheme": "born-again", "terms": KD, "options": {"generations": 2}}},
    "assistant": {
        "teacher": TEACHER,
        "assistants": [{"model": "cnn", "channels": [6, 9]}],
        "distill": {"scheme": "assistant", "terms": KD},
    },
    "two-stage": {"teacher": TEACHER, "distill": {"scheme": "two-stage", "terms": KD, "options": {"hint_epochs": 1}}},
    "self": {
        "student": {"model": "byot_small", "widths": [4, 6, 8]},
        "distill": {"scheme": "self"},
        "data": {"batch_size": 64, "drop_last": True, "validation": 0.2},
    },
}


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_runs_and_goes_on(name: str, tmp_path: Path) -> None:
    recipe = check(BASE | SCHEMES[name])
    result = run(recipe, root=tmp_path, out=tmp_path / "run", machine=QUIET)
    assert result["distilled"]["test_accuracy"] > 0.1
    assert result["baseline"]["epochs"] == 2
    if name != "self":
        student = cnn(input_shape=(1, 8, 8), classes=10, channels=(4, 6))
        load_weights(student, tmp_path / "run" / "student.safetensors")

    # Taken up from its last checkpoint, without what is only written at the end.
    before = (tmp_path / "run" / "student.safetensors").read_bytes()
    for file in ("student.json", "student.safetensors", "result.json"):
        (tmp_path / "run" / file).unlink()
    again = run(recipe, root=tmp_path, out=tmp_path / "run", machine=QUIET, resume=True)
    assert (tmp_path / "run" / "student.safetensors").read_bytes() == before
    assert again["distilled"]["test_accuracy"] == result["distilled"]["test_accuracy"]


def test_a_run_killed_before_its_result_still_knows_every_peer(tmp_path: Path) -> None:
    recipe = check(BASE | SCHEMES["mutual"])
    first = run(recipe, root=tmp_path, out=tmp_path / "run", machine=QUIET)
    (tmp_path / "run" / "result.json").unlink()
    assert run(recipe, root=tmp_path, out=tmp_path / "run", machine=QUIET, resume=True) == first
    assert evaluate_run(tmp_path / "run", tmp_path)["accuracy"] == first["distilled"]["test_accuracy"]


def phases(out: Path) -> list[str]:
    return list(dict.fromkeys(json.loads(line)["phase"] for line in (out / "metrics.jsonl").read_text().splitlines()))


def test_chains_train_what_comes_before(tmp_path: Path) -> None:
    for name, expected in (
        ("born-again", ["baseline", "generation-1", "student"]),
        ("assistant", ["baseline", "assistant-1", "student"]),
        ("two-stage", ["baseline", "hint", "student"]),
    ):
        result = run(check(BASE | SCHEMES[name]), root=tmp_path, out=tmp_path / name, machine=QUIET)
        assert [phase for phase in phases(tmp_path / name) if phase != "teacher"] == expected
        assert ("ensemble" in result) == (name == "born-again")


def test_two_stages_share_the_epochs(tmp_path: Path) -> None:
    run(check(BASE | SCHEMES["two-stage"]), root=tmp_path, out=tmp_path / "run", machine=QUIET, baseline=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines if line["phase"] in ("hint", "student")] == ["hint", "student"]
    assert [set(line) & {"task", "mse", "kd"} for line in lines if line["phase"] == "hint"] == [{"mse"}]


def test_every_exit_is_reported_each_epoch(tmp_path: Path) -> None:
    result = run(check(BASE | SCHEMES["self"]), root=tmp_path, out=tmp_path / "run", machine=QUIET)
    exits = {"exit 1/3", "exit 2/3", "exit 3/3", "ensemble"}
    for part in ("baseline", "distilled"):
        assert {n.partition("/")[2] for n in result[part] if n.startswith("test_accuracy/")} == exits
        assert result[part]["test_accuracy"] == result[part]["test_accuracy/ensemble"]
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        assert {f"val_accuracy/{name}" for name in exits} <= set(json.loads(line))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill": {"scheme": "mutal"}}, "distill.scheme"),
        ({"distill": {"scheme": "mutual", "options": {"peer": 3}}}, "unknown option of scheme MutualDistiller 'peer'"),
        ({"distill": {"scheme": "mutual", "options": {"peers": 1}}}, "peers is a whole number of 2 or more"),
        ({"distill": {"scheme": "mutual", "terms": KD}}, "has a loss of its own"),
        ({"distill": {"scheme": "offline", "terms": KD}}, "the key 'teacher' is missing"),
        ({"distill": {"scheme": "assistant", "terms": KD}, "teacher": TEACHER}, "the key 'assistants' is missing"),
        ({"distill": {"scheme": "born-again", "terms": KD, "options": {"generation": 3}}}, "did you mean generations"),
        (SCHEMES["two-stage"] | {"distill": {"scheme": "two-stage", "terms": KD, "options": {"hint_epochs": 2}}},
         "hint_epochs 2 leaves nothing"),
        ({"distill": {"scheme": "born-again", "terms": KD, "options": {"generations": 1}}},
         "generations is a whole number of 2 or more"),
        ({"distill": {"scheme": "teacher-free", "terms": KD, "options": {"probabilty": 1}}}, "mean probability"),
        ({"distill": {"terms": KD, "options": {"peers": 3}}, "teacher": TEACHER}, "unknown option of scheme offline"),
        ({"distill": {"scheme": "self"}}, "Exits"),
        ({"distill": {"scheme": "offline", "method": "kdd"}, "teacher": TEACHER}, "unknown method 'kdd'"),
    ],
)  # fmt: skip
def test_wrong_schemes_write_nothing(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        run(check(BASE | changes), root=tmp_path, out=tmp_path / "run", machine=QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name in names() if name.startswith("digits")])
def test_packaged_digits_recipes_run(name: str, tmp_path: Path) -> None:
    recipe = read(name, ["epochs=2", *(["distill.options.hint_epochs=1"] if name == "digits-two-stage" else [])])
    short = [teacher.model_copy(update={"epochs": 1}) for teacher in recipe.teachers]
    recipe = recipe.model_copy(update={"teacher": short or None})
    result = run(recipe, root=tmp_path, out=tmp_path / "run", machine=QUIET)
    assert result["distilled"]["epochs"] <= 2
