"""The losses against the straightforward form in which they are published: time and peak extra memory.

    python -m benchmarks losses

Time is of one forward and backward pass: both forms by turns, the medians, and their ratio (below 1: limbeck is
faster), on one thread, since threads on shared cores wait for each other's turn. First come all losses that have a
published form, at the sizes of CIFAR; mse, l1, smooth_l1, simkd and hard_label stand against one built-in kernel that
gives a scalar, and once more ("by sample") against the same kernel where it gives a value for each sample, as limbeck
does. Then come those in which large tensors can be spared, with their memory: what a pass needs beyond its inputs, at
its peak, in a fresh process for each form. On a CPU that is how far the high-water mark of the resident set (VmHWM of
/proc/self/status: Linux only) rises above the resident set before the pass; on a GPU it is that of
`torch.cuda.max_memory_allocated`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import published
from limbeck import losses

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CRD_SAMPLES, CRD_NEGATIVES, CRD_CLASSES = 50_000, 16_384, 100
MOVE_EVERY = 20
"""Turns with the same tensors."""
COMMON_SAMPLING_MS = 0.56
"""What the common form of CRD's sampling takes for one sample, as measured for the issue."""

Pass = published.Pass
# With one thread the time that the thread itself worked is the time of a quiet machine; a GPU's is waited for.
clock = time.thread_time if DEVICE == "cpu" else time.perf_counter


@dataclass(frozen=True)
class Contest:
    """One loss in two forms on the same inputs."""

    shape: tuple[int, ...]
    ours: Pass
    published: Pass
    dtype: torch.dtype = torch.float32
    turns: int = 9

    def inputs(self) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        # Drawn in their own dtype: a detour over fp32 would raise the high-water mark.
        student, teacher = (torch.empty(self.shape, dtype=self.dtype, device=DEVICE).normal_() for _ in range(2))
        return student.requires_grad_(), teacher


def published_segmentation_kd(student: Tensor, teacher: Tensor) -> Tensor:
    kl = F.kl_div(F.log_softmax(student / 4, dim=1), F.softmax(teacher / 4, dim=1), reduction="none")
    return kl.sum(1).mean() * 16


def published_nst(student: Tensor, teacher: Tensor) -> Tensor:
    s, t = (F.normalize(f.flatten(2), dim=2) for f in (student, teacher))

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x.unsqueeze(1) * y.unsqueeze(2)).sum(-1).square()

    return kernel(t, t).mean() + kernel(s, s).mean() - 2 * kernel(s, t).mean()


def published_fsp(student: Tensor, teacher: Tensor) -> Tensor:
    def flow(f: Tensor) -> Tensor:
        a, b = f.flatten(2).chunk(2, 1)
        return (a.unsqueeze(2) * b.unsqueeze(1)).mean(-1)

    return (flow(student) - flow(teacher)).square().mean()


def our_fsp(student: Tensor, teacher: Tensor) -> Tensor:
    (s_1, s_2), (t_1, t_2) = student.chunk(2, 1), teacher.chunk(2, 1)
    return losses.fsp((s_1, s_2), (t_1, t_2))


def published_rkd(student: Tensor, teacher: Tensor) -> Tensor:
    def distances(f: Tensor) -> Tensor:
        squares = f.square().sum(1)
        d = (squares[:, None] + squares[None, :] - 2 * f @ f.T).clamp(min=1e-12).sqrt()
        d = d * (1 - torch.eye(len(f), device=f.device))
        return d / d[d > 0].mean()

    def angles(f: Tensor) -> Tensor:
        edges = F.normalize(f[None, :, :] - f[:, None, :], dim=2)
        return edges @ edges.mT

    with torch.no_grad():
        d_t, a_t = distances(teacher), angles(teacher)
    return 25 * F.smooth_l1_loss(distances(student), d_t) + 50 * F.smooth_l1_loss(angles(student), a_t)


