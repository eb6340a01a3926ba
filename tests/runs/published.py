"""Losses of whole methods from their papers' equations, in NumPy and float64: features in, connectors' weights given.

x are maps (B, C, H, W), s and t a student's and a teacher's; w are weights by name, as a state dict has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.linalg
import scipy.special
from published_relations import huber

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


def regressed(s: Array, w: Weights) -> Array:
    """ReLU(BN(conv(s))): the regressor of CRD's comparison and of mdistiller, for maps of one size."""
    return relu(normed(convolved(s, w, "0"), w, "1"))


def fitnet(s: Array, t: Array, w: Weights, weight: float = 100.0) -> float:
    """weight · mean (r(s) − t)², r a regressor: FitNets, with the weight of CRD's comparison."""
    return weight * float(np.mean((regressed(s, w) - t) ** 2))


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
    f_s, f_t = regressed(s, w).mean((2, 3)), t.mean((2, 3))
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


def gaussians(s: Array, t: Array, w: Weights, mean_weight: float = 4.0) -> float:
    """0.006 · mean over samples of γ ‖μ_s − μ_t‖² + ‖σ_s − σ_t‖², μ and σ of a channel's positions: WKD-F.

    γ is MEAN_COV_RATIO, σ² is unbiased and has EPS 1e-5 added; the student's map is behind a regressor.
    """
    (mean_s, std_s), (mean_t, std_t) = (
        (x.mean((2, 3)), np.sqrt(x.var((2, 3), ddof=1) + 1e-5)) for x in (regressed(s, w), t)
    )
    return 6e-3 * float((mean_weight * (mean_s - mean_t) ** 2 + (std_s - std_t) ** 2).sum() / len(s))


def projected(s: Array, t: Array, w: Weights) -> float:
    """Mean Huber distance of P f_s and f_t as a layer norm without weights leaves it, Pᵀ P = 1: VkD.

    P turns the orthogonal matrix that the projection starts from by exp(A), A skew-symmetric with A below its diagonal.
    """
    below = np.tril(w["below"], -1)
    p = scipy.linalg.expm(below - below.T) @ w["start"]
    assert np.allclose(p.T @ p, np.eye(p.shape[1]), atol=1e-5)
    f_s, f_t = (x.mean((2, 3)) for x in (s, t))
    target = (f_t - f_t.mean(1, keepdims=True)) / np.sqrt(f_t.var(1, keepdims=True) + 1e-5)
    return huber(f_s @ p.T - target)
