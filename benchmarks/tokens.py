"""Losses through a head against the same on all logits at once: time of a pass, and peak memory on top of the inputs.

    python -m benchmarks tokens

Inputs are a student's hidden states, its head, labels, and the teacher's hidden states and head, whose logits neither
form is given: 4,096 tokens over a vocabulary of 32,000. Dense is the loss on (B·L, V) logits, as `limbeck.losses` has
it. A fresh process for each form and loss; memory is how far the high-water mark of the resident set (VmHWM of
/proc/self/status: Linux only) rises above the resident set before the pass; on a GPU that of
`torch.cuda.max_memory_allocated`. Time is the median of some forward and backward passes after the first.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck import losses
from limbeck.losses.tokens import Head, Projected, token_cross_entropy, token_loss

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH, LENGTH, VOCABULARY, WIDTH, TEACHER_WIDTH = 8, 512, 32_000, 256, 512
TURNS = 3
AIM = 0.25
"""Of the dense form's memory."""
LOSSES: dict[str, Callable[..., Tensor]] = {
    "forward KL": partial(losses.kd, temperature=1.0),
    "reverse KL": partial(losses.reverse_kl, temperature=1.0),
    "generalised JSD": partial(losses.jsd, temperature=1.0),
    "skewed KL": losses.skewed_kl,
    "total variation": losses.total_variation,
}
CROSS_ENTROPY = "cross-entropy"
FORMS = ("chunked", "dense")


def main(quick: bool = False) -> dict[str, Any]:
    """Measure, print and return a row for each loss."""
    tokens, vocabulary = (512, 4096) if quick else (BATCH * LENGTH, VOCABULARY)
    rows = []
    for name in (CROSS_ENTROPY, *LOSSES):
        found = {
            form: _apart({"loss": name, "form": form, "tokens": tokens, "vocabulary": vocabulary}) for form in FORMS
        }
        row = {"loss": name, **{f"{form}_{key}": value for form, one in found.items() for key, value in one.items()}}
        row["bytes_ratio"] = found["chunked"]["extra_bytes"] / found["dense"]["extra_bytes"]
        row["time_ratio"] = found["chunked"]["seconds"] / found["dense"]["seconds"]
        rows.append(row)
        sizes = " ".join(f"{form} {found[form]['extra_bytes'] / 1e6:7,.0f} MB" for form in FORMS)
        times = " ".join(f"{form} {found[form]['seconds']:6.2f} s" for form in FORMS)
        print(f"{name:16} {sizes} ({row['bytes_ratio']:.2f})  {times} ({row['time_ratio']:.2f})", flush=True)
    shape = {"tokens": tokens, "vocabulary": vocabulary, "width": WIDTH, "teacher_width": TEACHER_WIDTH}
    return {"rows": rows, "aim": AIM, "device": DEVICE, **shape}


def _apart(asked: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.tokens", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measured(loss: str, form: str, tokens: int, vocabulary: int) -> dict[str, float]:
    """Seconds and extra bytes of one loss in one form, in this process."""
    torch.manual_seed(0)
    length = min(tokens, LENGTH)
    shape = (tokens // length, length)
    hidden = torch.randn(*shape, WIDTH, device=DEVICE, requires_grad=True)
    weight = (0.05 * torch.randn(vocabulary, WIDTH, device=DEVICE)).requires_grad_()
    wide = torch.randn(*shape, TEACHER_WIDTH, device=DEVICE)
    teacher = Projected(wide, Head(0.05 * torch.randn(vocabulary, TEACHER_WIDTH, device=DEVICE)))
    targets = torch.randint(vocabulary, shape, device=DEVICE)
    run = partial(_chunked if form == "chunked" else _dense, loss, hidden, Head(weight), teacher, targets)
    warmed = partial(measured_once, run, hidden, weight)
    before = _resident()
    warmed()
    extra = _peak() - before
    return {"seconds": statistics.median(warmed() for _ in range(TURNS)), "extra_bytes": extra}


def measured_once(run: Callable[[], Tensor], *leaves: Tensor) -> float:
    """Seconds of a forward and a backward pass."""
    for leaf in leaves:
        leaf.grad = None
    gc.collect()
    began = time.perf_counter()
    torch.autograd.backward(run())
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _chunked(loss: str, hidden: Tensor, head: Head, teacher: Projected, targets: Tensor) -> Tensor:
    if loss == CROSS_ENTROPY:
        return token_cross_entropy(hidden, head, targets)
    return token_loss(LOSSES[loss], hidden, head, teacher, targets=targets)


def _dense(loss: str, hidden: Tensor, head: Head, teacher: Projected, targets: Tensor) -> Tensor:
    logits = head(hidden)
    if loss == CROSS_ENTROPY:
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    with torch.no_grad():
        theirs = teacher.head(teacher.hidden)
    return LOSSES[loss](logits, theirs, average="positions").mean()


def _resident() -> int:
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    return _status("VmRSS")


def _peak() -> int:
    return torch.cuda.max_memory_allocated() if DEVICE == "cuda" else _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    print(json.dumps(measured(**json.loads(sys.argv[1]))))
