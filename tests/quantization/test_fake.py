"""Training for int8: what is trained computes as the file does, and the file holds whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.quantization.fake import Quantiser, exportable, faked, rounded, whole_weights
from limbeck.quantization.whole_file import written

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_rounding_passes_gradients() -> None:
    x = torch.tensor([0.4, 1.6], requires_grad=True)
    rounded(x).sum().backward()
    assert rounded(x).tolist() == [0, 2]
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1]


def test_weights_have_a_scale_a_channel() -> None:
    # The largest of each row becomes 127 steps; 0.3 of 1.27 is 30 steps of 0.01.
    found = whole_weights(torch.tensor([[1.27, 0.304], [12.7, -0.26]]), 127)
    torch.testing.assert_close(found, torch.tensor([[1.27, 0.30], [12.7, -0.3]]))


def test_activations_have_256_levels() -> None:
    one = Quantiser()
    with torch.no_grad():
        one.ends.copy_(torch.tensor([-0.55, 2.0]))  # steps of 0.01, zero at 55
    x = torch.tensor([-1.0, -0.541, 0.004, 0.006, 3.0], requires_grad=True)
    torch.testing.assert_close(one(x), torch.tensor([-0.55, -0.54, 0.0, 0.01, 2.0]))
    one(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    # What is cut off above moves the upper end, and what is cut off below the lower one.
    assert one.ends.grad is not None
    assert one.ends.grad[1] > 0.5


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.BatchNorm2d(6),
        nn.Hardswish(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(6 * 36, 5),
    )
    with torch.no_grad():
        for _ in range(20):  # statistics for the batch norms
            made(torch.rand(16, 1, 8, 8))
    return made.eval()


@pytest.fixture(scope="module")
def samples() -> torch.Tensor:
    return torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_faked_network_is_the_network_but_for_rounding(network: nn.Module, samples: torch.Tensor) -> None:
    made = faked(network, (1, 8, 8), [samples], 127)
    assert not [one for one in made.modules() if isinstance(one, nn.BatchNorm2d)]
    # Batch norms are folded: without the quantisers its outputs are the network's.
    for one in made.modules():
        if isinstance(one, Quantiser):
            one.watching = True
    with torch.no_grad():
        exact = made(samples)
        expected = network(samples)
    assert (exact - expected).square().mean() < 1e-3 * expected.var()
    for one in made.modules():
        if isinstance(one, Quantiser):
            one.watching = False
    before = {name: value.clone() for name, value in network.state_dict().items()}
    made.train()
    nn.functional.cross_entropy(made(samples), torch.arange(64) % 5).backward()
    assert all(value.grad is not None for value in made.parameters())
    torch.optim.SGD(made.parameters(), lr=1.0).step()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_file_computes_as_what_was_trained(network: nn.Module, samples: torch.Tensor) -> None:
    import onnx

    most = 63
    made = faked(network, (1, 8, 8), [samples], most)
    with torch.no_grad():
        expected = made(samples).numpy()
    exportable(made)
    content = written(made, (1, 8, 8), "logits", {"key": "value"}, most)
    options = onnxruntime.SessionOptions()
    # As the file is written, without the kernels that this processor's int8 would add.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found: Any = session.run(None, {"input": samples.numpy()})[0]
    # A value on the edge of two levels may fall on either side.
    assert np.mean((found - expected) ** 2) < 1e-3 * expected.var()
    graph = onnx.load_from_string(content).graph
    kinds = {one.name: one.data_type for one in graph.initializer if one.name.endswith("_whole")}
    assert sorted(kinds.values()) == sorted([onnx.TensorProto.INT8] * 3 + [onnx.TensorProto.INT32] * 3)
    whole = [one for one in graph.initializer if one.name.endswith("weight_whole")]
    assert all(np.abs(onnx.numpy_helper.to_array(one)).max() == most for one in whole)
    floats = [one for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT and np.prod(one.dims) > 30]
    assert floats == []
