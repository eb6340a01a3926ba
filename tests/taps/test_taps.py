from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import taps
from limbeck.errors import RequestError
from limbeck.models import cnn
from limbeck.taps import Taps, logits_of, match, trace


class Odd(nn.Module):
    """Overwrites, returns tuples and mappings, and skips a module: what real models do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.pair = Pair()
        self.unused = nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        h += 1  # overwrites what the hook on `first` has seen
        a, named = self.pair(h, 2 * h)
        return self.last(F.relu_(a) + named["b"])


class Pair(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return a - 1, {"b": b}


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_outputs_inputs_and_elements_are_read() -> None:
    model, x = Odd(), torch.randn(3, 4)
    _, tensors = Taps(model, ["first", "pair:0", "pair:in", "pair:in:1", "last:in"]).run(x)
    h = model.first(x)
    torch.testing.assert_close(tensors["first"], h)
    torch.testing.assert_close(tensors["pair:0"], h)
    torch.testing.assert_close(tensors["pair:in"], h + 1)
    torch.testing.assert_close(tensors["pair:in:1"], 2 * (h + 1))
    torch.testing.assert_close(tensors["last:in"], F.relu(h) + 2 * (h + 1))
    torch.testing.assert_close(tensors["logits"], model(x))


def test_inplace_activation_does_not_overwrite_a_tap() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    x = torch.randn(8, 4)
    _, tensors = Taps(model, ["0", "1:in", "1"]).run(x)
    before = model[0](x)
    assert (before < 0).any()
    torch.testing.assert_close(tensors["0"], before)
    torch.testing.assert_close(tensors["1:in"], before)
    torch.testing.assert_close(tensors["1"], before.clamp(min=0))


def test_gradients_flow_through_a_tap() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    _, tensors = Taps(model, ["0"]).run(torch.randn(8, 4))
    tensors["0"].sum().backward()
    torch.testing.assert_close(model[0].bias.grad, torch.full((5,), 8.0))


def test_a_pass_that_is_read_within_another_leaves_that_ones_tensors() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    reader, x = Taps(model, ["0"]), torch.randn(4, 3)
    with reader.capture() as outer:
        model(x)
        with reader.capture() as inner:
            model(2 * x)
    assert inner["0"].equal(model[0](2 * x))
    assert outer["0"].equal(model[0](x))


def test_hooks_are_removed_also_after_an_error() -> None:
    model = Odd()
    names = Taps(model, ["first", "last:in"])
    names.run(torch.randn(3, 4))
    assert hooks(model) == 0
    with pytest.raises(RuntimeError):
        names.run(torch.randn(3, 5))
    assert hooks(model) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("frist", r"unknown tap of Odd 'frist'; did you mean first\?"),
        ("first:in:0:1", "not of the form"),
    ],
)
def test_wrong_names_are_refused_when_made(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Taps(Odd(), [name])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unused", "does not reach it"),
        ("pair", "names no tensor but a tuple of 2 elements"),
        ("pair:7", "no element 7 in a tuple of 2 elements"),
        ("pair:1", "names no tensor but a mapping of b"),
    ],
)
def test_taps_without_a_tensor_say_what_is_there(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Taps(Odd(), [name]).run(torch.randn(3, 4))


def test_logits_are_found_in_a_models_output() -> None:
    x = torch.randn(2, 3)
    assert logits_of(x) is x
    assert logits_of({"logits": x}) is x
    assert logits_of(SimpleNamespace(logits=x)) is x
    hidden = torch.randn(2, 5)
    assert logits_of((x, hidden)) is x
    assert logits_of((hidden, x)) is hidden
    assert logits_of((None, hidden, x), classes=3) is x
    with pytest.raises(RequestError, match="no logits but a tuple of 2"):
        logits_of((None, torch.tensor(0.5)))


def test_named_inputs_are_keyword_arguments() -> None:
    output = taps.call(Pair(), {"b": torch.zeros(2), "a": torch.ones(2)})
    assert output[0].tolist() == [0, 0]


def test_trace_lists_shapes_and_leaves_the_model_alone() -> None:
    model = cnn(input_shape=(1, 8, 8), classes=10, channels=(4, 6)).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = {tap.name: tap for tap in trace(model, torch.zeros(2, 1, 8, 8))}
    assert found["stage2"].shape == (2, 6, 4, 4)
    assert found["stage2"].parameters == 4 * 6 * 9 + 2 * 6
    assert found["classifier"].shape == (2, 10)
    assert model.training
    assert hooks(model) == 0
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name])


def test_what_folds_parts_of_a_sample_into_the_batch_is_no_pair() -> None:
    """As TNT's pixels of each patch: (B·N, C, h, w), which no other network has by sample."""

    class Folds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer, self.classifier = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 6, 2, 2), nn.Linear(6, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            patches = nn.functional.unfold(x, 2, stride=2).transpose(1, 2).reshape(-1, 3, 2, 2)
            self.inner(patches)
            return self.classifier(self.outer(x).mean((2, 3)))

    folds = trace(Folds(), torch.zeros(2, 3, 4, 4))
    plain = trace(cnn(input_shape=(3, 4, 4), classes=10, channels=(4, 6)), torch.zeros(2, 3, 4, 4))
    assert ("inner", (8, 5, 2, 2)) in [(tap.name, tap.shape) for tap in folds]
    for pairs in (match(folds, plain), match(plain, folds)):
        assert pairs
        assert all(tap.shape[0] == 2 for pair in pairs for tap in pair)


def test_match_pairs_stages_of_one_resolution() -> None:
    big = trace(cnn(input_shape=(1, 8, 8), classes=10, channels=(8, 16, 32)), torch.zeros(1, 1, 8, 8))
    small = trace(cnn(input_shape=(1, 8, 8), classes=10, channels=(4, 6, 8)), torch.zeros(1, 1, 8, 8))
    pairs = {t.name: s.name for t, s in match(big, small)}
    assert {name: pairs[name] for name in ("stage1", "stage2", "stage3")} == {
        "stage1": "stage1",
        "stage2": "stage2",
        "stage3": "stage3",
    }
