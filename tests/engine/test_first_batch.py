"""What the first batch shows of a student: dtypes, lazy layers, two heads, steps without a gradient, batches of one."""

from __future__ import annotations

import copy
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset

from limbeck import Distiller, Hardware, MeanTeacher, MutualDistiller, RequestError, Run, Saving, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.engine.batches.source import Source
from limbeck.engine.first.batch import Trial
from limbeck.seeds import random_state
from limbeck.tasks import Classification
from limbeck.types import Batch

SGD = partial(torch.optim.SGD, lr=0.1)
HINT = Term(losses.mse, student="0", teacher="0", adapter="auto")
X, Y = torch.randn(32, 4, generator=torch.Generator().manual_seed(5)), torch.arange(32) % 3


def loader(x: Tensor = X, y: Tensor = Y, size: int = 8) -> DataLoader[Any]:
    return DataLoader(TensorDataset(x, y), batch_size=size)


def train(scheme: Any, batches: Any = None, **options: Any) -> Run:
    given: dict[str, Any] = {"epochs": 1, "optimizer": SGD, "progress": False, "hardware": Hardware("cpu")} | options
    return fit(scheme, loader() if batches is None else batches, **given)


def net(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))


class TestDtypes:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    @pytest.mark.parametrize("inputs", [torch.float32, torch.float64, torch.bfloat16])
    def test_inputs_come_to_each_model_in_its_own(self, dtype: torch.dtype, inputs: torch.dtype) -> None:
        """Student, teacher, adapter and inputs differ; in float64 the step is that of a plain loop in float64."""
        student, teacher = net(8).to(dtype), net(16)
        plain = copy.deepcopy(student).double()
        train(Distiller(student), loader(X.to(inputs), size=32), val=loader(X), teacher=None)
        F.cross_entropy(plain(X.to(inputs).double()), Y).backward()
        close = {torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
        for after, before in zip(student.parameters(), plain.parameters(), strict=True):
            assert after.dtype == dtype
            expected = (before - 0.1 * before.grad).detach()
            torch.testing.assert_close(after.detach().double(), expected, rtol=close, atol=close)
        run = train(Distiller(student, [Term(losses.kd), HINT]), loader(X.to(inputs)), teacher=teacher)
        assert np.isfinite(run.metrics[0]["mse"])

    def test_whole_numbers_for_layers_that_take_floats(self) -> None:
        student = nn.Linear(4, 3)
        plain = copy.deepcopy(student)
        whole = (X * 9).long()
        train(Distiller(student), loader(whole, size=32))
        train(Distiller(plain), loader(whole.float(), size=32))
        assert torch.equal(student.weight, plain.weight)

    def test_bytes_are_pixels_as_limbecks_loaders_give_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        pixels = torch.randint(256, (32, 4), generator=torch.Generator().manual_seed(0)).byte()
        student = nn.Linear(4, 3)
        plain = copy.deepcopy(student)
        train(Distiller(student), loader(pixels, size=32), val=loader(pixels))
        assert "the student reads inputs of uint8 as pixels, divided by 255" in capsys.readouterr().err
        train(Distiller(plain), make_loader(InMemory(pixels, Y), 32))
        assert torch.equal(student.weight, plain.weight)
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
    def test_positions_in_a_table_stay_whole(self, dtype: torch.dtype, capsys: pytest.CaptureFixture[str]) -> None:
        student = nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(8, 3)).bfloat16()
        ids = torch.randint(50, (32, 2)).to(dtype)
        train(Distiller(student, [Term(losses.kd)]), loader(ids), teacher=copy.deepcopy(student).float())
        assert "uint8" not in capsys.readouterr().err

    def test_several_inputs_each_keep_their_kind(self) -> None:
        class Masked(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

            def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
                assert not ids.is_floating_point()
                out: Tensor = self.head((self.table(ids) * weights[..., None]).sum(1))
                return out

        named = {"ids": torch.randint(9, (8, 5)), "weights": torch.rand(8, 5).double()}
        train(Distiller(Masked()), [(named, Y[:8])])

    def test_the_reason_is_that_of_the_right_dtype(self) -> None:
        with pytest.raises(RequestError, match=r"\(8, 5\) of torch.float64: mat1 and mat2 shapes cannot be multiplied"):
            train(Distiller(net(8)), loader(torch.randn(32, 5).double()))


class TestLazyLayers:
    def lazy(self) -> nn.Sequential:
        return nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(3))

    @pytest.mark.parametrize("precision", ["32-true", "auto", "bf16-mixed"])
    def test_learn_their_shapes_before_anything_is_counted(self, precision: str) -> None:
        student = self.lazy()
        teacher = net(16)
        adam = partial(torch.optim.Adam, lr=0.1)
        run = train(Distiller(student, [HINT]), teacher=teacher, precision=precision, optimizer=adam, epochs=8)
        assert [type(layer) for layer in student] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
        assert student[0].in_features == 4
        assert run.metrics[-1]["loss"] < run.metrics[0]["loss"]

    def test_start_as_the_seed_says_and_as_torch_draws_it(self) -> None:
        still = partial(torch.optim.SGD, lr=0.0)
        first, second, other = (self.lazy() for _ in range(3))
        for student, seed in ((first, 1), (second, 1), (other, 2)):
            torch.rand(3)
            train(Distiller(student), optimizer=still, seed=seed)
        assert torch.equal(first[3].weight, second[3].weight)
        assert not torch.equal(first[3].weight, other[3].weight)
        assert first[3].weight.abs().max() <= 6**-0.5

    def test_peers_and_the_optimizer_of_the_user(self) -> None:
        train(MutualDistiller([self.lazy(), self.lazy()]))
        student = self.lazy()
        held = torch.optim.SGD(student.parameters(), lr=0.1)
        train(Distiller(student), optimizer=held)

    def test_are_refused_where_they_would_be_averaged(self) -> None:
        with pytest.raises(RequestError, match="whose lazy layer 0 has never run; run the student once"):
            MeanTeacher(self.lazy(), [Term(losses.kd)])

    def test_are_refused_where_nothing_runs_them_or_a_teacher_has_them(self) -> None:
        class Unused(nn.Linear):
            def __init__(self) -> None:
                super().__init__(4, 3)
                self.spare = nn.LazyLinear(2)

        with pytest.raises(RequestError, match=r"student\.spare: nothing runs this lazy layer"):
            train(Distiller(Unused()))
        with pytest.raises(RequestError, match="the teacher is not trained: its lazy layer 0 has never run"):
            train(Distiller(net(4), [Term(losses.kd)]), teacher=self.lazy())


