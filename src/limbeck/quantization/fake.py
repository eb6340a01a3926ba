"""A network that computes as its int8 file will: quantisers stand where onnxruntime quantises, and gradients pass them.

    x ─▶ quantiser ─▶ convolution or linear, int8 weights ─▶ (ReLU) ─▶ quantiser ─▶ …

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
arXiv 1712.05877; ranges that are learned as in Esser et al., "Learned Step Size Quantization", arXiv 1902.08153.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from limbeck.errors import RequestError, as_request

aten = torch.ops.aten
CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default)
PRODUCTS = (*CONVOLUTIONS, aten.linear.default)
FUSED = (aten.relu.default, aten.relu_.default, aten.hardtanh.default, aten.hardtanh_.default)
"""What onnxruntime computes together with the product before it."""
LEVELS = 255


def rounded(x: Tensor) -> Tensor:
    """x rounded to whole numbers; its gradient is that of x (straight through)."""
    return x + (x.round() - x).detach()


def whole_weights(weight: Tensor, most: int) -> Tensor:
    """A weight in whole numbers -most…most times a scale for each output channel, which is dimension 0."""
    scale = scales(weight, most)
    return rounded(weight / scale).clamp(-most, most) * scale


def scales(weight: Tensor, most: int) -> Tensor:
    """The largest absolute value of each output channel over `most`."""
    return weight.detach().abs().amax(tuple(range(1, weight.dim())), keepdim=True).clamp(min=1e-8) / most


@torch.library.custom_op("limbeck::quantise", mutates_args=())
def quantise(x: Tensor, scale: float, zero: int) -> Tensor:
    """What a QuantizeLinear and a DequantizeLinear make of a tensor: one operation for the exporter to know."""
    return ((x / scale).round() + zero).clamp(0, LEVELS).sub(zero).mul(scale)


@quantise.register_fake
def _(x: Tensor, scale: float, zero: int) -> Tensor:
    return torch.empty_like(x)


class Quantiser(nn.Module):
    """Activations in 256 levels between two learned ends.

    Attributes:
        ends: (2,) the lowest and the highest value.
        watching: The ends follow what is seen, and nothing is rounded.
        settled: Scale and zero as plain numbers, with which it computes by the one operation that the exporter knows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ends = nn.Parameter(torch.zeros(2))
        self.watching = False
        self.settled: tuple[float, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.watching:
            with torch.no_grad():
                self.ends[0].clamp_(max=x.amin())
                self.ends[1].clamp_(min=x.amax())
            return x
        if self.settled is not None:
            return torch.as_tensor(quantise(x, *self.settled))
        scale, zero = self.steps()
        levels = (rounded(x / scale) + zero).clamp(0, LEVELS)
        return (levels - zero) * scale

    def steps(self) -> tuple[Tensor, Tensor]:
        """The size of a step, and the level that stands for 0."""
        low, high = self.ends[0].clamp(max=0), self.ends[1].clamp(min=0)
        scale = ((high - low) / LEVELS).clamp(min=1e-8)
        return scale, rounded(-low / scale)

    def settle(self) -> None:
        """Make the ends plain numbers."""
        scale, zero = self.steps()
        self.settled = scale.item(), int(zero.item())


class Weight(nn.Module):
    """A weight in whole numbers, of 8 bits or 7."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, weight: Tensor) -> Tensor:
        return whole_weights(weight, self.most)


def faked(network: nn.Module, shape: tuple[int, ...], batches: Iterable[Tensor], most: int) -> fx.GraphModule:
    """A network with its batch norms folded into convolutions, and quantisers whose ranges are those of some samples.

    Args:
        network: In eval mode, from (B, *shape) to logits; it stays as it is.
        shape: One sample's.
        batches: What calibrates the ranges.
        most: Weights are whole numbers up to it: 127 for 8 bits, 63 for 7.

    Returns:
        A network of the same outputs but for the rounding; it has no dropout, and can be trained.

    Raises:
        RequestError: torch.export cannot take the network apart, or there is nothing in it to quantise.
    """
    with warnings.catch_warnings(), as_request(lambda reason: f"torch.export cannot take it apart: {reason}"):
        warnings.simplefilter("ignore")  # torch.export warns of its own internals
        example = torch.zeros(2, *shape)
        # By tensor: a network may take its input as one of any number.
        shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
        shapes[example] = {0: torch.export.Dim("batch")}
        own = copy.deepcopy(network)  # an exported program shares its parameters with what it was made from
        exported = torch.export.export(own, (example,), dynamic_shapes=shapes).module()
    whole: Any = exported
    graph = whole.graph
    for node in list(graph.nodes):
        if node.op == "call_module" and not node.users:  # the checks of shapes that torch.export puts first
            graph.erase_node(node)
    module = fx.GraphModule(whole, graph)
    _fold(module)
    _insert(module, most)
    module.recompile()
    _calibrate(module, batches)
    return module


def _fold(module: fx.GraphModule) -> None:
    """Fold each batch norm into the convolution before it."""
    for node in list(module.graph.nodes):
        if node.op != "call_function" or node.target is not aten.batch_norm.default:
            continue
        conv = node.args[0]
        if conv.target not in CONVOLUTIONS or len(conv.users) > 1:
            continue
        scale, shift, mean, variance = (_held(module, one) for one in node.args[1:5])
        weight, bias = _held(module, conv.args[1]), _held(module, conv.args[2]) if len(conv.args) > 2 else None
        folded = fuse_conv_bn_weights(weight, bias, mean, variance, node.args[7], scale, shift)
        for position, name in enumerate(("weight", "bias")):
            own = nn.Parameter(folded[position].detach().clone(), weight.requires_grad)  # a frozen one stays so
            _with_own(module, conv, position + 1, name, own)
        node.replace_all_uses_with(conv)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()


def _held(module: fx.GraphModule, node: Any) -> Any:
    if node is None:
        return None
    owner, _, name = node.target.rpartition(".")
    return getattr(module.get_submodule(owner), name)


def _with_own(module: fx.GraphModule, conv: fx.Node, position: int, name: str, value: nn.Parameter) -> None:
    """Give a convolution a parameter of its own."""
    own = f"{conv.name}_{name}"
    module.register_parameter(own, value)
    with module.graph.inserting_before(conv):
        node = module.graph.get_attr(own)
    arguments = [*conv.args, *[None] * (position + 1 - len(conv.args))]
    arguments[position] = node
    conv.args = tuple(arguments)


def _insert(module: fx.GraphModule, most: int) -> None:
    """Quantisers before and behind each product, one a tensor, and none for the network's own output."""
    graph = module.graph
    products = [node for node in graph.nodes if node.op == "call_function" and node.target in PRODUCTS]
    if not products:
        raise RequestError("it has no convolution and no linear layer to quantise")
    tensors = dict.fromkeys(node.args[0] for node in products)
    tensors |= dict.fromkeys(_with_fused(node) for node in products)
    for number, node in enumerate(tensors):
        users = [user for user in node.users if user.op != "output"]
        if users:
            _behind(module, node, f"quantiser{number}", Quantiser(), users)
    for number, node in enumerate(products):
        _behind(module, node.args[1], f"weight{number}", Weight(most), [node])


def _with_fused(node: fx.Node) -> fx.Node:
    """A product, or the activation that is computed with it."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target in FUSED else node


def _behind(module: fx.GraphModule, node: fx.Node, name: str, new: nn.Module, users: Iterable[fx.Node]) -> None:
    module.add_submodule(name, new)
    with module.graph.inserting_after(node):
        call = module.graph.call_module(name, (node,))
    for user in users:
        user.replace_input_with(node, call)


@torch.no_grad()
def _calibrate(module: fx.GraphModule, batches: Iterable[Tensor]) -> None:
    quantisers = [one for one in module.modules() if isinstance(one, Quantiser)]
    for one in quantisers:
        one.watching = True
    for batch in batches:
        module(batch)
    for one in quantisers:
        one.watching = False


def exportable(module: fx.GraphModule) -> None:
    """Make a trained network one that the ONNX exporter reads: whole weights, and quantisers as one operation."""
    for node in list(module.graph.nodes):
        if node.op == "call_module" and isinstance(found := module.get_submodule(node.target), Weight):
            weight = _held(module, node.args[0])
            with torch.no_grad():
                weight.copy_(found(weight))
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.delete_all_unused_submodules()
    module.recompile()
    for one in module.modules():
        if isinstance(one, Quantiser):
            one.settle()
