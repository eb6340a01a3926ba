"""Operations between modules: their names are those of torchvision's feature extraction, their values a graph's."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, fx, nn
from torch._C import _len_torch_function_stack
from torchvision.models.feature_extraction import NodePathTracer

from limbeck import Batch, Distiller, ModuleTeacher, Term, losses
from limbeck.errors import RequestError
from limbeck.models.build import build
from limbeck.taps import Taps, match, trace


class Block(nn.Module):
    """Functional operations of every kind: operators, in-place ones, methods, functions, a module that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(self.relu(x))
        h += x
        a, b = (2 - h).chunk(2, 1)
        h = torch.cat([a / 2, F.relu_(-b)], 1).mul(3)
        return self.relu(h - 1) + x


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(x, 0.5, self.training)
        return self.head(self.block(x).flatten(1))


class Branching(nn.Module):
    """What no tracer gets through: its way depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + 1) if float(x.sum()) > 0 else self.head(x * 2)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x + torch.randn_like(x) if self.training else x
        return self.head(h + 1)


class Recorded(fx.Interpreter):
    """Runs a graph and keeps each tensor under torchvision's name for its node."""

    def __init__(self, model: nn.Module) -> None:
        tracer = NodePathTracer()
        super().__init__(model, graph=tracer.trace(model))
        self.names = tracer.node_to_qualname
        self.tensors: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, Tensor) and n.op != "placeholder":
            self.tensors[self.names.get(n, "output")] = result.clone()
        return result


@pytest.mark.parametrize(
    "name", ["resnet50", "mobilenet_v2", "shufflenet_v1", "torchvision:resnet18", "torchvision:densenet121", "small"]
)
def test_names_and_values_are_those_of_the_graph(name: str) -> None:
    model = (Small() if name == "small" else build(name, input_shape=(3, 32, 32), classes=10)).eval()
    x = torch.randn(2, 4) if name == "small" else torch.randn(2, 3, 32, 32)
    graph = Recorded(model)
    with torch.no_grad():
        graph.run(x)
        modules = dict(model.named_modules())
        expected = {n: t for n, t in graph.tensors.items() if n not in modules and n != "output" and "getitem" not in n}
        assert len(expected) >= 7
        listed = {tap.name for tap in trace(model, x, operations=True) if tap.operation}
        assert {name for name in listed if ":" not in name} == set(expected)
        _, tensors = Taps(model, expected).run(x)
    for name, value in expected.items():
        torch.testing.assert_close(tensors[name], value)


def test_every_kind_of_operation_has_a_name() -> None:
    listed = trace(Small(), torch.randn(5, 4), operations=True)
    assert [(tap.name, tap.kind, tap.shape) for tap in listed] == [
        ("dropout", "dropout", (5, 4)),
        ("block.first", "Linear", (5, 4)),
        ("block.add", "add", (5, 4)),
        ("block.sub", "sub", (5, 4)),
        ("block.chunk:0", "chunk", (5, 2)),
        ("block.chunk:1", "chunk", (5, 2)),
        ("block.truediv", "truediv", (5, 2)),
        ("block.neg", "neg", (5, 2)),
        ("block.relu_", "relu_", (5, 2)),
        ("block.cat", "cat", (5, 4)),
        ("block.mul", "mul", (5, 4)),
        ("block.sub_1", "sub", (5, 4)),
        ("block.relu", "ReLU", (5, 4)),
        ("block.relu_1", "ReLU", (5, 4)),
        ("block.add_1", "add", (5, 4)),
        ("block", "Block", (5, 4)),
        ("flatten", "flatten", (5, 4)),
        ("head", "Linear", (5, 3)),
    ]


