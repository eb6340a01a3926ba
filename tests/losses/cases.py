"""The table of all losses: one line a loss, and each property in test_every_loss.py holds for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import reference as ref
import torch
import torch.nn.functional as F
from torch import nn

from limbeck import losses
from limbeck.losses import TopK


class Size(NamedTuple):
    """Samples, classes or channels, height, width."""

    b: int = 4
    c: int = 5
    h: int = 5
    w: int = 3


class Inputs(NamedTuple):
    """NumPy arrays (float64 or int64), or tuples of them."""

    student: Any
    teacher: Any
    options: dict[str, Any]


Make = Callable[[np.random.Generator, Size], Inputs]


def logits(rng, size):
    return Inputs(*(2 * rng.normal(size=(2, size.b, size.c))), {})


def labelled(rng, size):
    return logits(rng, size)._replace(options={"targets": rng.integers(0, size.c, size.b)})


def numbers(rng, size):
    return logits(rng, size)._replace(options={"targets": rng.normal(size=(size.b, size.c))})


def tokens(rng, size):
    """(B, L, C) with positions to ignore: all of the first sample's, where there are more."""
    targets = rng.integers(0, size.c, (size.b, size.h))
    targets[rng.random(targets.shape) < 0.3] = -100
    targets[1:, 0] = 1
    targets[0] = -100 if size.b > 1 else 0
    pair = 2 * rng.normal(size=(2, size.b, size.h, size.c))
    return Inputs(*pair, {"targets": targets, "ignore_index": -100})


def segments(rng, size):
    targets = rng.integers(0, 3, (size.b, size.h, size.w))
    targets[:, 0] = 0
    pair = 2 * rng.normal(size=(2, size.b, size.c, size.h, size.w))
    return Inputs(*pair, {"targets": targets, "ignore_index": 2})


def _best(x, axis, k):
    log_p = np.log(ref.softmax(x, axis))
    indices = np.take(np.argsort(-log_p, axis), range(k), axis)
    return TopK(np.take_along_axis(log_p, indices, axis), indices)


