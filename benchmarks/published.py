"""The losses in the straightforward forms in which they are published, for logits, maps and vectors of CIFAR's size."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck import losses

Pass = Callable[[Tensor, Tensor], Tensor]

BATCH, CLASSES, CHANNELS, SIDE, WIDTH = 64, 100, 64, 8, 256
LOGITS, MAPS, VECTORS = (BATCH, CLASSES), (BATCH, CHANNELS, SIDE, SIDE), (BATCH, WIDTH)


def _targets(logits: Tensor) -> Tensor:
    return torch.arange(len(logits), device=logits.device) % logits.shape[1]


def kd(student: Tensor, teacher: Tensor) -> Tensor:
    s, t = student.float().flatten(0, -2), teacher.float().flatten(0, -2)
    return F.kl_div(F.log_softmax(s / 4, dim=1), F.softmax(t / 4, dim=1), reduction="batchmean") * 16


def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    return -(F.softmax(teacher / 4, dim=1) * F.log_softmax(student / 4, dim=1)).sum(1).mean() * 16


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    return kd(teacher, student)


def jsd(student: Tensor, teacher: Tensor) -> Tensor:
    s, t = F.log_softmax(student / 4, dim=1), F.log_softmax(teacher / 4, dim=1)
    m = torch.logsumexp(torch.stack([s, t]) + math.log(0.5), dim=0)
    parts = (F.kl_div(m, x, reduction="batchmean", log_target=True) for x in (s, t))
    return sum(parts, student.new_zeros(())) * 8


def standardized_kd(student: Tensor, teacher: Tensor) -> Tensor:
    s, t = ((x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-7) for x in (student, teacher))
    return F.kl_div(F.log_softmax(s / 2, dim=1), F.softmax(t / 2, dim=1), reduction="batchmean") * 4


def dkd(student: Tensor, teacher: Tensor) -> Tensor:
    target = F.one_hot(_targets(student), student.shape[1]).bool()
    p_s, p_t = F.softmax(student / 4, dim=1), F.softmax(teacher / 4, dim=1)
    b_s, b_t = (torch.stack([(p * target).sum(1), (p * ~target).sum(1)], 1) for p in (p_s, p_t))
    tckd = F.kl_div(b_s.log(), b_t, reduction="batchmean")
    far = 1000.0 * target
    nckd = F.kl_div(F.log_softmax(student / 4 - far, 1), F.softmax(teacher / 4 - far, 1), reduction="batchmean")
    return (tckd + 8 * nckd) * 16


def nkd(student: Tensor, teacher: Tensor) -> Tensor:
    y = _targets(student)[:, None]
    p_s, p_t = F.softmax(student, dim=1).gather(1, y), F.softmax(teacher, dim=1).gather(1, y)
    others = ~torch.zeros_like(student, dtype=torch.bool).scatter(1, y, True)
    s, t = (x[others].view(len(x), -1) / 3 for x in (student, teacher))
    other: Tensor = -(F.softmax(t, dim=1) * F.log_softmax(s, dim=1)).sum(1).mean()
    return 3.5 * 9 * other - (p_t * p_s.log()).mean()


def dist(student: Tensor, teacher: Tensor) -> Tensor:
    def correlation(a: Tensor, b: Tensor) -> Tensor:
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        lengths: Tensor = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
        return (a * b).sum(1) / (lengths + 1e-8)

    s, t = F.softmax(student, dim=1), F.softmax(teacher, dim=1)
    return (1 - correlation(s, t).mean()) + (1 - correlation(s.T, t.T).mean())


def mlkd(student: Tensor, teacher: Tensor) -> Tensor:
    loss = student.new_zeros(())
    for temperature in (2, 3, 4, 5, 6):
        log_s, p_t = F.log_softmax(student / temperature, dim=1), F.softmax(teacher / temperature, dim=1)
        p_s = F.softmax(student / temperature, dim=1)
        loss = loss + F.kl_div(log_s, p_t, reduction="batchmean") * temperature**2
        loss = loss + (p_s @ p_s.T - p_t @ p_t.T).square().sum() / len(student)
        loss = loss + (p_s.T @ p_s - p_t.T @ p_t).square().sum() / student.shape[1]
    return loss


def wsld(student: Tensor, teacher: Tensor) -> Tensor:
    target = F.one_hot(_targets(student), student.shape[1])
    soft = -(F.softmax(teacher / 2, dim=1) * F.log_softmax(student / 2, dim=1)).sum(1) * 4
    ce_s, ce_t = (-(target * F.log_softmax(x.detach(), dim=1)).sum(1) for x in (student, teacher))
    return (soft * (1 - torch.exp(-ce_s / (ce_t + 1e-7)))).mean()


def hard_label(student: Tensor, teacher: Tensor) -> Tensor:
    return F.cross_entropy(student, teacher.argmax(1))


def logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    s, t = (x - x.mean(1, keepdim=True) for x in (student, teacher))
    return F.mse_loss(s, t)


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    return F.cosine_embedding_loss(student, teacher, torch.ones(len(student), device=student.device))


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    s, t = (F.normalize(f.pow(2).mean(1).flatten(1)) for f in (student, teacher))
    return (s - t).pow(2).mean()


def channel(student: Tensor, teacher: Tensor) -> Tensor:
    s, t = (f.flatten(2).flatten(0, 1) / 4 for f in (student, teacher))
    return F.kl_div(F.log_softmax(s, dim=1), F.softmax(t, dim=1), reduction="batchmean") * 16


def pearson(student: Tensor, teacher: Tensor) -> Tensor:
    def standard(f: Tensor) -> Tensor:
        rows = f.transpose(0, 1).flatten(1)
        return (rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-6)

    return F.mse_loss(standard(student), standard(teacher)) / 2


def activation_boundary(student: Tensor, teacher: Tensor) -> Tensor:
    silent = (student + 1).square() * ((student > -1) & (teacher <= 0)).float()
    active = (student - 1).square() * ((student <= 1) & (teacher > 0)).float()
    return (silent + active).mean()


def margin_relu(student: Tensor, teacher: Tensor) -> Tensor:
    target = torch.max(teacher, torch.full((1, CHANNELS, 1, 1), -0.5, device=teacher.device))
    squares = F.mse_loss(student, target, reduction="none")
    return (squares * ((student > target) | (target > 0)).float()).mean()


def factor(student: Tensor, teacher: Tensor) -> Tensor:
    s, t = (F.normalize(f.flatten(1)) for f in (student, teacher))
    return (s - t).abs().mean()


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    s, t = (F.normalize(f.flatten(1) @ f.flatten(1).T) for f in (student, teacher))
    return (t - s).square().sum() / len(s) ** 2


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    def neighbours(f: Tensor) -> Tensor:
        unit = f / (f.square().sum(1, keepdim=True).sqrt() + 1e-7)
        unit[unit != unit] = 0
        kernel = (unit @ unit.T + 1) / 2
        return kernel / kernel.sum(1, keepdim=True)

    s, t = neighbours(student), neighbours(teacher)
    return (t * ((t + 1e-7) / (s + 1e-7)).log()).mean()


def correlation(student: Tensor, teacher: Tensor) -> Tensor:
    def kernel(f: Tensor) -> Tensor:
        cosine = F.normalize(f) @ F.normalize(f).T
        terms = (math.exp(-0.8) * 0.8**p / math.factorial(p) * cosine.pow(p) for p in range(3))
        return sum(terms, torch.zeros_like(cosine))

    return F.mse_loss(kernel(student), kernel(teacher))


def channel_correlation(student: Tensor, teacher: Tensor) -> Tensor:
    s, t = (F.normalize(f.flatten(2) @ f.flatten(2).mT, dim=2) for f in (student, teacher))
    return (s - t).square().sum() / (CHANNELS * len(s))


def by_sample(form: Callable[..., Tensor]) -> Pass:
    """A built-in kernel that gives one number, made to give a value a sample as limbeck's losses do."""
    return lambda student, teacher: form(student, teacher, reduction="none").flatten(1).mean(1)


