from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import Distiller, Hardware, ModuleTeacher, Run, Saving, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.engine.optimizers import named
from limbeck.engine.saving.checkpoint import read_checkpoint
from limbeck.errors import RequestError, RunError
from limbeck.tasks import Classification

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def train(model: nn.Module, data: InMemory, **options: Any) -> Run:
    given: dict[str, Any] = {"epochs": 2, "optimizer": SGD, "progress": False, "hardware": Hardware("cpu")} | options
    loader = (
        given.pop("loader") if "loader" in given else make_loader(data, 16, shuffle=True, seed=given.get("seed", 0))
    )
    terms = given.pop("terms", ())
    return fit(Distiller(model, terms), loader, **given)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_it_does_what_a_plain_loop_does(blobs: InMemory, teacher: nn.Module) -> None:
    student = nn.Linear(4, 3)
    plain = copy.deepcopy(student)
    term = Term(losses.kd, weight=0.9, temperature=2.0)
    loader = make_loader(blobs, 16, shuffle=True)
    fit(
        Distiller(student, [term], task_weight=0.1),
        loader,
        teacher=teacher,
        epochs=3,
        optimizer=SGD,
        progress=False,
        hardware=Hardware("cpu"),
    )

    optimizer = SGD(plain.parameters())
    teacher.eval()
    for epoch in range(3):
        loader.set_epoch(epoch)
        for batch in loader:
            logits = plain(batch.inputs)
            soft = (teacher(batch.inputs).detach() / 2).softmax(-1)
            kl = (soft * (soft.log() - (logits / 2).log_softmax(-1))).sum(-1).mean() * 4
            loss = 0.1 * nn.functional.cross_entropy(logits, batch.targets) + 0.9 * kl
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.testing.assert_close(weights(student), weights(plain), rtol=1e-4, atol=1e-5)


def test_one_seed_gives_one_student(blobs: InMemory, student: nn.Module) -> None:
    runs = [train(copy.deepcopy(student), blobs, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(weights(runs[0].student), weights(runs[1].student))
    assert not torch.equal(weights(runs[0].student), weights(runs[2].student))


def test_ordinary_dataloaders_will_do(blobs: InMemory) -> None:
    loader = DataLoader(TensorDataset(blobs.inputs, blobs.targets), 16, shuffle=True)
    run = train(nn.Linear(4, 3), blobs, loader=loader, val=loader, epochs=6)
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"]
    assert run.metrics[-1]["val_accuracy"] > 0.8


def test_the_teacher_is_left_as_it_was(blobs: InMemory, student: nn.Module, teacher: nn.Module) -> None:
    teacher.train()
    before = copy.deepcopy(teacher.state_dict())
    train(student, blobs, teacher=teacher, terms=[Term(losses.mse, student="0", teacher="0", adapter="auto")])
    assert all(m.training for m in teacher.modules())
    assert all(p.requires_grad and p.grad is None for p in teacher.parameters())
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name])


def test_no_hook_remains_and_the_student_is_plain(blobs: InMemory, student: nn.Module, teacher: nn.Module) -> None:
    kinds = [type(m) for m in student.modules()]
    run = train(student, blobs, teacher=teacher, terms=[Term(losses.mse, student="2", teacher="2", adapter="auto")])
    assert run.student is student
    assert [type(m) for m in student.modules()] == kinds
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in student.modules())
    assert not student.training


def test_accumulated_batches_equal_the_large_batch(blobs: InMemory) -> None:
    start = nn.Linear(4, 3)
    # 96 samples in batches of 20: windows of 40, 40 and 16 samples, the last batch being smaller.
    small = train(copy.deepcopy(start), blobs, loader=make_loader(blobs, 20), accumulate_steps=2)
    large = train(copy.deepcopy(start), blobs, loader=make_loader(blobs, 40))
    torch.testing.assert_close(weights(small.student), weights(large.student), rtol=1e-5, atol=1e-6)