class PublishedCRD:
    """Negatives by numpy.random.choice for each sample; (B, K + 1, d) gathers from both memories."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.labels = np.arange(CRD_SAMPLES) % CRD_CLASSES
        self.others = [np.flatnonzero(self.labels != c) for c in range(CRD_CLASSES)]
        self.embed = [torch.nn.Linear(256, 128).to(DEVICE) for _ in range(2)]
        self.memory = [F.normalize(torch.randn(CRD_SAMPLES, 128, device=DEVICE), dim=1) for _ in range(2)]

    def sample(self, index: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        drawn = [np.random.choice(self.others[self.labels[i]], CRD_NEGATIVES, replace=False) for i in index]
        return np.concatenate([index[:, None], np.stack(drawn)], 1)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        chosen = torch.from_numpy(self.sample(np.arange(len(student)))).to(DEVICE)
        s, t = (F.normalize(e(f), dim=1) for e, f in zip(self.embed, (student, teacher), strict=True))
        loss = student.new_zeros(())
        for anchor, memory in ((s, self.memory[1]), (t, self.memory[0])):
            seen = memory[chosen.flatten()].view(*chosen.shape, -1)
            e = torch.exp(torch.bmm(seen, anchor[:, :, None]).squeeze(2) / 0.07)
            p = e / (e.mean().detach() * CRD_SAMPLES)
            noise = CRD_NEGATIVES / CRD_SAMPLES
            hit = (p[:, 0] / (p[:, 0] + noise + 1e-7)).log()
            missed = (noise / (p[:, 1:] + noise + 1e-7)).log().sum(1)
            loss = loss - (hit + missed).mean()
        return loss


class OurCRD:
    """The same call, with a label known for every sample."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.crd = losses.CRD.for_shapes((1, 256), (1, 256), samples=CRD_SAMPLES, negatives=CRD_NEGATIVES)
        self.crd.labels = torch.arange(CRD_SAMPLES) % CRD_CLASSES
        self.crd.to(DEVICE)

    def sample(self, index: Tensor) -> tuple[Tensor, Tensor]:
        drawn = self.crd.draw()
        return drawn, self.crd.labels[drawn] == self.crd.labels[index][:, None]

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        index = torch.arange(len(student), device=DEVICE)
        loss: Tensor = self.crd(student, teacher, targets=index % CRD_CLASSES, index=index)
        return loss


def small_contests() -> dict[str, Contest]:
    """All losses at the sizes of CIFAR, where time counts and memory does not; logits and vectors in more turns."""
    return {
        name: Contest(shape, ours, form, turns=200 if len(shape) == 4 else 400)
        for name, (shape, ours, form) in published.FORMS.items()
    }


def contests() -> dict[str, Callable[[], Contest]]:
    """Those of large tensors, by name; built when their turn comes, since CRD's memories are large."""

    def chunked(student: Tensor, teacher: Tensor) -> Tensor:
        return losses.kd(student, teacher, chunk=64)

    tokens = (4, 1024, 32_000)
    return {
        "kd segmentation": lambda: Contest((4, 21, 128, 128), losses.kd, published_segmentation_kd, turns=15),
        "kd chunked": lambda: Contest(tokens, chunked, published.kd, torch.bfloat16, turns=1),
        "nst": lambda: Contest((32, 128, 8, 8), losses.nst, published_nst, turns=5),
        "fsp": lambda: Contest((32, 128, 16, 16), our_fsp, published_fsp, turns=5),
        "rkd": lambda: Contest((64, 256), losses.rkd, published_rkd, turns=30),
        "crd": lambda: Contest((64, 256), OurCRD(), PublishedCRD(), turns=2),
    }


def step(form: Pass, student: Tensor, teacher: Tensor) -> float:
    """One forward and backward pass; the value."""
    student.grad = None
    loss = form(student, teacher).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def seconds(contest: Contest) -> tuple[float, float]:
    """Median times of both forms, taken by turns.

    How fast memory is had depends on what was freed before, by up to a third of a small pass. So now one form and now
    the other comes first, and with many turns the inputs lie in a new place now and then.
    """
    taken: tuple[list[float], list[float]] = [], []
    forms = [(contest.ours, taken[0]), (contest.published, taken[1])]
    inputs: list[tuple[Tensor, Tensor]] = []
    for turn in range(contest.turns + 1):
        if turn % MOVE_EVERY == 0:
            inputs.append(contest.inputs())
        student, teacher = inputs[-1]
        forms.reverse()
        for form, times in forms:
            begin = clock()
            step(form, student, teacher)
            if turn:
                times.append(clock() - begin)
    return statistics.median(taken[0]), statistics.median(taken[1])


