"""Models that read whole numbers: pixels as bytes, or tokens. Nothing is cut down to a whole number unseen."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.errors import RequestError

NEAR = 1e-3
"""How far from a whole number a value may lie that is one, but for rounding errors."""
DARK = 16
"""Pixels from 0 to 255 go beyond this, in the first batch that is not whole."""


class WholeNumbers:
    """Brings what a batch holds to a dtype of whole numbers: images rounded, all else as it is, or refused.

    >>> WholeNumbers()(torch.tensor([2.0, 5.0]), torch.int64, "input ids")
    tensor([2, 5])
    """

    def __init__(self) -> None:
        self._are_pixels = False

    def __call__(self, x: Tensor, dtype: torch.dtype, what: str) -> Tensor:
        """The values in `dtype`.

        Args:
            x: Numbers of any kind; images have four dimensions or more.
            dtype: One of whole numbers; one of real numbers whose values are cut down later.
            what: Who reads them, for errors.

        Raises:
            RequestError: Fractions that are no pixels from 0 to 255, or numbers beyond the dtype.
        """
        if x.dtype == dtype or not x.numel():
            return x.to(dtype)
        low, high = (float(value) for value in torch.aminmax(x.float()))
        whole = not x.is_floating_point() or bool(((x - x.round()).abs() <= NEAR).all())
        name = str(dtype).removeprefix("torch.")
        if not whole and not self._fits_pixels(x, low, high):
            remedy = (
                f"give {name}, or have them prepared: inputs=Preprocess(std=[1/255]) brings 0–1 to 0–255"
                if x.dim() >= 4
                else "give them unscaled"
            )
            raise RequestError(
                f"{what} takes whole numbers ({name}), and was given fractions from {low:.3g} to {high:.3g}; {remedy}"
            )
        least, most = _limits(dtype)
        if not (low > least - 0.5 and high < most + 0.5):
            raise RequestError(
                f"{what} takes {name}, from {least} to {most}, and was given {low:.4g} to {high:.4g}; give pixels as "
                "bytes, without subtracting a mean"
            )
        return (x.round() if x.is_floating_point() else x).to(dtype)

    def _fits_pixels(self, x: Tensor, low: float, high: float) -> bool:
        """Whether these are images with values from 0 to 255 (or −128 to 127), such as resized ones."""
        if x.dim() < 4:
            return False
        self._are_pixels = self._are_pixels or max(-low, high) > DARK
        return self._are_pixels


def _limits(dtype: torch.dtype) -> tuple[float, float]:
    """The least and the largest number of a dtype."""
    if dtype == torch.bool:
        return 0, 1
    limits = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    return limits.min, limits.max