def test_clipping_bounds_the_step(blobs: InMemory) -> None:
    start = nn.Linear(4, 3)
    before = weights(start)
    whole = make_loader(blobs, 96)
    plain = partial(torch.optim.SGD, lr=1.0)
    after = train(start, blobs, loader=whole, max_grad_norm=0.01, epochs=1, optimizer=plain).student
    assert (weights(after) - before).norm().item() == pytest.approx(0.01, rel=1e-4)


def test_schedule_sets_the_rate_at_every_step(blobs: InMemory, student: nn.Module) -> None:
    run = train(student, blobs, epochs=4, schedule=named.step([2], 0.1))
    assert [record["lr"] for record in run.metrics] == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_mixed_precision_trains_and_keeps_fp32_weights(blobs: InMemory, student: nn.Module, teacher: nn.Module) -> None:
    run = train(student, blobs, teacher=teacher, terms=[Term(losses.kd)], precision="bf16-mixed", epochs=4)
    assert next(run.student.parameters()).dtype == torch.float32
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"]


def test_metrics_are_means_over_samples(blobs: InMemory) -> None:
    model = nn.Linear(4, 3)
    frozen = partial(torch.optim.SGD, lr=0.0)
    loss = nn.functional.cross_entropy(model(blobs.inputs), blobs.targets).item()
    accuracy = (model(blobs.inputs).argmax(-1) == blobs.targets).float().mean().item()
    # 96 samples in batches of 20: the last one holds 16, and must not count as much as the others.
    run = train(model, blobs, loader=make_loader(blobs, 20), optimizer=frozen, epochs=1)
    assert run.metrics[0]["loss"] == pytest.approx(loss, rel=1e-6)
    assert run.metrics[0]["accuracy"] == pytest.approx(accuracy)


def test_the_best_student_by_validation_is_kept(blobs: InMemory, tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    val = make_loader(blobs, 96)
    plain = partial(torch.optim.SGD, lr=0.1)
    ruined = lambda time: 1.0 if time < 3 else -1.0  # noqa: E731 - climbs the loss in the end
    run = train(model, blobs, optimizer=plain, schedule=ruined, val=val, keep="best", epochs=9, out=tmp_path)
    best = max(record["val_accuracy"] for record in run.metrics)
    assert run.metrics[-1]["val_accuracy"] < best
    assert (model(blobs.inputs).argmax(-1) == blobs.targets).float().mean().item() == pytest.approx(best)


def test_no_file_holds_the_teacher(blobs: InMemory, student: nn.Module, teacher: nn.Module, tmp_path: Path) -> None:
    term = Term(losses.mse, student="0", teacher="0", adapter="auto")
    train(student, blobs, teacher=teacher, terms=[term], out=tmp_path)
    names = read_checkpoint(tmp_path / "checkpoints" / "last.pt")["scheme"].keys()
    assert {name.split(".")[0] for name in names} == {"student", "terms"}
    described = json.loads((tmp_path / "student.json").read_text())
    assert set(described["tensors"]) == set(student.state_dict())


def test_a_loss_that_is_not_finite_stops_the_run(blobs: InMemory, teacher: nn.Module, tmp_path: Path) -> None:
    calls = 0

    def breaks(student: Tensor, teacher: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return (student - teacher).square().mean() * (float("nan") if calls == 12 else 1.0)

    model = nn.Linear(4, 3)
    with pytest.raises(RunError, match="student: breaks is not finite in epoch 2, step 3"):
        # One call is tried, one measures the balance; then six steps an epoch.
        train(model, blobs, teacher=teacher, terms=[Term(breaks)], out=tmp_path, epochs=3)
    kept = read_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert kept["state"]["epoch"] == 1
    assert all(torch.isfinite(v).all() for v in kept["scheme"].values())


def test_weights_that_are_not_finite_are_never_saved(blobs: InMemory, tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    endless = partial(torch.optim.SGD, lr=float("inf"))
    with pytest.raises(RunError, match="not finite"):
        train(model, blobs, loader=make_loader(blobs, 96), optimizer=endless, out=tmp_path)
    assert not (tmp_path / "checkpoints" / "last.pt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is a whole number from 1 on, not 0"),
        ({"epochs": 1.5}, "epochs is a whole number from 1 on, not 1.5"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm is a number above 0, not nan"),
        ({"keep": "bset"}, "unknown value of keep 'bset'; did you mean best"),
        ({"keep": "best"}, "give validation data"),
        ({"precision": "bf16"}, "unknown precision 'bf16'"),
        ({"loader": ["ab"]}, r"a loader gives \(inputs, targets\).*this one gives str"),
        ({"loader": []}, "no batch at all"),
        ({"terms": [Term(losses.kd)]}, "need a teacher"),
    ],
)
def test_wrong_requests_are_refused(blobs: InMemory, student: nn.Module, options: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        train(student, blobs, **options)


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (
            torch.rand(4, 5),
            torch.zeros(4).long(),
            r"cannot read inputs of shape \(4, 5\) of torch.float32",
        ),
        (torch.rand(4, 4), torch.full((4,), -1), "label -1 is out of range: the student has 3 classes"),
        (
            torch.rand(4, 4),
            torch.zeros(4),
            r"targets \(4,\) of torch.float32 must be class indices .* or prob",
        ),
        (torch.rand(4, 4), torch.zeros(4, 2).long(), r"class indices \(4, 2\) must have the shape \(4,\)"),
    ],
    ids=["width", "label", "float", "columns"],
)
def test_data_that_the_student_cannot_take_are_refused(inputs: Tensor, targets: Tensor, message: str) -> None:
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=4)
    with pytest.raises(RequestError, match=message):
        fit(Distiller(nn.Linear(4, 3)), loader, epochs=1, optimizer=SGD, progress=False, hardware=Hardware("cpu"))


