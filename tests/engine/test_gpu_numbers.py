"""What a GPU computes is what a plain loop in float64 on the CPU computes, within what its formats can hold.

Each test runs on the CPU too, in the GPU's place. Errors are those of whole tensors: ‖x − expected‖ / ‖expected‖.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import Batch, Distiller, Hardware, ModuleTeacher, Saving, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.engine.devices.fabric import make_deterministic, make_fabric
from limbeck.engine.optimizers.named import optimizer
from limbeck.models import NETWORKS
from limbeck.models.layout import lay_out
from limbeck.teachers import StoredTeacher
from limbeck.teachers.stored import Coding, store

CPU = torch.device("cpu")
EPS = {"bf16-mixed": torch.finfo(torch.bfloat16).eps, "16-mixed": torch.finfo(torch.float16).eps}
TF32 = 2.0**-10
"""What convolutions of an NVIDIA GPU hold of an fp32 number."""
SAMPLES, SIZE = 64, 32


def eps_of(precision: str, device: torch.device) -> float:
    return EPS.get(precision, TF32 if device.type == "cuda" else torch.finfo(torch.float32).eps)


def error(found: Tensor, expected: Tensor) -> float:
    expected = expected.detach().double()
    return float(
        torch.linalg.vector_norm(found.detach().cpu().double() - expected) / torch.linalg.vector_norm(expected)
    )


@pytest.fixture
def images() -> InMemory:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (SAMPLES, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return InMemory(pixels, torch.arange(SAMPLES) % 4)


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Deterministic kernels only, as `--deterministic` has them."""
    was = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    make_deterministic()
    yield
    torch.use_deterministic_algorithms(was[0])
    torch.backends.cudnn.benchmark = was[1]


def network(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS["cnn"](input_shape=(3, 16, 16), classes=4, **{"channels": [8, 8], **options})


def smooth(second: int = 8) -> nn.Sequential:
    """A network without ReLU and max-pooling, in which a rounded number could take another way."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU(), nn.AvgPool2d(2),
        nn.Conv2d(8, second, 3, padding=1, bias=False), nn.BatchNorm2d(second), nn.SiLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(second, 4),
    )  # fmt: skip


class TestLayout:
    """In the layout that limbeck chooses, gradients are those of the plain one."""

    @pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
    @pytest.mark.parametrize(
        "convolution",
        [
            partial(nn.Conv2d, kernel_size=1, stride=2),
            partial(nn.Conv2d, kernel_size=3, dilation=2),
            partial(nn.Conv2d, kernel_size=3, padding=1, stride=2),
        ],
        ids=["strided 1×1", "dilated", "strided 3×3"],
    )
    def test_gradients(self, convolution: Any, precision: str, device: torch.device) -> None:
        for channels in (1, 3, 6, 8, 17):
            self.check(convolution(channels, 12), channels, precision, device)

    @pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
    @pytest.mark.parametrize("groups", [2, 6])
    def test_groups(self, groups: int, precision: str, device: torch.device) -> None:
        self.check(nn.Conv2d(6, 12, 3, groups=groups), 6, precision, device)

    @staticmethod
    def check(layer: nn.Conv2d, channels: int, precision: str, device: torch.device) -> None:
        x = torch.randn(8, channels, 16, 16)
        plain = copy.deepcopy(layer).double()
        expected = plain(x.double())
        weights = torch.randn(expected.shape)
        expected_gradient = torch.autograd.grad((expected * weights.double()).sum(), plain.weight)[0]
        network, there = nn.Sequential(layer).to(device), x.to(device)
        fabric = make_fabric(precision, device.type)

        @torch.no_grad()
        def run(change: Callable[[Tensor], Tensor]) -> None:
            network(change(there))

        laid = lay_out(network, None, run)
        with laid.kept():
            with fabric.autocast():
                y = network(laid.inputs(there))
            gradient = torch.autograd.grad((y.float() * weights.to(device)).sum(), layer.weight)[0]
        # Two factors and the result are rounded, by half of eps each at most; sums of n products are kept in fp32.
        sums = math.sqrt(weights[:, 0].numel()) * torch.finfo(torch.float32).eps
        bound = 2 * eps_of(precision, device) + sums
        assert error(y, expected) < bound
        assert error(gradient, expected_gradient) < bound


def gradients(images: InMemory, device: torch.device, precision: str, **options: Any) -> dict[str, Tensor]:
    """What one step of SGD at a learning rate of 1 takes from each weight."""
    student = smooth()
    before = {name: value.detach().clone() for name, value in student.named_parameters()}
    fabric = make_fabric(precision, device.type)
    if precision == "16-mixed":  # its usual start may be above what fp16 holds, and then the first steps are left out
        fabric.strategy.precision.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**14)  # type: ignore[union-attr]
    loader = make_loader(images, SAMPLES // options.get("accumulate_steps", 1), device=device)
    scheme = Distiller(student, [Term(losses.kd, weight=0.5)])
    options |= {"teacher": smooth(16), "hardware": Hardware(fabric=fabric), "progress": False}
    fit(scheme, loader, epochs=1, optimizer=optimizer("sgd", lr=1.0), **options)
    return {name: before[name] - value.detach().cpu() for name, value in student.named_parameters()}


class Rounded(torch.autograd.Function):
    """Numbers rounded to a format of this eps, and their gradients too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        ctx.eps = eps
        return rounded(x, eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return rounded(gradient, ctx.eps), None


def rounded(x: Tensor, eps: float) -> Tensor:
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * (2 / eps)).round() * (eps / 2), exponent)


