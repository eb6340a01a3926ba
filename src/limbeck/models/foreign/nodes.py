"""Nodes: what shows the tensors of a model that PyTorch does not run itself, so that taps find them by name."""

from __future__ import annotations

from typing import Any

from torch import nn


class Node(nn.Module):
    """A named place in a foreign model; the model shows it what was computed there, and taps read it here."""

    shows_operations = False

    def forward(self, *inputs: Any, output: Any) -> Any:
        """What the foreign model computed, as it is."""
        return output

    @property
    def is_read(self) -> bool:
        """Whether anybody waits for what is shown: a foreign model need not compute, or permute, for nobody."""
        return bool(self._forward_hooks) or self.shows_inputs

    @property
    def shows_inputs(self) -> bool:
        """Whether anybody waits for what goes in, the tap "NAME:in"."""
        return bool(self._forward_pre_hooks)


def add_node(parent: nn.Module, name: str, kind: str) -> Node:
    """Hang a node under a module, and say which name it got.

    Args:
        parent: The foreign model, or the node of a part that has parts.
        name: The place's own name; "." and ":" mean something in the name of a tap, and become "/". A name that is
            taken, by a method of PyTorch's modules too, gets an underscore.
        kind: What computes the tensor, such as "Conv"; it stands as the node's type where models are listed.
    """
    free = name.replace(".", "/").replace(":", "/")
    while hasattr(parent, free):
        free += "_"
    shown: Node = type(kind, (Node,), {})()
    parent.add_module(free, shown)
    return shown
