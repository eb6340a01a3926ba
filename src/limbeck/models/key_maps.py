"""Names of weights in the repositories that people train ResNets in, brought to those of limbeck's networks.

All of them call the parts alike, but for the shortcuts and the classifier:

conv1, bn1                       the stem
layer1.0.conv1, layer1.0.bn1     a block of a stage
layer2.0.shortcut.0, .1          the shortcut's convolution and norm; `downsample` in other repositories
linear                           the classifier; `fc` in other repositories
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

_RULES = (
    (re.compile(r"(^|\.)layer(\d+)\.(\d+)\.((?:conv|bn)\d)\.(\w+)$"), r"\1stage\2.\3.branch.\4.\5"),
    (re.compile(r"(^|\.)layer(\d+)\.(\d+)\.(?:shortcut|downsample)\.0\.(\w+)$"), r"\1stage\2.\3.shortcut.conv.\4"),
    (re.compile(r"(^|\.)layer(\d+)\.(\d+)\.(?:shortcut|downsample)\.1\.(\w+)$"), r"\1stage\2.\3.shortcut.bn.\4"),
    (re.compile(r"(^|\.)conv1\.(\w+)$"), r"\1stem.conv.\2"),
    (re.compile(r"(^|\.)bn1\.(\w+)$"), r"\1stem.bn.\2"),
    (re.compile(r"(^|\.)(?:linear|fc)\.(\w+)$"), r"\1classifier.\2"),
)
_BLOCK = "stage1.0.branch.conv1.weight"
"""The networks here whose weights these repositories have under other names hold this one."""
_THEIRS = re.compile(r"(^|\.)layer1\.0\.conv1\.weight$")


def in_own_names(own: Collection[str], state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict under the names of limbeck's ResNets, where both the network and the names are of these kinds.

    Args:
        own: Names of the network's weights.
        state: Weights under names that prefixes, such as "module.", may begin.

    Returns:
        The state under its new names; as it is for any other network or names.
    """
    if _BLOCK not in own or not any(map(_THEIRS.search, state)):
        return dict(state)
    large = "stem.first.conv.weight" in own  # a max-pool follows
    renamed = {_own_name(name, large): value for name, value in state.items()}
    return renamed if len(renamed) == len(state) else dict(state)


def remedy(own: Collection[str], state: Collection[str]) -> str:
    """What to do where a ResNet's weights fit but for the shortcuts; "" where it is something else."""
    missing, more = {*own} - {*state}, {*state} - {*own}
    if _BLOCK not in own or not all(".shortcut." in name for name in missing | more):
        return ""
    if missing and not more:
        return (
            "; these weights belong to a network whose shortcuts have none (zero padding, option A of He et al.): "
            "give the model shortcut: A"
        )
    return "; these weights have 1×1 convolutions as shortcuts: leave shortcut: A out" if more and not missing else ""


def _own_name(name: str, large: bool) -> str:
    for pattern, new in _RULES:
        found, count = pattern.subn(new, name)
        if count:
            return re.sub(r"(^|\.)stem\.", r"\1stem.first.", found) if large else found
    return name
