"""Losses of whole methods from their papers' equations, in NumPy and float64: features in, connectors' weights given.

x are maps (B, C, H, W), s and t a student's and a teacher's; w are weights by name, as a state dict has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.special

Array = np.ndarray
Weights = Mapping[str, Array]


def convolved(x: Array, w: Weights, name: str) -> Array:
    """A convolution of stride 1 that keeps the size: a product over channels and shifts."""
    kernel = w[f"{name}.weight"]
    reach = kernel.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2:], axis=(2, 3))
    out = np.tensordot(seen, kernel, axes=([1, 4, 5], [1, 2, 3])).transpose(0, 3, 1, 2)
    return out + w[f"{name}.bias"][:, None, None] if f"{name}.bias" in w else out


def normed(x: Array, w: Weights, name: str) -> Array:
    """Batch norm in training: by the batch's own mean and variance."""
    axes = (0, 2, 3)
    z = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    return z * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def cross_entropy(z: Array, y: Array) -> float:
    return float((scipy.special.logsumexp(z, axis=1) - z[np.arange(len(y)), y]).mean())


def fitnet(s: Array, t: Array, w: Weights) -> float:
    """100 · mean (ReLU(BN(conv(s))) − t)²: FitNets in CRD's comparison."""
    return 100 * float(np.mean((relu(normed(convolved(s, w, "0"), w, "1")) - t) ** 2))


def boundaries(s: Sequence[Array], t: Sequence[Array], connectors: Sequence[Weights], margin: float = 1.0) -> float:
    """3/1000 · Σ_l 2^(l − L) · sum / B of the alternative loss of AB; no connector where channels are equal."""
    total = 0.0
    for level, (a, b, w) in enumerate(zip(s, t, connectors, strict=True)):
        x = normed(convolved(a, w, "0"), w, "1") if w else a
        active = (x - margin) ** 2 * ((x <= margin) & (b > 0))
        quiet = (x + margin) ** 2 * ((x > -margin) & (b <= 0))
        total += (active + quiet).sum() / len(x) / 2 ** (len(s) - 1 - level)
    return total * 3 / 1000


def overhaul(
    s: Sequence[Array],
    t: Sequence[Array],
    connectors: Sequence[Weights],
    norms: Sequence[tuple[Array, Array]],
    factor: float,
) -> float:
    """factor · Σ_l 2^(l − L) · sum / B of OFD's partial distance; norms are (γ, β) before each teacher's ReLU."""
    total = 0.0
    for level, (a, b, w, (gamma, beta)) in enumerate(zip(s, t, connectors, norms, strict=True)):
        m = np.array([response(abs(g), mean) for g, mean in zip(gamma, beta, strict=True)])[:, None, None]
        target = np.maximum(b, m)
        x = normed(convolved(a, w, "0"), w, "1")
        distance = (x - target) ** 2 * ((x > target) | (target > 0))
        total += distance.sum() / len(x) / 2 ** (len(s) - 1 - level)
    return factor * total


def response(sigma: float, mean: float) -> float:
    """E[x | x < 0] of a normal x; −3σ where x is negative less than once in 1000."""
    below = scipy.special.ndtr(-mean / sigma)
    if below <= 1e-3:
        return -3 * sigma
    density = np.exp(-((mean / sigma) ** 2) / 2) / np.sqrt(2 * np.pi)
    return float(mean - sigma * density / below)


def correlations(s: Array, t: Array, w: Weights) -> float:
    """2.5 · ‖Ĝ_s − Ĝ_t‖² / (B C): ICKD, the student's map behind a convolution and batch norm."""
    grams = []
    for x in (normed(convolved(s, w, "0"), w, "1"), t):
        flat = x.reshape(*x.shape[:2], -1)
        gram = flat @ flat.transpose(0, 2, 1)
        grams.append(gram / np.maximum(np.linalg.norm(gram, axis=2, keepdims=True), 1e-12))
    return 2.5 * float(((grams[0] - grams[1]) ** 2).sum() / (t.shape[0] * t.shape[1]))


def masked(s: Array, t: Array, w: Weights, shown: Array, factor: float) -> float:
    """factor · sum (G(align(s) · M) − t)² / B: MGD with masked channels; align only where channels differ."""
    x = convolved(s, w, "align") if "align.weight" in w else s
    made = convolved(relu(convolved(x * shown, w, "generate.0")), w, "generate.2")
    return factor * float(((made - t) ** 2).sum() / len(t))


def variational(s: Sequence[Array], t: Sequence[Array], losses: Sequence[Weights]) -> float:
    """Σ_l mean ½ [(μ(s) − t)² / σ² + log σ²], μ three convolutions without bias: VID."""
    total = 0.0
    for a, b, w in zip(s, t, losses, strict=True):
        assert not any(name.endswith("bias") for name in w)
        mean = convolved(relu(convolved(relu(convolved(a, w, "mean.0")), w, "mean.2")), w, "mean.4")
        variance = (np.log1p(np.exp(w["rho"])) + 1e-5)[:, None, None]
        total += float(np.mean(((mean - b) ** 2 / variance + np.log(variance)) / 2))
    return total


def review(s: Sequence[Array], t: Sequence[Array], w: Weights, weight: float) -> float:
    """weight · Σ_l HCL(fused s_l, t_l), from the pooled vectors (1×1 maps) up: ReviewKD."""
    total, behind = 0.0, None
    for level in reversed(range(len(s))):
        x = normed(convolved(s[level], w, f"project.{level}.0"), w, f"project.{level}.1")
        if behind is not None:
            behind = resized(behind, x.shape[2])
            gates = 1 / (1 + np.exp(-convolved(np.concatenate([x, behind], 1), w, f"attend.{level}")))
            x = x * gates[:, :1] + behind * gates[:, 1:]
        behind = resized(x, t[level].shape[2])
        made = normed(convolved(behind, w, f"restore.{level}.0"), w, f"restore.{level}.1")
        total += hierarchical(made, t[level])
    return weight * total


