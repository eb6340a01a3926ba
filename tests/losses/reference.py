"""The losses again, in NumPy and float64, straight from the formulas of their papers.

Nothing here is fast, and nothing here knows the code under test.
"""

from __future__ import annotations

import math

import numpy as np


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def unit(x, axis=-1):
    return x / np.sqrt((x**2).sum(axis, keepdims=True))


def pearson_r(x, y):
    return np.corrcoef(x, y)[0, 1]


# Response: distributions p_t and p_s at every position of every sample.


def standardized(x):
    return (x - x.mean(-1, keepdims=True)) / (x.std(-1, ddof=1, keepdims=True) + 1e-7)


def classes_last(x):
    """(B, P, C)."""
    if x.ndim == 2:
        return x[:, None]
    return x if x.ndim == 3 else np.moveaxis(x.reshape(*x.shape[:2], -1), 1, 2)


def completed(log_probs, indices, classes, temperature):
    """Top-k as a full distribution, the rest spread evenly, then softened: p^(1/T) renormalised."""
    full = np.empty((*log_probs.shape[:-1], classes))
    for at in np.ndindex(log_probs.shape[:-1]):
        p = np.exp(log_probs[at])
        full[at] = (1 - p.sum()) / max(classes - len(p), 1)
        full[at][indices[at]] = p
    full = full ** (1 / temperature)
    return full / full.sum(-1, keepdims=True)


def merged(p, indices):
    """The named classes, and the sum of all others behind them."""
    out = np.empty((*indices.shape[:-1], indices.shape[-1] + 1))
    for at in np.ndindex(indices.shape[:-1]):
        out[at][:-1] = p[at][indices[at]]
        out[at][-1] = np.delete(p[at], indices[at]).sum()
    return out


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def _distributions(student, teacher, temperature, of_teacher, standardize, rest):
    s = classes_last(student)
    if isinstance(teacher, tuple):
        log_probs, indices = (classes_last(x) for x in teacher)
        p_s, p_t = softmax(s / temperature), completed(log_probs, indices, s.shape[-1], of_teacher)
        return (p_s, p_t) if rest == "spread" else (merged(p_s, indices), merged(p_t, indices))
    t = classes_last(teacher)
    if standardize:
        s, t = standardized(s), standardized(t)
    return softmax(s / temperature), softmax(t / of_teacher)


def averaged(values, targets, ignore_index, average):
    """A sample's mean over the positions that count; or its sum, in units of the batch's positions per sample."""
    kept = np.ones(values.shape, bool) if ignore_index is None else targets.reshape(values.shape) != ignore_index
    sums = np.where(kept, values, 0).sum(1)
    if average == "positions":
        return sums * len(values) / max(kept.sum(), 1)
    return sums / np.maximum(kept.sum(1), 1)


def _divergence(of):
    def loss(
        student,
        teacher,
        *,
        temperature=4.0,
        teacher_temperature=None,
        scale=True,
        standardize=False,
        targets=None,
        ignore_index=None,
        chunk=None,
        rest="bucket",
        average="samples",
        **options,
    ):
        of_teacher = teacher_temperature or temperature
        p_s, p_t = _distributions(student, teacher, temperature, of_teacher, standardize, rest)
        values = of(p_s, p_t, **options) * (temperature * of_teacher if scale else 1)
        return averaged(values, targets, ignore_index, average)

    return loss


def _jsd(p_s, p_t, beta=0.5):
    if beta in (0, 1):
        return kl(p_s, p_t) if beta == 1 else kl(p_t, p_s)
    m = beta * p_t + (1 - beta) * p_s
    return beta * kl(p_t, m) + (1 - beta) * kl(p_s, m)


kd = _divergence(lambda p_s, p_t: kl(p_t, p_s))
reverse_kl = _divergence(lambda p_s, p_t: kl(p_s, p_t))
soft_cross_entropy = _divergence(lambda p_s, p_t: -(p_t * np.log(p_s)).sum(-1))
entropy = _divergence(lambda p_s, p_t: -(p_t * np.log(p_t)).sum(-1))
jsd = _divergence(_jsd)