def test_labels_that_cross_entropy_ignores_and_labels_of_another_loss() -> None:
    def squares(logits: Tensor, targets: Tensor) -> Tensor:
        return (logits - targets).square().mean()

    inputs = torch.rand(4, 4)
    for targets, loss in ((torch.tensor([0, -100, 2, 1]), nn.functional.cross_entropy), (torch.rand(4, 3), squares)):
        loader = DataLoader(TensorDataset(inputs, targets), batch_size=4)
        scheme = Distiller(nn.Linear(4, 3), task=Classification(loss=loss))
        run = fit(scheme, loader, epochs=1, optimizer=SGD, progress=False, hardware=Hardware("cpu"))
        assert len(run.metrics) == 1


def test_an_optimizer_made_before_the_adapters_is_refused(
    blobs: InMemory, student: nn.Module, teacher: nn.Module
) -> None:
    early = torch.optim.SGD(student.parameters(), lr=0.1)
    term = Term(losses.mse, student="0", teacher="0", adapter="auto")
    with pytest.raises(RequestError, match=r"does not hold terms\.mse\.adapters\.0\.weight"):
        train(student, blobs, teacher=teacher, terms=[term], optimizer=early)


def test_two_runs_at_once_do_not_influence_each_other(blobs: InMemory, student: nn.Module, teacher: nn.Module) -> None:
    alone = train(copy.deepcopy(student), blobs, teacher=teacher, terms=[Term(losses.kd)])
    other = Distiller(nn.Linear(4, 3), [Term(losses.mse, student="logits", teacher="logits")])
    other.prepare(next(iter(make_loader(blobs, 8))), ModuleTeacher(teacher)(next(iter(make_loader(blobs, 8)))))
    beside = train(copy.deepcopy(student), blobs, teacher=teacher, terms=[Term(losses.kd)])
    assert torch.equal(weights(alone.student), weights(beside.student))


