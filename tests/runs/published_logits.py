"""Losses of whole methods on logits, from their papers' equations, in NumPy and float64.

s and t are a student's and a teacher's logits (B, C), y the labels; each value is without the loss on the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

Array = np.ndarray
Weights = Mapping[str, Array]


def divergence(log_p: Array, log_q: Array) -> Array:
    """KL(p ‖ q) of each row."""
    return (np.exp(log_p) * (log_p - log_q)).sum(1)


def each_hinton(s: Array, t: Array, temperature: float) -> Array:
    """T² KL(p_t ‖ p_s) of each sample: Hinton's cross-entropy with soft targets, less their own entropy."""
    return temperature**2 * divergence(log_softmax(t / temperature, 1), log_softmax(s / temperature, 1))


def hinton(s: Array, t: Array, temperature: float) -> float:
    return float(each_hinton(s, t, temperature).mean())


def each_decoupled(s: Array, t: Array, y: Array, temperature: float, beta: float) -> Array:
    """T² (TCKD + β NCKD) of each sample: DKD with α 1, by p_y against the rest, and by the rest among themselves."""
    values = []
    for a, b, label in zip(s, t, y, strict=True):
        pair, others = [], []
        for z in (a, b):
            p = softmax(z / temperature)
            rest = np.delete(p, label)
            pair.append(np.array([p[label], rest.sum()]))
            others.append(rest / rest.sum())
        tckd, nckd = (float((two[1] * np.log(two[1] / two[0])).sum()) for two in (pair, others))
        values.append(temperature**2 * (tckd + beta * nckd))
    return np.array(values)


def decoupled(s: Array, t: Array, y: Array, temperature: float, beta: float) -> float:
    return float(each_decoupled(s, t, y, temperature, beta).mean())


def stronger(s: Array, t: Array, temperature: float) -> float:
    """τ² (mean over samples of 1 − ρ of their classes + mean over classes of 1 − ρ of their samples): DIST, β = γ = 1.

    Its code adds 1e-8 to the product of the lengths in ρ.
    """
    total = 0.0
    p_s, p_t = (softmax(z / temperature, 1) for z in (s, t))
    for rows in (zip(p_s, p_t, strict=True), zip(p_s.T, p_t.T, strict=True)):
        off = []
        for a, b in rows:
            a, b = a - a.mean(), b - b.mean()
            off.append(1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-8))
        total += float(np.mean(off))
    return temperature**2 * total


def standardized(z: Array) -> Array:
    """(l − mean) / (1e-7 + deviation), the unbiased one: logit standardisation."""
    return (z - z.mean(1, keepdims=True)) / (1e-7 + z.std(1, ddof=1, keepdims=True))


def levels(s: Array, t: Array, temperatures: Sequence[float], standardize: bool = False) -> float:
    """Multi-level logits as their authors' code adds them up over a weak and a strong view, here the same.

    Instances count with a mask of one half in the weak view and without one in the strong; batch and class relations
    in the weak view, with the mask. Only instances are standardised.
    """
    half, total = 0.5, 0.0
    for temperature in temperatures:
        instance = hinton(*((standardized(s), standardized(t)) if standardize else (s, t)), temperature)
        p_s, p_t = (softmax(z / temperature, 1) for z in (s, t))
        batch = np.linalg.norm(p_s @ p_s.T - p_t @ p_t.T) ** 2 / len(s)
        classes = np.linalg.norm(p_s.T @ p_s - p_t.T @ p_t) ** 2 / s.shape[1]
        total += half * instance + instance + half * batch + half * classes
    return float(total)


def transformed(s: Array, t: Array, gamma: float, weighted: bool) -> float:
    """Mean of KL(q ‖ p_s), q = p_t^γ / U, U = Σ p_t^γ: TTM; each times its own U: WTTM."""
    powers = softmax(t, 1) ** gamma
    u = powers.sum(1)
    values = divergence(np.log(powers / u[:, None]), log_softmax(s, 1))
    return float((u * values if weighted else values).mean())


def curriculum(s: Array, t: Array) -> float:
    """CTKD's first step: T = t_start + t_end · sigmoid(θ) of the run script's 1 and 20, θ starts at 1."""
    return hinton(s, t, 1 + 20 / (1 + np.exp(-1.0)))