def hard_label_by_sample(student: Tensor, teacher: Tensor) -> Tensor:
    return F.cross_entropy(student, teacher.argmax(1), reduction="none")


def _labelled(loss: Callable[..., Tensor]) -> Pass:
    return lambda student, teacher: loss(student, teacher, targets=_targets(student))


def _margin(student: Tensor, teacher: Tensor) -> Tensor:
    return losses.margin_relu(student, teacher, margin=-0.5)


def _standardized(student: Tensor, teacher: Tensor) -> Tensor:
    return losses.kd(student, teacher, temperature=2.0, standardize=True)


FORMS: dict[str, tuple[tuple[int, ...], Pass, Pass]] = {
    "kd": (LOGITS, losses.kd, kd),
    "kd standardized": (LOGITS, _standardized, standardized_kd),
    "reverse_kl": (LOGITS, losses.reverse_kl, reverse_kl),
    "jsd": (LOGITS, losses.jsd, jsd),
    "soft_cross_entropy": (LOGITS, losses.soft_cross_entropy, soft_cross_entropy),
    "dkd": (LOGITS, _labelled(losses.dkd), dkd),
    "nkd": (LOGITS, _labelled(losses.nkd), nkd),
    "dist": (LOGITS, losses.dist, dist),
    "mlkd": (LOGITS, losses.mlkd, mlkd),
    "wsld": (LOGITS, _labelled(losses.wsld), wsld),
    "hard_label": (LOGITS, losses.hard_label, hard_label),
    "hard_label by sample": (LOGITS, losses.hard_label, hard_label_by_sample),
    "logit_mse": (LOGITS, losses.logit_mse, logit_mse),
    "mse": (MAPS, losses.mse, F.mse_loss),
    "mse by sample": (MAPS, losses.mse, by_sample(F.mse_loss)),
    "l1": (MAPS, losses.l1, F.l1_loss),
    "l1 by sample": (MAPS, losses.l1, by_sample(F.l1_loss)),
    "smooth_l1": (MAPS, losses.smooth_l1, F.smooth_l1_loss),
    "smooth_l1 by sample": (MAPS, losses.smooth_l1, by_sample(F.smooth_l1_loss)),
    "simkd": (MAPS, losses.simkd, F.mse_loss),
    "simkd by sample": (MAPS, losses.simkd, by_sample(F.mse_loss)),
    "cosine": (VECTORS, losses.cosine, cosine),
    "attention": (MAPS, losses.attention, attention),
    "channel": (MAPS, losses.channel, channel),
    "pearson": (MAPS, losses.pearson, pearson),
    "activation_boundary": (MAPS, losses.activation_boundary, activation_boundary),
    "margin_relu": (MAPS, _margin, margin_relu),
    "factor": (MAPS, losses.factor, factor),
    "similarity": (MAPS, losses.similarity, similarity),
    "pkt": (VECTORS, losses.pkt, pkt),
    "correlation": (VECTORS, losses.correlation, correlation),
    "channel_correlation": (MAPS, losses.channel_correlation, channel_correlation),
}
"""By name: the inputs' shape, limbeck's loss and the published form.

What is not here: srrl is two times mse, and in VID, MGD, FactorTransfer and ReviewKD the convolutions take the time,
which are the same in both forms.
"""
