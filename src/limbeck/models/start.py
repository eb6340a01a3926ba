"""How a network begins that is not trained whole: parts that stay as they are, weights without their head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from limbeck.errors import RequestError, some, unknown
from limbeck.models.key_maps import in_own_names
from limbeck.models.weights import read_weights
from limbeck.notices import tell
from limbeck.taps.wrappers import plain_names, unwrapped


def freeze(model: nn.Module, parts: Sequence[str]) -> None:
    """Take parts of a network out of training: no gradients, and norms and dropout as in evaluation.

    Args:
        model: The network; `limbeck.distillers.Scheme` keeps parts in eval mode so while it is trained.
        parts: Names of modules, such as "features" or "layer1.0".

    Raises:
        RequestError: There is no such module, or nothing would be left to train.
    """
    modules = dict(model.named_modules())
    for part in parts:
        if part not in modules or not part:
            raise unknown("part to freeze", part, [name for name in modules if name])
        modules[part].eval().requires_grad_(False)
    if parts and not any(parameter.requires_grad for parameter in model.parameters()):
        raise RequestError(f"freeze leaves nothing of {type(model).__name__} to train; name fewer of its parts")


def load_without_head(model: nn.Module, path: str | Path) -> None:
    """Load weights, and leave out those of another shape, such as a head of other classes; says which.

    Raises:
        RequestError: The file cannot be read, lacks weights of the network, or holds others than the network has.
    """
    model = unwrapped(model)
    real = {plain: name for name, plain in plain_names(model).items()}
    given = in_own_names(real, read_weights(path))
    own = model.state_dict()
    missing, more = sorted(real.keys() - given.keys()), sorted(given.keys() - real.keys())
    if missing or more:
        said = [f"{word} {some(names)}" for word, names in (("missing", missing), ("unexpected", more)) if names]
        raise RequestError(f"the weights in {path} do not fit {type(model).__name__}: {'; '.join(said)}")
    left = [plain for plain, name in real.items() if given[plain].shape != own[name].shape]
    if len(left) == len(real):
        raise RequestError(f"none of the weights in {path} has a shape of {type(model).__name__}; leave new_head out")
    model.load_state_dict({**own, **{name: given[plain] for plain, name in real.items() if plain not in left}})
    if left:
        shapes = [f"{one} {tuple(given[one].shape)} for {tuple(own[real[one]].shape)}" for one in left]
        tell(f"{path}: left out, and new in the network: {some(shapes)}")