def resident(field: str) -> int:
    """Bytes in a line of /proc/self/status: VmRSS is held now, VmHWM was the most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def extra_memory(name: str, form: str) -> dict[str, int]:
    """One pass in this process: bytes of the inputs, and those needed on top of them."""
    contest = contests()[name]()
    small = [torch.randn(2, 2, 256, device=DEVICE, requires_grad=True) for _ in range(2)]
    step(lambda s, t: (s @ t.mT).logsumexp(1), small[0], small[1])
    student, teacher = contest.inputs()
    run = getattr(contest, form)
    if DEVICE == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(run, student, teacher)
        return {"inputs": student.nbytes + teacher.nbytes, "extra": torch.cuda.max_memory_allocated() - before}
    # 5 sets the high-water mark back to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    step(run, student, teacher)
    return {"inputs": student.nbytes + teacher.nbytes, "extra": max(resident("VmHWM") - before, 0)}


def in_fresh_process(name: str, form: str) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks.losses", name, form]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, int] = json.loads(answer)
    return found


def sampling_milliseconds() -> dict[str, float]:
    """CRD's sampling alone, for one sample of a batch of 64."""
    ours, common = OurCRD(), PublishedCRD()
    index = torch.arange(64, device=DEVICE)
    taken: dict[str, list[float]] = {"ours": [], "published": []}
    for _ in range(20):
        begin = time.perf_counter()
        ours.sample(index)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        middle = time.perf_counter()
        common.sample(index[:4].cpu().numpy())
        taken["ours"].append((middle - begin) / 64 * 1e3)
        taken["published"].append((time.perf_counter() - middle) / 4 * 1e3)
    return {form: statistics.median(times) for form, times in taken.items()}


def main() -> dict[str, dict[str, float]]:
    """Measure, print a table and return its figures by loss."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured()
    finally:
        torch.set_num_threads(threads)


def _measured() -> dict[str, dict[str, float]]:
    print(f"{DEVICE}, torch {torch.__version__}")
    return _times() | _times_and_memory()


def _times() -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    print(f"{'loss':<20} {'limbeck µs':>11} {'published µs':>13} {'ratio':>6}")
    for name, contest in small_contests().items():
        ours, theirs = seconds(contest)
        table[name] = {
            "milliseconds": ours * 1e3,
            "published_milliseconds": theirs * 1e3,
            "time_ratio": ours / theirs,
        }
        print(f"{name:<20} {ours * 1e6:11.0f} {theirs * 1e6:13.0f} {ours / theirs:6.2f}")
    return table


def _times_and_memory() -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    print(f"{'loss':<16} {'limbeck ms':>11} {'published ms':>13} {'ratio':>6} {'limbeck MB':>11} {'published MB':>13}")
    for name, make in contests().items():
        ours, theirs = seconds(make())
        memory = {form: in_fresh_process(name, form) for form in ("ours", "published")}
        table[name] = {
            "milliseconds": ours * 1e3,
            "published_milliseconds": theirs * 1e3,
            "time_ratio": ours / theirs,
            "extra_bytes": memory["ours"]["extra"],
            "published_extra_bytes": memory["published"]["extra"],
            "extra_over_inputs": memory["ours"]["extra"] / memory["ours"]["inputs"],
        }
        print(
            f"{name:<16} {ours * 1e3:11.2f} {theirs * 1e3:13.2f} {ours / theirs:6.2f} "
            f"{memory['ours']['extra'] / 1e6:11.1f} {memory['published']['extra'] / 1e6:13.1f}"
        )
    print(f"kd chunked needs {table['kd chunked']['extra_over_inputs']:.2f} times its inputs on top of them")
    sampling = sampling_milliseconds()
    table["crd sampling"] = {
        "milliseconds": sampling["ours"],
        "published_milliseconds": sampling["published"],
        "time_ratio": sampling["ours"] / sampling["published"],
        "share_of_common": sampling["ours"] / COMMON_SAMPLING_MS,
    }
    print(
        f"crd sampling: {sampling['ours']:.4f} ms a sample against {sampling['published']:.4f} ms here and "
        f"{COMMON_SAMPLING_MS} ms as it was given: 1/{COMMON_SAMPLING_MS / sampling['ours']:.0f}"
    )
    return table


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(extra_memory(sys.argv[1], sys.argv[2])))
    else:
        main()
