"""What a recipe cannot do is said before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.run import run

RECIPE: dict[str, Any] = {
    "name": "checked",
    "data": {"name": "digits", "batch_size": 64},
    "teacher": {"model": "mlp", "hidden": [16], "epochs": 1},
    "student": {"model": "mlp", "hidden": [8]},
    "distill": {"method": "kd"},
    "epochs": 1,
}
OPERATION = {
    "teacher": {"model": "resnet8", "epochs": 1},
    "student": {"model": "resnet8"},
    "distill": {"terms": [{"loss": "mse", "student": "stage3.0.add", "teacher": "stage3.0.add"}]},
}
TOP_K = {"store": {"where": "memory", "top_k": 2}}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"distill": {"method": "logit-mse"}, "teacher": RECIPE["teacher"] | TOP_K}, "logit_mse compares all logits"),
        ({"distill": {"method": "dist"}, "teacher": RECIPE["teacher"] | TOP_K}, "dist compares all logits"),
        ({"distill": {"method": "wttm"}, "teacher": RECIPE["teacher"] | TOP_K}, "wttm compares all logits"),
        (
            {"distill": {"terms": [{"loss": "kd", "standardize": True}]}, "teacher": RECIPE["teacher"] | TOP_K},
            "kd compares all logits",
        ),
        ({"student": {"model": "vgg8"}, "data": {"name": "digits", "batch_size": 1}}, "batches hold one sample each"),
        ({"teacher": {"model": "vgg8", "epochs": 1, "batch_size": 1}}, "batches hold one sample each"),
        (OPERATION | {"compile": "default"}, "compile: default, but a term reads 'stage3.0.add'"),
        ({"compile": "reduce-overhead", "accumulate_steps": 2}, "compile: reduce-overhead records CUDA graphs"),
    ],
    ids=[
        "logit_mse",
        "dist",
        "wttm",
        "standardized",
        "batches of one",
        "teacher's batches of one",
        "operations",
        "graphs",
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        run(check(RECIPE | more), root=tmp_path, out=tmp_path / "run", machine=Machine(progress=False))
    assert not (tmp_path / "run").exists()


def test_students_in_shards_are_not_compiled(tmp_path: Path) -> None:
    machine = Machine(strategy="fsdp", progress=False)
    with pytest.raises(RequestError, match="compile: default takes a whole student"):
        run(check(RECIPE | {"compile": "default"}), root=tmp_path, out=tmp_path / "run", machine=machine)
    assert not (tmp_path / "run").exists()


def test_batch_norm_trains_on_one_map_with_several_places(tmp_path: Path) -> None:
    recipe = check(
        RECIPE | {"data": {"name": "digits", "batch_size": 1436}, "student": {"model": "cnn", "channels": [4]}}
    )
    run(recipe, root=tmp_path, out=tmp_path / "run", machine=Machine(progress=False), baseline=False)
    assert (tmp_path / "run" / "result.json").exists()


def test_several_teachers_have_one_store() -> None:
    second = RECIPE["teacher"] | {"store": "never"}
    with pytest.raises(RequestError, match="give `store` to the first of them"):
        check(RECIPE | {"teacher": [RECIPE["teacher"], second]})


class Detached(nn.Linear):
    """A teacher whose answers carry no gradient in training."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1)).detach()


def detached() -> nn.Module:
    return Detached(64, 10)


def test_a_teacher_that_cannot_be_trained_is_found_before_any_is(tmp_path: Path) -> None:
    teachers = [RECIPE["teacher"], {"model": f"{__name__}:detached", "epochs": 1}]
    with pytest.raises(RequestError, match=r"the teacher-1 .*:detached cannot be trained: .* gradient: between its"):
        run(check(RECIPE | {"teacher": teachers}), root=tmp_path, out=tmp_path / "run", machine=Machine(progress=False))
    assert not (tmp_path / "run").exists()