def _skewed(p_s, p_t, alpha=0.1, reverse=False):
    p, q = (p_s, p_t) if reverse else (p_t, p_s)
    return kl(p, alpha * p + (1 - alpha) * q)


def at_one(loss):
    """With the temperature of 1 where none is given."""
    return lambda *tensors, temperature=1.0, **options: loss(*tensors, temperature=temperature, **options)


skewed_kl = at_one(_divergence(_skewed))
total_variation = at_one(_divergence(lambda p_s, p_t: np.abs(p_s - p_t).sum(-1) / 2))


def sigmoid_kd(student, teacher, *, temperature=1.0, scale=True):
    s, t = (1 / (1 + np.exp(-x / temperature)) for x in (student, teacher))
    each = t * np.log(t / s) + (1 - t) * np.log((1 - t) / (1 - s))
    return each.mean(1) * (temperature**2 if scale else 1)


def bounded_regression(student, teacher, *, targets, margin=0.0):
    values = []
    for s, t, y in zip(student, teacher, targets, strict=True):
        own, bound = np.mean((s - y) ** 2), np.mean((t - y) ** 2)
        values.append(own if own + margin > bound else 0.0)
    return np.array(values)


def dkd(
    student,
    teacher,
    *,
    targets,
    temperature=4.0,
    target_weight=1.0,
    nontarget_weight=8.0,
    standardize=False,
):
    if standardize:
        student, teacher = standardized(student), standardized(teacher)
    values = []
    for s, t, y in zip(softmax(student / temperature), softmax(teacher / temperature), targets, strict=True):
        b_s, b_t = np.array([s[y], 1 - s[y]]), np.array([t[y], 1 - t[y]])
        n_s, n_t = np.delete(s, y) / (1 - s[y]), np.delete(t, y) / (1 - t[y])
        values.append(temperature**2 * (target_weight * kl(b_t, b_s) + nontarget_weight * kl(n_t, n_s)))
    return np.array(values)


def nkd(student, teacher, *, targets, temperature=3.0, nontarget_weight=3.5):
    values = []
    for s, t, y in zip(student, teacher, targets, strict=True):
        s1, t1, s_soft, t_soft = softmax(s), softmax(t), softmax(s / temperature), softmax(t / temperature)
        n_s, n_t = np.delete(s_soft, y) / (1 - s_soft[y]), np.delete(t_soft, y) / (1 - t_soft[y])
        other = -(n_t * np.log(n_s)).sum()
        values.append(-t1[y] * np.log(s1[y]) + nontarget_weight * temperature**2 * other)
    return np.array(values)


def dist(student, teacher, *, temperature=1.0, inter_weight=1.0, intra_weight=1.0):
    s, t = softmax(student / temperature), softmax(teacher / temperature)

    def rho(a, b):
        """Pearson's, with the 1e-8 of the authors' code beside the lengths."""
        a, b = a - a.mean(), b - b.mean()
        return (a * b).sum() / (np.sqrt((a**2).sum()) * np.sqrt((b**2).sum()) + 1e-8)

    inter = np.mean([1 - rho(a, b) for a, b in zip(s, t, strict=True)])
    intra = np.mean([1 - rho(a, b) for a, b in zip(s.T, t.T, strict=True)])
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


def mlkd(
    student,
    teacher,
    *,
    temperatures=(2.0, 3.0, 4.0, 5.0, 6.0),
    instance_weight=1.0,
    batch_weight=1.0,
    class_weight=1.0,
    standardize=False,
):
    total, (b, c) = 0.0, student.shape
    own = (standardized(student), standardized(teacher)) if standardize else (student, teacher)
    for temperature in temperatures:
        s, t = (softmax(x / temperature) for x in own)
        total += instance_weight * temperature**2 * kl(t, s).sum() / b
        s, t = softmax(student / temperature), softmax(teacher / temperature)
        total += batch_weight * ((s @ s.T - t @ t.T) ** 2).sum() / b
        total += class_weight * ((s.T @ s - t.T @ t) ** 2).sum() / c
    return total


