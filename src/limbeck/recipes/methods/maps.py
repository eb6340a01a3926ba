"""Methods that compare maps of hidden layers."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from limbeck.losses import negative_mean
from limbeck.recipes.methods.declaration import (
    CIFAR,
    DENSE,
    IMAGENET,
    IMAGENET_EPOCHS,
    Method,
    OfStage,
    OfTeacher,
    Setting,
    Stage,
    TermDict,
    Terms,
    each,
    frozen,
    last,
    middle,
    none,
)
from limbeck.recipes.methods.places import Places
from limbeck.recipes.methods.relations import COMPARISON

HINT, JOINT = "hint", "joint"

REVIEW_WEIGHT = {
    ("wrn_40_2", "wrn_16_2"): 5.0,
    ("wrn_40_2", "wrn_40_1"): 5.0,
    ("wrn_40_2", "shufflenet_v1"): 5.0,
    ("resnet32x4", "resnet8x4"): 5.0,
    ("resnet32x4", "shufflenet_v1"): 5.0,
    ("resnet32x4", "shufflenet_v2"): 8.0,
    ("resnet56", "resnet20"): 0.6,
    ("resnet110", "resnet32"): 1.0,
}
"""By (teacher, student), from the authors' scripts for CIFAR-100; the default of their program is 1."""


def _boundaries(places: Places) -> list[TermDict]:
    """3/1000 of the sum over a map, half for each earlier stage."""
    pairs = places.before_relu()
    weights = _of_sums(3e-3, places)
    return [
        {"loss": "activation_boundary", "weight": weight, **pair, "adapter": "auto_bn"}
        for pair, weight in zip(pairs, weights, strict=True)
    ]


def _overhaul(factor: float) -> Terms:
    """A factor of the sum over a map, half for each earlier stage; the margins are of the teacher's batch norms."""

    def terms(places: Places) -> list[TermDict]:
        found = []
        for pair, norm, weight in zip(places.before_relu(), places.norms(), _of_sums(factor, places), strict=True):
            term = {"loss": "margin_relu", "weight": weight, **pair, "adapter": "conv1x1_bn"}
            margin = (
                {}
                if norm is None
                else {"margin": OfTeacher(functools.partial(_margins, norm), "of the teacher's batch norm")}
            )
            found.append(term | margin)
        return found

    return terms


def _of_sums(factor: float, places: Places) -> list[float]:
    """The weights, for means over the teacher's maps, of sums over them, which half as much for each earlier stage."""
    counts = places.elements([pair["teacher"] for pair in places.before_relu()])
    return [factor * count / 2 ** (len(counts) - 1 - number) for number, count in enumerate(counts)]


def _margins(norm: str, teacher: nn.Module) -> Tensor:
    """The mean negative response behind a batch norm; −3σ of channels that are negative less than once in 1000."""
    module = teacher.get_submodule(norm)
    mean, std = _parameter(module, "bias", 0.0), _parameter(module, "weight", 1.0).abs()
    seldom = torch.special.ndtr(-mean / std) <= 1e-3
    return torch.where(seldom, -3 * std, negative_mean(mean, std))


def _parameter(norm: nn.Module, name: str, otherwise: float) -> Tensor:
    """A batch norm's weight or bias; what it stands for where it has none (`affine=False`)."""
    found = getattr(norm, name)
    if found is None:
        return torch.full((cast(int, norm.num_features),), otherwise)
    return cast(Tensor, found).detach().float().cpu()


def _masked(factor: float) -> Terms:
    def terms(places: Places) -> list[TermDict]:
        pair = places.stages()[-1]
        (elements,) = places.elements([pair["teacher"]])
        return [{"loss": "MGD", "weight": factor * elements, **pair, "masked": 0.15, "mask": "channels"}]

    return terms


def _flows(places: Places) -> list[TermDict]:
    """One term for each step from a map to the next, the first one from what the first stage reads."""
    pairs = places.several_stages()
    stem = places.into_stages()
    image = places.shapes("student", [stem["student"]])[stem["student"]] == places.input_shape
    chain = pairs if image else [stem, *pairs]
    return [
        {
            "loss": "fsp",
            "weight": 50.0,
            "student": [a["student"], b["student"]],
            "teacher": [a["teacher"], b["teacher"]],
            "adapter": "auto",
        }
        for a, b in itertools.pairwise(chain)
    ]


def _review(ramp: int, before: bool, weights: Mapping[tuple[str, str], float]) -> Terms:
    """All stages and the pooled vector; the teacher's before their ReLUs, the student's too where `before`."""

    def terms(places: Places) -> list[TermDict]:
        pairs, linear, deepest = places.several_stages(), places.before_relu(), places.embedding()
        students = [*(pair["student"] for pair in (linear if before else pairs)), deepest["student"]]
        teachers = [*(pair["teacher"] for pair in linear), deepest["teacher"]]
        student, teacher = places.names
        weight = weights.get((teacher, student), 1.0)
        return [
            {
                "loss": "ReviewKD",
                "weight": weight,
                "student": students,
                "teacher": teachers,
                "ramp": ramp,
            }
        ]

    return terms


def _paraphrase(places: Places) -> list[TermDict]:
    return [{"loss": "Paraphraser", "weight": 1.0, "student": [], "teacher": places.stages()[-1]["teacher"]}]


def _factors(places: Places) -> list[TermDict]:
    pair = places.stages()[-1]
    return [{"loss": "FactorTransfer", "weight": 500.0, **pair, "paraphraser": OfStage("Paraphraser")}]