def test_values_before_a_later_in_place_operation_are_kept() -> None:
    model, x = Small().eval(), torch.randn(5, 4)
    _, tensors = Taps(model, ["block.first", "block.add", "block.neg", "block.relu_"]).run(x)
    first = model.block.first(x.relu())
    torch.testing.assert_close(tensors["block.first"], first)
    torch.testing.assert_close(tensors["block.add"], first + x)
    negative = (first + x)[:, 2:] - 2
    torch.testing.assert_close(tensors["block.neg"], negative)
    torch.testing.assert_close(tensors["block.relu_"], negative.relu())


def test_the_models_output_and_gradients_are_its_own() -> None:
    x = torch.randn(5, 4)
    model = Small()
    alone = copy.deepcopy(model)
    torch.manual_seed(3)
    output, tensors = Taps(model, ["block.add", "block", "flatten"]).run(x)
    (output.sum() + tensors["block.add"].square().sum()).backward()
    torch.manual_seed(3)
    dropped = F.dropout(x, 0.5, True)
    assert (dropped == 0).any(), "dropout must be that of training"
    torch.manual_seed(3)
    expected = alone(x)
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    added = alone.block.first(dropped.relu()) + dropped
    (expected.sum() + added.square().sum()).backward()
    for a, b in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_runs_of_a_shared_layer_are_counted_whoever_runs_it() -> None:
    shared = nn.ReLU()
    blocks = [Block(), Block()]
    model = nn.Sequential(*blocks).eval()
    for block in blocks:
        block.relu = shared
    x = torch.randn(5, 4)
    graph = Recorded(model)
    graph.run(x)
    names = ["0.relu_1", "0.relu_2", "0.relu_3", "1.add"]
    assert set(names) <= {tap.name for tap in trace(model, x, operations=True)}
    for name in names:
        torch.testing.assert_close(Taps(model, [name]).run(x)[1][name], graph.tensors[name])


def test_one_taps_serves_both_modes() -> None:
    model, x = Small(), torch.randn(64, 4)
    taps = Taps(model, ["dropout"])
    assert (taps.run(x)[1]["dropout"] == 0).float().mean() > 0.3
    model.eval()
    torch.testing.assert_close(taps.run(x)[1]["dropout"], x)


def test_a_forward_that_branches_is_no_hindrance() -> None:
    model = Branching()
    x = torch.rand(2, 4)
    torch.testing.assert_close(Taps(model, ["add"]).run(x)[1]["add"], x + 1)
    torch.testing.assert_close(Taps(model, ["mul"]).run(-x)[1]["mul"], -2 * x)


def test_the_model_runs_no_deeper_than_the_last_operation() -> None:
    model, x = Small().eval(), torch.randn(5, 4)
    runs = []
    model.head.register_forward_pre_hook(lambda module, args: runs.append(1))
    taps = Taps(model, ["block.add", "block.relu"])
    first, second = taps.run_to_last(x), taps.run_to_last(x)
    assert len(runs) == 1
    for name in first:
        torch.testing.assert_close(first[name], second[name])


def test_nothing_stays_behind() -> None:
    model = Small()
    keys = list(model.state_dict()), [name for name, _ in model.named_parameters()], set(vars(model.block))
    distiller = Distiller(model, [Term(losses.mse, student="block.add", teacher="block.add", adapter="linear")])
    batch = Batch(torch.randn(5, 4), torch.arange(5) % 3, torch.arange(5))
    teacher_output = ModuleTeacher(copy.deepcopy(model), ["block.add"])(batch)
    distiller.prepare(batch, teacher_output)
    distiller.eval()
    loss = distiller(batch, teacher_output).loss
    for again in (copy.deepcopy(distiller), pickle.loads(pickle.dumps(distiller))):
        torch.testing.assert_close(again(batch, teacher_output).loss, loss)
    assert keys == (list(model.state_dict()), [name for name, _ in model.named_parameters()], set(vars(model.block)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("block.first.linear", "unknown tap of Small 'block.first.linear'; did you mean block.first"),
        ("block.truedvi", "unknown tap of Small 'block.truedvi'; did you mean block.truediv"),
        ("bloc.add", "unknown tap of Small 'bloc.add'; did you mean block"),
        ("block.add:in", "an operation has no input to tap"),
    ],
)
def test_names_that_can_be_no_operation_are_refused_when_made(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Taps(Small(), [name])
    with pytest.raises(RequestError, match="unknown tap of Branching 'hed'; did you mean head"):
        Taps(Branching(), ["hed"])


def test_an_operation_that_does_not_run_answers_with_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"unknown tap of Small 'block.add_7'; did you mean block.add_1 or"):
        Taps(Small(), ["block.add_7"]).run(torch.randn(5, 4))
    with pytest.raises(RequestError, match="names no tensor but a tuple of 2 elements"):
        Taps(Small(), ["block.chunk"]).run(torch.randn(5, 4))


