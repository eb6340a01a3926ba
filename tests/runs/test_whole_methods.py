"""The first loss of whole methods, connectors and all, against NumPy, on the pairs of the authors' scripts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import published_logits as of_logits
import published_relations as related
import pytest
import torch
from first_steps import LABELLED, PAIRS, SAMPLES, Case, answers, between_logits, networks, term
from torch import nn

import published as ref
from limbeck import Distiller, TeacherOutput
from limbeck.recipes.methods import METHODS
from limbeck.runs.written_out import setting_of
from limbeck.taps import Taps, evaluating


def norms(case: Case, pair: str) -> list[tuple[np.ndarray, np.ndarray]]:
    paths = {
        "resnet32x4-resnet8x4": [f"stage{number}.4.branch.bn2" for number in (1, 2, 3)],
        "resnet34-resnet18": ["layer1.2.bn2", "layer2.3.bn2", "layer3.5.bn2", "layer4.2.bn2"],
    }
    modules = [case.network.get_submodule(path) for path in paths[pair]]
    return [(module.weight.detach().numpy(), module.bias.detach().numpy()) for module in modules]  # type: ignore[union-attr]


def shown(case: Case) -> np.ndarray:
    torch.manual_seed(3)
    channels = case.tensors("teacher")[0].shape[1]
    return (torch.rand(SAMPLES, channels, 1, 1, dtype=torch.float64) >= 0.15).numpy()


def classifier(network: nn.Module, pair: str) -> dict[str, np.ndarray]:
    layer = network.get_submodule("classifier" if pair.startswith("resnet32x4") else "fc")
    return {name: value.numpy() for name, value in layer.state_dict().items()}


def classifiers(case: Case, pair: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    return classifier(case.shipped, pair), classifier(case.network, pair)


def scaled(case: Case, pair: str, each: Callable[..., np.ndarray]) -> float:
    """SDD over the cells of teacher_resnet32x4.sh, --M [1,2], and of the program's default for another pair."""
    scales = [1, 2] if pair.startswith("resnet32x4") else [1, 2, 4]
    (s,), (t,) = case.tensors("student"), case.tensors("teacher")
    return of_logits.by_scale(s, t, classifiers(case, pair), case.targets, scales, each)


def attended(case: Case, pair: str, resolution: int, normalize: bool) -> float:
    (s,), (t,) = case.tensors("student"), case.tensors("teacher")
    return of_logits.class_activations(s, t, classifiers(case, pair), resolution, normalize)


def projector(case: Case) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in case.shipped.get_submodule("projector").state_dict().items()}


def drawn() -> np.ndarray:
    torch.manual_seed(3)
    return torch.randint(SAMPLES, (16384,)).numpy()


