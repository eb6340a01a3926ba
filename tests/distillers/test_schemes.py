"""What holds for every scheme: one contract, one loop, all state in the checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import Batch, Hardware, Saving, Scheme, TeacherOutput, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.distillers import ClassWise, MeanTeacher, MutualDistiller, SelfDistiller
from limbeck.engine.optimizers import named
from limbeck.errors import RequestError
from limbeck.models.networks.multi_exit import Exits
from limbeck.taps import evaluating


class Ladder(nn.Module):
    """Three exits on vectors of 4 numbers, with batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [nn.Sequential(nn.Linear(n, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.1)) for n in (4, 6, 6)]
        self.blocks = nn.ModuleList(blocks)
        self.classifiers = nn.ModuleList(nn.Linear(6, 3) for _ in blocks)

    def forward(self, x: Tensor) -> Exits:
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        logits = [classifier(f) for classifier, f in zip(self.classifiers, features, strict=True)]
        return Exits(tuple(reversed(logits)), tuple(reversed(features)))


def network(hidden: int = 6) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(hidden, 3)
    )


def byot() -> Scheme:
    return SelfDistiller(Ladder())


def mutual() -> Scheme:
    return MutualDistiller([network(), network(8), network(5)], temperature=2.0)


def mean_teacher() -> Scheme:
    terms = [Term(losses.kd, weight=0.5), Term(losses.mse, student="0", teacher="2", adapter="linear")]
    return MeanTeacher(network(), terms, decay=0.9)


def class_wise() -> Scheme:
    return ClassWise(network())


MAKERS = [byot, mutual, mean_teacher, class_wise]
every_scheme = pytest.mark.parametrize("make", MAKERS)


def example(n: int = 12) -> Batch:
    return Batch(torch.randn(n, 4), torch.arange(n) % 3, torch.arange(n))


def ready(make: Callable[[], Scheme]) -> Scheme:
    torch.manual_seed(3)
    scheme = make()
    scheme.prepare(example(2), None)
    return scheme


def train(scheme: Scheme, loader: Any, epochs: int = 3, **options: Any) -> Any:
    return fit(
        scheme,
        loader,
        epochs=epochs,
        optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9),
        schedule=named.cosine(epochs),
        seed=5,
        progress=False,
        **{"hardware": Hardware("cpu"), **options},
    )


@every_scheme
def test_a_step_is_a_loss_with_detached_parts_of_finite_value(make: Callable[[], Scheme]) -> None:
    step = ready(make)(example(), None)
    assert step.loss.shape == ()
    assert step.loss.requires_grad
    assert step.output.shape == (12, 3)
    assert len(step.parts) > 1
    assert not any(part.requires_grad or part.dim() or not part.isfinite() for part in step.parts.values())


