"""A teacher without logits runs only as deep as its taps need."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from limbeck import Batch, Distiller, Hardware, ModuleTeacher, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.errors import RequestError


class Counted(nn.Linear):
    """A layer that counts its passes."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return super().forward(x)


def network() -> nn.Sequential:
    return nn.Sequential(
        Counted(4, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True), Counted(5, 5), nn.Dropout(0.5), Counted(5, 3)
    )


def batch(n: int = 6) -> Batch:
    return Batch(torch.randn(n, 4), torch.zeros(n, dtype=torch.long), torch.arange(n))


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_layers_behind_the_last_tap_do_not_run() -> None:
    module = network()
    guide = ModuleTeacher(module, ["3", "1"], logits=False)
    whole = ModuleTeacher(module, ["3", "1"])
    guide(batch())  # the first pass counts what there is to read
    deepest = module[5].passes
    data = batch()
    teacher_output = guide(data)
    assert module[5].passes == deepest == 1
    assert module[3].passes == 2
    assert teacher_output.output is None
    for name, tensor in whole(data).features.items():
        torch.testing.assert_close(teacher_output.features[name], tensor)
    assert set(teacher_output.features) == {"3", "1"}


def test_an_input_tap_stops_before_its_module() -> None:
    module = network()
    guide = ModuleTeacher(module, ["3:in"], logits=False)
    guide(batch())
    data = batch()
    teacher_output = guide(data)
    assert module[3].passes == 1
    torch.testing.assert_close(teacher_output.features["3:in"], ModuleTeacher(module, ["3:in"])(data).features["3:in"])


def test_hooks_are_gone_and_mode_and_state_are_kept() -> None:
    module = network().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    guide = ModuleTeacher(module, ["0"], logits=False)
    for _ in range(2):
        teacher_output = guide(batch())
        assert hooks(module) == 0
        assert all(m.training for m in module.modules())
        assert not teacher_output.features["0"].requires_grad
        assert torch.is_grad_enabled()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_hooks_are_gone_after_a_failure() -> None:
    module = network()
    guide = ModuleTeacher(module, ["3"], logits=False)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            guide(batch()._replace(inputs=torch.randn(6, 9)))
        assert hooks(module) == 0


def test_a_module_that_runs_twice_gives_its_last_tensor() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.head = nn.Linear(4, 4), Counted(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.shared(self.shared(x)))

    module = Twice()
    guide = ModuleTeacher(module, ["shared"], logits=False)
    data = batch()
    for _ in range(3):
        torch.testing.assert_close(guide(data).features["shared"], module.shared(module.shared(data.inputs)))
    assert module.head.passes == 1


def test_a_model_that_catches_exceptions_stops_all_the_same() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), Counted(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            try:
                h = self.body(x)
            except Exception:
                h = x
            return self.head(h)

    module = Careful()
    guide = ModuleTeacher(module, ["body"], logits=False)
    for _ in range(3):
        guide(batch())
    assert module.head.passes == 1


def test_a_model_without_logits_can_teach_by_its_taps() -> None:
    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"vector": self.body(x)}

    with pytest.raises(RequestError, match="returns no logits"):
        ModuleTeacher(Backbone(), ["body"])(batch())
    assert ModuleTeacher(Backbone(), ["body"], logits=False)(batch()).features["body"].shape == (6, 5)


def test_a_hint_stage_trains(blobs: InMemory) -> None:
    module = network()
    student = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3))
    distiller = Distiller(student, [Term(losses.mse, student="0", teacher="3", adapter="auto")], task_weight=0)
    head = student[1].weight.clone()
    run = fit(
        distiller,
        make_loader(blobs, 16, shuffle=True),
        teacher=ModuleTeacher(module, distiller.teacher_taps, logits=False),
        epochs=2,
        optimizer=partial(torch.optim.SGD, lr=0.05),
        progress=False,
        hardware=Hardware("cpu"),
    )
    assert run.metrics[1]["mse"] < run.metrics[0]["mse"]
    assert module[5].passes == 1
    assert torch.equal(run.student[1].weight, head)


def test_a_teacher_output_without_logits_has_a_fingerprint_of_its_own() -> None:
    module = network()
    assert ModuleTeacher(module, ["0"]).fingerprint != ModuleTeacher(module, ["0"], logits=False).fingerprint


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        ([], "has nothing to say without taps"),
        (["logits"], "has nothing to say without taps"),
        (["0", "logits"], "tap 'logits' was asked of a teacher without logits"),
        (["9"], r"unknown tap of the teacher \(Sequential\) '9'"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(taps: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        ModuleTeacher(network(), taps, logits=False)
    assert "\n" not in str(caught.value)