def test_a_gradient_that_is_not_finite_is_named_with_clipping_too(blobs: InMemory) -> None:
    endless = partial(torch.optim.SGD, lr=1e38)
    with pytest.raises(RunError, match=r"student: task is not finite in epoch 1, step \d+"):
        train(nn.Linear(4, 3), blobs, optimizer=endless, max_grad_norm=1e8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_grad_norm": -1.0}, "max_grad_norm is a number above 0, not -1.0"),
        ({"max_grad_norm": "1"}, "max_grad_norm is a number above 0, not '1'"),
        ({"epochs": "2"}, "epochs is a whole number from 1 on, not '2'"),
        ({"epochs": True}, "epochs is a whole number from 1 on, not True"),
        ({"accumulate_steps": 1.5}, "accumulate_steps is a whole number from 1 on, not 1.5"),
        ({"steps_per_epoch": 2.5}, "steps_per_epoch is a whole number from 1 on, not 2.5"),
        ({"seed": "a"}, "seed is a whole number, not 'a'"),
        ({"out": 3}, "out is the path of a run folder, not 3"),
        ({"out": __file__}, r"out=.*test_fit\.py' is a file; give the path of a run folder"),
        ({"resume": True}, "resume=True goes on in a run folder, and there is none: give out=FOLDER"),
        ({"saving": 5}, r"saving is limbeck.Saving, such as Saving\(save_every=5\), not 5"),
        ({"saving": Saving(checkpoint_steps=0), "out": "o"}, "checkpoint_steps is a whole number from 1 on, not 0"),
        ({"saving": Saving(save_every=1)}, "save_every writes into a run folder, and there is none"),
        ({"saving": Saving(phase="a/b")}, "phase is a name of letters, .* not 'a/b'"),
        ({"saving": Saving(about={"a": object()})}, "about is written as JSON: Object of type object"),
        ({"hardware": 2}, r"hardware is limbeck.Hardware, such as Hardware\(devices=2\) or .* not 2"),
        ({"hardware": Hardware(fabric=3)}, r"Hardware\(fabric=…\) takes a launched lightning Fabric, not 3"),  # type: ignore[arg-type]
        ({"optimizer": lambda some: None}, "the function for the optimizer gives None"),
        ({"optimizer": partial(torch.optim.SGD, lrr=1)}, "the function for the optimizer fails: .*lrr"),
        ({"optimizer": lambda some: SGD(some[:1])}, r"does not hold .*; put them into a group, or freeze them by"),
        ({"optimizer": "adam"}, "optimizer is a function such as"),
        ({"teacher": nn.Linear(4, 3)}, "no loss term uses it"),
    ],
)
def test_more_wrong_requests(blobs: InMemory, student: nn.Module, options: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        train(student, blobs, **options)


def test_a_function_of_named_parameters_gets_the_students_own_names(blobs: InMemory) -> None:
    def make(named_parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        names.extend(name for name, _ in named_parameters)
        biases = [one for name, one in named_parameters if name.endswith("bias")]
        others = [one for name, one in named_parameters if not name.endswith("bias")]
        return SGD([{"params": biases, "weight_decay": 0.0}, {"params": others, "weight_decay": 0.1}])

    names: list[str] = []
    student = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    train(student, blobs, optimizer=make)
    assert names == [name for name, _ in student.named_parameters()]


def test_a_plain_module_is_no_scheme(blobs: InMemory, student: nn.Module) -> None:
    with pytest.raises(RequestError, match=r"fit trains a scheme such as Distiller\(student\), not Sequential"):
        fit(student, make_loader(blobs, 16), epochs=1, optimizer=SGD)  # type: ignore[arg-type]


def test_an_optimizer_used_again_begins_at_its_own_rate(blobs: InMemory) -> None:
    model = nn.Linear(4, 3)
    optimizer = SGD(model.parameters())
    for _ in range(2):
        run = train(model, blobs, optimizer=optimizer, schedule=named.cosine(2))
        assert run.metrics[0]["lr"] == pytest.approx(0.1 * (1 + np.cos(np.pi * 5 / 12)) / 2)
