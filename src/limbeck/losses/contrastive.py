"""Contrastive representation distillation, with its memory of all samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.losses.precision import full_precision, run_layer
from limbeck.losses.processes import of_all_processes
from limbeck.losses.shapes import channels, check_temperature, class_indices, several_samples
from limbeck.losses.vectors import unit
from limbeck.types import labelled


class CRD(nn.Module):
    """Contrastive: −log h(s, t⁺) − Σ over K negatives of log(1 − h(s, t⁻)), and with s and t exchanged.

    h(s, t) = e / (e + K/N), e = exp(sᵀt/τ)/Z, with s and t trained linear embeddings of length 1. The other
    side comes from a memory of all N samples, which a momentum moves towards each new embedding; Z is fixed
    by the first batch so that the mean of e is 1/N.

    Two things are done in a faster way of the same expectation. The K negatives are drawn once a batch,
    uniformly over all samples, so that a batch costs one (B, d)·(d, K) product instead of a gather of
    (B, K, d). Those of a row's own class are left out, and the others weighed so that they count as K. A
    class is known once the sample was seen: the loss stores the labels itself.

    Args:
        student_channels: C_s.
        teacher_channels: C_t.
        samples: N, the size of the training set.
        dimension: d of the embeddings.
        negatives: K.
        temperature: τ > 0.
        momentum: How much of a stored embedding stays, in [0, 1).

    Transfers: which of all samples an embedding belongs to.
    Use: a fixed training set with labels, also across architectures and modalities; it keeps two embeddings a sample.
    Source: Tian, Krishnan, Isola: Contrastive Representation Distillation, ICLR 2020, arXiv:1910.10699;
        recommended weight 0.8, on the features before the classifier.
    """

    memory_s: Tensor
    memory_t: Tensor
    labels: Tensor
    log_z: Tensor

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        samples: int,
        dimension: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        if samples < 2 or negatives < 1 or dimension < 1:
            raise RequestError(
                f"CRD needs 2 samples, 1 negative and 1 dimension at least, not {samples}, {negatives}, {dimension}"
            )
        check_temperature(temperature)
        if not 0 <= momentum < 1:
            raise RequestError(f"momentum must lie from 0 to below 1, not at {momentum}")
        self.negatives, self.temperature, self.momentum = negatives, temperature, momentum
        self.embed_s = nn.Linear(student_channels, dimension)
        self.embed_t = nn.Linear(teacher_channels, dimension)
        for name in ("memory_s", "memory_t"):
            self.register_buffer(name, unit(torch.randn(samples, dimension)))
        self.register_buffer("labels", torch.full((samples,), -1))
        self.register_buffer("log_z", torch.full((2,), math.inf))
        self._fixed = False
        after_load: Callable[..., Any] = self.register_load_state_dict_post_hook
        after_load(_look_again)

    @classmethod
    def for_shapes(
        cls,
        student: Sequence[int],
        teacher: Sequence[int],
        *,
        samples: int,
        dimension: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> CRD:
        """One for features of these shapes, (B, D) or (B, C, ...)."""
        return cls(
            *channels(student, teacher),
            samples=samples,
            dimension=dimension,
            negatives=negatives,
            temperature=temperature,
            momentum=momentum,
        )

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, targets: Tensor, index: Tensor) -> Tensor:
        """The loss of (B, C_s, ...) against (B, C_t, ...) features, averaged over positions: (B,) values ≥ 0.

        In training mode the memory is brought up to date afterwards, by the batches of all processes.

        Args:
            student: Features of the student.
            teacher: Features of the teacher.
            targets: (B,) class indices; a sample whose index is -100 has no label and the value 0, but is stored.
            index: (B,) positions of the samples in the training set, each in [0, N).

        Raises:
            RequestError: The batch sizes differ, or targets or index do not fit.
        """
        self._check(student, teacher, targets, index)
        s = unit(run_layer(self.embed_s, student.flatten(2).mean(2) if student.dim() > 2 else student))
        t = unit(run_layer(self.embed_t, teacher.flatten(2).mean(2) if teacher.dim() > 2 else teacher))
        # A copy, as N labels are few beside the draws, and eval mode must leave the buffer alone.
        labels = self.labels.index_put((index,), targets.to(self.labels.dtype))
        drawn = self.draw()
        same = labels[drawn] == targets[:, None]
        # Added to the logits of the own class, and finite, so that it can be shifted with the others.
        left_out = same.to(s.dtype) * (torch.finfo(s.dtype).min / 2)
        hit_s, missed_s = self._side(0, s, self.memory_t, index, drawn, left_out)
        hit_t, missed_t = self._side(1, t, self.memory_s, index, drawn, left_out)
        counted = len(drawn) - same.sum(1)
        loss = hit_s + hit_t + (missed_s + missed_t) * (self.negatives / counted.clamp(min=1))
        loss = loss.where(labelled(targets), 0.0)
        if self.training:
            self._fixed = True
            index, targets = of_all_processes(index), of_all_processes(targets)
            self.labels[index] = targets.to(self.labels.dtype)
            self._store(self.memory_s, of_all_processes(s), index)
            self._store(self.memory_t, of_all_processes(t), index)
        return loss

    def draw(self) -> Tensor:
        """(K,) positions of this batch's negatives, from torch's global generator."""
        return torch.randint(len(self.labels), (self.negatives,), device=self.labels.device)

    def _side(
        self, side: int, anchor: Tensor, memory: Tensor, index: Tensor, drawn: Tensor, left_out: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One direction of the loss: logistic classification with the logit sᵀt/τ − log Z − log(K/N).

        (B,) losses of the partners, and (B,) sums of those of the K negatives.
        """
        anchor = anchor / self.temperature
        others = memory.index_select(0, drawn).to(anchor.dtype)
        positive = (anchor * memory[index]).sum(1)
        shift = self._log_z(side, positive, anchor, others, left_out) + math.log(self.negatives / len(memory))
        # (B, K) is large: shift and mask are added in the pass of the product.
        negative = torch.addmm(left_out - shift, anchor, others.T)
        return F.softplus(shift - positive), F.softplus(negative).sum(1)

    @torch.no_grad()
    def _log_z(self, side: int, positive: Tensor, anchor: Tensor, others: Tensor, left_out: Tensor) -> Tensor:
        """log Z: N times the mean of exp(sᵀt/τ) in the first batch, kept from then on."""
        log_z = self.log_z[side]
        if not self._fixed:
            negative = (anchor @ others.T).masked_fill(left_out < 0, -math.inf)
            e = torch.cat([positive, negative.flatten()])
            estimate = e.logsumexp(0) - e.isfinite().sum().log() + math.log(len(self.labels))
            if self.training:  # each process has the same Z, from the batch of all
                estimates = of_all_processes(estimate[None])
                estimate = estimates.logsumexp(0) - math.log(len(estimates))
            log_z = log_z.where(log_z.isfinite(), estimate.to(log_z.dtype))
            if self.training:
                self.log_z[side] = log_z
        return log_z.to(positive.dtype)

    @torch.no_grad()
    def _store(self, memory: Tensor, embedding: Tensor, index: Tensor) -> None:
        moved = self.momentum * memory[index] + (1 - self.momentum) * embedding
        memory[index] = unit(moved).to(memory.dtype)

    def _check(self, student: Tensor, teacher: Tensor, targets: Tensor, index: Tensor) -> None:
        several_samples(student, teacher)
        class_indices(targets, student)
        wanted = (self.embed_s.in_features, self.embed_t.in_features)
        if (student.shape[1], teacher.shape[1]) != wanted:
            raise RequestError(
                f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have {wanted[0]} "
                f"and {wanted[1]} channels, for which this loss was made"
            )
        if index.shape != targets.shape or index.is_floating_point():
            raise RequestError(f"index {tuple(index.shape)} must have one position a target {tuple(targets.shape)}")
        # On an accelerator this look at the values would stop the queue in each step.
        if index.device.type == "cpu" and len(index):
            first, last = int(index.min()), int(index.max())
            if first < 0 or last >= len(self.labels):
                raise RequestError(
                    f"index must be in [0, {len(self.labels)}), the samples of the training set, and has "
                    f"{first} to {last}; the loader must say which samples it gives"
                )


def _look_again(crd: CRD, _: object) -> None:
    """After a checkpoint is loaded, Z is what it says, which may be that no batch was seen."""
    crd._fixed = False
