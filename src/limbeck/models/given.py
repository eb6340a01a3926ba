"""Whether what was given as a network is one that limbeck can train or ask."""

from __future__ import annotations

from torch import nn

from limbeck.errors import RequestError, shown
from limbeck.models.foreign.keras import is_keras


def check_network(what: str, given: object) -> None:
    """Raise RequestError for what is no network, and for a bare Keras model, whose dropout and statistics stand still.

    Args:
        what: What it was given as, for the error: "a student".
        given: What should be a network.
    """
    if is_keras(given):
        name = getattr(given, "name", "it")
        raise RequestError(
            f"{name} is a bare Keras model, which follows neither train() nor eval(); give limbeck.KerasModel(model)"
        )
    if not isinstance(given, nn.Module):
        raise RequestError(f"{what} is a torch.nn.Module, not {shown(given)}")
