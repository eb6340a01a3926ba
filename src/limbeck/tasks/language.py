"""Language modelling: the next token at each position of a text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.tasks.class_order import refuse_probabilities
from limbeck.tasks.metrics import Metrics, Sums
from limbeck.tasks.positions import SUMS, Positions, perplexity, position_figures, position_sums
from limbeck.types import IGNORED, Batch, Targets

IDS = "input_ids"
"""What the ids of tokens are called among the inputs."""


class LanguageModelling(Positions):
    """Logits (B, L, V) for token ids (B, L); the target of a position is the id of the token that follows.

    Targets (B, L) stand beside the positions that predict them, as limbeck's own text data have them: −100 at the last
    position, before padding, and where another document begins. Labels of Hugging Face's form, which repeat the ids at
    their own positions, are told from these and shifted when a batch is read. The loss is the mean cross-entropy over
    all tokens of a step that count, also where batches are accumulated.

    Args:
        ignore_index: The target of positions that do not count.
        token_bytes: (V,) how many bytes of text each token stands for; with it there are "bits_per_byte", which can be
            compared between tokenizers.
        **others: As for every `Task`.

    Metrics: "perplexity" (the monitor, min), "loss" (cross-entropy in nats a token), "accuracy" (of next tokens),
    "bits_per_byte" where the tokens' bytes are known, and "agreement" with a teacher.
    """

    monitor, mode = "perplexity", "min"
    classifies = True
    axis, form, dims = 2, "language-modelling", 3

    def __init__(
        self, *, ignore_index: int = IGNORED, token_bytes: Sequence[int] | Tensor | None = None, **others: Any
    ) -> None:
        super().__init__(ignore_index=ignore_index, **others)
        self.token_bytes = None if token_bytes is None else torch.as_tensor(token_bytes)
        if self.token_bytes is not None and self.token_bytes.dim() != 1:
            raise RequestError(f"token_bytes holds one number a token, not {tuple(self.token_bytes.shape)}")

    def batch(self, item: Any) -> Batch:
        found = super().batch(item)
        if isinstance(item, Batch):  # limbeck's own, whose targets stand in their places
            return found
        return found._replace(targets=next_tokens(found.inputs, found.targets, self.ignore_index))

    def check_teacher(self, output: Tensor, targets: Targets, *, learned: bool) -> list[str]:
        refuse_probabilities(output.flatten(0, -2))
        return []

    def loss(self, output: Tensor, targets: Targets) -> Tensor:
        if self.own_loss is not None:
            return self.own_loss(output, targets)
        weights = self.class_weights.beside(output)
        return F.cross_entropy(output.flatten(0, 1), targets.long().flatten(), weights, ignore_index=self.ignore_index)

    def own_metrics(self) -> Metrics:
        return Sums(self._row, self._figures)

    @property
    def _shape(self) -> str:
        return "logits (B, L, V)"

    def _row(self, output: Tensor, targets: Tensor, teacher: Tensor | None) -> Tensor:
        """The sums of positions, and the bytes of the tokens that count; no table of classes, which may be many."""
        sums, _ = position_sums(output, targets, teacher, axis=self.axis, ignored=self.ignore_index)
        known = targets[self.known(targets)].long()
        sizes = None if self.token_bytes is None else self.token_bytes.to(output.device)[known].sum()
        return torch.cat([sums, sums.new_tensor([math.nan]) if sizes is None else sizes.to(sums.dtype)[None]])

    def _figures(self, sums: Sequence[float]) -> Mapping[str, float]:
        found, size = position_figures(sums[:SUMS]), sums[SUMS]
        bits = sums[3] / math.log(2) / size if size else math.nan
        return {**found, "perplexity": perplexity(found["loss"]), "bits_per_byte": bits}


def next_tokens(inputs: Any, targets: Targets, ignored: int = IGNORED) -> Targets:
    """Targets beside the positions that predict them; labels that repeat the ids (B, L) are shifted by one.

    >>> ids = torch.tensor([[5, 6, 7]])
    >>> next_tokens({"input_ids": ids}, ids).tolist()
    [[6, 7, -100]]
    """
    ids = inputs.get(IDS) if isinstance(inputs, Mapping) else inputs
    if not isinstance(ids, Tensor) or not isinstance(targets, Tensor) or ids.shape != targets.shape or ids.dim() != 2:
        return targets
    if not bool(((targets == ids) | (targets == ignored)).all()):
        return targets
    return F.pad(targets[:, 1:], (0, 1), value=ignored)
