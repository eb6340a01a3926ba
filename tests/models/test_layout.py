"""Memory layout: gradients are right in the one that is chosen, on every kind of processor; the choice is told."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import layouts
import pytest
import torch
import torch.nn.functional as F
from layouts import Functional, Shortcut
from torch import nn
from torch._inductor import config

import forked
from limbeck import Batch, Distiller, Hardware, RequestError, fit
from limbeck.models import lay_out
from limbeck.models.layout import Layout, move
from limbeck.recipes.read import read
from limbeck.runs.run import run as run_recipe
from limbeck.taps import evaluating

SCRIPT = Path(__file__).with_name("layouts.py")
SGD = partial(torch.optim.SGD, lr=0.1)


@pytest.mark.slow
def test_gradients_are_those_of_the_contiguous_layout_with_avx2_alone() -> None:
    """In a process of its own: where they are not, it may well be killed; oneDNN asks once what it may use."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    paths = [str(SCRIPT.parents[2]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    checks = ("odd:1", "odd:2", "networks:2")
    done = subprocess.run([sys.executable, SCRIPT, *checks], env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout.decode()[-300:] + done.stderr.decode()[-600:]


@forked.needed
@pytest.mark.parametrize("threads", [1, 2])
def test_so_they_are_on_this_processor(threads: int) -> None:
    """On which all other tests of the networks run."""
    process = forked.begun(layouts.check, "odd", threads)
    process.join(300)
    assert process.exitcode == 0


def laid_out(network: nn.Module, wanted: str | None = None) -> Layout:
    distiller = Distiller(network)

    def run(change):
        with torch.no_grad(), evaluating(distiller):
            distiller.predict(change(torch.rand(2, 3, 8, 8)))

    return lay_out(distiller, wanted, run)


@pytest.mark.parametrize("channels", [1, 3, 7, 15])
def test_strided_pointwise_convolutions_of_few_channels_are_trained_contiguous(channels: int) -> None:
    laid = laid_out(Shortcut(channels, nn.Conv2d(channels, 12, 1, stride=2)))
    assert (laid.name, laid.onednn) == ("contiguous", True)
    assert laid.reason == (
        "contiguous layout in place of channels_last, for which oneDNN computes wrong gradients of "
        f"student.side (strided 1×1 convolution of {channels} channels)"
    )


@pytest.mark.parametrize(
    "side",
    [
        nn.Conv2d(16, 12, 1, stride=2),
        nn.Conv2d(16, 12, 1, stride=2, groups=4),
        nn.Conv2d(16, 12, 2, stride=2),
    ],
)
def test_others_are_trained_channels_last(side: nn.Module) -> None:
    network = Shortcut(16, side)
    laid = laid_out(network)
    assert (laid.name, laid.reason) == ("channels_last", "")
    assert network.main.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_network_without_convolutions_is_left_as_it_is() -> None:
    assert laid_out(nn.Sequential(nn.Flatten(), nn.Linear(192, 3))) == Layout(None)


def test_a_convolution_that_runs_in_training_alone_counts_too() -> None:
    class Auxiliary(Shortcut):
        def forward(self, x):
            maps = self.stem(x)
            return self.head(self.main(maps).mean((2, 3)) + (self.side(maps).mean((2, 3)) if self.training else 0))

    assert laid_out(Auxiliary(3, nn.Conv2d(3, 12, 1, stride=2))).name == "contiguous"


def test_a_network_that_permutes_its_maps_itself_is_trained_without_onednn() -> None:
    laid = laid_out(Functional())
    assert not laid.onednn
    assert "torch's own kernels" in laid.reason
    with laid.kept():
        assert not torch.backends.mkldnn.enabled
    assert torch.backends.mkldnn.enabled


def test_a_convolution_that_runs_twice_is_unsafe_if_it_is_once() -> None:
    class Shared(Functional):
        def forward(self, x):
            first = super().forward(x)
            return first + self.head(F.conv2d(torch.cat([x, x], 1), self.kernel, stride=2).mean((2, 3)))

    assert not laid_out(Shared()).onednn


def test_a_recipe_that_names_an_unsafe_layout_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "small_channels.py").write_text(
        "from torch import nn\n\ndef net(classes=10):\n    return nn.Sequential(nn.Conv2d(1, 4, 1, stride=2), "
        "nn.Flatten(), nn.Linear(64, classes))\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        recipe = read("digits", ["student={model: 'small_channels:net'}", "layout=channels_last"])
        with pytest.raises(RequestError, match="layout channels_last would give wrong gradients"):
            run_recipe(recipe, out=tmp_path / "out", root=tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_compiler_keeps_the_layout() -> None:
    before = config.layout_optimization
    with laid_out(Shortcut(3, nn.Conv2d(3, 12, 1, stride=2))).kept():
        assert not config.layout_optimization
    assert config.layout_optimization == before


def test_images_in_channels_last_come_contiguous_to_such_a_network() -> None:
    images = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    assert laid_out(Shortcut(3, nn.Conv2d(3, 12, 1, stride=2))).inputs(images).is_contiguous()
    assert laid_out(Shortcut(3, nn.Conv2d(3, 12, 3, stride=2))).inputs(images) is images


def test_the_layout_can_be_named() -> None:
    assert laid_out(Shortcut(16, nn.Conv2d(16, 12, 1)), "contiguous").name == "contiguous"
    with pytest.raises(RequestError, match=r"layout channels_last would give wrong gradients .*student\.side .*leave"):
        laid_out(Shortcut(3, nn.Conv2d(3, 12, 1, stride=2)), "channels_last")
    with pytest.raises(RequestError, match="unknown layout 'nhwc'; valid: channels_last, contiguous"):
        laid_out(Shortcut(3, nn.Conv2d(3, 12, 1)), "nhwc")


def test_fit_says_once_which_layout_it_takes_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    batches = [Batch(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]), torch.arange(4))]
    unsafe = Shortcut(3, nn.Conv2d(3, 12, 1, stride=2))
    assert fit(Distiller(unsafe), batches, epochs=2, optimizer=SGD).layout == "contiguous"
    assert capsys.readouterr().err.count("student: contiguous layout in place of channels_last") == 1
    safe = Shortcut(16, nn.Conv2d(16, 12, 1, stride=2))
    assert fit(Distiller(safe), batches, epochs=1, optimizer=SGD).layout == "channels_last"
    assert "layout" not in capsys.readouterr().err
    assert (
        fit(Distiller(safe), batches, epochs=1, optimizer=SGD, hardware=Hardware(layout="contiguous")).layout
        == "contiguous"
    )
    assert safe.main.weight.is_contiguous()


def test_a_recipe_names_the_layout_and_the_result_records_it(tmp_path: Path) -> None:
    student = "{model: cnn, channels: [4]}"
    recipe = read("digits", ["epochs=1", "teacher.epochs=1", f"student={student}", "layout=contiguous"])
    result = run_recipe(recipe, out=tmp_path, root=tmp_path)
    assert result["baseline"]["layout"] == result["distilled"]["layout"] == "contiguous"


def test_a_model_that_only_answers_lies_channels_last_whatever_it_holds() -> None:
    network = Shortcut(3, nn.Conv2d(3, 12, 1, stride=2))
    move(network, torch.device("cpu"))
    assert network.main.weight.is_contiguous(memory_format=torch.channels_last)
