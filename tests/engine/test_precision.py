"""bf16 where it pays, and nothing rounded on the way in."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from limbeck import Batch, Distiller, Hardware, ModuleTeacher, Preprocess, Step, TeacherOutput, Term, fit, losses
from limbeck.engine.devices import fabric
from limbeck.engine.loop import Loop
from limbeck.engine.optimizers.named import optimizer
from limbeck.errors import RunError
from limbeck.models import mlp, mobilenet_v1, resnet8x4, tutorial_student

IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.fixture
def with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fabric, "_multiplies_bf16", lambda kind: True)


class Watching(Distiller):
    """Notes the dtypes that reach it, and that of its logits."""

    def forward(self, batch: Batch, teacher_output: TeacherOutput | None = None) -> Step:
        step = super().forward(batch, teacher_output)
        self.seen = (
            batch.inputs.dtype,
            teacher_output.output.dtype if teacher_output else None,
            step.output.dtype,
            step.loss.dtype,
        )
        return step


def test_autocast_leaves_pixels_and_teacher_output_as_they_are() -> None:
    scheme = Watching(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), [Term(losses.kd)])
    images = [(torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]))]
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    optimizer = partial(torch.optim.SGD, lr=0.1)
    fit(scheme, images, teacher=teacher, epochs=1, optimizer=optimizer, precision="bf16-mixed", progress=False)
    assert scheme.seen == (torch.float32, torch.float32, torch.bfloat16, torch.float32)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_scaled_gradients_are_clipped(name: str) -> None:
    images = [(torch.rand(4, 12), torch.tensor([0, 1, 2, 0]))]
    student, plain = nn.Linear(12, 3), nn.Linear(12, 3)
    plain.load_state_dict(student.state_dict())
    for network, precision in ((student, "16-mixed"), (plain, "32-true")):
        options: dict[str, Any] = {"optimizer": optimizer(name, lr=0.1), "max_grad_norm": 0.01, "progress": False}
        fit(Distiller(network), images, epochs=2, precision=precision, hardware=Hardware("cpu"), **options)
    torch.testing.assert_close(student.weight, plain.weight, rtol=0.01, atol=1e-4)


@pytest.mark.usefixtures("with_bf16")
def test_the_choice_does_not_depend_on_where_the_student_lies() -> None:
    student = resnet8x4(input_shape=(3, 32, 32), classes=10)
    example = Batch(torch.zeros(64, 3, 32, 32), torch.zeros(64, dtype=torch.int64), torch.arange(64))
    assert Hardware("cpu").student_precision(Distiller(student), example) == "bf16-mixed"
    assert Hardware("cpu").student_precision(Distiller(student.to("meta")), example) == "bf16-mixed"


@pytest.mark.usefixtures("with_bf16")
def test_bf16_where_each_weight_is_used_often() -> None:
    student, teacher = (make(input_shape=(3, 32, 32), classes=10) for make in (tutorial_student, resnet8x4))
    assert fabric.choose_precision(student, IMAGE, 128, "cpu") == "bf16-mixed"
    assert fabric.choose_precision(teacher, IMAGE, 64, "cpu") == "bf16-mixed"
    assert fabric.choose_precision(student, IMAGE, 16, "cpu") == "32-true"
    wide = mlp(input_shape=(1, 28, 28), classes=10, hidden=[1200, 1200])
    assert fabric.choose_precision(wide, torch.zeros(1, 1, 28, 28), 32, "cpu") == "32-true"


@pytest.mark.usefixtures("with_bf16")
def test_depthwise_convolutions_stay_fp32_on_a_cpu() -> None:
    network = mobilenet_v1(input_shape=(3, 32, 32), classes=10)
    assert fabric.choose_precision(network, IMAGE, 1024, "cpu") == "32-true"
    assert fabric.choose_precision(network, IMAGE, 1024, "cuda") == "bf16-mixed"


@pytest.mark.usefixtures("with_bf16")
def test_a_network_in_fp64_stays_so() -> None:
    """And is not run with an example in fp32 to find out."""
    student = tutorial_student(input_shape=(3, 32, 32), classes=10).double()
    assert fabric.choose_precision(student, IMAGE, 128, "cpu") == "32-true"


def test_fp32_where_the_hardware_has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    for unit in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{unit}_supported", lambda: False, raising=False)
    network = resnet8x4(input_shape=(3, 32, 32), classes=10)
    assert fabric.choose_precision(network, IMAGE, 1024, "cpu") == "32-true"
    assert fabric.choose_precision(network, IMAGE, 1024, "mps") == "32-true"


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_convolutions_lie_channels_last_with_the_same_values(role: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(16, 2))
    before = network[0].weight.detach().clone()
    batch = Batch(torch.rand(2, 3, 4, 4), torch.tensor([0, 1]), torch.arange(2))
    if role == "teacher":
        ModuleTeacher(network)(batch)
    else:
        unmoved = partial(torch.optim.SGD, lr=1e-30)
        fit(Distiller(network), [batch], epochs=1, optimizer=unmoved, progress=False)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(network[0].weight, before)


def test_resizing_works_under_autocast() -> None:
    resize = Preprocess(size=4)
    x = torch.rand(2, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(resize(x), resize(x.float()))
        assert resize(x).dtype == torch.float32


def test_deterministic_runs_repeat_their_bits() -> None:
    was = torch.are_deterministic_algorithms_enabled()
    try:
        fabric.make_deterministic()
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(was)


def test_bf16_without_the_wrappers_is_bf16_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])) for _ in range(3)]
    weights = []
    for plain in (True, False):
        torch.manual_seed(0)
        student = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
        if not plain:
            monkeypatch.setattr(Loop, "plain", False)
        options: dict[str, Any] = {
            "optimizer": optimizer("adam", lr=0.01),
            "precision": "bf16-mixed",
            "max_grad_norm": 1.0,
        }
        fit(Distiller(student), images, epochs=2, hardware=Hardware("cpu"), progress=False, **options)
        weights.append(student.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


@pytest.mark.parametrize(("precision", "plain"), [("32-true", True), ("bf16-mixed", True), ("16-mixed", False)])
def test_fabrics_wrappers_are_left_out_where_nothing_is_scaled(precision: str, plain: bool) -> None:
    assert Loop.plain.func(SimpleNamespace(fabric=fabric.make_fabric(precision, "cpu"))) == plain  # type: ignore[attr-defined]
    own = fabric.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")  # which rounds what goes in
    assert not Loop.plain.func(SimpleNamespace(fabric=own))  # type: ignore[attr-defined]


def test_too_little_memory_is_said_with_the_remedy() -> None:
    class Large(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled():
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return super().forward(x)

    images = [(torch.rand(4, 12), torch.tensor([0, 1, 2, 0]))]
    sgd = partial(torch.optim.SGD, lr=0.1)
    with pytest.raises(RunError, match=r"student: cpu has not enough memory for steps of 4 samples; halve batch_size"):
        fit(Distiller(Large(12, 3)), images, epochs=1, optimizer=sgd, hardware=Hardware("cpu"), progress=False)
