"""A network that ends in the classifier of a larger one: its own body, a projector, that classifier (SimKD)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import nn
from torch.fx import GraphModule

from limbeck.adapters import Resize, projector
from limbeck.errors import RequestError, reason_of
from limbeck.models.networks.staged import named
from limbeck.models.preactivations import outputs
from limbeck.models.stages import stages


def projected(
    network: nn.Module,
    *,
    input_shape: tuple[int, ...],
    classes: int,
    channels: int,
    size: Sequence[int] | None = None,
) -> nn.Sequential:
    """A network up to its last map, a projector, the mean over positions, a classifier.

    Args:
        network: Any network with maps; its layers up to the last map are taken over, not copied.
        input_shape: (C, H, W) of one sample.
        classes: Number of logits.
        channels: Of the maps that the classifier reads the means of.
        size: Height and width that the last map is average-pooled to before the projector; None leaves it.

    Returns:
        A module of the parts body, resize (where there is a size), projector, pool, flatten and classifier.

    Raises:
        RequestError: Its stages could not be detected, or cannot be cut behind the last one.

    Source: Chen et al.: Knowledge Distillation with the Reused Teacher Classifier, CVPR 2022, arXiv:2203.14001.
    """
    last = stages(network, input_shape=input_shape)[-1]
    width, *found = outputs(network, [last], input_shape)[last].shape[1:]
    parts = {"body": body(network, last)}
    if size is not None:
        parts["resize"] = Resize((size[0], size[1]))
    parts["projector"] = projector((1, width, *found), (1, channels, *found))
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": nn.Linear(channels, classes)}
    like = next(network.parameters(), torch.empty(0))
    return named(**parts).to(like.device, like.dtype)


def body(network: nn.Module, last: str) -> nn.Module:
    """A network up to the output of one of its modules: a plain module of the same layers.

    A chain is cut; of any other network torch.fx traces the forward.

    Raises:
        RequestError: The forward cannot be traced, or is another one in training.
    """
    children = dict(network.named_children())
    if type(network).forward is nn.Sequential.forward and last in children:
        names = list(children)
        return named(**{name: children[name] for name in names[: names.index(last) + 1]})
    from torchvision.models.feature_extraction import create_feature_extractor

    what = f"{type(network).__name__} cannot be cut behind its last map {last}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what differs in training behind the last map
            traced = create_feature_extractor(network, {last: "map"})
    except Exception as error:  # the network may be anybody's
        raise RequestError(f"{what}: torch.fx cannot trace its forward ({reason_of(error)})") from error
    if str(traced.train_graph) != str(traced.eval_graph):
        raise RequestError(f"{what}: its forward runs other operations in training than in evaluation")
    graph = traced.graph
    end = next(node for node in graph.nodes if node.op == "output")
    end.args = (end.args[0]["map"],)
    return GraphModule(traced, graph)
