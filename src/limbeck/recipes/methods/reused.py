"""Methods that ship the teacher's classifier: SimKD."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from limbeck.models.build import REUSED
from limbeck.models.projected import projected
from limbeck.recipes.methods.declaration import CIFAR, Method, Setting, Shipped, TermDict
from limbeck.recipes.methods.places import Places


def _maps(places: Places) -> list[TermDict]:
    """The last maps: what the projector makes of the student's, and what the teacher's classifier reads."""
    tap, _ = places.classified_map()
    return [{"loss": "simkd", "weight": 1.0, "student": "projector", "teacher": tap}]


def _with_the_teachers_classifier(places: Places) -> Shipped:
    """The student's body, a projector, the teacher's classifier; the student's map pooled where it is the larger."""
    tap, classifier = places.classified_map()
    own = places.stages()[-1]["student"]
    small, large = (places.shapes(side, [at])[at][1:] for side, at in (("student", own), ("teacher", tap)))
    smaller = [min(ours, theirs) for ours, theirs in zip(small, large, strict=True)]
    channels, size = classifier.in_features, smaller if smaller != list(small) else None

    def make() -> nn.Module:
        classes, shape = classifier.out_features, places.input_shape
        network = projected(places.student, input_shape=shape, classes=classes, channels=channels, size=size)
        _take_over(cast(nn.Linear, network.classifier), classifier)
        return network

    return Shipped({REUSED: {"channels": channels} | ({"size": size} if size else {})}, make)


@torch.no_grad()
def _take_over(own: nn.Linear, trained: nn.Linear) -> None:
    """Give a classifier another one's weights, frozen; one without a bias adds 0."""
    own.weight.copy_(trained.weight)
    own.bias.zero_() if trained.bias is None else own.bias.copy_(trained.bias)
    own.requires_grad_(False)


REUSED_CLASSIFIERS: dict[str, Method] = {
    "simkd": Method(
        "Chen et al., CVPR 2022, arXiv:2203.14001; SimKD",
        {CIFAR: Setting(0.0, _maps, network=_with_the_teachers_classifier)},
        "of a teacher with layers between its last stage and its classifier, the map behind these is compared",
    ),
}