def by_deviation(s: Array, t: Array, factor: float) -> float:
    """Mean of (T σ_t)² KL(p_t ‖ p_s), each row's logits over T times its own unbiased deviation: NormKD."""
    values = []
    for a, b in zip(s, t, strict=True):
        log_s, log_t = (log_softmax(z / (factor * z.std(ddof=1))) for z in (a, b))
        values.append((factor * b.std(ddof=1)) ** 2 * (np.exp(log_t) * (log_t - log_s)).sum())
    return float(np.mean(values))


def normalised(s: Array, t: Array, y: Array, temperature: float, gamma: float) -> float:
    """Mean of −t_y log s_y − γ T² Σ_{i≠y} t̂_i log ŝ_i: NKD without its −log s_y, which is the loss on the labels."""
    values = []
    for a, b, label in zip(s, t, y, strict=True):
        others = (softmax(np.delete(z, label) / temperature) for z in (a, b))
        o_s, o_t = others
        own = -softmax(b)[label] * np.log(softmax(a)[label])
        values.append(own - gamma * temperature**2 * (o_t * np.log(o_s)).sum())
    return float(np.mean(values))


def weighted(s: Array, t: Array, y: Array, temperature: float) -> float:
    """Mean of (1 − exp(−CE_s / CE_t)) · T² · −Σ p_t log p_s, less what of it has no gradient, p_t's entropy: WSLD."""
    ce_s, ce_t = (logsumexp(z, 1) - z[np.arange(len(y)), y] for z in (s, t))
    return float(((1 - np.exp(-ce_s / ce_t)) * each_hinton(s, t, temperature)).mean())


def squared(s: Array, t: Array) -> float:
    """Mean (z_s − z_t)², the mean of a row taken off: Ba, Caruana, but for a constant that no probability knows of."""
    d = s - t
    return float(((d - d.mean(1, keepdims=True)) ** 2).mean())


def reversed_kl(s: Array, t: Array, temperature: float) -> float:
    """T² · mean KL(p_s ‖ p_t): MiniLLM's divergence."""
    return hinton(t, s, temperature)


def jensen_shannon(s: Array, t: Array, temperature: float, beta: float) -> float:
    """T² · mean of β KL(p_t ‖ m) + (1 − β) KL(p_s ‖ m), m = β p_t + (1 − β) p_s: GKD's D_JSD(β)."""
    p_s, p_t = (softmax(z / temperature, 1) for z in (s, t))
    m = np.log(beta * p_t + (1 - beta) * p_s)
    values = beta * divergence(np.log(p_t), m) + (1 - beta) * divergence(np.log(p_s), m)
    return temperature**2 * float(values.mean())


def cells(x: Array, grid: int) -> Array:
    """(B, grid², C): means of a map over cells that overlap where they do not divide it, as in adaptive pooling."""
    at = [[slice(size * i // grid, -(-size * (i + 1) // grid)) for i in range(grid)] for size in x.shape[2:]]
    return np.stack([x[:, :, row, column].mean((2, 3)) for row in at[0] for column in at[1]], 1)


def by_scale(
    s: Array,
    t: Array,
    classifiers: tuple[Weights, Weights],
    y: Array,
    scales: Sequence[int],
    each: Callable[[Array, Array, Array], Array],
) -> float:
    """Mean over all cells of all scales of w · D(logits of t's cell, logits of s's cell): SDD.

    s and t are maps, the cells' logits what a classifier makes of their means. w is 2 where the teacher is right on
    the whole image or on the cell and not on both, else 1.
    """
    parts = [np.concatenate([cells(x, grid) for grid in scales], 1) for x in (s, t)]
    z_s, z_t = (x @ w["weight"].T + w["bias"] for x, w in zip(parts, classifiers, strict=True))
    whole = cells(t, 1)[:, 0] @ classifiers[1]["weight"].T + classifiers[1]["bias"]
    total = []
    for cell in range(z_s.shape[1]):
        complementary = (z_t[:, cell].argmax(1) == y) != (whole.argmax(1) == y)
        total.append(np.where(complementary, 2, 1) * each(z_s[:, cell], z_t[:, cell], y))
    return float(np.mean(total))


def class_activations(
    s: Array, t: Array, classifiers: tuple[Weights, Weights], resolution: int, normalize: bool
) -> float:
    """Mean (A_s − A_t)², A the maps of the classes, what a classifier without bias makes of each cell: CAT-KD.

    Where `normalize`, each class's map has length 1.
    """
    maps = [cells(x, resolution) @ w["weight"].T for x, w in zip((s, t), classifiers, strict=True)]
    if normalize:
        maps = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in maps]
    return float(((maps[0] - maps[1]) ** 2).mean())