def hierarchical(x: Array, t: Array) -> float:
    loss, norm, share = float(np.mean((x - t) ** 2)), 1.0, 1.0
    for size in (4, 2, 1):
        if size < x.shape[2]:
            share /= 2
            loss += share * float(np.mean((pooled(x, size) - pooled(t, size)) ** 2))
            norm += share
    return loss / norm


def resized(x: Array, size: int) -> Array:
    """By the nearest neighbour, to a multiple or a divisor of the size."""
    at = np.arange(size) * x.shape[2] // size
    return x[:, :, at][:, :, :, at]


def pooled(x: Array, size: int) -> Array:
    """The mean of equal squares."""
    side = x.shape[2] // size
    return x.reshape(*x.shape[:2], size, side, size, side).mean((3, 5))


def regression(s: Array, t: Array, w: Weights, classifier: Weights) -> float:
    """mean (f_s − f_t)² + mean (h(f_s) − h(f_t))² of pooled maps, the student's behind conv, BN, ReLU: SRRL."""
    f_s, f_t = relu(normed(convolved(s, w, "0"), w, "1")).mean((2, 3)), t.mean((2, 3))
    h_s, h_t = (f @ classifier["weight"].T + classifier["bias"] for f in (f_s, f_t))
    return float(np.mean((f_s - f_t) ** 2) + np.mean((h_s - h_t) ** 2))


def reused(s: Array, t: Array, w: Weights) -> float:
    """mean (P(s) − t)²: SimKD, P three convolutions with batch norm and ReLU; the larger map is pooled."""
    size = min(s.shape[2], t.shape[2])
    x = pooled(s, size)
    for conv, norm in (("0", "1"), ("3", "4"), ("6", "7")):
        x = relu(normed(convolved(x, w, conv), w, norm))
    return float(np.mean((x - pooled(t, size)) ** 2))


def attention(s: Sequence[Array], t: Sequence[Array]) -> float:
    """1000 · Σ_l mean (â_s − â_t)²: AT, no connector."""
    total = 0.0
    for a, b in zip(s, t, strict=True):
        x, y = ((f**2).mean(1).reshape(len(f), -1) for f in (a, b))
        x, y = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (x, y))
        total += float(np.mean((x - y) ** 2))
    return 1000 * total


def selectivity(s: Sequence[Array], t: Sequence[Array]) -> float:
    """50 · Σ_l MMD² with the kernel (xᵀy)² of channels of length 1: NST."""
    total = 0.0
    for a, b in zip(s, t, strict=True):
        x, y = (f.reshape(*f.shape[:2], -1) for f in (a, b))
        x, y = (f / np.maximum(np.linalg.norm(f, axis=2, keepdims=True), 1e-12) for f in (x, y))
        kernel = [np.mean((p @ q.transpose(0, 2, 1)) ** 2) for p, q in ((x, x), (y, y), (x, y))]
        total += kernel[0] + kernel[1] - 2 * kernel[2]
    return 50 * float(total)


def factors(s: Array, t: Array, w: Weights) -> float:
    """500 · mean |F̂_s − F̂_t|, each sample's factors as one vector of length 1: FT."""
    made = []
    for x, name in ((s, "translator"), (t, "paraphraser.encode")):
        for layer in (0, 2, 4):
            x = convolved(x, w, f"{name}.{layer}")
            x = np.where(x > 0, x, 0.1 * x)
        flat = x.reshape(len(x), -1)
        made.append(flat / np.linalg.norm(flat, axis=1, keepdims=True))
    return 500 * float(np.mean(np.abs(made[0] - made[1])))


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


def flows(s: Sequence[Array], t: Sequence[Array]) -> float:
    """50 · Σ over steps of mean (G_s − G_t)², G = Σ_hw F¹ᵀ F² / (h w), the larger map pooled: FSP."""
    total = 0.0
    for first in range(0, len(s), 2):
        made = []
        for maps in (s, t):
            a, b = maps[first], maps[first + 1]
            size = min(a.shape[2], b.shape[2])
            made.append(np.einsum("bchw,bdhw->bcd", pooled(a, size), pooled(b, size)) / size**2)
        total += float(np.mean((made[0] - made[1]) ** 2))
    return 50 * total


def channels_apart(s: Array, t: Array, temperature: float = 4.0) -> float:
    """50 · T² / C · Σ_c Σ_i φ(t) log(φ(t) / φ(s)), φ over the positions of a channel: CWD."""
    log_s, log_t = (
        f - scipy.special.logsumexp(f, axis=2, keepdims=True)
        for f in (x.reshape(*x.shape[:2], -1) / temperature for x in (s, t))
    )
    return 50 * temperature**2 * float((np.exp(log_t) * (log_t - log_s)).sum() / (s.shape[0] * s.shape[1]))


def uncorrelated(s: Array, t: Array) -> float:
    """6 · mean over channels of 1 − r, r over batch and positions: PKD; r is 1 where both are constant, 0 where one."""
    total = 0.0
    for channel in range(s.shape[1]):
        x, y = s[:, channel].ravel(), t[:, channel].ravel()
        constant = (np.ptp(x) == 0, np.ptp(y) == 0)
        total += 1 - (float(all(constant)) if any(constant) else np.corrcoef(x, y)[0, 1])
    return 6 * total / s.shape[1]


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
