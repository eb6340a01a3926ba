"""Shares of the training texts that other parts are made of, and the order in which they are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from limbeck.errors import RequestError
from limbeck.seeds import derive


def shares_of(given: Mapping[str, Any], things: str) -> dict[str, float]:
    """Those of the parts that are a share of the training texts, and not files of their own.

    Args:
        given: By part, files or a share.
        things: What is shared out, for the error.

    Raises:
        RequestError: A share that is none, or nothing is left to train on.
    """
    shares = {name: one for name, one in given.items() if isinstance(one, int | float)}
    if any(not 0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
        raise RequestError(f"shares of the {things} lie between 0 and 1, and below 1 together, not {shares}")
    return shares


def files_of(given: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Those of the parts that are files of their own."""
    return {name: one for name, one in given.items() if isinstance(one, str | list)}


def drawn(count: int, purpose: str) -> list[int]:
    """The numbers below `count` in an order that is the same in every run; another one for another purpose."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive(0, purpose) % 2**63)).tolist()