def top_k(rng, size):
    student, teacher, options = logits(rng, size)
    return Inputs(student, _best(teacher, 1, max(size.c // 2, 1)), options)


def top_k_segments(rng, size):
    student, teacher, options = segments(rng, size)
    return Inputs(student, _best(teacher, 1, max(size.c // 2, 1)), options)


def maps(rng, size):
    return Inputs(*rng.normal(size=(2, *size)), {})


def other_maps(rng, size):
    """A teacher with other channels and another size."""
    teacher = rng.normal(size=(size.b, size.c + 1, size.h + 1, max(size.w - 1, 1)))
    return Inputs(rng.normal(size=size), teacher, {})


def larger_maps(rng, size):
    return Inputs(rng.normal(size=size), rng.normal(size=(size.b, size.c, size.h + 2, size.w + 1)), {})


def fine_maps(rng, size):
    return larger_maps(rng, size._replace(h=2 * size.h, w=2 * size.w))


def vectors(rng, size):
    """A teacher with other dimensions."""
    return Inputs(rng.normal(size=(size.b, size.c)), rng.normal(size=(size.b, size.c + 2)), {})


def scores(rng, size):
    return Inputs(*rng.normal(size=(2, size.b, size.c + 1)), {})


def classified(rng, size):
    return maps(rng, size)._replace(options={"weight": rng.normal(size=(3, size.c)), "bias": rng.normal(size=3)})


def locally_classified(rng, size):
    """Maps of other channels and size, each with its classifier; the teacher knows every third sample."""
    inputs = other_maps(rng, size)
    student, teacher = (rng.normal(size=(3, f.shape[1])) for f in inputs[:2])
    bias = rng.normal(size=(2, 3))
    means = inputs.teacher.mean((2, 3)) @ teacher.T + bias[1]
    targets = np.where(np.arange(size.b) % 3 == 0, means.argmax(1), rng.integers(0, 3, size.b))
    options = {"targets": targets, "of_student": student, "of_teacher": teacher, "bias": bias}
    return inputs._replace(options=options)


def two_layers(rng, size):
    b, c, h, w = size
    shapes = (b, c, h, w), (b, c + 1, h + 1, w), (b, c, h, w + 1), (b, c + 1, h, w)
    s_1, s_2, t_1, t_2 = (rng.normal(size=shape) for shape in shapes)
    return Inputs((s_1, s_2), (t_1, t_2), {})


def stages(rng, size):
    b, c, h, w = size
    student = [rng.normal(size=(b, c + i, max(h - 2 * i, 1), max(w - i, 1))) for i in range(3)]
    teacher = [rng.normal(size=(b, c + 2 * i, max(h - i, 1), max(w - i, 1))) for i in range(3)]
    return Inputs(tuple(student), tuple(teacher), {})


def remembered(rng, size):
    options = {"targets": rng.integers(0, 3, size.b), "index": rng.permutation(12)[: size.b]}
    return vectors(rng, size)._replace(options=options)


def torch_srrl(student, teacher, *, weight, bias):
    return losses.srrl(student, teacher, classifier=lambda f: F.linear(f, weight.to(f), bias.to(f)))


def with_classifiers(loss):
    """The loss of classifiers that are given as their weights, frozen."""

    def call(student, teacher, *, targets, of_student, of_teacher, bias, **options):
        layers = []
        for weight, offset in zip((of_student, of_teacher), bias, strict=True):
            layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype).requires_grad_(False)
            layer.load_state_dict({"weight": weight, "bias": offset})
            layers.append(layer)
        labels = {"targets": targets} if loss is losses.sdd else {}
        return loss(student, teacher, student_classifier=layers[0], teacher_classifier=layers[1], **labels, **options)

    return call


def in_epoch_4(rng, size):
    return logits(rng, size)._replace(options={"epoch": 4})


CRD_OPTIONS = {"samples": 12, "dimension": 6, "negatives": 7}


def build_crd(student, teacher):
    """With Z fixed, as after the first batch."""
    crd = losses.CRD.for_shapes(student, teacher, **CRD_OPTIONS)
    crd.log_z = torch.tensor([1.5, 2.0])
    crd.labels = torch.arange(12) % 3
    return crd


def crd_reference(student, teacher, *, state, **options):
    drawn = torch.randint(12, (7,), generator=torch.Generator().manual_seed(SEED)).numpy()
    return ref.crd(student, teacher, state=state, drawn=drawn, negatives=7, **options)


SEED = 3
"""Torch's global seed before each call, for the losses that draw."""


@dataclass(frozen=True)
class Case:
    """A loss and what is known of it.

    Attributes:
        name: The test's id.
        loss: A function; or a class's `for_shapes` with its options, for a loss that trains something.
        make: Its inputs.
        reference: The NumPy computation; that of a class gets `state` too.
        options: Of both the loss and the reference.
        kind: "logit" losses ignore a constant added to all logits.
        floor: The value at student = teacher, which is the least; None where that is no minimum.
        frozen: The reference whose derivative is the gradient, where a part of the loss carries none.
    """

    name: str
    loss: Callable[..., Any]
    make: Make
    reference: Callable[..., Any]
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    floor: Callable[..., Any] | None = lambda *_, **__: 0.0
    frozen: Callable[..., Any] | None = None
    trains: bool = False

    def build(self, inputs: Inputs, dtype: torch.dtype = torch.float64) -> Callable[..., Any]:
        """The loss, ready to be called; a module is in eval mode and has `dtype`."""
        if not self.trains:
            return partial(self.loss, **self.options)
        torch.manual_seed(0)
        module = self.loss(shapes(inputs.student), shapes(inputs.teacher))
        assert isinstance(module, nn.Module)
        return module.eval().to(dtype)


def shapes(x: Any) -> Any:
    return tuple(map(shapes, x)) if isinstance(x, tuple) else torch.Size(x.shape)


def tensors(x: Any, dtype: torch.dtype = torch.float64) -> Any:
    """Arrays as new tensors: floats in `dtype`, integers as they are."""
    if isinstance(x, np.ndarray):
        t = torch.from_numpy(x.copy())
        return t.to(dtype) if t.is_floating_point() else t
    if isinstance(x, TopK):
        return TopK(*(tensors(v, dtype) for v in x))
    if isinstance(x, tuple):
        return tuple(tensors(v, dtype) for v in x)
    return {k: tensors(v, dtype) for k, v in x.items()} if isinstance(x, dict) else x


def soft_floor(_, teacher, **options):
    return ref.entropy(teacher, teacher, **options)


def frozen_wsld(student, teacher, **options):
    return lambda moved: ref.wsld(moved, teacher, decided_by=student, **options)


def same(reference):
    """What is left at student = teacher."""
    return lambda _, teacher, **options: reference(teacher, teacher, **options)


OTHER = {"temperature": 2.0, "teacher_temperature": 5.0, "average": "positions"}
POSITIONS, SPREAD = {"average": "positions", "chunk": 3}, {"rest": "spread"}
CELLS = {"base": "dkd", "temperature": 1.0, "scales": (1, 2), "complement_weight": 3.0}
CAMS = {"resolution": 3, "normalize": False}
DIST_OPTIONS = {"temperature": 4.0, "intra_weight": 0.5}
logit = partial(Case, kind="logit")
feature = partial(Case, kind="feature")
relation = partial(Case, kind="relation")
trained = partial(Case, kind="feature", floor=None, trains=True)

CASES = [
    logit("kd", losses.kd, logits, ref.kd),
    logit("kd-unscaled", losses.kd, logits, ref.kd, options={"scale": False, "temperature": 1.5}),
    logit("kd-standardized", losses.kd, logits, ref.kd, options={"standardize": True, "temperature": 2.0}),
    logit("kd-two-temperatures", losses.kd, logits, ref.kd, options={"teacher_temperature": 9.0}, floor=None),
    logit("kd-tokens", losses.kd, tokens, ref.kd),
    logit("kd-positions", losses.kd, tokens, ref.kd, options={"average": "positions"}),
    logit("kd-tokens-chunks", losses.kd, tokens, ref.kd, options={"chunk": 3}),
    logit("kd-segments", losses.kd, segments, ref.kd),
    logit("kd-segments-chunks", losses.kd, segments, ref.kd, options={"chunk": 4}),
    logit("kd-bucket", losses.kd, top_k, ref.kd, floor=None),
    logit("kd-spread", losses.kd, top_k, ref.kd, options={"rest": "spread"}, floor=None),
    logit("kd-bucket-segments-chunks", losses.kd, top_k_segments, ref.kd, options={"chunk": 4}, floor=None),
    logit("soft_cross_entropy", losses.soft_cross_entropy, logits, ref.soft_cross_entropy, floor=soft_floor),
    logit("soft_cross_entropy-tokens", losses.soft_cross_entropy, tokens, ref.soft_cross_entropy, floor=soft_floor),
    logit("reverse_kl", losses.reverse_kl, logits, ref.reverse_kl),
    logit("reverse_kl-tokens-chunks", losses.reverse_kl, tokens, ref.reverse_kl, options={"chunk": 7}),
    logit("reverse_kl-two-temperatures", losses.reverse_kl, logits, ref.reverse_kl, options=OTHER, floor=None),
    logit("reverse_kl-spread", losses.reverse_kl, top_k, ref.reverse_kl, options={"rest": "spread"}, floor=None),
    logit("jsd", losses.jsd, logits, ref.jsd),
    logit("jsd-0.1", losses.jsd, segments, ref.jsd, options={"beta": 0.1, "temperature": 1.0}),
    logit("jsd-two-temperatures", losses.jsd, segments, ref.jsd, options=OTHER, floor=None),
    logit("jsd-forward", losses.jsd, logits, ref.jsd, options={"beta": 0}),
    logit("jsd-reverse", losses.jsd, logits, ref.jsd, options={"beta": 1}),
    logit("jsd-bucket", losses.jsd, top_k, ref.jsd, options={"temperature": 1.0}, floor=None),
    logit("skewed_kl", losses.skewed_kl, logits, ref.skewed_kl),
    logit("skewed_kl-reverse", losses.skewed_kl, logits, ref.skewed_kl, options={"reverse": True, "alpha": 0.3}),
    logit("skewed_kl-0", losses.skewed_kl, tokens, ref.skewed_kl, options={"alpha": 0, "average": "positions"}),
    logit("skewed_kl-bucket", losses.skewed_kl, top_k, ref.skewed_kl, floor=None),
    logit("total_variation", losses.total_variation, logits, ref.total_variation, options={"temperature": 2.0}),
    logit("total_variation-positions", losses.total_variation, tokens, ref.total_variation, options=POSITIONS),
    logit("total_variation-spread", losses.total_variation, top_k, ref.total_variation, options=SPREAD, floor=None),
    logit("dkd", losses.dkd, labelled, ref.dkd),
    logit("dkd-standardized", losses.dkd, labelled, ref.dkd, options={"standardize": True, "temperature": 2.0}),
    logit("nkd", losses.nkd, labelled, ref.nkd, floor=None),
    logit("dist", losses.dist, logits, ref.dist, floor=same(ref.dist)),
    logit("dist-4", losses.dist, logits, ref.dist, options=DIST_OPTIONS, floor=same(ref.dist)),
    logit("mlkd", losses.mlkd, logits, ref.mlkd),
    logit("mlkd-levels", losses.mlkd, logits, ref.mlkd, options={"instance_weight": 1.5, "batch_weight": 0.5}),
    logit(
        "mlkd-standardized", losses.mlkd, logits, ref.mlkd, options={"standardize": True, "temperatures": (2.0, 5.0)}
    ),
    logit("wttm", losses.wttm, logits, ref.wttm, floor=None),
    logit("wttm-10", losses.wttm, logits, ref.wttm, options={"temperature": 10.0}, floor=None),
    logit("normkd", losses.normkd, logits, ref.normkd),
    logit("CTKD", losses.CTKD.for_shapes, in_epoch_4, ref.ctkd, floor=None, trains=True),
    logit("wsld", losses.wsld, labelled, ref.wsld, frozen=frozen_wsld),
    logit("hard_label", losses.hard_label, logits, ref.hard_label, floor=None),
    logit(
        "hard_label-tokens",
        losses.hard_label,
        lambda r, s: tokens(r, s)._replace(options={}),
        ref.hard_label,
        floor=None,
    ),
    logit("hard_label-ignored", losses.hard_label, segments, ref.hard_label, floor=None),
    feature("sigmoid_kd", losses.sigmoid_kd, logits, ref.sigmoid_kd, options={"temperature": 2.0}),
    feature("sigmoid_kd-unscaled", losses.sigmoid_kd, logits, ref.sigmoid_kd, options={"scale": False}),
    feature("bounded_regression", losses.bounded_regression, numbers, ref.bounded_regression, floor=None),
    logit("logit_mse", losses.logit_mse, logits, ref.logit_mse),
    logit("logit_mse-positions", losses.logit_mse, tokens, ref.logit_mse, options={"average": "positions"}),
    logit("probability_mse", losses.probability_mse, logits, ref.probability_mse),
    logit("probability_mse-segments", losses.probability_mse, segments, ref.probability_mse),
    feature("mse", losses.mse, maps, ref.mse),
    feature("l1", losses.l1, maps, ref.l1),
    feature("smooth_l1", losses.smooth_l1, maps, ref.smooth_l1, options={"threshold": 0.5}),
    feature("cosine", losses.cosine, maps, ref.cosine),
    feature("attention", losses.attention, other_maps, ref.attention),
    feature("channel", losses.channel, maps, ref.channel),
    feature("pearson", losses.pearson, maps, ref.pearson),
    feature("simkd", losses.simkd, larger_maps, ref.simkd),
    feature("nst", losses.nst, other_maps, ref.nst),
    feature("fsp", losses.fsp, two_layers, ref.fsp),
    feature("activation_boundary", losses.activation_boundary, maps, ref.activation_boundary, floor=None),
    feature("margin_relu", losses.margin_relu, maps, ref.margin_relu),
    feature("margin_relu-fixed", losses.margin_relu, maps, ref.margin_relu, options={"margin": -0.3}),
    feature("factor", losses.factor, maps, ref.factor),
    feature("srrl", torch_srrl, classified, ref.srrl),
    feature("sdd", with_classifiers(losses.sdd), locally_classified, ref.sdd, floor=None),
    feature("sdd-dkd", with_classifiers(losses.sdd), locally_classified, ref.sdd, options=CELLS, floor=None),
    feature("catkd", with_classifiers(losses.catkd), locally_classified, ref.catkd, floor=None),
    feature("catkd-plain", with_classifiers(losses.catkd), locally_classified, ref.catkd, options=CAMS, floor=None),
    feature("wkd_f", losses.wkd_f, larger_maps, ref.wkd_f),
    feature("wkd_f-grid", losses.wkd_f, fine_maps, ref.wkd_f, options={"grid": 2, "mean_weight": 1.0}),
    relation("similarity", losses.similarity, other_maps, ref.similarity),
    relation("rkd", losses.rkd, vectors, ref.rkd),
    relation("rkd-distances", losses.rkd, vectors, ref.rkd, options={"distance_weight": 1.0, "angle_weight": 0.0}),
    relation("pkt", losses.pkt, vectors, ref.pkt),
    relation("correlation", losses.correlation, vectors, ref.correlation, options={"order": 3}),
    relation("in_batch_similarity", losses.in_batch_similarity, vectors, ref.in_batch_similarity),
    relation("margin_mse", losses.margin_mse, scores, ref.margin_mse),
    relation("channel_correlation", losses.channel_correlation, larger_maps, ref.channel_correlation),
    trained("VID", losses.VID.for_shapes, other_maps, ref.vid),
    trained("VkD", losses.VkD.for_shapes, vectors, ref.vkd),
    trained("MGD", losses.MGD.for_shapes, other_maps, ref.mgd),
    trained("FactorTransfer", losses.FactorTransfer.for_shapes, other_maps, ref.factor_transfer),
    trained("ReviewKD", partial(losses.ReviewKD.for_shapes, width=6), stages, ref.review),
    trained("CRD", build_crd, remembered, crd_reference),
]
