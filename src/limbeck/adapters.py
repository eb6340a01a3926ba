"""Adapters: trained layers that bring a student tensor to the teacher's shape.

vectors (B, C)          linear
tokens  (B, L, C)       linear over the last dimension, one L
signals (B, C, L)       "conv1x1" alone, since nothing tells them from tokens: as for maps, with length for height
maps    (B, C, H, W)    1×1 convolution, then pooled down or interpolated up to the teacher's height and width
to vectors              averaged over positions, then linear
tokens ↔ maps           the tokens of a grid are a map: (B, H·W, C) is (B, C, H, W), then as for maps

Between kinds the comparison is made where both are: of a teacher's tokens and a student's map both are maps, of a
teacher's map or tokens and a student's vector both are vectors (`of_teacher`). Tokens before the grid, such as the
class token of a vision transformer (L = H·W + 1), are left out, which is said.

Those with batch norm are the connectors of papers: "conv1x1_bn" of OFD and ICKD, "auto_bn" of AB, "conv1x1_bn_relu" of
SRRL, "regressor" of FitNets in CRD's comparison (arXiv:1910.10699), "projector" of SimKD.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError, unknown
from limbeck.losses.grids import Shape, as_map, grid_of, mean_of
from limbeck.losses.maps import pool_to

Adapter = str | nn.Module | Callable[[Shape, Shape], nn.Module]
"""A name of `KINDS`, a module (copied), or a function of the student's and the teacher's shape that makes one."""


class Resize(nn.Module):
    """Bring maps (B, C, H, W) to one height and width: average pooling down, bilinear interpolation up."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.size
        if x.shape[2] >= height and x.shape[3] >= width:
            return pool_to(x, self.size)
        return F.interpolate(x, self.size, mode="bilinear", align_corners=False)

    def extra_repr(self) -> str:
        return f"{self.size[0]}×{self.size[1]}"


class Resample(nn.Module):
    """Bring teacher outputs (B, C, L) to one length: average pooling down, linear interpolation up."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] >= self.length:
            return F.adaptive_avg_pool1d(x, self.length)
        return F.interpolate(x, self.length, mode="linear", align_corners=False)

    def extra_repr(self) -> str:
        return str(self.length)


def of_teacher(adapter: Adapter, student: Shape, teacher: Shape) -> nn.Module:
    """What is done to the teacher's tensor, without anything trained, so that an adapter can bring the student's to it.

    nn.Identity where both are of one kind, where the student's can be brought to the teacher's kind, and for an adapter
    of one's own, which gets the shapes as they are.
    """
    if not isinstance(adapter, str):
        return nn.Identity()
    match len(student), len(teacher):
        case (4, 3):
            return as_map(teacher, student[2:]) or nn.Identity()
        case (2, 3 | 4):
            return mean_of(teacher)
        case (3, 3) if adapter == "auto" and student[1] != teacher[1] and grid_of(student[1]):
            return as_map(teacher) or nn.Identity()
    return nn.Identity()


def _of_student(student: Shape, teacher: Shape) -> nn.Module | None:
    """Likewise what the student's tensor begins with; None for nothing."""
    match len(student), len(teacher):
        case (3, 4):
            return as_map(student, teacher[2:])
        case (3, 2):
            return mean_of(student)
    return None


def auto(student: Shape, teacher: Shape) -> nn.Module:
    """The plainest adapter that fits, nn.Identity where the shapes are equal.

    Args:
        student: Shape of the student's tensor, batch first.
        teacher: Shape of the teacher's tensor, batch first.

    Raises:
        RequestError: No plain layer brings the one to the other.
    """
    if student[1:] == teacher[1:]:
        return nn.Identity()
    match len(student), len(teacher):
        case (2, 2):
            return nn.Linear(student[1], teacher[1])
        case (3, 3) if student[1] == teacher[1]:
            return nn.Linear(student[2], teacher[2])
        case (4, 4):
            return _convolution(student, teacher, kernel=1, norm=False)
        case (4, 2):
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(student[1], teacher[1]))
    raise RequestError(
        f"no adapter brings student {student} to teacher {teacher}; "
        "pick taps of one kind (maps, tokens or vectors), or give a module as adapter, or 'conv1x1' for (B, C, L)"
    )


def linear(student: Shape, teacher: Shape) -> nn.Module:
    """A linear layer over the last dimension, also between equal shapes.

    Raises:
        RequestError: The shapes differ in more than the last dimension.
    """
    if len(student) not in (2, 3) or student[1:-1] != teacher[1:-1]:
        raise RequestError(f"adapter 'linear' cannot bring student {student} to teacher {teacher}; try 'auto'")
    return nn.Linear(student[-1], teacher[-1])


def auto_bn(student: Shape, teacher: Shape) -> nn.Module:
    """nn.Identity where the shapes are equal, else a 1×1 convolution and batch norm.

    Raises:
        RequestError: The shapes are none of maps.
    """
    return nn.Identity() if student[1:] == teacher[1:] else _convolution(student, teacher, kernel=1, norm=True)


