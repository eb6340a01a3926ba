"""Methods that compare what the classifiers make of each place of the last maps: SDD and CAT-KD."""

from __future__ import annotations

import functools
from typing import Any

from limbeck.recipes.methods.declaration import (
    CIFAR,
    IMAGENET,
    IMAGENET_EPOCHS,
    Method,
    OfStudent,
    OfTeacher,
    Setting,
    TermDict,
    Terms,
    frozen,
)
from limbeck.recipes.methods.places import Places

COARSE = {("resnet32x4", "resnet8x4"), ("vgg13", "vgg8")}
"""The pairs, by (teacher, student), whose cells are those of 1×1 and 2×2 alone in the authors' scripts."""

Attention = tuple[float, int, bool]
"""Weight, resolution, and whether each class's map has length 1."""
ATTENTION: dict[tuple[str, str], Attention] = {
    ("resnet56", "resnet20"): (0.7, 2, False),
    ("resnet110", "resnet32"): (1.8, 2, False),
    ("resnet32x4", "resnet8x4"): (15.0, 2, False),
    ("vgg13", "vgg8"): (4.5, 2, False),
    ("wrn_40_2", "wrn_16_2"): (12.0, 2, False),
    ("wrn_40_2", "wrn_40_1"): (1.5, 2, False),
    ("resnet32x4", "shufflenet_v1"): (600.0, 4, True),
    ("resnet32x4", "shufflenet_v2"): (600.0, 4, True),
    ("resnet50", "mobilenet_v2"): (40.0, 2, True),
    ("vgg13", "mobilenet_v2"): (15.0, 2, True),
    ("wrn_40_2", "shufflenet_v1"): (80.0, 4, True),
}
"""By (teacher, student), from the authors' scripts for CIFAR-100; the default of their program is (400, 2, True)."""


def _local(loss: str, weight: float, **options: Any) -> Terms:
    """One term between the maps that the classifiers read, with both classifiers."""

    def terms(places: Places) -> list[TermDict]:
        of_student, of_teacher = (_classifier(places, side) for side in ("student", "teacher"))
        term = {"loss": loss, "weight": weight, "student": of_student[0], "teacher": of_teacher[0], **options}
        live = OfStudent(lambda student: student.get_submodule(of_student[1]), f"the student's {of_student[1]}")
        trained = OfTeacher(
            lambda teacher: frozen(teacher.get_submodule(of_teacher[1])), f"the teacher's {of_teacher[1]}"
        )
        return [{**term, "student_classifier": live, "teacher_classifier": trained}]

    return terms


def _classifier(places: Places, side: str) -> tuple[str, str]:
    """The tap of the map that a network's classifier reads, and the classifier's name."""
    tap, _ = places.classified_map(side)
    return tap, places.embedding()[side].removesuffix(":in")


def _scales(places: Places) -> list[int]:
    student, teacher = places.names
    return [1, 2] if (teacher, student) in COARSE else [1, 2, 4]


def _by_scale(places: Places, *, weight: float, **options: Any) -> list[TermDict]:
    return _local("sdd", weight, scales=_scales(places), **options)(places)


def _attention(places: Places) -> list[TermDict]:
    student, teacher = places.names
    weight, resolution, normalize = ATTENTION.get((teacher, student), (400.0, 2, True))
    return _local("catkd", weight, resolution=resolution, normalize=normalize)(places)


LOCAL: dict[str, Method] = {
    "sd-kd": Method(
        "Wei et al., arXiv:2403.13512, over kd (SD-KD); SDD-CVPR2024",
        {CIFAR: Setting(0.1, functools.partial(_by_scale, weight=0.9, temperature=4.0))},
        "the cells are those of 1×1 and 2×2 for the authors' pairs of one kind, with those of 4×4 for all others",
    ),
    "sd-dkd": Method(
        "Wei et al., arXiv:2403.13512, over dkd (SD-DKD); SDD-CVPR2024",
        {
            CIFAR: Setting(1.0, functools.partial(_by_scale, weight=1.0, base="dkd", temperature=4.0, ramp=20)),
            IMAGENET: Setting(
                1.0,
                functools.partial(_by_scale, weight=1.0, base="dkd", temperature=1.0, nontarget_weight=0.5, ramp=1),
                epochs=IMAGENET_EPOCHS,
            ),
        },
        "as sd-kd; β of dkd is 8 for every pair, as there",
    ),
    "cat-kd": Method(
        "Guo et al., arXiv:2304.12777; CAT-KD",
        {
            CIFAR: Setting(1.0, _attention),
            IMAGENET: Setting(
                1.0, _local("catkd", 0.5, resolution=4, normalize=False), epochs=IMAGENET_EPOCHS, source="r34_r18"
            ),
        },
        "the student keeps its classifier's bias, which the authors leave out; weight, resolution and normalisation "
        "are those of their scripts for eleven pairs of networks, else those of their program: choose the weight so "
        "that the loss is 1 to 50 after the first epoch",
    ),
}