def test_a_number_that_means_another_tensor_in_training_is_refused() -> None:
    model, x = Noisy().eval(), torch.randn(2, 4)
    taps = Taps(model, ["add"])
    taps.run(x)
    taps.run(x)
    model.train()
    with pytest.raises(RequestError, match="there are 2 such operations in training and 1 in evaluation"):
        taps.run(x)


def test_torchvision_documents_this_name() -> None:
    # The example of create_feature_extractor's own page.
    model = torchvision.models.resnet50(weights=None).eval()
    extract = torchvision.models.feature_extraction.create_feature_extractor(model, ["layer4.2.relu_2"])
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = extract(x)["layer4.2.relu_2"]
        torch.testing.assert_close(Taps(model, ["layer4.2.relu_2"]).run(x)[1]["layer4.2.relu_2"], expected)


def test_pairs_of_equal_shape_follow_stages_that_need_an_adapter() -> None:
    x = torch.zeros(1, 3, 32, 32)
    teacher = trace(build("resnet50", input_shape=(3, 32, 32), classes=10), x, operations=True)
    student = trace(build("mobilenet_v1", input_shape=(3, 32, 32), classes=10, stem_stride=1), x, operations=True)
    pairs = match(teacher, student)
    assert not any(tap.operation for pair in pairs for tap in pair)
    equal = [(t.name, s.name) for t, s in pairs if t.shape == s.shape]
    # 512 channels of 4×4, as PaddleSlim's pair has: the student's stage, and the last such maps in the teacher's.
    assert ("stage4.2.branch.relu2", "stage4") in equal
    shapes = {side: {tap.name: tap.shape for tap in taps} for side, taps in (("t", teacher), ("s", student))}
    assert shapes["t"]["stage4.2.branch.bn2"] == shapes["s"]["stage4.5.depthwise.conv"] == (1, 512, 4, 4)
    assert shapes["t"]["stage4.2.add"] == (1, 2048, 4, 4)


def test_operations_outside_of_the_watched_forwards_cost_nothing() -> None:
    """Torch calls a mode at each function while it is on: on for the block alone, and off again after an error."""
    model = Small()
    inside: list[bool] = []
    model.head.register_forward_pre_hook(lambda module, args: inside.append(bool(_len_torch_function_stack())))
    model.block.first.register_forward_pre_hook(lambda module, args: inside.append(bool(_len_torch_function_stack())))
    taps = Taps(model, ["block.add", "block.sub"])
    taps.run(torch.randn(5, 4))
    assert inside == [True, False]
    with pytest.raises(RuntimeError):
        taps.run(torch.randn(5, 7))
    assert _len_torch_function_stack() == 0


def test_what_runs_in_the_first_pass_alone_is_not_listed() -> None:
    class Caches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.table = nn.Linear(3, 3), None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.table is None:
                self.table = torch.arange(3.0).repeat(1)
            return torch.relu(self.linear(x) + self.table)

    names = [tap.name for tap in trace(Caches(), torch.zeros(2, 3), operations=True)]
    assert "relu" in names
    assert "repeat" not in names
