"""The command as a user meets it: output, one line for an error, exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import pytest

import forked
from limbeck.cli.main import main

LIMBECK = [sys.executable, "-m", "limbeck"]
LONG = ["run", "long.yaml", "--out", "out"]
RECIPE = """
name: long
data: {name: digits, limit_samples: 200}
teacher: {model: mlp, hidden: [8], epochs: 1}
student: {model: mlp, hidden: [4]}
distill: {terms: [{loss: kd}]}
epochs: 40
"""


def command(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["limbeck", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_run_prints_the_table_and_says_where_the_files_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status = command(
        "run", "digits", "--epochs", "2", "--seed", "3", "--set", "teacher.epochs=2", monkeypatch=monkeypatch
    )
    printed = capsys.readouterr()
    assert status == 0
    for word in ("teacher (trained)", "baseline", "distilled student", "distilled − baseline", "runs/digits/student"):
        assert word in printed.out
    assert "baseline  epoch 2/2" in printed.err
    result = json.loads((tmp_path / "runs" / "digits" / "result.json").read_text())
    assert (result["seed"], result["distilled"]["epochs"]) == (3, 2)
    assert f"{result['distilled']['test_accuracy']:.4f}" in printed.out

    assert command("evaluate", "runs/digits", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert f"{result['distilled']['test_accuracy']:.4f}" in shown
    assert "agreement" in shown


def test_diagnose_says_what_the_teacher_has_to_teach(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = ("diagnose", "digits", "--set", "teacher.epochs=2", "--seed", "3", "--quiet")
    assert command(*recipe, "--json", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert (found["recipe"], found["diagnosis"]["samples"], printed.err) == ("digits", 1437, "")
    assert command(*recipe, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    for figure in ("train_accuracy", "held_out_accuracy", "entropy", "calibration_error"):
        assert f"{found['diagnosis'][figure]:.4f}" in shown
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    arguments = ("run", "digits", "--epochs", "1", "--out", "run", "--tensorboard", "--quiet", "--no-baseline")
    assert command(*arguments, monkeypatch=monkeypatch) == 0
    assert list((tmp_path / "run" / "tensorboard").rglob("events.out.tfevents.*"))


def test_a_run_that_loses_its_folder_to_another_takes_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    from limbeck.runs import run

    def late(*given: Any) -> None:
        (tmp_path / "runs" / "digits").mkdir(parents=True)  # another run begins meanwhile

    monkeypatch.setattr(run, "dry_run", late)
    arguments = ("run", "digits", "--epochs", "1", "--tensorboard", "--quiet", "--no-baseline")
    assert command(*arguments, monkeypatch=monkeypatch) == 0
    assert "student: runs/digits-2/student.safetensors" in capsys.readouterr().out
    assert list((tmp_path / "runs" / "digits-2" / "tensorboard").rglob("events.out.tfevents.*"))
    assert not list((tmp_path / "runs" / "digits").iterdir())


def test_inspect_lists_taps_and_proposes_pairs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status = command(
        "inspect", "torchvision:resnet50", "torchvision:mobilenet_v2", "--input", "3x32x32", monkeypatch=monkeypatch
    )
    shown = capsys.readouterr().out
    assert status == 0
    # torchvision documents 25,557,032 with 1,000 classes; 990 fewer of 2,048 weights and a bias each.
    assert f"{25_557_032 - 990 * 2049:,} parameters" in shown
    assert "layer3.0.conv2" in shown
    pairs = shown.partition("proposed pairs")[2]
    assert "layer3" in pairs
    assert "features.13" in pairs


def test_inspect_lists_operations_and_takes_a_models_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("inspect", "resnet50", "{model: mobilenet_v1, stem_stride: 1}", monkeypatch=monkeypatch) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["stage4.2.add", "add", "2048×4×4", "0"] in rows
    # PaddleSlim's pair: equal shapes, no adapter.
    assert ["stage4.2.branch.bn2", "BatchNorm2d", "512×4×4", "1,024"] in rows
    assert ["stage4.5.depthwise.conv", "Conv2d", "512×4×4", "4,608"] in rows
    assert ["stage4.2.branch.relu2", "512×4×4", "stage4", "512×4×4", "none"] in rows


def test_list_names_everything(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    for word in ("mnist-mlp", "attention", "torchvision:NAME", "image-folder"):
        assert word in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "mnist-mpl"], "unknown recipe 'mnist-mpl'; did you mean mnist-mlp"),
        (["run", "digits", "--set", "student.model=resnt18"], "unknown model 'resnt18'"),
        (["run", "digits", "--set", "distill.terms.0.temp=3"], "unknown option of loss dist 'temp'"),
        (["run", "digits", "--precision", "fp8"], "precision"),
        (["run", "digits", "--devices", "99", "--accelerator", "cuda"], "cannot compute on"),
        (["run", "digits", "--sed", "3"], "--sed"),
        (["run", "digits", "--out", "/dev/null/sub"], "is a file; choose another --out"),
        (["run", "digits", "--resume", "--out", "/usr"], "holds no run to resume"),
        (["run"], "RECIPE"),
        (["rum"], "rum"),
        (["run", "mnist-mlp", "--data-root", "empty"], "mnist"),
        (["run", "digits", "--set", "data.name=image-folder", "--data-root", "empty"], "image folder"),
        (["evaluate", "empty"], "holds no finished run"),
        (["diagnose", "digits-mutual"], "has no teacher to diagnose; schemes with a teacher: offline, two-stage"),
        (["inspect", "resnet51"], "unknown model 'resnet51'; did you mean"),
        (["inspect", "mlp", "--input", "3xx32"], "--input is a shape such as 3x32x32"),
        (["inspect", "torchvision:resnet18", "--input", "7"], "cannot read an input of shape (7,)"),
        (["inspect", "{model: mlp, hiden: [3]}"], "unknown option of model mlp 'hiden'; did you mean hidden?"),
        (["inspect", "{model: mlp"], "a model is a name or a mapping such as"),
        (["list", "loses"], "unknown kind of names 'loses'; did you mean losses?"),
    ],
)
def test_a_wrong_request_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)
    (tmp_path / "empty").mkdir()
    assert command(*arguments, monkeypatch=monkeypatch) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1, printed.err
    assert printed.err.startswith("limbeck: ")
    assert message in printed.err
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "empty") == []


def test_a_failed_run_is_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("run", "digits", "--quiet", "--no-baseline", "--set", "optimizer={name: sgd, lr: 1e30}")
    assert command(*arguments, monkeypatch=monkeypatch) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "is not finite in epoch 1, step" in message


def test_help_and_import_do_not_import_torch() -> None:
    code = "import sys, limbeck, limbeck.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    wrong = (
        "import sys; sys.argv = ['limbeck', 'run', 'digits', '--sed', '3']\n"
        "from limbeck.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", wrong], check=True, capture_output=True, text=True)
    assert (said.stdout, said.stderr.count("\n")) == ("2 False\n", 1)
    unknown = (
        "import sys\n"
        "from limbeck.cli.main import main\n"
        "for name in ('run', 'compare', 'diagnose', 'plan', 'cache', 'show'):\n"
        "    sys.argv = ['limbeck', name, 'digit']\n"
        "    try: main()\n"
        "    except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", unknown], check=True, capture_output=True, text=True)
    assert (said.stdout, said.stderr.count("did you mean digits")) == (6 * "2 False\n", 6)
    began = time.perf_counter()
    shown = subprocess.run([*LIMBECK, "--help"], check=True, capture_output=True, text=True).stdout
    assert time.perf_counter() - began < 3  # 0.1 s on an idle machine; importing torch alone takes longer than this
    assert "Commands" in shown


def slowly(arguments: list[str]) -> None:
    """The command, in a process of its own: its epochs are paced, so that it does not end before it is stopped."""
    from limbeck.engine.loop import Loop

    epoch = Loop.epoch

    def paced(self: Any, state: Any) -> dict[str, Any]:
        time.sleep(0.03)
        return epoch(self, state)

    Loop.epoch = paced  # type: ignore[method-assign]
    sys.argv = ["limbeck", *arguments]
    with Path("said").open("w", buffering=1) as sys.stderr:
        main()


def started() -> ForkProcess:
    """A run that is still in the middle of its last student."""
    Path("long.yaml").write_text(RECIPE)
    process = forked.begun(slowly, LONG)
    wait_for(lambda: Path("out/checkpoints/last.pt").exists() and b"student" in Path("out/metrics.jsonl").read_bytes())
    return process


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come so far"
        time.sleep(0.02)


@forked.needed
def test_kill_9_and_resume_give_the_same_student(monkeypatch: pytest.MonkeyPatch) -> None:
    process = started()
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not Path("out/result.json").exists()
    assert command(*LONG, "--resume", "--quiet", monkeypatch=monkeypatch) == 0
    whole = ["whole" if a == "out" else a for a in LONG]
    assert command(*whole, "--quiet", monkeypatch=monkeypatch) == 0
    assert Path("out/student.safetensors").read_bytes() == Path("whole/student.safetensors").read_bytes()
    assert Path("out/baseline.safetensors").read_bytes() == Path("whole/baseline.safetensors").read_bytes()


@forked.needed
def test_ctrl_c_says_how_to_resume(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    process = started()
    assert process.pid
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    said = Path("said").read_text()
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert last == f"limbeck: interrupted; resume with: limbeck {' '.join(LONG)} --resume"
    assert command(*last.partition("resume with: limbeck")[2].split(), "--quiet", monkeypatch=monkeypatch) == 0
    assert "distilled student" in capsys.readouterr().out
