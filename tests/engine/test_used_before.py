"""fit with what was used before: optimizers with moments, gradients that are left, modules in eval mode."""

import copy
import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck import Batch, Distiller, RequestError, Term, fit, losses
from limbeck.distillers import MutualDistiller
from limbeck.recipes.read import read
from limbeck.runs.finished.read import evaluate_run
from limbeck.runs.run import run as run_recipe


def images() -> list[Batch]:
    x, y = torch.rand(24, 3, 8, 8), torch.arange(24) % 3
    return [Batch(x[i : i + 8], y[i : i + 8], torch.arange(i, i + 8)) for i in (0, 8, 16)]


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.Flatten(), nn.Linear(64, 3)
    )


def train_plainly(model: nn.Module, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    for batch in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(batch.inputs), batch.targets).backward()
        optimizer.step()


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.Adam(parameters, lr=0.01, fused=True),
        lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
        lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, fused=True),
    ],
    ids=["fused adam", "adamw", "fused sgd"],
)
def test_an_optimizer_with_moments_goes_on_as_a_plain_loop_does(
    make: Callable[..., torch.optim.Optimizer],
) -> None:
    student, batches = network(), images()
    plain = copy.deepcopy(student)
    trained, beside = make(student.parameters()), make(plain.parameters())
    train_plainly(student, trained, batches)  # in plain layout: fit lays the weights out anew
    train_plainly(plain, beside, batches)
    fit(Distiller(student), batches, epochs=1, optimizer=trained, precision="32-true", progress=False)
    train_plainly(plain, beside, batches)
    for one, other in zip(student.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    moment = trained.state[student[0].weight]
    assert all(x.stride() == student[0].weight.stride() for x in moment.values() if x.dim() == 4)


def test_the_first_step_starts_from_no_gradient() -> None:
    student, batches = network(), images()
    plain = copy.deepcopy(student)
    F.cross_entropy(student(batches[1].inputs), batches[1].targets).backward()
    for one, other in zip(student.buffers(), plain.buffers(), strict=True):
        one.copy_(other)
    sgd = torch.optim.SGD(student.parameters(), lr=0.1)
    fit(Distiller(student), batches[:1], epochs=1, optimizer=sgd, precision="32-true", progress=False)
    train_plainly(plain, torch.optim.SGD(plain.parameters(), lr=0.1), batches[:1])
    for one, other in zip(student.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def frozen_backbone() -> tuple[nn.Sequential, nn.Sequential]:
    backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
    student = nn.Sequential(backbone, nn.Linear(8, 3))
    backbone.requires_grad_(False).eval()
    return student, backbone


def test_what_its_user_put_in_eval_mode_stays_so(blobs, teacher) -> None:
    student, backbone = frozen_backbone()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    distiller = Distiller(student, [Term(losses.kd)])
    batches = [Batch(blobs.inputs + 5, blobs.targets, torch.arange(96))]
    for _ in range(2):  # the second time, it is as the first one left it: in eval mode as a whole
        fit(distiller, batches, val=batches, teacher=teacher, epochs=2, optimizer=sgd, progress=False)
        assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert not any(module.training for module in student.modules())


def sgd(parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def test_a_student_that_is_in_eval_mode_as_a_whole_is_trained_as_a_whole(blobs, teacher) -> None:
    student = copy.deepcopy(teacher).eval()
    before = student[1].running_mean.clone()
    batches = [Batch(blobs.inputs, blobs.targets, torch.arange(96))]
    fit(Distiller(student), batches, epochs=1, optimizer=sgd, progress=False)
    assert not torch.equal(student[1].running_mean, before)


def test_a_peer_in_eval_mode_is_no_frozen_part_and_a_frozen_part_of_a_peer_is() -> None:
    student, _ = frozen_backbone()
    whole = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).eval()
    scheme = MutualDistiller([student, whole]).eval().train()
    assert all(module.training for module in whole.modules())
    scheme = MutualDistiller([nn.Linear(4, 3), frozen_backbone()[0]]).train()
    frozen = [module for module in scheme.modules() if not module.training]
    assert {type(module) for module in frozen} >= {nn.BatchNorm1d, nn.Dropout}


def test_a_hand_written_loop_keeps_it_too() -> None:
    student, backbone = frozen_backbone()
    distiller = Distiller(student)
    for _ in range(2):
        distiller.train()
        assert student[1].training
        assert not any(module.training for module in backbone.modules())
        distiller.eval()


def test_a_part_that_was_unfrozen_is_trained() -> None:
    student, backbone = frozen_backbone()
    distiller = Distiller(student).train()
    backbone.train()
    assert all(module.training for module in distiller.train().modules())


def test_the_first_batch_is_let_go_when_training_begins(teacher) -> None:
    first: list[weakref.ref[torch.Tensor]] = []

    def batches():
        for _ in range(3):
            inputs = torch.randn(8, 4)
            if len(first) < 1:
                first.append(weakref.ref(inputs))
            yield inputs, torch.arange(8) % 3
            del inputs

    class Loader:
        def __len__(self) -> int:
            return 3

        def __iter__(self):
            return batches()

    seen = []

    def look(time: float) -> float:
        gc.collect()
        seen.append([first[0]() is None, *(one() is None for one in said[:2])])
        return 1.0

    said: list[weakref.ref[torch.Tensor]] = []

    def answer(inputs: torch.Tensor) -> torch.Tensor:
        logits = teacher.eval()(inputs).detach()
        said.append(weakref.ref(logits))
        return logits

    distiller = Distiller(nn.Linear(4, 3), [Term(losses.kd)])
    fit(distiller, Loader(), teacher=answer, epochs=1, optimizer=sgd, schedule=look, progress=False)
    assert seen[-3:] == [[True, True, True]] * 3  # at its steps; earlier, it is only checked


def test_an_iterator_is_refused_for_it_can_be_read_only_once(teacher) -> None:
    with pytest.raises(RequestError, match="an iterator can be read only once: give what makes it"):
        fit(Distiller(nn.Linear(4, 3)), iter(images()), epochs=2, optimizer=sgd, progress=False)


def test_a_finished_student_in_fp64_is_tested_as_the_run_that_trained_it_does(tmp_path: Path) -> None:
    (tmp_path / "wide.py").write_text(
        "from torch import nn\n\ndef net(classes=10):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes)).double()\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        recipe = read("digits", ["student={model: 'wide:net'}", "epochs=1", "teacher.epochs=1"])
        first = run_recipe(recipe, out=tmp_path / "out", root=tmp_path)
        (tmp_path / "out" / "result.json").unlink()
        again = run_recipe(recipe, out=tmp_path / "out", root=tmp_path, resume=True)
        assert evaluate_run(tmp_path / "out", root=tmp_path)["accuracy"] == first["distilled"]["test_accuracy"]
    for name in ("baseline", "distilled"):
        assert again[name]["test_accuracy"] == first[name]["test_accuracy"]