class TwoHeads(nn.Module):
    """As DeiT: two heads in training, their mean in evaluation."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.head, self.head_dist = nn.Linear(8, 3), nn.Linear(8, 3)
        self.noise = noise

    def forward(self, x: Tensor) -> Any:
        h = F.dropout(F.relu(self.body(x)), self.noise, self.training)
        a, b = self.head(h), self.head_dist(h)
        return (a, b) if self.training else (a + b) / 2


class TestTwoHeads:
    def test_labels_teach_the_first_and_the_teacher_the_second(self, capsys: pytest.CaptureFixture[str]) -> None:
        student, teacher = TwoHeads(), nn.Linear(4, 3)
        plain = copy.deepcopy(student).train()
        train(
            Distiller(student, [Term(losses.hard_label, weight=0.5)], task_weight=0.5),
            loader(size=32),
            teacher=teacher,
        )
        a, b = plain(X)
        (0.5 * F.cross_entropy(a, Y) + 0.5 * F.cross_entropy(b, teacher(X).argmax(1))).backward()
        for after, before in zip(student.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(after, before - 0.1 * before.grad)
        assert "the first head learns the labels, and the second from the teacher" in capsys.readouterr().err

    @pytest.mark.parametrize("taught", [False, True])
    def test_the_mean_learns_where_there_is_one_thing_to_learn(self, taught: bool) -> None:
        student, teacher = TwoHeads(), nn.Linear(4, 3)
        plain = copy.deepcopy(student).train()
        scheme = Distiller(student, [Term(losses.hard_label)], task_weight=0) if taught else Distiller(student)
        run = train(scheme, loader(size=32), teacher=teacher if taught else None)
        a, b = plain(X)
        F.cross_entropy((a + b) / 2, teacher(X).argmax(1) if taught else Y).backward()
        for after, before in zip(student.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(after, before - 0.1 * before.grad)
        right = ((a + b).argmax(1) == Y).float().mean().item()
        assert run.metrics[0]["accuracy"] == pytest.approx(right)

    def test_dropout_does_not_hide_them(self) -> None:
        scheme = Distiller(TwoHeads(noise=0.3))
        train(scheme)
        assert scheme.two_heads

    def test_a_spare_head_is_no_second_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        class Spare(TwoHeads):
            def forward(self, x: Tensor) -> Any:
                h = F.relu(self.body(x))
                return (self.head(h), self.head_dist(h)) if self.training else self.head(h)

        student = Spare()
        before = student.head_dist.weight.clone()
        train(Distiller(student))
        assert torch.equal(before, student.head_dist.weight)
        assert "element 0, of shape (8, 3), is taken as its logits; the rest is not trained" in capsys.readouterr().err

    def test_features_beside_the_logits(self) -> None:
        class Features(TwoHeads):
            def forward(self, x: Tensor) -> Any:
                h = F.relu(self.body(x))
                return (h, self.head(h)) if self.training else self.head(h)

        student = Features()
        plain = copy.deepcopy(student).train()
        train(Distiller(student), loader(size=32))
        F.cross_entropy(plain(X)[1], Y).backward()
        torch.testing.assert_close(student.head.weight, plain.head.weight - 0.1 * plain.head.weight.grad)


class Remembers(nn.Module):
    """Its state is replaced at every pass in training: a buffer, a count, a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
            self.runs += 1
            self.last = x
        return x