def plain_gradients(images: InMemory, max_grad_norm: float | None, parts: int, eps: float = 0.0) -> dict[str, Tensor]:
    """The same by hand in float64: cross-entropy + 0.5 · kd at the loss's own temperature, 4.

    With `eps`, each layer's weights, result and gradients are rounded to such a format, as autocast does.
    """
    student, teacher = smooth().double(), smooth(16).double().eval()
    for layer in student.modules():
        if eps and not list(layer.children()):
            layer.register_forward_hook(lambda layer, inputs, result: Rounded.apply(result, eps))
            for weight in layer.parameters():
                weight.data = rounded(weight.data, eps) if weight.dim() > 1 else weight.data
    for x, y in zip(images.inputs.chunk(parts), images.targets.chunk(parts), strict=True):
        x = x.double() / 255
        s, t = student(rounded(x, eps) if eps else x), teacher(x).detach()
        soft = F.kl_div(F.log_softmax(s / 4, 1), F.softmax(t / 4, 1), reduction="batchmean") * 16
        ((F.cross_entropy(s, y) + 0.5 * soft) / parts).backward()
    if max_grad_norm is not None:
        nn.utils.clip_grad_norm_(student.parameters(), max_grad_norm)
    return {name: value.grad for name, value in student.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize(("max_grad_norm", "accumulate_steps"), [(None, 1), (0.1, 2)])
def test_a_step_takes_the_gradients_of_a_plain_one(
    images: InMemory, device: torch.device, precision: str, max_grad_norm: float | None, accumulate_steps: int
) -> None:
    found = gradients(images, device, precision, max_grad_norm=max_grad_norm, accumulate_steps=accumulate_steps)
    expected = plain_gradients(images, max_grad_norm, accumulate_steps)
    fp32 = torch.finfo(torch.float32).eps
    sums = math.sqrt(SAMPLES * 16 * 16) * fp32  # which are kept in fp32
    coarse = plain_gradients(images, max_grad_norm, accumulate_steps, 8 * max(sums, eps_of(precision, device)))
    # The gradient is the difference of two weights, each rounded to fp32.
    rest = max(float(fp32 * p.detach().norm() / expected[name].norm()) for name, p in smooth().named_parameters())
    # Kernels round inside too, some CPUs' even sums: as if the format had three bits less. One wrong tensor of the
    # eight would be an error of 0.35.
    assert mean_error(found, expected) < mean_error(coarse, expected) + rest


def mean_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The root mean square of all tensors' errors: a single one that is wrong shows."""
    return math.sqrt(sum(error(found[name], value) ** 2 for name, value in expected.items()) / len(expected))


class Killed(BaseException):
    """What a kill looks like from inside."""


class Interrupted:
    """A loader that dies at one batch of the second epoch."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.epoch = loader, 0

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch]:
        for step, batch in enumerate(self.loader):
            if (self.epoch, step) == (1, 3):
                raise Killed
            yield batch


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(("name", "precision"), [("sgd", "32-true"), ("adam", "bf16-mixed"), ("adam", "16-mixed")])
def test_a_killed_run_goes_on_to_the_same_bytes(
    images: InMemory, device: torch.device, tmp_path: Path, name: str, precision: str
) -> None:
    def go(out: Path, wrap: Any = lambda loader: loader, **options: Any) -> bytes:
        loader = make_loader(images, 16, shuffle=True, device=device)
        scheme = Distiller(network(dropout=0.2), [Term(losses.kd)])
        make = optimizer(name, lr=0.01, **({"momentum": 0.9} if name == "sgd" else {}))
        kind = {
            "hardware": Hardware(device.type),
            "precision": precision,
            "saving": Saving(checkpoint_steps=1),
            "max_grad_norm": 1.0,
            "out": out,
        }
        fit(scheme, wrap(loader), teacher=network(), epochs=3, optimizer=make, progress=False, **kind, **options)
        return (out / "student.safetensors").read_bytes()

    whole = go(tmp_path / "whole")
    with pytest.raises(Killed):
        go(tmp_path / "broken", Interrupted)
    torch.rand(3, device=device)
    assert go(tmp_path / "broken", resume=True) == whole


@pytest.mark.usefixtures("deterministic")
def test_two_precisions_in_one_process_leave_each_other_alone(images: InMemory, device: torch.device) -> None:
    runs = [gradients(images, device, precision) for precision in ("32-true", "bf16-mixed", "16-mixed", "32-true")]
    assert all(torch.equal(value, runs[3][name]) for name, value in runs[0].items())
    assert not all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("written_there", [True, False], ids=["written there", "read there"])
def test_a_store_is_the_same_on_both(
    images: InMemory, device: torch.device, tmp_path: Path, dtype: str, written_there: bool
) -> None:
    place, other = (device, CPU) if written_there else (CPU, device)
    teacher = ModuleTeacher(network(channels=[8, 16]), ["mean"])
    batches = make_loader(images, 16, device=place)
    store(
        teacher,
        lambda view, start, stop: list(batches.starting_at(start // 16))[: -(-(stop - start) // 16)],
        tmp_path,
        samples=SAMPLES,
        views=1,
        batch_size=16,
        made_of={"teacher": "t"},
        coding=Coding(dtype),
    )
    stored = StoredTeacher(tmp_path)
    batch = next(iter(make_loader(images, 24, shuffle=True, device=other)))
    told, expected = stored(batch), ModuleTeacher(network(channels=[8, 16]), ["mean"])(batch)
    assert told.output is not None
    assert expected.output is not None
    assert told.output.device == batch.targets.device
    # The last of the three layers' results is stored; each layer rounds its weights and its maps.
    bound = 3 * 2 * eps_of("32-true", device) + (torch.finfo(torch.float16).eps if dtype == "float16" else 0) + 1e-6
    assert error(told.output, expected.output.cpu()) < bound
    assert error(told.features["mean"], expected.features["mean"].cpu()) < bound


def test_a_teacher_in_bf16_says_fp32_and_leaves_its_module_alone(images: InMemory, device: torch.device) -> None:
    module = network()
    batch = next(iter(make_loader(images, 32, device=device)))
    said = ModuleTeacher(module, dtype=torch.bfloat16)(batch).output
    assert said is not None
    assert (said.dtype, said.device.type) == (torch.float32, device.type)
    assert {value.dtype for value in module.parameters()} == {torch.float32}
    expected = network().double().eval()(batch.inputs.cpu().double())
    assert 0 < error(said, expected) < 3 * 2 * torch.finfo(torch.bfloat16).eps  # three layers, each weights and maps


class Watched:
    """A loader between whose batches the GPU must not be waited for."""

    def __init__(self, loader: Any, device: torch.device) -> None:
        self.loader, self.device = loader, device

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        try:
            for step, batch in enumerate(self.loader):
                yield batch
                if self.device.type == "cuda" and step == 0:
                    torch.cuda.set_sync_debug_mode("error")
        finally:
            if self.device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("loss", ["kd", "dkd", "nkd", "dist", "jsd", "mlkd", "wsld", "attention", "similarity", "rkd"])
def test_no_step_waits_for_the_gpu(images: InMemory, device: torch.device, precision: str, loss: str) -> None:
    place = {"attention": "stage1", "similarity": "stage2", "rkd": "flatten"}.get(loss, "logits")
    scheme = Distiller(network(), [Term(getattr(losses, loss), student=place, teacher=place)])
    loader = Watched(make_loader(images, 8, device=device), device)
    make = optimizer("adam", lr=1e-3)
    kind = {"hardware": Hardware(device.type), "precision": precision}
    run = fit(scheme, loader, teacher=network(), epochs=1, optimizer=make, progress=False, max_grad_norm=1.0, **kind)
    assert math.isfinite(run.metrics[-1]["loss"])
