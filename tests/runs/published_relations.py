"""Losses of whole methods that compare vectors and samples, from their papers' equations, in NumPy and float64.

x, s and t are maps (B, C, H, W), read as one vector a sample; w are weights by name, as a state dict has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

Array = np.ndarray
Weights = Mapping[str, Array]


def vectors(x: Array) -> Array:
    """Each sample as one vector."""
    return x.reshape(len(x), -1)


def units(x: Array) -> Array:
    """Rows of length 1."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def angle_between(s: Array, t: Array) -> float:
    """mean (1 − cos): the cosine-embedding loss of PyTorch's tutorial, for pairs that belong together."""
    return float(np.mean([1 - a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in zip(vectors(s), vectors(t), strict=True)]))


def similarities(s: Array, t: Array) -> float:
    """3000 · ‖G̃_s − G̃_t‖² / B², rows of A Aᵀ at length 1: SP."""
    grams = [units(x @ x.T) for x in (vectors(s), vectors(t))]
    return 3000 * float(((grams[0] - grams[1]) ** 2).sum()) / len(s) ** 2


def relations(s: Array, t: Array) -> float:
    """25 · mean of Huber's distance of ψ_D over all pairs + 50 · of ψ_A over all triples: RKD in CRD's comparison."""
    found = []
    for x in (vectors(s), vectors(t)):
        count = range(len(x))
        d = np.array([[np.linalg.norm(x[i] - x[j]) for j in count] for i in count])
        edges = [[(x[j] - x[i]) / d[i, j] if i != j else 0 * x[i] for j in count] for i in count]
        angles = np.array([[[edges[i][j] @ edges[i][k] for k in count] for j in count] for i in count])
        found.append((d / d[d > 0].mean(), angles))
    (d_s, a_s), (d_t, a_t) = found
    return 25 * huber(d_s - d_t) + 50 * huber(a_s - a_t)


def huber(x: Array) -> float:
    return float(np.mean(np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)))


def neighbours(s: Array, t: Array) -> float:
    """30000 · mean of p_t log(p_t / p_s), p_{j|i} = K_ij / Σ_k K_ik, K = (cos + 1) / 2: PKT, with its code's ε."""
    found = []
    for x in (vectors(s), vectors(t)):
        kernel = (units(x) @ units(x).T + 1) / 2
        found.append(kernel / kernel.sum(1, keepdims=True))
    p_s, p_t = found
    return 30000 * float(np.mean(p_t * np.log((p_t + 1e-7) / (p_s + 1e-7))))


def congruence(s: Array, t: Array, gamma: float = 0.4, order: int = 2) -> float:
    """100 · ‖K_s − K_t‖² / B², K the Gaussian's Taylor series of vectors of length 1: CC."""
    found = []
    for x in (vectors(s), vectors(t)):
        cosines = units(x) @ units(x).T
        terms = ((2 * gamma * cosines) ** p / math.factorial(p) for p in range(order + 1))
        found.append(math.exp(-2 * gamma) * sum(terms))
    return 100 * float(np.mean((found[0] - found[1]) ** 2))


def contrasts(s: Array, t: Array, w: Weights, labels: Array, drawn: Array, temperature: float = 0.07) -> float:
    """0.8 · (−log h(pair) − Σ_K log (1 − h)) both ways, h = e / (e + K/N), e = exp(sᵀt/τ) / Z: CRD's first step.

    Z gives e the mean 1/N. Those drawn of the anchor's own class are left out, and the others count as K.
    """
    embedded = [
        units(vectors(x) @ w[f"{name}.weight"].T + w[f"{name}.bias"]) for x, name in ((s, "embed_s"), (t, "embed_t"))
    ]
    samples, negatives, total = len(w["memory_t"]), len(drawn), np.zeros(len(s))
    counted = labels[drawn][None, :] != labels[:, None]
    for anchor, memory in zip(embedded, (w["memory_t"], w["memory_s"]), strict=True):
        pair = np.exp((anchor * memory[: len(s)]).sum(1) / temperature)
        others = np.exp(anchor @ memory[drawn].T / temperature)
        z = samples * np.concatenate([pair, others[counted]]).mean()
        h_pair, h_others = (e / z / (e / z + negatives / samples) for e in (pair, others))
        missed = -(np.log(1 - h_others) * counted).sum(1) * negatives / counted.sum(1)
        total += missed - np.log(h_pair)
    return 0.8 * float(total.mean())