def wsld(student, teacher, *, targets, temperature=2.0, decided_by=None):
    """`decided_by` are the logits that set the weight, where these are not the ones that move."""
    deciding = student if decided_by is None else decided_by
    rows = np.arange(len(targets))
    ce_s, ce_t = (-np.log(softmax(x)[rows, targets]) for x in (deciding, teacher))
    soft = kl(softmax(teacher / temperature), softmax(student / temperature))
    return (1 - np.exp(-ce_s / ce_t)) * temperature**2 * soft


def wttm(student, teacher, *, temperature=5.0):
    """U(p_t) · KL of the power transform with exponent γ."""
    gamma = 1 / temperature
    values = []
    for s, t in zip(softmax(student), softmax(teacher), strict=True):
        total = (t**gamma).sum()
        values.append(total * kl(t**gamma / total, s))
    return np.array(values)


def normkd(student, teacher, *, temperature=2.0):
    values = []
    for s, t in zip(student, teacher, strict=True):
        of_student, of_teacher = temperature * s.std(ddof=1), temperature * t.std(ddof=1)
        values.append(kl(softmax(t / of_teacher), softmax(s / of_student)) * of_teacher**2)
    return np.array(values)


def ctkd(student, teacher, *, epoch, state):
    """The value does not depend on the epoch, only the gradient of θ does."""
    temperature = 1 + 20 / (1 + np.exp(-state["theta"]))
    return kd(student, teacher, temperature=temperature)


def hard_label(student, teacher, *, targets=None, ignore_index=None, average="samples"):
    p, chosen = softmax(classes_last(student)), classes_last(teacher).argmax(-1)
    values = -np.log(np.take_along_axis(p, chosen[..., None], -1))[..., 0]
    return averaged(values, targets, ignore_index, average)


def logit_mse(student, teacher, *, targets=None, ignore_index=None, average="samples"):
    s, t = (x - x.mean(-1, keepdims=True) for x in (classes_last(student), classes_last(teacher)))
    return averaged(((s - t) ** 2).mean(2), targets, ignore_index, average)


def probability_mse(student, teacher, *, targets=None, ignore_index=None, average="samples"):
    s, t = (softmax(classes_last(x)) for x in (student, teacher))
    return averaged(((s - t) ** 2).mean(2), targets, ignore_index, average)


# Feature


def by_sample(x):
    return x.reshape(len(x), -1)


def mse(student, teacher):
    return by_sample((student - teacher) ** 2).mean(1)


def l1(student, teacher):
    return by_sample(abs(student - teacher)).mean(1)


def smooth_l1(student, teacher, *, threshold=1.0):
    d = abs(student - teacher)
    return by_sample(np.where(d < threshold, d**2 / (2 * threshold), d - threshold / 2)).mean(1)


def cosine(student, teacher):
    return 1 - (unit(by_sample(student)) * unit(by_sample(teacher))).sum(1)


