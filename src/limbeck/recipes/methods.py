"""Methods by their paper's name: the customary terms and weights, their taps chosen by each network's stages.

Weights are those of the CIFAR comparisons of CRD (arXiv:1910.10699) and of each paper; every one is a starting point,
to be chosen on a validation split for another pair of networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from limbeck.errors import RequestError, unknown
from limbeck.models.stages import embedding, stages
from limbeck.recipes import schema

TermDict = dict[str, Any]


@dataclass(frozen=True)
class Places:
    """Where a pair of networks can be compared; found when a method first asks.

    Attributes:
        student: The small network.
        teacher: The large one.
        input_shape: One sample's shape, for networks whose stages only a forward pass shows.
        samples: Size of the training split.
    """

    student: nn.Module
    teacher: nn.Module
    input_shape: tuple[int, ...]
    samples: int

    def stages(self) -> list[dict[str, str]]:
        """Pairs of stage taps, first to last; of unequal numbers of stages the last ones pair up."""
        s, t = (stages(network, input_shape=self.input_shape) for network in (self.student, self.teacher))
        count = min(len(s), len(t))
        return [{"student": a, "teacher": b} for a, b in zip(s[-count:], t[-count:], strict=True)]

    def before_relu(self) -> list[dict[str, str]]:
        """The pairs of stages, each tapped before the ReLU that it ends in, where it ends in one."""
        sides = {"student": self.student, "teacher": self.teacher}
        return [{side: _before_relu(network, pair[side]) for side, network in sides.items()} for pair in self.stages()]

    def embedding(self) -> dict[str, str]:
        """The taps of the vectors that the classifiers read."""
        return {"student": embedding(self.student), "teacher": embedding(self.teacher)}

    def all_stages(self) -> dict[str, list[str]]:
        """All stage taps as two lists."""
        pairs = self.stages()
        if len(pairs) < 2:
            raise RequestError("this method compares at least two stages, and the networks share only one")
        return {side: [pair[side] for pair in pairs] for side in ("student", "teacher")}


def _before_relu(network: nn.Module, stage: str) -> str:
    """The input of the ReLU that is the last layer of a stage, by the order of its modules; else its output."""
    modules = dict(network.named_modules())
    inside = [path for path in modules if path.startswith(f"{stage}.") or path == stage]
    return f"{inside[-1]}:in" if inside and isinstance(modules[inside[-1]], nn.ReLU) else stage


@dataclass(frozen=True)
class Method:
    """A weight for the labels, and the terms for a pair of networks."""

    task_weight: float
    terms: Callable[[Places], list[TermDict]]


def _logits(loss: str, weight: float, task_weight: float = 1.0, **options: Any) -> Method:
    return Method(task_weight, lambda places: [{"loss": loss, "weight": weight, **options}])


def _vector(loss: str, weight: float, **options: Any) -> Method:
    return Method(1.0, lambda places: [{"loss": loss, "weight": weight, **places.embedding(), **options}])


def _last(loss: str, weight: float, **options: Any) -> Method:
    return Method(1.0, lambda places: [{"loss": loss, "weight": weight, **places.stages()[-1], **options}])


def _middle(loss: str, weight: float, **options: Any) -> Method:
    def terms(places: Places) -> list[TermDict]:
        pairs = places.stages()
        return [{"loss": loss, "weight": weight, **pairs[(len(pairs) - 1) // 2], **options}]

    return Method(1.0, terms)


def _each(loss: str, weight: float, **options: Any) -> Method:
    return Method(1.0, lambda places: [{"loss": loss, "weight": weight, **p, **options} for p in places.stages()])


def _each_before_relu(loss: str, weight: float, **options: Any) -> Method:
    return Method(1.0, lambda places: [{"loss": loss, "weight": weight, **p, **options} for p in places.before_relu()])


def _together(loss: str, weight: float, **options: Any) -> Method:
    return Method(1.0, lambda places: [{"loss": loss, "weight": weight, **places.all_stages(), **options}])


def _flows(loss: str, weight: float) -> Method:
    def terms(places: Places) -> list[TermDict]:
        found = places.all_stages()
        s, t = found["student"], found["teacher"]
        spans = zip(s, s[1:], t, t[1:], strict=False)
        return [
            {"loss": loss, "weight": weight, "student": [a, b], "teacher": [c, d], "adapter": "auto"}
            for a, b, c, d in spans
        ]

    return Method(1.0, terms)


CUSTOMARY_EPOCHS = 240
"""The length of the runs for which the ramps are customary."""

METHODS: dict[str, Method] = {
    "kd": _logits("kd", 0.9, 0.1, temperature=4.0),
    "dkd": _logits("dkd", 1.0, temperature=4.0, nontarget_weight=8.0, ramp=20),
    "dist": _logits("dist", 2.0, temperature=1.0),
    "ls": _logits("kd", 9.0, 0.1, temperature=2.0, standardize=True),
    "nkd": _logits("nkd", 1.0),
    "mlkd": _logits("mlkd", 0.9, 0.2, instance_weight=1.5, batch_weight=0.5, class_weight=0.5),  # the authors' code
    "wsld": _logits("wsld", 2.25),
    "logit-mse": _logits("logit_mse", 0.9, 0.1),
    "hard": _logits("hard_label", 0.5, 0.5),
    "reverse-kl": _logits("reverse_kl", 0.9, 0.1, temperature=4.0),
    "jsd": _logits("jsd", 0.9, 0.1, temperature=4.0, beta=0.5),
    "fitnet": _middle("mse", 100.0, adapter="auto"),
    "cosine": _vector("cosine", 1.0, adapter="auto"),
    "pearson": _last("pearson", 1.0, adapter="auto"),
    "at": _each("attention", 1000.0),
    "nst": _last("nst", 50.0),
    "fsp": _flows("fsp", 50.0),
    "cwd": _last("channel", 1.0, adapter="auto"),
    # Published for sums over all elements of a map, which these losses average: the last map of 64×8×8 has 4,096.
    # The halves for each earlier stage are in it, as a stage earlier has twice the elements.
    "ab": _each_before_relu("activation_boundary", 12.0, adapter="auto"),  # 3/1000 of the sum: its authors' code
    "ofd": _each_before_relu("margin_relu", 4.0, adapter="auto"),  # 1/1000 of the sum: the paper and its authors' code
    "ft": _last("FactorTransfer", 500.0),
    "vid": _each("VID", 1.0),
    "review": _together("ReviewKD", 1.0, ramp=20),
    # 7e-5 of the sum over the same 4,096, and masked channels: the authors' settings for classification.
    "mgd": _last("MGD", 0.3, masked=0.15, mask="channels"),
    "sp": _last("similarity", 3000.0),
    "rkd": _vector("rkd", 1.0),
    "pkt": _vector("pkt", 30000.0),
    # The weight 0.02 of CRD's comparison is that of another form; Knowledge-Distillation-Zoo has 100 for this
    # one, on CIFAR-10.
    "cc": _vector("correlation", 100.0),
    "ickd": _last("channel_correlation", 2.5, adapter="auto"),
    "crd": Method(
        1.0, lambda places: [{"loss": "CRD", "weight": 0.8, **places.embedding(), "samples": places.samples}]
    ),
}
"""The methods that `distill.method` and `limbeck compare --methods` know."""

KD: TermDict = {"loss": "kd", "weight": 0.9, "temperature": 4.0}
SCHEMES: dict[str, dict[str, Any]] = {
    "mutual": {"scheme": "mutual"},
    "class-wise": {"scheme": "class-wise"},
    "mean-teacher": {"scheme": "mean-teacher", "terms": [{"loss": "kd", "weight": 1.0, "temperature": 1.0}]},
    "teacher-free": {
        "scheme": "teacher-free",
        "task_weight": 0.9,
        "options": {"softens": "probabilities"},
        "terms": [{"loss": "kd", "weight": 0.1, "temperature": 1.0, "teacher_temperature": 20.0, "scale": False}],
    },
    "born-again": {"scheme": "born-again", "task_weight": 0.1, "terms": [KD]},
    "assistant": {"scheme": "assistant", "task_weight": 0.1, "terms": [KD]},
    "two-stage": {"scheme": "two-stage", "task_weight": 0.1, "terms": [KD]},
}
"""The schemes that `limbeck compare --methods` knows, with customary constants."""


def with_terms(recipe: schema.Recipe, places: Callable[[], Places]) -> schema.Recipe:
    """The recipe with the terms of its method written out; unchanged where it gives its terms itself.

    Args:
        recipe: What is to be distilled.
        places: Finds where its networks can be compared.

    Raises:
        RequestError: An unknown method, or networks that do not show the places that it compares.
    """
    distill = recipe.distill
    if distill.method is None:
        return recipe
    if distill.method not in METHODS:
        raise unknown("method", distill.method, METHODS)
    method = METHODS[distill.method]
    try:
        terms = [_shortened(schema.Term.model_validate(term), recipe.epochs) for term in method.terms(places())]
    except RequestError as error:
        raise RequestError(f"method {distill.method}: {error}") from error
    weight = method.task_weight if distill.task_weight is None else distill.task_weight
    chosen = {"scheme": distill.scheme, "options": distill.options, "task_weight": weight, "terms": terms}
    return recipe.model_copy(update={"distill": schema.Distill.model_validate(chosen)})


def _shortened(term: schema.Term, epochs: int) -> schema.Term:
    """The term with its ramp in the same share of a shorter run, so that its weight is reached there too."""
    share = math.ceil(term.ramp * epochs / CUSTOMARY_EPOCHS)
    return term.model_copy(update={"ramp": min(term.ramp, share)})


def by_name(recipe: schema.Recipe, name: str) -> schema.Recipe:
    """The recipe with another method, or another scheme, in the place of its own.

    Raises:
        RequestError: There is no such method, or the recipe lacks what it needs.
    """
    if name not in METHODS and name not in SCHEMES:
        raise unknown("method", name, [*METHODS, *SCHEMES])
    if (name in METHODS or SCHEMES[name]["scheme"] in schema.TAUGHT) and not recipe.teachers:
        raise RequestError(f"method {name} needs a teacher, and the recipe {recipe.name} has none")
    if name == "assistant" and not recipe.assistants:
        raise RequestError(f"method assistant needs the key 'assistants' in the recipe {recipe.name}")
    distill = schema.Distill.model_validate(SCHEMES.get(name, {"method": name}))
    return recipe.model_copy(update={"distill": distill})