def _projected(places: Places) -> list[TermDict]:
    return [
        {"loss": "VkD", "weight": 1.0, **places.embedding()},
        {"loss": "kd", "weight": 1.0, "temperature": 1.0},
    ]


def _regression(places: Places) -> list[TermDict]:
    path = places.embedding()["teacher"].removesuffix(":in")
    classifier = OfTeacher(lambda teacher: frozen(teacher.get_submodule(path)), f"the teacher's {path}")
    pair = places.stages()[-1]
    return [{"loss": "srrl", "weight": 1.0, **pair, "adapter": "conv1x1_bn_relu", "classifier": classifier}]


MAPS: dict[str, Method] = {
    "fitnet": Method(
        f"Romero et al., arXiv:1412.6550; {COMPARISON}, which trains the hint beside the labels",
        {
            CIFAR: Setting(1.0, middle("mse", 100.0, adapter="regressor")),
            HINT: Setting(0.0, middle("mse", 1.0, adapter="regressor"), source="the paper"),
        },
        "hint is the first stage of the scheme two-stage, where the hint is alone and wants no weight",
    ),
    "at": Method(
        f"Zagoruyko, Komodakis, arXiv:1612.03928; {COMPARISON}", {CIFAR: Setting(1.0, each("attention", 1000.0))}
    ),
    "nst": Method(f"Huang, Wang, arXiv:1707.01219; {COMPARISON}", {CIFAR: Setting(1.0, each("nst", 50.0))}),
    "fsp": Method(
        f"Yim et al., CVPR 2017; {COMPARISON}: an initialisation, then the labels alone",
        {
            CIFAR: Setting(1.0, none, (Stage("initialisation", _flows, 30),)),
            JOINT: Setting(1.0, _flows, source="limbeck's choice: beside the labels"),
        },
        "where the networks' channels differ, which the authors exclude, 1×1 convolutions are trained with the student",
    ),
    "ab": Method(
        f"Heo et al., arXiv:1811.03233; AB_distillation; length of the stage: {COMPARISON}",
        {
            CIFAR: Setting(1.0, none, (Stage("initialisation", _boundaries, 30),)),
            JOINT: Setting(1.0, _boundaries, source="limbeck's choice: beside the labels"),
        },
        "the labels alone behind the initialisation, as in CRD's comparison; the paper has kd there for CIFAR-10",
    ),
    "ofd": Method(
        "Heo et al., arXiv:1904.01866; overhaul-distillation",
        {
            CIFAR: Setting(1.0, _overhaul(1e-3)),
            IMAGENET: Setting(1.0, _overhaul(1e-4), epochs=IMAGENET_EPOCHS),
        },
        "the teacher is in evaluation mode; its authors leave its batch norms in training mode",
    ),
    "ft": Method(
        "Kim et al., arXiv:1802.04977; Factor-Transfer-pytorch",
        {CIFAR: Setting(1.0, _factors, (Stage("paraphraser", _paraphrase, 6),), epochs=164)},
        "the student runs, untouched but for its batch norms' statistics, while the paraphraser is trained",
    ),
    "vid": Method(f"Ahn et al., arXiv:1904.05835; {COMPARISON}", {CIFAR: Setting(1.0, each("VID", 1.0))}),
    "review": Method(
        "Chen et al., arXiv:2104.09044; ReviewKD",
        {
            CIFAR: Setting(1.0, _review(20, before=False, weights=REVIEW_WEIGHT)),
            IMAGENET: Setting(1.0, _review(1, before=True, weights={}), epochs=IMAGENET_EPOCHS, source="mdistiller"),
        },
        "the weight is that of the authors' scripts for eight pairs of networks of CIFAR-100, 0.6 to 8, else 1",
    ),
    "mgd": Method(
        "Yang et al., arXiv:2205.01529; MGD for ImageNet, cls_KD for CIFAR-100",
        {
            CIFAR: Setting(1.0, _masked(1.2e-3), source="cls_KD"),
            IMAGENET: Setting(1.0, _masked(7e-5), epochs=IMAGENET_EPOCHS),
        },
    ),
    "srrl": Method(
        "Yang et al., ICLR 2021; KD_SRRL",
        {IMAGENET: Setting(1.0, _regression, epochs=IMAGENET_EPOCHS)},
        "the teacher's classifier, frozen, reads the student's maps in training; the student ships with its own",
    ),
    "cwd": Method(
        "Shu et al., arXiv:2011.13256; TorchDistiller",
        {DENSE: Setting(1.0, last("channel", 50.0, temperature=4.0, adapter="auto"))},
        "constants for features of segmentation models, the weight from the paper: the authors have none for "
        "classifiers; on a map of logits TorchDistiller has 3 at T 4, mmsegmentation-distiller 5 at T 1",
    ),
    "vkd": Method(
        "Miles et al., arXiv:2403.06213; VkD",
        {IMAGENET: Setting(1.0, _projected, epochs=300)},
        "the student has one head for the labels and for the teacher's logits, where the authors' transformer has two",
    ),
    "wkd-f": Method(
        "Lv et al., arXiv:2412.08139, WKD-F alone; WKD",
        {CIFAR: Setting(1.0, last("wkd_f", 6e-3, mean_weight=4.0, adapter="regressor"))},
        "the weight stays to the end, where the authors' falls to 0 along half a cosine in the last 90 of 240 epochs",
    ),
    "pearson": Method(
        "Cao et al. (PKD), arXiv:2207.02039; mmrazor",
        {DENSE: Setting(1.0, last("pearson", 6.0, adapter="auto"))},
        "the weight is that of two-stage detectors, on each of four maps of a pyramid, where one-stage ones have 10: "
        "the authors have none for classifiers; an adapter where channels differ",
    ),
}