class TestTheTriedStep:
    def scheme(self, student: nn.Module, **options: Any) -> Distiller:
        return Distiller(student, **options)

    def tried(self, scheme: Distiller) -> list[str]:
        return Trial(scheme, Batch(X, Y, torch.arange(32)), None, _plainly).check()

    @pytest.mark.parametrize("copied", [True, False])
    def test_changes_nothing(self, copied: bool) -> None:
        student = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
        student[1].eval()
        student.append(Remembers())
        if not copied:
            student.lock = threading.Lock()
        for parameter in student.parameters():
            parameter.grad = torch.ones_like(parameter)
        scheme = self.scheme(student)
        state, generators = copy.deepcopy(scheme.state_dict()), random_state()
        modes = [module.training for module in scheme.modules()]
        assert self.tried(scheme) == []
        for name, value in scheme.state_dict().items():
            assert torch.equal(value, state[name]), name
        assert all(torch.equal(p.grad, torch.ones_like(p)) for p in student.parameters())
        assert all(torch.equal(a, b) for a, b in zip(random_state()[:1], generators[:1], strict=True))
        assert [module.training for module in scheme.modules()] == modes
        assert (student[-1].runs, hasattr(student[-1], "last")) == (0, False)

    @pytest.mark.parametrize(
        ("forward", "loss", "message"),
        [
            (lambda x: x.detach(), F.cross_entropy, "the loss has no gradient"),
            (lambda x: x, lambda z, y: (z.argmax(1) != y).float().mean(), "the loss has no gradient"),
            (lambda x: x.sigmoid().exp_().add_(1).exp().mul_(2).sqrt_(), F.cross_entropy, "modified by an inplace"),
            (lambda x: x, partial(F.cross_entropy, reduction="none"), "instead of one value"),
            (lambda x: {}["teacher"], F.cross_entropy, "cannot be trained on the first batch: 'teacher'"),
        ],
        ids=["detached", "argmax", "in place", "a loss a sample", "raises"],
    )
    def test_finds_what_no_step_can_be_made_with(self, forward: Any, loss: Any, message: str) -> None:
        class Student(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                out = super().forward(x)
                changed: Tensor = forward(out) if self.training else out
                return changed

        with pytest.raises(RequestError, match=message):
            self.tried(self.scheme(Student(4, 3), task=Classification(loss=loss)))

    def test_a_softmax_in_one_mode(self) -> None:
        class Student(nn.Linear):
            def __init__(self, where: bool) -> None:
                super().__init__(4, 3)
                self.where = where

            def forward(self, x: Tensor) -> Tensor:
                out = super().forward(x)
                return out.softmax(1) if self.training == self.where else out

        with pytest.raises(RequestError, match="the student ends in probabilities"):
            self.tried(self.scheme(Student(True)))
        (line,) = self.tried(self.scheme(Student(False)))
        assert line.startswith("the student gives probabilities in evaluation")


def _plainly() -> Any:
    return torch.autocast("cpu", enabled=False)


class TestBatchesOfOne:
    def student(self) -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))

    @pytest.mark.parametrize("ours", [True, False])
    def test_the_last_one_is_left_out(self, ours: bool, capsys: pytest.CaptureFixture[str]) -> None:
        start = self.student()
        x, y = X[:17], Y[:17]
        batches = make_loader(InMemory(x, y), 8) if ours else loader(x, y)
        halved = lambda time: 1.0 if time < 0.5 else 0.5  # noqa: E731 - the second of two batches begins at 0.5
        runs = [
            train(Distiller(copy.deepcopy(start)), one, epochs=2, schedule=halved)
            for one in (batches, loader(x[:16], y[:16]))
        ]
        assert "1 of 3 batches holds a single sample" in capsys.readouterr().err
        for one, other in zip(*(run.student.state_dict().values() for run in runs), strict=True):
            assert torch.equal(one, other)
        assert [record["lr"] for record in runs[0].metrics] == [record["lr"] for record in runs[1].metrics]

    def test_baseline_and_distilled_student_see_the_same_samples(self) -> None:
        x, y = X[:17], Y[:17]
        counts = []
        for terms in ([], [Term(losses.kd)]):
            student = self.student()
            train(Distiller(student, terms), loader(x, y), teacher=nn.Linear(4, 3) if terms else None)
            counts.append(int(student[1].num_batches_tracked))
        assert counts == [2, 2]

    def test_is_trained_on_where_it_can_be(self, capsys: pytest.CaptureFixture[str]) -> None:
        student = self.student()
        student[1] = nn.LayerNorm(6)
        steps = []

        def counting(logits: Tensor, targets: Tensor) -> Tensor:
            steps.append(len(targets))
            return F.cross_entropy(logits, targets)

        train(Distiller(student, task=Classification(loss=counting)), loader(X[:17], Y[:17]))
        assert steps[-3:] == [8, 8, 1]
        assert capsys.readouterr().err == ""

    def test_a_resumed_run_leaves_out_the_same(self, tmp_path: Path) -> None:
        start = self.student()
        batches = [(X[:8], Y[:8]), (X[8:9], Y[8:9]), (X[9:17], Y[9:17]), (X[17:25], Y[17:25])]
        whole = train(Distiller(copy.deepcopy(start)), batches, epochs=2, out=tmp_path / "whole")

        class KilledError(RuntimeError):
            pass

        steps = []

        def killed(logits: Tensor, targets: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                steps.append(len(targets))
                if len(steps) > 6:  # the tried step, the three of the first epoch, two of the second
                    raise KilledError
            return F.cross_entropy(logits, targets)

        out = tmp_path / "killed"
        scheme = Distiller(copy.deepcopy(start), task=Classification(loss=killed))
        with pytest.raises(KilledError):
            train(scheme, batches, epochs=2, out=out, saving=Saving(checkpoint_steps=1))
        resumed = train(
            Distiller(copy.deepcopy(start)), batches, epochs=2, out=out, saving=Saving(checkpoint_steps=1), resume=True
        )
        for one, other in zip(*(run.student.state_dict().values() for run in (whole, resumed)), strict=True):
            assert torch.equal(one, other)

    def test_none_is_left_where_all_hold_one(self) -> None:
        with pytest.raises(RequestError, match="each batch holds one sample"):
            train(Distiller(self.student()), loader(size=1))

    def test_source_knows_how_many_there_are(self) -> None:
        data = TensorDataset(X[:17], Y[:17])
        batched = BatchSampler(SequentialSampler(data), 8, False)
        loaders = [
            (loader(X[:17], Y[:17]), 1),
            (DataLoader(data, batch_size=8, drop_last=True), 0),
            (DataLoader(data, batch_sampler=batched), 1),
            (DataLoader(data, batch_sampler=[[0, 1], [2]]), None),
            (loader(size=1), 32),
            (make_loader(InMemory(X[:17], Y[:17]), 8), 1),
            (make_loader(InMemory(X[:17], Y[:17]), 8, drop_last=True), 0),
            (make_loader(InMemory(X[:18], Y[:18]), 16, world_size=2), 1),
            ([(X[:1], Y[:1]), (X, Y), (X[:1], Y[:1])], 2),
        ]
        for batches, expected in loaders:
            assert Source(batches, torch.device("cpu")).alone == expected
