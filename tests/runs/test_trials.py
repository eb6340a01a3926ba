"""Trials on a part of the data, parts of one's own with arguments, students with a start of their own: by recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.compare import compare
from limbeck.errors import RequestError
from limbeck.recipes import schema
from limbeck.recipes.read import check, names, read
from limbeck.runs import components
from limbeck.runs.machine import Machine
from limbeck.runs.run import run

QUIET = Machine(accelerator="cpu", progress=False)
OWN = """
import torch
from limbeck.data import DataSet, InMemory


def make(n=20, width=4):
    targets = torch.arange(n) % 3
    part = InMemory(torch.randn(n, width, generator=torch.Generator().manual_seed(n)), targets)
    return DataSet("own", part, part, 3, (width,))
"""


def recipe(**changes: Any) -> schema.Recipe:
    return check(
        {
            "name": "tried",
            "data": {"name": "tried_parts:make", "batch_size": 8},
            "student": {"model": "mlp", "hidden": [5]},
            "distill": {"scheme": "mutual"},
            "epochs": 1,
        }
        | changes
    )


@pytest.fixture(autouse=True)
def tried_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tried_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))


def data(**keys: Any) -> schema.Data:
    return schema.Data.model_validate({"name": "tried_parts:make", "batch_size": 8} | keys)


def test_a_data_set_takes_arguments() -> None:
    made = components.data(data(options={"n": 33, "width": 2}), Path())
    assert (len(made.train), made.input_shape) == (33, (2,))
    with pytest.raises(RequestError, match="unknown option of data set tried_parts:make 'm'"):
        components.data(data(options={"m": 3}), Path())
    with pytest.raises(RequestError, match=r"data\.options are arguments of .*; digits takes none"):
        components.data(schema.Data(options={"n": 3}), Path())


def test_limits_draw_samples_of_each_split() -> None:
    whole = components.data(schema.Data(validation=0.2), Path())
    few = components.data(schema.Data(validation=0.2, limit_samples=40), Path())
    assert whole.validation is not None
    assert few.validation is not None
    assert [len(one) for one in (few.train, few.validation, few.test)] == [40, 40, 40]
    assert len(set(few.train.targets.tolist())) > 5  # drawn, not the first ones of a class
    steps = components.data(schema.Data(batch_size=16, limit_steps=3), Path())
    assert (len(steps.train), len(steps.test)) == (48, len(whole.test))
    again = components.data(schema.Data(validation=0.2, limit_samples=40), Path())
    assert again.train.fingerprint == few.train.fingerprint


def test_a_trial_says_so_and_is_no_whole_run(tmp_path: Path) -> None:
    tried = recipe(data={"name": "tried_parts:make", "batch_size": 8, "limit_steps": 2, "limit_samples": 17})
    result = run(tried, root=tmp_path, out=tmp_path / "run", machine=QUIET)
    assert result["trial"] == {"limit_steps": 2, "limit_samples": 17}
    assert result["recipe"] == "tried (trial: limit_steps 2, limit_samples 17)"
    with pytest.raises(RequestError, match=r"data\.limit_steps was 2 and is nothing"):
        run(recipe(), root=tmp_path, out=tmp_path / "run", resume=True, machine=QUIET)
    assert "trial" not in run(recipe(), root=tmp_path, out=tmp_path / "whole", machine=QUIET)


def test_own_optimizers_and_schedulers(tmp_path: Path) -> None:
    optimizer = {"name": "torch.optim:RMSprop", "lr": 0.01, "no_decay": ["biases"]}
    schedule = {"name": "torch.optim.lr_scheduler:StepLR", "step_size": 1, "gamma": 0.5}
    run(recipe(optimizer=optimizer, schedule=schedule, epochs=3), root=tmp_path, out=tmp_path / "run", machine=QUIET)

    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines if line["phase"] == "student"] == pytest.approx([0.01, 0.005, 0.0025])
    with pytest.raises(RequestError, match=r"unknown option of schedule .*StepLR 'step'"):
        components.schedule(schema.Schedule.model_validate(schedule | {"step": 1}), 3)


def test_a_finished_run_from_given_weights_is_resumed_also_without_their_file(tmp_path: Path) -> None:
    first = run(recipe(), root=tmp_path, out=tmp_path / "first", machine=QUIET)
    weights = (tmp_path / "first" / "student.safetensors").rename(tmp_path / "given.safetensors")
    student = {"model": "mlp", "hidden": [5], "weights": str(weights), "freeze": ["1"]}
    told = recipe(student=student)
    result = run(told, root=tmp_path, out=tmp_path / "next", machine=QUIET)
    assert run(told, root=tmp_path, out=tmp_path / "next", resume=True, machine=QUIET) == result
    weights.unlink()
    assert run(told, root=tmp_path, out=tmp_path / "next", resume=True, machine=QUIET) == result
    assert first["recipe"] == "tried"


def test_early_stopping_is_recorded_in_the_result(tmp_path: Path) -> None:
    tried = recipe(
        data={"name": "tried_parts:make", "batch_size": 8, "validation": 0.3, "options": {"n": 60}},
        early_stopping={"patience": 1, "min_delta": 0.5},
        epochs=9,
        save_every=1,
    )
    result = run(tried, root=tmp_path, out=tmp_path / "run", machine=QUIET)
    assert result["distilled"]["stopped_early"] is True
    assert result["distilled"]["epochs"] < 9
    assert (tmp_path / "run" / "student-epoch1.safetensors").exists()
    assert "stopped_early" not in result["baseline"] or result["baseline"]["epochs"] < 9
    compare(tried, ["recipe"], [0], root=tmp_path, out=tmp_path / "cmp", machine=QUIET)
    compared = json.loads((tmp_path / "cmp" / "compare.json").read_text())["methods"]
    assert all(0 < row["epochs"][0] <= 9 for row in compared.values())
    assert min(row["epochs"][0] for row in compared.values()) < 9
    with pytest.raises(RequestError, match="EarlyStopping looks at the validation"):
        run(recipe(early_stopping={}), root=tmp_path, out=tmp_path / "none", machine=QUIET)


def test_packaged_recipes_are_no_trials() -> None:
    assert all(read(name).data.trial == {} for name in names())
