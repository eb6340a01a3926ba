from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from limbeck import Batch, Term, losses
from limbeck.distillers import MeanTeacher, ramp
from limbeck.errors import RequestError
from limbeck.recipes import schema
from limbeck.runs import components, learners
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.runs.written_out import by_name


def batch(n: int = 6) -> Batch:
    return Batch(torch.randn(n, 4), torch.arange(n) % 3, torch.arange(n))


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(5, 3))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def values(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.double().numpy().copy() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("decay", [0.6, 0.999])
def test_average_follows_its_recurrence(decay: float) -> None:
    scheme = MeanTeacher(network(), [Term(losses.kd)], decay=decay)
    optimizer = torch.optim.SGD(scheme.student.parameters(), lr=0.5)
    expected = values(scheme.student)
    for step in range(6):
        if step:
            d = min(decay, 1 - 1 / (step + 1))
            for name, present in values(scheme.student).items():
                counts = name.endswith("num_batches_tracked")
                expected[name] = present if counts else d * expected[name] + (1 - d) * present
        optimizer.zero_grad()
        loss = scheme(batch(), None).loss
        # Taken at the beginning of the pass: the statistics that this pass moves are not in it.
        for name, average in values(scheme.ema).items():
            np.testing.assert_allclose(average, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
        loss.backward()
        optimizer.step()
    assert np.abs(values(scheme.ema)["0.weight"] - values(scheme.student)["0.weight"]).max() > 1e-3


def test_update_takes_the_last_step() -> None:
    scheme = MeanTeacher(nn.Linear(4, 3), [Term(losses.kd)], decay=0.0)
    scheme(batch(), None)
    with torch.no_grad():
        scheme.student.weight += 1
    assert not torch.equal(scheme.ema.weight, scheme.student.weight)
    scheme.update()
    assert torch.equal(scheme.ema.weight, scheme.student.weight)


def test_the_first_pass_takes_weights_loaded_after_it_was_made() -> None:
    scheme = MeanTeacher(nn.Linear(4, 3), [Term(losses.kd)])
    scheme.student.load_state_dict(nn.Linear(4, 3).state_dict())
    assert scheme(batch(), None).parts["kd"] == 0
    assert torch.equal(scheme.ema.weight, scheme.student.weight)


def test_terms_compare_with_the_average_in_eval_mode() -> None:
    scheme = MeanTeacher(network(), [Term(losses.kd, temperature=2.0)], decay=0.9)
    scheme(batch(), None)
    with torch.no_grad():
        scheme.student[4].weight += torch.randn(3, 5)
    data = batch()
    step = scheme(data, None)
    assert scheme.ema.training  # left in the mode that it was in
    guide = scheme.ema.eval()(data.inputs).double().numpy()
    p, q = softmax(guide / 2), softmax(step.output.detach().double().numpy() / 2)
    assert step.parts["kd"].item() == pytest.approx(4 * (p * np.log(p / q)).sum(1).mean(), rel=1e-4)


def test_the_average_gets_no_gradient_and_is_in_no_optimizer() -> None:
    scheme = MeanTeacher(network(), [Term(losses.kd), Term(losses.mse, student="0", teacher="0")])
    scheme(batch(), None)
    with torch.no_grad():
        scheme.student[0].weight += 1
    scheme(batch(), None).loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in scheme.ema.parameters())
    assert all(p.grad is not None for p in scheme.student.parameters())
    trained = [name for name, p in scheme.named_parameters() if p.requires_grad]
    assert all(name.startswith("student.") for name in trained)


def test_an_evaluation_does_not_move_the_average() -> None:
    scheme = MeanTeacher(network(), [Term(losses.kd)])
    scheme(batch(), None)
    with torch.no_grad():
        scheme.student[0].weight += 1
    before = values(scheme.ema)
    scheme.eval()
    scheme(batch(), None)
    named = scheme.predictions(batch().inputs)
    assert list(named) == ["student", "ema"]
    for name, value in values(scheme.ema).items():
        np.testing.assert_array_equal(value, before[name])


def test_no_hooks_remain() -> None:
    scheme = MeanTeacher(network(), [Term(losses.mse, student="0", teacher="2")])
    scheme(batch(), None)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in scheme.modules())


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (lambda: MeanTeacher(network(), []), "a mean teacher needs a term to teach by"),
        (lambda: MeanTeacher(network(), [Term(losses.kd)], decay=1.0), "at least 0 and below 1, not 1.0"),
        (lambda: MeanTeacher(network(), [Term(losses.mse, student="0", teacher="fc")]), "unknown tap .* 'fc'"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(request_: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        request_()
    assert "\n" not in str(caught.value)


def test_in_training_the_average_reads_the_other_view() -> None:
    """The whole loss of the paper in NumPy: CE + w(epoch) · mean over samples and classes of (p(x) − p̄(x'))²."""
    student = nn.Linear(4, 3).double()
    term = Term(losses.probability_mse, weight=ramp(5, 100.0, "exponential"))
    scheme = MeanTeacher(student, [term], other_view=True).train()
    scheme.at(2)
    first, second = torch.randn(2, 6, 4, dtype=torch.float64)
    data = Batch(first, torch.arange(6) % 3, torch.arange(6), other=second)
    weight, bias = (p.detach().numpy() for p in student.parameters())
    p, q = (softmax(x.numpy() @ weight.T + bias) for x in (first, second))
    task = -np.log(p[np.arange(6), np.arange(6) % 3]).mean()
    expected = task + 100 * np.exp(-5 * (1 - 2 / 5) ** 2) * ((p - q) ** 2).mean()
    assert scheme(data).loss.item() == pytest.approx(expected, rel=1e-9)


def test_a_batch_without_another_view_is_refused_in_training_alone() -> None:
    scheme = MeanTeacher(nn.Linear(4, 3), [Term(losses.kd)], other_view=True)
    with pytest.raises(RequestError, match="pairs=True"):
        scheme.prepare(batch(), None)
    with pytest.raises(RequestError, match="pairs=True"):
        scheme(batch())
    assert scheme.eval()(batch()).loss.isfinite()


def test_an_exponential_ramp_is_the_papers() -> None:
    weights = [ramp(4, 8.0, "exponential")(epoch) for epoch in range(6)]
    np.testing.assert_allclose(weights, [8 * np.exp(-5 * (1 - x) ** 2) for x in (0, 0.25, 0.5, 0.75, 1, 1)])
    with pytest.raises(RequestError, match="unknown shape of a ramp 'linaer'; did you mean linear"):
        ramp(4, shape="linaer")  # type: ignore[arg-type]


def test_the_preset_is_the_papers_and_trains(tmp_path: Path) -> None:
    data = {"name": "digits", "batch_size": 64, "augment": [{"crop": 1}]}
    recipe = schema.Recipe.model_validate(
        {"data": data, "student": {"model": "cnn", "channels": [4]}, "distill": {"scheme": "mutual"}, "epochs": 1}
    )
    preset = by_name(recipe, "mean-teacher")
    made = learners.scheme(nn.Linear(4, 3), preset, components.data(recipe.data, tmp_path))
    assert isinstance(made, MeanTeacher)
    assert (made.decay, made.other_view) == (0.97, True)
    result = run(preset, root=tmp_path, out=tmp_path / "run", baseline=False, machine=Machine("cpu", progress=False))
    assert result["distilled"]["epochs"] == 1
    mixed = preset.model_copy(update={"data": preset.data.model_copy(update={"augment": ["mixup"]})})
    with pytest.raises(RequestError, match="does not go with mixup"):
        run(mixed, root=tmp_path, out=tmp_path / "mixed", machine=Machine("cpu", progress=False))
