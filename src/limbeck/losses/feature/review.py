"""Knowledge review: each stage of the teacher teaches the student's stages up to its own depth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.losses.maps import pool_to
from limbeck.losses.precision import full_precision, run_layer
from limbeck.losses.samples import mean_square
from limbeck.losses.shapes import channels

_LEVELS = (4, 2, 1)
"""Pooled sizes of the hierarchical context loss."""
WIDEST = 512
"""The middle width is that of the student's deepest map, up to this."""


class ReviewKD(nn.Module):
    """Review: Σ over stages of HCL(student map fused with the deeper ones by attention, teacher map).

    The deepest map is projected to a middle width; each earlier one is joined to the one behind it with a
    sigmoid weight for each of both at each position (ABF). So fused it is resized to the teacher's map, in which form
    the stage before it gets it too, and a 3×3 convolution brings it to the teacher's channels. HCL is the mean of
    (f_s − f_t)² on the maps, with weight 1, and on the maps pooled to 4, 2 and 1, those of these sizes that are below
    the map's height, with weights that halve from one to the next: ½, ¼, ⅛ from a height above 4, ½, ¼ at 3 or 4, ½ at
    2; divided by the sum of the weights.

    Its authors take as the deepest stage the vector before the classifier, and the others before their last ReLU.

    Args:
        student_channels: C of the student's stages, shallow to deep.
        teacher_channels: C of the teacher's stages, as many.
        width: Channels in the middle; None takes those of the student's deepest stage, 512 at most.

    Transfers: the maps of all stages, the deeper ones of the student also serving the teacher's shallower ones.
    Use: convolutional networks of several stages: classification, detection, instance segmentation.
    Source: Chen et al.: Distilling Knowledge via Knowledge Review, CVPR 2021, arXiv:2104.09044; weights within HCL,
        resizing, width and the start of the convolutions as in the authors' code;
        recommended weight 0.6 to 8 by pair of networks, warmed up over 20 epochs.
    """

    def __init__(
        self, student_channels: Sequence[int], teacher_channels: Sequence[int], *, width: int | None = None
    ) -> None:
        super().__init__()
        if len(student_channels) != len(teacher_channels) or not student_channels:
            raise RequestError(
                f"student {tuple(student_channels)} and teacher {tuple(teacher_channels)} must be the "
                "channels of as many stages"
            )
        width = min(WIDEST, student_channels[-1]) if width is None else width
        self.project = nn.ModuleList(_convolution(c, width, 1) for c in student_channels)
        self.restore = nn.ModuleList(_convolution(width, c, 3) for c in teacher_channels)
        # The deepest stage has nothing behind it to be joined with.
        self.attend = nn.ModuleList(nn.Conv2d(2 * width, 2, 1) for _ in student_channels[:-1])

    @classmethod
    def for_shapes(
        cls, student: Sequence[Sequence[int]], teacher: Sequence[Sequence[int]], *, width: int | None = None
    ) -> ReviewKD:
        """One for tuples of maps of these shapes, shallow to deep, (B, C, H, W) or (B, D) each."""
        nested = all(not isinstance(s, int) for s in (*student, *teacher))
        if not nested or len(student) != len(teacher):
            raise RequestError(
                f"student {tuple(student)} and teacher {tuple(teacher)} must be the shapes of as many stages"
            )
        widths = [channels(s, t) for s, t in zip(student, teacher, strict=True)]
        return cls([s for s, _ in widths], [t for _, t in widths], width=width)

    @full_precision
    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The loss of one tuple of maps against another, shallow to deep: (B,) values ≥ 0.

        Raises:
            RequestError: Not as many maps (or vectors) of one batch as the loss was made for.
        """
        maps_s, maps_t = self._stages(student, teacher)
        loss, behind = maps_s[0].new_zeros(len(maps_s[0])), None
        for stage in reversed(range(len(maps_s))):
            x = run_layer(self.project[stage], maps_s[stage])
            if behind is not None:
                x = self._join(stage, x, behind)
            f_t = maps_t[stage]
            behind = F.interpolate(x, f_t.shape[2:]) if x.shape[2:] != f_t.shape[2:] else x
            loss = loss + _hierarchical(run_layer(self.restore[stage], behind), f_t)
        return loss

    def _stages(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Both sides as maps, checked against what the layers were made for."""
        sides = [[student] if isinstance(student, Tensor) else list(student)]
        sides.append([teacher] if isinstance(teacher, Tensor) else list(teacher))
        shapes = [[tuple(f.shape) for f in side] for side in sides]
        every = [s for side in shapes for s in side]
        wanted = len(self.project)
        if any(len(s) != wanted for s in shapes) or any(len(s) not in (2, 4) or s[0] != every[0][0] for s in every):
            raise RequestError(
                f"student {shapes[0]} and teacher {shapes[1]} must be {wanted} maps (B, C, H, W) each, of one batch"
            )
        if self.training and any(s[0] == 1 and all(n == 1 for n in s[2:]) for s in every):
            raise RequestError(
                f"student {shapes[0]} and teacher {shapes[1]}: a batch of one has no variance in a 1×1 map, "
                "which the batch norm of this loss needs; drop the last, smaller batch"
            )
        maps = [[f[:, :, None, None] if f.dim() == 2 else f for f in side] for side in sides]
        return maps[0], maps[1]

    def _join(self, stage: int, x: Tensor, behind: Tensor) -> Tensor:
        """Attention-based fusion: x · a + behind · b, with a and b from both."""
        behind = F.interpolate(behind, x.shape[2:]) if behind.shape[2:] != x.shape[2:] else behind
        weights = run_layer(self.attend[stage], torch.cat([x, behind], 1)).sigmoid()
        return x * weights[:, :1] + behind * weights[:, 1:]


def _convolution(inputs: int, outputs: int, size: int) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    nn.init.kaiming_uniform_(layer.weight, a=1)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


def _hierarchical(student: Tensor, teacher: Tensor) -> Tensor:
    """(B,) weighted mean of the squared distances of the maps and of their pooled versions."""
    loss, total, weight = mean_square(student, teacher), 1.0, 1.0
    for size in _LEVELS:
        if size < teacher.shape[2]:
            at = (size, size)
            weight /= 2
            loss = loss + weight * mean_square(pool_to(student, at), pool_to(teacher, at))
            total += weight
    return loss / total