def regressor(student: Shape, teacher: Shape) -> nn.Module:
    """A convolution that brings maps to the teacher's channels and size, batch norm, ReLU.

    It is 1×1 between equal sizes, 3×3 of stride 2 down to half, 4×4 transposed up to twice the size; down to any other
    size its kernel is as large as the difference and 1; up to any other size it is 1×1, and the map interpolated.

    Raises:
        RequestError: The shapes are none of maps.
    """
    _check_maps(student, teacher)
    (c_s, h_s, w_s), (c_t, h_t, w_t) = student[1:], teacher[1:]
    layers: list[nn.Module] = []
    if (h_s, w_s) == (2 * h_t, 2 * w_t):
        layers.append(nn.Conv2d(c_s, c_t, 3, stride=2, padding=1))
    elif (2 * h_s, 2 * w_s) == (h_t, w_t):
        layers.append(nn.ConvTranspose2d(c_s, c_t, 4, stride=2, padding=1))
    elif h_s >= h_t and w_s >= w_t:
        layers.append(nn.Conv2d(c_s, c_t, (1 + h_s - h_t, 1 + w_s - w_t)))
    else:
        layers += [nn.Conv2d(c_s, c_t, 1), Resize((h_t, w_t))]
    return nn.Sequential(*layers, nn.BatchNorm2d(c_t), nn.ReLU())


def projector(student: Shape, teacher: Shape) -> nn.Module:
    """A bottleneck of half the teacher's channels (1×1, 3×3, 1×1, each with batch norm and ReLU), the size as it is.

    Raises:
        RequestError: The shapes are none of maps.
    """
    _check_maps(student, teacher)
    wide, narrow = teacher[1], max(1, teacher[1] // 2)
    layers: list[nn.Module] = []
    for c_in, c_out, kernel in ((student[1], narrow, 1), (narrow, narrow, 3), (narrow, wide, 1)):
        conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
        layers += [conv, nn.BatchNorm2d(c_out), nn.ReLU()]
    return nn.Sequential(*layers)


def _convolution(student: Shape, teacher: Shape, kernel: int, norm: bool, relu: bool = False) -> nn.Module:
    if len(student) != len(teacher) or len(student) not in (3, 4):
        raise RequestError(
            f"a convolution adapts maps (B, C, H, W), or signals (B, C, L), not student {student} to teacher {teacher}"
        )
    flat = len(student) == 3
    layers: list[nn.Module] = []
    if kernel > 1 or norm or student[1] != teacher[1]:
        convolution = nn.Conv1d if flat else nn.Conv2d
        layers.append(convolution(student[1], teacher[1], kernel, padding=kernel // 2, bias=not norm))
    if norm:
        layers.append((nn.BatchNorm1d if flat else nn.BatchNorm2d)(teacher[1]))
    if relu:
        layers.append(nn.ReLU())
    if student[2:] != teacher[2:]:
        layers.append(Resample(teacher[2]) if flat else Resize((teacher[2], teacher[3])))
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def _check_maps(student: Shape, teacher: Shape) -> None:
    if len(student) != 4 or len(teacher) != 4:
        raise RequestError(f"a convolution adapts maps (B, C, H, W), not student {student} to teacher {teacher}")


KINDS: dict[str, Callable[[Shape, Shape], nn.Module]] = {
    "auto": auto,
    "linear": linear,
    "conv1x1": lambda s, t: _convolution(s, t, kernel=1, norm=False),
    "conv3x3": lambda s, t: _convolution(s, t, kernel=3, norm=False),
    "conv1x1_bn": lambda s, t: _convolution(s, t, kernel=1, norm=True),
    "conv3x3_bn": lambda s, t: _convolution(s, t, kernel=3, norm=True),
    "conv1x1_bn_relu": lambda s, t: _convolution(s, t, kernel=1, norm=True, relu=True),
    "auto_bn": auto_bn,
    "regressor": regressor,
    "projector": projector,
}


def check(adapter: Adapter | None) -> None:
    """Raise RequestError for an adapter that is neither a known name, nor a module, nor a function."""
    if isinstance(adapter, str) and adapter not in KINDS:
        raise unknown("adapter", adapter, KINDS)
    if adapter is not None and not isinstance(adapter, str) and not callable(adapter):
        raise RequestError(f"an adapter is a name, a module or a function of two shapes, not {adapter!r}")


def make(adapter: Adapter, student: Shape, teacher: Shape) -> nn.Module:
    """The adapter's module for these shapes, the teacher's as `of_teacher` leaves it.

    A given module is copied, so that two distillers made from one term never train the same layer.
    """
    check(adapter)
    if isinstance(adapter, str):
        return _named(adapter, student, teacher)
    if isinstance(adapter, nn.Module):
        return copy.deepcopy(adapter)
    return adapter(student, teacher)


def _named(name: str, student: Shape, teacher: Shape) -> nn.Module:
    first = _of_student(student, teacher)
    if first is None:
        return KINDS[name](student, teacher)
    rest = KINDS[name](tuple(first(torch.empty(student, device="meta")).shape), teacher)
    return first if isinstance(rest, nn.Identity) else nn.Sequential(first, rest)