@every_scheme
def test_every_trained_parameter_gets_a_gradient(make: Callable[[], Scheme]) -> None:
    scheme = ready(make)
    scheme(example(), None)
    with torch.no_grad():  # so that an average differs from its student, whose terms would be 0
        for p in scheme.student.parameters():
            p += 0.1 * torch.randn_like(p)
    scheme(example(), None).loss.backward()
    missing = [name for name, p in scheme.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


@every_scheme
def test_it_learns(make: Callable[[], Scheme], blobs: InMemory) -> None:
    run = train(ready(make), make_loader(blobs, 16, shuffle=True, seed=5), epochs=6, val=make_loader(blobs, 32))
    assert run.metrics[-1]["val_accuracy"] > 0.8
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"]


@every_scheme
def test_it_trains_in_mixed_precision(make: Callable[[], Scheme], blobs: InMemory) -> None:
    run = train(ready(make), make_loader(blobs, 16, shuffle=True, seed=5), precision="bf16-mixed")
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"]


@pytest.mark.gpu
@every_scheme
def test_it_trains_on_a_gpu(make: Callable[[], Scheme], blobs: InMemory) -> None:
    run = train(ready(make), make_loader(blobs, 16, shuffle=True, seed=5), hardware=Hardware("cuda"))
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"]


@every_scheme
def test_state_comes_back_whole(make: Callable[[], Scheme]) -> None:
    scheme = ready(make)
    optimizer = torch.optim.SGD([p for p in scheme.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        scheme(example(), None).loss.backward()
        optimizer.step()
    torch.manual_seed(8)
    other = make()
    other.prepare(example(2), None)
    other.load_state_dict(copy.deepcopy(scheme.state_dict()))
    data = example()
    steps = []
    for one in (scheme, other):
        torch.manual_seed(1)
        steps.append(one(data, None))
    assert steps[0].loss.item() == steps[1].loss.item()
    for name, value in scheme.state_dict().items():
        if isinstance(value, Tensor):
            assert torch.equal(value, other.state_dict()[name]), name
        else:
            assert value == other.state_dict()[name], name


class Killed(BaseException):
    pass


class Interrupted:
    """A loader that dies at one batch of one epoch."""

    def __init__(self, loader: Any, epoch: int, step: int) -> None:
        self.loader, self.at, self.epoch = loader, (epoch, step), 0

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch]:
        for step, batch in enumerate(self.loader):
            if (self.epoch, step) == self.at:
                raise Killed
            yield batch


@every_scheme
@pytest.mark.parametrize(("epoch", "step", "every", "accumulate_steps"), [(1, 0, None, 1), (1, 5, 2, 1), (2, 4, 2, 2)])
def test_a_killed_run_goes_on_to_the_same_state(
    make: Callable[[], Scheme],
    epoch: int,
    step: int,
    every: int | None,
    accumulate_steps: int,
    blobs: InMemory,
    tmp_path: Path,
) -> None:
    loader = make_loader(blobs, 16, shuffle=True, seed=5)
    options: dict[str, Any] = {"val": make_loader(blobs, 32), "accumulate_steps": accumulate_steps}
    start = ready(make)
    whole = copy.deepcopy(start)
    train(whole, loader, out=tmp_path / "whole", **options)
    broken = tmp_path / "broken"
    with pytest.raises(Killed):
        train(
            copy.deepcopy(start),
            Interrupted(loader, epoch, step),
            out=broken,
            saving=Saving(checkpoint_steps=every),
            **options,
        )
    torch.manual_seed(99)
    resumed = copy.deepcopy(start)
    train(resumed, loader, out=broken, saving=Saving(checkpoint_steps=every), resume=True, **options)
    file = "student.safetensors"
    assert (broken / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    for name, value in whole.state_dict().items():
        same = torch.equal(value, resumed.state_dict()[name]) if isinstance(value, Tensor) else True
        assert same, name
    assert whole.state_dict().get("_extra_state") == resumed.state_dict().get("_extra_state")


@every_scheme
def test_predictions_name_what_checkpoints_are_chosen_by(make: Callable[[], Scheme]) -> None:
    scheme = ready(make)
    data = example()
    with evaluating(scheme), torch.no_grad():
        named, chosen = scheme.predictions(data.inputs), scheme.predict(data.inputs)
    if named:
        torch.testing.assert_close(named[scheme.chosen], chosen)
    assert all(logits.shape == (12, 3) for logits in named.values())


@every_scheme
def test_prepare_leaves_state_and_mode_as_they_are(make: Callable[[], Scheme]) -> None:
    scheme = ready(make).train()
    before = copy.deepcopy(scheme.state_dict())
    scheme.prepare(example(), None)
    assert all(module.training for module in scheme.modules())
    for name, value in scheme.state_dict().items():
        assert torch.equal(value, before[name]) if isinstance(value, Tensor) else value == before[name]


@every_scheme
def test_a_teacher_is_refused(make: Callable[[], Scheme], blobs: InMemory) -> None:
    with pytest.raises(RequestError, match="is its own teacher, and another was given"):
        make().prepare(example(), TeacherOutput(torch.randn(12, 3)))
    with pytest.raises(RequestError, match="is its own teacher"):
        train(make(), make_loader(blobs, 16), teacher=network())


@every_scheme
def test_a_label_out_of_range_is_refused_before_the_first_step(make: Callable[[], Scheme]) -> None:
    with pytest.raises(RequestError, match="label 3 is out of range: the student has 3 classes"):
        make().prepare(example(2)._replace(targets=torch.tensor([0, 3])), None)


def test_the_inputs_are_prepared_in_every_forward_pass() -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 2

    data = example()
    halved = data._replace(inputs=data.inputs / 2)
    for with_inputs, without in (
        (SelfDistiller(net := Ladder(), hint_weight=0, inputs=Half()), SelfDistiller(net, hint_weight=0)),
        (MutualDistiller(nets := [network(), network()], inputs=Half()), MutualDistiller(nets)),
        (ClassWise(one := network(), inputs=Half()), ClassWise(one)),
        (MeanTeacher(one, [Term(losses.kd)], inputs=Half()), MeanTeacher(one, [Term(losses.kd)])),
    ):
        with_inputs.eval()
        without.eval()
        torch.testing.assert_close(with_inputs(data, None).loss, without(halved, None).loss)
        for name, logits in with_inputs.predictions(data.inputs).items():
            torch.testing.assert_close(logits, without.predictions(halved.inputs)[name])