WHOLE: dict[str, Callable[[Case, list[np.ndarray], list[np.ndarray], str], float]] = {
    "fitnet": lambda case, s, t, pair: ref.fitnet(s[0], t[0], case.weights[0]),
    "fitnet:hint": lambda case, s, t, pair: ref.fitnet(s[0], t[0], case.weights[0], 1.0),
    "ab": lambda case, s, t, pair: ref.boundaries(s, t, case.weights),
    "ofd": lambda case, s, t, pair: ref.overhaul(s, t, case.weights, norms(case, pair), 1e-3),
    "ofd:imagenet": lambda case, s, t, pair: ref.overhaul(s, t, case.weights, norms(case, pair), 1e-4),
    "ickd": lambda case, s, t, pair: ref.correlations(s[0], t[0], case.weights[0]),
    "mgd": lambda case, s, t, pair: ref.masked(s[0], t[0], case.weights[0], shown(case), 1.2e-3),
    "mgd:imagenet": lambda case, s, t, pair: ref.masked(s[0], t[0], case.weights[0], shown(case), 7e-5),
    "vid": lambda case, s, t, pair: ref.variational(s, t, case.weights),
    "review": lambda case, s, t, pair: ref.review(s, t, case.weights[0], 5.0 if pair.startswith("resnet32x4") else 1.0),
    "review:imagenet": lambda case, s, t, pair: ref.review(s, t, case.weights[0], 1.0),
    "srrl": lambda case, s, t, pair: ref.regression(s[0], t[0], case.weights[0], classifier(case.network, pair)),
    "at": lambda case, s, t, pair: ref.attention(s, t),
    "nst": lambda case, s, t, pair: ref.selectivity(s, t),
    "ft": lambda case, s, t, pair: ref.factors(s[0], t[0], case.weights[0]),
    "simkd": lambda case, s, t, pair: ref.reused(s[0], t[0], projector(case)),
    "wkd-f": lambda case, s, t, pair: ref.gaussians(s[0], t[0], case.weights[0]),
    # VkD: main_distributed.py, --alpha 1 --gamma 1; engine.py, T 1.
    "vkd": lambda case, s, t, pair: (
        ref.projected(s[0], t[0], case.weights[0]) + of_logits.hinton(*case.logits(), temperature=1)
    ),
    # SDD-CVPR2024: cfg.py; configs/imagenet/r34_r18/sdd_dkd.yaml.
    "sd-kd": lambda case, s, t, pair: 0.9 * scaled(case, pair, lambda *z: of_logits.each_hinton(*z[:2], 4)),
    "sd-dkd": lambda case, s, t, pair: scaled(case, pair, lambda *z: of_logits.each_decoupled(*z, 4, 8)),
    "sd-dkd:imagenet": lambda case, s, t, pair: scaled(case, pair, lambda *z: of_logits.each_decoupled(*z, 1, 0.5)),
    # CAT-KD: cifar100/CAT_KD/res32x4_res8x4.yaml, cfg.py for another pair; imagenet/CAT-KD/r34_r18.yaml.
    "cat-kd": lambda case, s, t, pair: (
        15 * attended(case, pair, 2, False) if pair.startswith("resnet32x4") else 400 * attended(case, pair, 2, True)
    ),
    "cat-kd:imagenet": lambda case, s, t, pair: 0.5 * attended(case, pair, 4, False),
}
PLAIN: dict[str, Callable[[Case, list[np.ndarray], list[np.ndarray], str], float]] = {
    "cosine": lambda case, s, t, pair: related.angle_between(s[0], t[0]),
    "sp": lambda case, s, t, pair: related.similarities(s[0], t[0]),
    "rkd": lambda case, s, t, pair: related.relations(s[0], t[0]),
    "pkt": lambda case, s, t, pair: related.neighbours(s[0], t[0]),
    "cc": lambda case, s, t, pair: related.congruence(s[0], t[0]),
    "crd": lambda case, s, t, pair: related.contrasts(s[0], t[0], case.weights[0], case.targets, drawn()),
    "fsp": lambda case, s, t, pair: ref.flows(s, t),
    "fsp:joint": lambda case, s, t, pair: ref.flows(s, t),
    "ab:joint": lambda case, s, t, pair: ref.boundaries(s, t, case.weights),
    "cwd": lambda case, s, t, pair: ref.channels_apart(s[0], t[0]),
    "pearson": lambda case, s, t, pair: ref.uncorrelated(s[0], t[0]),
}
"""Without a connector between maps of as many channels, so that one pair of networks is enough."""
LABELS = {"ab": 0.0, "fsp": 0.0, "fitnet:hint": 0.0, "simkd": 0.0, "sd-kd": 0.1}
"""Weights of the labels' loss in these; 1 in all others of hidden layers."""
LOGITS: dict[str, tuple[float, Callable[[np.ndarray, np.ndarray, np.ndarray], float]]] = {
    "kd": (0.1, lambda s, t, y: 0.9 * of_logits.hinton(s, t, 4)),  # RepDistiller: -r 0.1 -a 0.9, kd_T 4
    "kd:imagenet": (0.5, lambda s, t, y: 0.5 * of_logits.hinton(s, t, 1)),  # mdistiller: r34_r18/kd.yaml
    "dkd": (1, lambda s, t, y: of_logits.decoupled(s, t, y, 4, 8)),  # mdistiller: res32x4_res8x4.yaml
    "dkd:imagenet": (1, lambda s, t, y: of_logits.decoupled(s, t, y, 1, 0.5)),  # mdistiller: r34_r18/dkd.yaml
    "dist": (1, lambda s, t, y: 2 * of_logits.stronger(s, t, 4)),  # image_classification_sota: dist_cifar.yaml
    "dist:imagenet": (1, lambda s, t, y: 2 * of_logits.stronger(s, t, 1)),  # the same: resnet_dist.yaml
    # logit-standardization-KD: --base-temp 2 --kd-weight 9; the labels of both views with CE_WEIGHT 0.1.
    "ls": (0.1, lambda s, t, y: 9 * of_logits.hinton(of_logits.standardized(s), of_logits.standardized(t), 2)),
    "ls-mlkd": (0.2, lambda s, t, y: 9 * of_logits.levels(s, t, (2, 3, 5, 2, 6), standardize=True)),
    "mlkd": (0.2, lambda s, t, y: 0.9 * of_logits.levels(s, t, (4, 3, 5, 2, 6))),  # mlkd.yaml: 0.1 for each view, 0.9
    "ttm": (1, lambda s, t, y: 45 * of_logits.transformed(s, t, 0.1, weighted=False)),  # TTM: --ttm_l 0.1 -r 1 -b 45
    "wttm": (1, lambda s, t, y: 4 * of_logits.transformed(s, t, 0.2, weighted=True)),  # TTM: --ttm_l 0.2 -a 4
    "ctkd": (0.1, lambda s, t, y: 0.9 * of_logits.curriculum(s, t)),  # CTKD: run_cifar_distill.sh, -r 0.1 -a 0.9
    "normkd": (0.1, lambda s, t, y: 0.9 * of_logits.by_deviation(s, t, 2)),  # NormKD: cfg.py
    "normkd:imagenet": (0.5, lambda s, t, y: 0.5 * of_logits.by_deviation(s, t, 1)),  # NormKD: r34_r18/normkd.yaml
    "nkd": (1, lambda s, t, y: of_logits.normalised(s, t, y, 3, 3.5)),  # cls_KD: res34_distill_res18_cifar.py
    "nkd:imagenet": (1, lambda s, t, y: of_logits.normalised(s, t, y, 1, 1.5)),  # cls_KD: res34_distill_res18_img.py
    "wsld": (1, lambda s, t, y: 2.25 * of_logits.weighted(s, t, y, 4)),  # cls_KD: res34_distill_res18_cifar.py
    "wsld:imagenet": (1, lambda s, t, y: 2.5 * of_logits.weighted(s, t, y, 2)),  # knowledge_distiller.py: 2.5, T 2
    "hard": (0.5, lambda s, t, y: 0.5 * ref.cross_entropy(s, t.argmax(1))),  # DeiT: half of both
    # No constants for classifiers are published for these: the weights are limbeck's choice, those of kd.
    "logit-mse": (0.1, lambda s, t, y: 0.9 * of_logits.squared(s, t)),
    "reverse-kl": (0.1, lambda s, t, y: 0.9 * of_logits.reversed_kl(s, t, 4)),
    "jsd": (0.1, lambda s, t, y: 0.9 * of_logits.jensen_shannon(s, t, 4, 0.5)),
}
"""The weight of the labels' loss, and the rest, of the logits and the labels."""
CASES = [(method, pair) for method in WHOLE for pair in PAIRS] + [(method, next(iter(PAIRS))) for method in PLAIN]