def pooled(x, height, width):
    """Each output position is the mean of the input positions that it overlaps."""
    out = np.empty((*x.shape[:2], height, width))
    for i in range(height):
        for j in range(width):
            rows = slice(i * x.shape[2] // height, -(-(i + 1) * x.shape[2] // height))
            columns = slice(j * x.shape[3] // width, -(-(j + 1) * x.shape[3] // width))
            out[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
    return out


def to_smaller(a, b):
    size = [min(a.shape[i], b.shape[i]) for i in (2, 3)]
    return pooled(a, *size), pooled(b, *size)


def attention(student, teacher):
    s, t = (unit(by_sample((f**2).mean(1))) for f in to_smaller(student, teacher))
    return ((s - t) ** 2).mean(1)


def channel(student, teacher, *, temperature=4.0):
    s, t = (softmax(f.reshape(*f.shape[:2], -1) / temperature) for f in (student, teacher))
    return temperature**2 * kl(t, s).mean(1)


def pearson(student, teacher):
    s, t = (np.moveaxis(f, 1, 0).reshape(f.shape[1], -1) for f in (student, teacher))
    return np.mean([1 - pearson_r(a, b) for a, b in zip(s, t, strict=True)])


def simkd(student, teacher):
    return mse(*to_smaller(student, teacher))


def nst(student, teacher):
    values = []
    for s, t in zip(*to_smaller(student, teacher), strict=True):
        s, t = unit(s.reshape(len(s), -1)), unit(t.reshape(len(t), -1))
        mean = [np.mean([[(a @ b) ** 2 for a in x] for b in y]) for x, y in ((t, t), (s, s), (s, t))]
        values.append(mean[0] + mean[1] - 2 * mean[2])
    return np.array(values)


def fsp(student, teacher):
    def flow(first, second):
        a, b = to_smaller(first, second)
        return np.einsum("bihw,bjhw->bij", a, b) / (a.shape[2] * a.shape[3])

    return ((flow(*student) - flow(*teacher)) ** 2).mean((1, 2))


def activation_boundary(student, teacher, *, margin=1.0):
    wrong = np.where(teacher > 0, np.maximum(margin - student, 0), np.maximum(margin + student, 0))
    return by_sample(wrong**2).mean(1)


def margin_relu(student, teacher, *, margin=None):
    if margin is None:
        margin = np.array([f[f < 0].mean() for f in np.moveaxis(teacher, 1, 0)])
    target = np.maximum(teacher, np.reshape(margin, (1, -1, 1, 1)))
    free = (student <= target) & (target <= 0)
    return by_sample(np.where(free, 0, (student - target) ** 2)).mean(1)


def factor(student, teacher):
    return abs(unit(by_sample(student)) - unit(by_sample(teacher))).mean(1)


def srrl(student, teacher, *, weight, bias):
    s, t = (f.mean((2, 3)) for f in (student, teacher))
    return mse(s, t) + mse(s @ weight.T + bias, t @ weight.T + bias)


def cell_means(feature, scale):
    """(B, scale², C), row by row."""
    return np.moveaxis(pooled(feature, scale, scale).reshape(*feature.shape[:2], -1), 1, 2)


def sdd(
    student,
    teacher,
    *,
    targets,
    of_student,
    of_teacher,
    bias,
    scales=(1, 2, 4),
    complement_weight=2.0,
    base="kd",
    temperature=4.0,
):
    whole = (teacher.mean((2, 3)) @ of_teacher.T + bias[1]).argmax(1) == targets
    values, cells = np.zeros(len(student)), 0
    for scale in scales:
        s, t = cell_means(student, scale) @ of_student.T + bias[0], cell_means(teacher, scale) @ of_teacher.T + bias[1]
        for cell in range(scale**2):
            if base == "dkd":
                apart = dkd(s[:, cell], t[:, cell], targets=targets, temperature=temperature)
            else:
                apart = kd(s[:, cell], t[:, cell], temperature=temperature)
            right = t[:, cell].argmax(1) == targets
            values += np.where(right == whole, 1, complement_weight) * apart
            cells += 1
    return values / cells


def catkd(student, teacher, *, targets, of_student, of_teacher, bias, resolution=2, normalize=True):
    """From the whole class activation maps, which are averaged over cells behind."""
    maps = []
    for feature, weight in ((student, of_student), (teacher, of_teacher)):
        activation = pooled(np.einsum("kc,bchw->bkhw", weight, feature), resolution, resolution)
        activation = activation.reshape(*activation.shape[:2], -1)
        maps.append(unit(activation) if normalize else activation)
    return ((maps[0] - maps[1]) ** 2).mean((1, 2))


def wkd_f(student, teacher, *, mean_weight=4.0, grid=1):
    def gaussian(feature, row, column):
        (top, bottom), (left, right) = (
            (math.floor(at * size / grid), math.ceil((at + 1) * size / grid))
            for at, size in zip((row, column), feature.shape[2:], strict=True)
        )
        cell = feature[:, :, top:bottom, left:right].reshape(*feature.shape[:2], -1)
        return cell.mean(2), np.sqrt(cell.var(2, ddof=1) + 1e-5)

    total = 0.0
    for row, column in np.ndindex(grid, grid):
        (mean_s, std_s), (mean_t, std_t) = gaussian(student, row, column), gaussian(teacher, row, column)
        total = total + mean_weight * ((mean_s - mean_t) ** 2).sum(1) + ((std_s - std_t) ** 2).sum(1)
    return total / grid**2


# Relation


def similarity(student, teacher):
    s, t = (unit(by_sample(f) @ by_sample(f).T) for f in (student, teacher))
    return ((s - t) ** 2).sum() / len(s) ** 2


def rkd(student, teacher, *, distance_weight=25.0, angle_weight=50.0):
    s, t = by_sample(student), by_sample(teacher)
    n = len(s)

    def distances(f):
        d = np.array([[np.linalg.norm(f[i] - f[j]) for j in range(n)] for i in range(n)])
        return d / d[d > 0].mean()

    def angles(f):
        a = np.zeros((n, n, n))
        for i, j, k in np.ndindex(n, n, n):
            if i not in (j, k):
                a[i, j, k] = unit(f[j] - f[i]) @ unit(f[k] - f[i])
        return a

    def huber(x):
        return np.where(abs(x) < 1, x**2 / 2, abs(x) - 0.5).mean()

    return distance_weight * huber(distances(s) - distances(t)) + angle_weight * huber(angles(s) - angles(t))


def pkt(student, teacher):
    def neighbours(f):
        k = (unit(f) @ unit(f).T + 1) / 2
        return k / k.sum(1, keepdims=True)

    s, t = neighbours(by_sample(student)), neighbours(by_sample(teacher))
    return (t * np.log((t + 1e-7) / (s + 1e-7))).mean()


def correlation(student, teacher, *, gamma=0.4, order=2):
    def kernel(f):
        c = unit(by_sample(f)) @ unit(by_sample(f)).T
        return sum(math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) * c**p for p in range(order + 1))

    return ((kernel(student) - kernel(teacher)) ** 2).mean()


def in_batch_similarity(student, teacher):
    s, t = (unit(by_sample(f)) @ unit(by_sample(f)).T for f in (student, teacher))
    pairs = [(i, j) for i in range(len(s)) for j in range(len(s)) if i != j]
    return sum((s[i, j] - t[i, j]) ** 2 for i, j in pairs) / len(pairs)


def margin_mse(student, teacher):
    def margins(x):
        if isinstance(x, tuple):
            query, *texts = x
            x = np.stack([[q @ p for q, p in zip(query, text, strict=True)] for text in texts], 1)
        return np.stack([x[:, 0] - x[:, k] for k in range(1, x.shape[1])], 1)

    return ((margins(student) - margins(teacher)) ** 2).mean(1)


def channel_correlation(student, teacher):
    s, t = (f.reshape(*f.shape[:2], -1) for f in (student, teacher))
    g_s, g_t = (unit(f @ f.transpose(0, 2, 1)) for f in (s, t))
    return ((g_s - g_t) ** 2).sum((1, 2)) / s.shape[1]


# Losses with layers: `state` holds their parameters and buffers by name.


def convolution(x, state, name):
    """Stride 1, zeros around, so that the size stays."""
    weight = state[f"{name}.weight"]
    size = weight.shape[2]
    edge = size // 2
    padded = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    out = np.zeros((len(x), len(weight), *x.shape[2:]))
    for i in range(size):
        for j in range(size):
            seen = padded[:, :, i : i + x.shape[2], j : j + x.shape[3]]
            out += np.einsum("oc,bchw->bohw", weight[:, :, i, j], seen)
    return out + state.get(f"{name}.bias", np.zeros(len(weight)))[None, :, None, None]


def batch_norm(x, state, name):
    """In eval mode."""
    mean, var, weight, bias = (
        state[f"{name}.{k}"][None, :, None, None] for k in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def vid(student, teacher, *, state):
    s, t = to_smaller(student, teacher)
    hidden = np.maximum(convolution(s, state, "mean.0"), 0)
    hidden = np.maximum(convolution(hidden, state, "mean.2"), 0)
    variance = (np.log1p(np.exp(state["rho"])) + 1e-5)[None, :, None, None]
    error = (convolution(hidden, state, "mean.4") - t) ** 2
    return by_sample((error / variance + np.log(variance)) / 2).mean(1)


def vkd(student, teacher, *, state):
    """The exponential of the skew-symmetric matrix by its series."""
    below = np.tril(state["below"], -1)
    skew = below - below.T
    turn, power = np.eye(len(skew)), np.eye(len(skew))
    for n in range(1, 40):
        power = power @ skew / n
        turn = turn + power
    start = state["start"]
    projection = turn @ start if len(start) == len(turn) else start @ turn
    normal = (teacher - teacher.mean(1, keepdims=True)) / np.sqrt(teacher.var(1, keepdims=True) + 1e-5)
    off = abs(student @ projection.T - normal)
    return np.where(off < 1, off**2 / 2, off - 0.5).mean(1)


def mgd(student, teacher, *, state):
    """In eval mode: nothing masked."""
    s, t = to_smaller(student, teacher)
    hidden = np.maximum(convolution(convolution(s, state, "align"), state, "generate.0"), 0)
    return mse(convolution(hidden, state, "generate.2"), t)


def convolutions(x, state, name):
    for layer in (0, 2, 4):
        x = convolution(x, state, f"{name}.{layer}")
        x = np.where(x > 0, x, 0.1 * x)
    return x


def factor_transfer(student, teacher, *, state, reconstruction_weight=1.0, term_weight=1.0):
    s, t = to_smaller(student, teacher)
    factors = convolutions(t, state, "paraphraser.encode")
    reconstruction = l1(convolutions(factors, state, "paraphraser.decode"), t)
    transfer = factor(convolutions(s, state, "translator"), factors)
    return transfer + reconstruction_weight / term_weight * reconstruction


def nearest(x, height, width):
    rows = [i * x.shape[2] // height for i in range(height)]
    columns = [j * x.shape[3] // width for j in range(width)]
    return x[:, :, rows][:, :, :, columns]


def review(student, teacher, *, state):
    """In eval mode."""

    def block(x, name):
        return batch_norm(convolution(x, state, f"{name}.0"), state, f"{name}.1")

    total, behind = 0.0, None
    for stage in reversed(range(len(student))):
        x = block(student[stage], f"project.{stage}")
        if behind is not None:
            behind = nearest(behind, *x.shape[2:])
            logits = convolution(np.concatenate([x, behind], 1), state, f"attend.{stage}")
            a, b = np.moveaxis(1 / (1 + np.exp(-logits)), 1, 0)
            x = x * a[:, None] + behind * b[:, None]
        t = teacher[stage]
        behind = nearest(x, *t.shape[2:])
        out = block(behind, f"restore.{stage}")
        # The map itself and its pooled versions, each with half the weight of the one before.
        sizes = [size for size in (4, 2, 1) if size < t.shape[2]]
        levels = [mse(out, t), *(mse(pooled(out, n, n), pooled(t, n, n)) for n in sizes)]
        weights = [2.0**-level for level in range(len(levels))]
        total = total + sum(w * v for w, v in zip(weights, levels, strict=True)) / sum(weights)
    return total


def crd(student, teacher, *, targets, index, state, drawn, negatives, temperature=0.07):
    """With h = e / (e + K/N) written out; negatives of an own class are left out, the others weighed up to K."""
    labels = state["labels"].copy()
    labels[index] = targets
    n = len(labels)
    sides = (("embed_s", student, "memory_t", 0), ("embed_t", teacher, "memory_s", 1))
    values = np.zeros(len(targets))
    for name, f, memory, side in sides:
        embedded = unit(f @ state[f"{name}.weight"].T + state[f"{name}.bias"])
        z = math.exp(state["log_z"][side])
        for i, v in enumerate(embedded):
            e = np.exp(state[memory] @ v / temperature) / z
            h = e / (e + negatives / n)
            others = [d for d in drawn if labels[d] != targets[i]]
            missed = -sum(math.log(1 - h[d]) for d in others)
            values[i] += -math.log(h[index[i]]) + missed * negatives / max(len(others), 1)
    return values
