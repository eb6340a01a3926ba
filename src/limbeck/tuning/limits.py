"""What a student may cost on a device, by the measures of `limbeck ship`: latency and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import nn

from limbeck.data import DataSet
from limbeck.errors import RequestError, shown, unknown
from limbeck.quantization.session import INPUT
from limbeck.recipes import schema
from limbeck.runs import components
from limbeck.runs.teachers import Candidate
from limbeck.runs.train import places
from limbeck.runs.written_out import shipped
from limbeck.seeds import seeded
from limbeck.shipping import latency
from limbeck.shipping.runners import module
from limbeck.types import Inputs

SECONDS = 0.3
"""For which a student's latency is measured, about."""
NAMES = ("ms", "mb")


@dataclass(frozen=True)
class Limits:
    """The most that a student may cost.

    Attributes:
        ms: Median milliseconds of one sample on one CPU as PyTorch runs it, in fp32; None for any.
        mb: Megabytes (10⁶ bytes) of its weights in fp32; None for any.
    """

    ms: float | None = None
    mb: float | None = None
    _measured: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def exceeded(self, recipe: schema.Recipe, data: DataSet, found: Sequence[Candidate] = ()) -> str:
        """In words, what a training's student exceeds, measured once for each form of it; empty where it fits.

        Args:
            recipe: How it is trained; some methods ship another network than the recipe's student.
            data: What it is trained on.
            found: The teachers, if any has a say.
        """
        if not self.as_dict():
            return ""
        form = f"{recipe.student.model_dump_json()} {recipe.distill.method if found else None}"
        if form not in self._measured:
            self._measured[form] = self._reason(recipe, data, found)
        return self._measured[form]

    def _reason(self, recipe: schema.Recipe, data: DataSet, found: Sequence[Candidate]) -> str:
        network = _shipped(recipe, data, found).eval()
        size = sum(one.numel() * one.element_size() for one in network.state_dict().values()) / 1e6
        if self.mb is not None and size > self.mb:
            return f"the student has {size:.3g} MB, and at most {self.mb:g} are allowed"
        if self.ms is None:
            return ""
        example = {INPUT: _array(components.example(recipe.student, data))}
        run = module(network)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            turns = latency.in_turns({"student": lambda: run(example)}, SECONDS)["student"]
        finally:
            torch.set_num_threads(threads)
        took = latency.figures(turns, 1)["p50_ms"]
        return f"the student takes {took:.3g} ms, and at most {self.ms:g} are allowed" if took > self.ms else ""

    def as_dict(self) -> dict[str, float]:
        """Those that there are, by name."""
        return {name: limit for name, limit in (("ms", self.ms), ("mb", self.mb)) if limit is not None}


def limits_of(text: str | None) -> Limits:
    """--at-most, such as "ms=5,mb=2"; None limits nothing.

    Raises:
        RequestError: It says nothing of the kind.
    """
    if text is None:
        return Limits()
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = map(str.strip, part.partition("="))
        if name not in NAMES:
            raise unknown("limit of --at-most", name, NAMES)
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = 0.0
        if not 0 < found[name] < float("inf"):
            raise RequestError(f"--at-most takes numbers above 0, such as ms=5,mb=2, not {shown(text)}")
    return Limits(found.get("ms"), found.get("mb"))


def _shipped(recipe: schema.Recipe, data: DataSet, found: Sequence[Candidate]) -> nn.Module:
    """The recipe's student, or the network that its method trains and ships in the student's place."""
    student = components.model(recipe.student, data, recipe.seed)
    own = shipped(recipe, partial(places, recipe, student, found, data)) if found else None
    if own is None:
        return student
    with seeded(recipe.seed):
        return own.make()


def _array(example: Inputs) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    if not isinstance(example, torch.Tensor):
        raise RequestError("--at-most ms measures students that read one tensor, and this one reads several inputs")
    return np.asarray(example.float().numpy(), dtype=np.float32)