@pytest.mark.parametrize(("method", "pair"), CASES)
def test_the_first_loss_is_the_papers(method: str, pair: str) -> None:
    case = Case(method, pair)
    distilled = {**WHOLE, **PLAIN}[method](case, case.tensors("student"), case.tensors("teacher"), pair)
    weight = LABELS.get(method, 1.0)
    labels = weight * ref.cross_entropy(case.logits()[0], case.targets) if weight else 0.0
    assert case.loss == pytest.approx(labels + distilled, rel=1e-5)
    assert distilled > 1e-3 * labels  # else the labels' loss would hide it


@pytest.mark.parametrize("method", LOGITS)
def test_the_first_loss_between_logits_is_the_papers(method: str) -> None:
    pair = next(iter(PAIRS))
    weight, of = LOGITS[method]
    s, t = (one.numpy() for one in answers(pair))
    distilled = of(s, t, np.array(LABELLED))
    loss = between_logits(method, pair)
    assert loss == pytest.approx(weight * ref.cross_entropy(s, np.array(LABELLED)) + distilled, rel=1e-5)
    assert distilled > 1e-3 * loss


def test_no_method_is_without_a_reference() -> None:
    named = {
        name if setting is method.default else f"{name}:{key}"
        for name, method in METHODS.items()
        for key, setting in method.settings.items()
    }
    assert named == {*WHOLE, *PLAIN, *LOGITS}


def test_margins_come_from_the_batch_norms() -> None:
    """A channel that is nearly never negative gets −3σ, any other its mean negative response."""
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, 4.0]))
    _, _, places, _ = networks("resnet32x4-resnet8x4")
    margin = setting_of("ofd").terms(places)[0]["margin"]
    holder = nn.Module()
    path = places.norms()[0]
    assert path is not None
    inner = holder
    *parents, last = path.split(".")
    for name in parents:
        inner.add_module(name, nn.Module())
        inner = inner.get_submodule(name)
    inner.add_module(last, norm)
    expected = [-np.sqrt(2 / np.pi), ref.response(2.0, 1.0), -1.5]
    assert margin.make(holder).tolist() == pytest.approx(expected, rel=1e-5)
    inner.add_module(last, nn.BatchNorm2d(3, affine=False))  # mean 0, deviation 1
    assert margin.make(holder).tolist() == pytest.approx(3 * [-np.sqrt(2 / np.pi)], rel=1e-5)


def test_a_look_at_the_first_batch_leaves_no_trace_in_what_was_just_made() -> None:
    """CRD's memory and its Z, and the statistics of a connector's batch norm, begin with the first step."""
    student, teacher, places, batch = networks("resnet32x4-resnet8x4")
    for method in ("crd", "ickd"):
        (one,) = setting_of(method).terms(places)
        scheme = Distiller(student, [term(one, student, teacher)])
        with torch.no_grad(), evaluating(teacher):
            logits, tensors = Taps(teacher, [one["teacher"]]).run(batch.inputs)
        scheme.prepare(batch, TeacherOutput(logits, {one["teacher"]: tensors[one["teacher"]]}))
        (bound,) = scheme.terms.values()
        found = {name.rpartition(".")[2]: value for name, value in bound.state_dict().items()}
        if method == "crd":
            assert found["log_z"].isinf().all()
            assert (found["labels"] == -1).all()
        else:
            assert not found["running_mean"].any()
        assert bound.training
