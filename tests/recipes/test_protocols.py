"""The field's protocols as recipes, and recipes of another length."""

from __future__ import annotations

import pytest

from limbeck.errors import RequestError
from limbeck.models import NETWORKS
from limbeck.recipes.length import at_length
from limbeck.recipes.read import check, read, variants
from limbeck.runs.written_out import by_name

# RepDistiller: README, both tables; train_student.py has lr 0.01 for MobileNetV2, ShuffleV1 and ShuffleV2.
PAIRS = {
    "wrn_40_2-wrn_16_2": 0.05, "wrn_40_2-wrn_40_1": 0.05, "resnet56-resnet20": 0.05, "resnet110-resnet20": 0.05,
    "resnet110-resnet32": 0.05, "resnet32x4-resnet8x4": 0.05, "vgg13-vgg8": 0.05, "vgg13-mobilenet_v2": 0.01,
    "resnet50-mobilenet_v2": 0.01, "resnet50-vgg8": 0.05, "resnet32x4-shufflenet_v1": 0.01,
    "resnet32x4-shufflenet_v2": 0.01, "wrn_40_2-shufflenet_v1": 0.01,
}  # fmt: skip


def test_every_pair_of_crds_tables_is_a_variant() -> None:
    assert sorted(variants("cifar100-pair")) == sorted(PAIRS)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_protocol_of_a_pair(pair: str) -> None:
    recipe = read(f"cifar100-pair:{pair}")
    (teacher,) = recipe.teachers
    assert f"{teacher.model}-{recipe.student.model}" == pair
    assert {teacher.model, recipe.student.model} <= set(NETWORKS)
    assert (recipe.data.name, recipe.data.batch_size, recipe.data.augment) == ("cifar100", 64, ["crop", "flip"])
    for part, lr in ((teacher, 0.05), (recipe, PAIRS[pair])):
        assert (part.epochs, part.optimizer.name, part.optimizer.lr) == (240, "sgd", lr)
        assert part.optimizer.options == {"momentum": 0.9, "weight_decay": 5e-4}
        assert (part.schedule.name, part.schedule.options) == ("step", {"milestones": [150, 180, 210], "factor": 0.1})


def test_the_protocol_of_imagenet() -> None:
    recipe = read("imagenet-r34-r18")
    assert (recipe.epochs, recipe.data.batch_size, recipe.optimizer.lr) == (100, 256, 0.1)
    assert recipe.data.augment == ["resized_crop", "flip"]
    assert recipe.optimizer.options == {"momentum": 0.9, "weight_decay": 1e-4}
    assert recipe.schedule.options == {"milestones": [30, 60, 90], "factor": 0.1}


def test_a_shorter_run_has_its_milestones_and_its_teachers_epochs() -> None:
    recipe = read("cifar100-pair", [], 24)
    assert recipe.epochs == 24
    assert recipe.schedule.options["milestones"] == [15, 18, 21]
    assert recipe.teachers[0].epochs == 240
    assert read("cifar100-pair", ["epochs=24"]).schedule.options["milestones"] == [150, 180, 210]  # --set says it all


def test_what_is_counted_in_epochs_keeps_its_share() -> None:
    recipe = check(
        {
            "teacher": {"model": "cnn", "epochs": 1},
            "student": {"model": "cnn"},
            "distill": {
                "scheme": "two-stage",
                "options": {"hint_epochs": 8},
                "terms": [{"loss": "kd", "ramp": 4}, {"loss": "dkd"}],
            },
            "epochs": 16,
            "schedule": {"name": "cosine", "warmup_epochs": 2},
        }
    )
    short = at_length(recipe, 4)
    assert (short.epochs, short.schedule.warmup_epochs, short.distill.options) == (4, 0.5, {"hint_epochs": 2})
    assert [term.ramp for term in short.distill.terms] == [1, 0]


@pytest.mark.parametrize("epochs", [0, -1])
def test_no_epochs_are_no_length(epochs: int) -> None:

    with pytest.raises(RequestError, match="epochs"):
        read("digits", [], epochs)


def test_ramps_reach_their_weight_in_runs_of_any_length() -> None:
    """By whole numbers: 100 · 7 / 100 is 7, in binary floating point a little more."""
    whole = check(
        {
            "student": {"model": "mlp"},
            "teacher": {"model": "mlp", "epochs": 1},
            "distill": {"terms": [{"loss": "kd", "ramp": 100}]},
            "epochs": 100,
        }
    )
    assert [at_length(whole, epochs).distill.terms[0].ramp for epochs in (7, 14, 28, 100)] == [7, 14, 28, 100]
    short = by_name(at_length(whole, 3), "mean-teacher")
    assert short.distill.terms[0].ramp == 1
