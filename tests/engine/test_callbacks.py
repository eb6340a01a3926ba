"""Callbacks: when each hook is called and with what, how they end a training, and that they change nothing else."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.loggers.csv_logs import CSVLogger
from torch import nn
from torch.optim import SGD

from dying import Killed
from limbeck import Callback, Distiller, Hardware, LogTo, RequestError, Run, RunError, Saving, fit
from limbeck.data import InMemory, make_loader
from limbeck.engine.callbacks import checkpoints
from limbeck.engine.callbacks.hooks import HOOKS, Training
from limbeck.engine.callbacks.metrics_file import MetricsFile


def trained(blobs: InMemory, *callbacks: Callback, **options: Any) -> Run:
    """A student with dropout, two epochs of three steps."""
    torch.manual_seed(3)
    student = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    given: dict[str, Any] = {"epochs": 2, "val": make_loader(blobs, 32), "callbacks": list(callbacks)} | options
    make = partial(SGD, lr=0.5)
    loader = make_loader(blobs, 32, shuffle=True)
    return fit(Distiller(student), loader, optimizer=make, progress=False, hardware=Hardware("cpu"), **given)


class Seen(Callback):
    """Writes down each call: hook, epoch, step, epoch of the record, number of records."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def note(self, hook: str, training: Training) -> None:
        record = training.record and training.record["epoch"]
        self.calls.append((hook, training.epoch, training.step, record, len(training.records)))

    def fit_start(self, training: Training) -> None:
        self.note("fit_start", training)

    def step_end(self, training: Training) -> None:
        self.note("step_end", training)

    def validation_end(self, training: Training) -> None:
        self.note("validation_end", training)

    def epoch_end(self, training: Training) -> None:
        self.note("epoch_end", training)

    def fit_end(self, training: Training) -> None:
        self.note("fit_end", training)


def test_when_each_hook_is_called(blobs: InMemory) -> None:
    seen = Seen()
    trained(blobs, seen)
    assert seen.calls == [
        ("fit_start", 0, 0, None, 0),
        ("step_end", 1, 1, None, 0),
        ("step_end", 1, 2, None, 0),
        ("step_end", 1, 3, None, 0),
        ("validation_end", 1, 3, 1, 0),
        ("epoch_end", 1, 3, 1, 1),
        ("step_end", 2, 1, 1, 1),
        ("step_end", 2, 2, 1, 1),
        ("step_end", 2, 3, 1, 1),
        ("validation_end", 2, 3, 2, 1),
        ("epoch_end", 2, 3, 2, 2),
        ("fit_end", 2, 3, 2, 2),
    ]


def test_joined_batches_are_one_step_and_no_validation_has_no_hook(blobs: InMemory) -> None:
    seen = Seen()
    trained(blobs, seen, epochs=1, accumulate_steps=2, val=None)
    assert [call[:3] for call in seen.calls[1:-1]] == [("step_end", 1, 2), ("step_end", 1, 3), ("epoch_end", 1, 3)]


def test_what_is_there(blobs: InMemory, tmp_path: Path) -> None:
    class Looks(Callback):
        def step_end(self, training: Training) -> None:
            assert training.scheme.student.training
            means.append(training.means())

        def epoch_end(self, training: Training) -> None:
            assert (training.phase, training.epochs, training.steps, training.first) == ("student", 2, 3, True)
            assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == training.epoch

        def fit_end(self, training: Training) -> None:
            assert not training.scheme.student.training
            assert (tmp_path / "student.safetensors").exists()

    means: list[dict[str, float]] = []
    run = trained(blobs, Looks(), out=tmp_path)
    for epoch in (0, 1):
        last = means[3 * epoch + 2]
        assert last == {name: run.metrics[epoch][name] for name in last}
    assert means[0]["loss"] != means[1]["loss"]


def test_a_callback_that_looks_changes_nothing(blobs: InMemory) -> None:
    class Evaluates(Callback):
        def step_end(self, training: Training) -> None:
            training.scheme.student.eval()(blobs.inputs)
            training.means()

        epoch_end = step_end

    plain, watched = trained(blobs), trained(blobs, Evaluates())
    for one, other in zip(plain.student.parameters(), watched.student.parameters(), strict=True):
        assert torch.equal(one, other)


class Halves(Callback):
    """Halves the first weights after each step and the last ones after each epoch; dies where it is told to."""

    def __init__(self, dies: tuple[int, int] | None = None) -> None:
        self.dies = dies

    def step_end(self, training: Training) -> None:
        if (training.epoch, training.step) == self.dies:
            raise Killed
        self._halve(training, 0)

    def epoch_end(self, training: Training) -> None:
        self._halve(training, 2)

    def _halve(self, training: Training, layer: int) -> None:
        with torch.no_grad():
            training.scheme.student[layer].weight /= 2


@pytest.mark.parametrize("dies", [(1, 2), (2, 1), (2, 3)])
def test_what_callbacks_change_is_in_the_checkpoints(blobs: InMemory, tmp_path: Path, dies: tuple[int, int]) -> None:
    options: dict[str, Any] = {"out": tmp_path, "saving": Saving(checkpoint_steps=1)}
    whole = trained(blobs, Halves()).student.state_dict()
    with pytest.raises(Killed):
        trained(blobs, Halves(dies), **options)
    resumed = trained(blobs, Halves(), resume=True, **options).student.state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_within_an_epoch_the_validation_comes_before_the_hook_of_its_step(blobs: InMemory) -> None:
    seen = Seen()
    trained(blobs, seen, epochs=1, validate_steps=2)
    assert [call[0] for call in seen.calls] == [
        "fit_start",
        "step_end",
        "validation_end",
        "step_end",
        "step_end",
        "validation_end",
        "epoch_end",
        "fit_end",
    ]


def test_loggers_have_each_epoch_written_when_it_ends_and_steps_where_asked(blobs: InMemory, tmp_path: Path) -> None:
    class Reads(Callback):
        def epoch_end(self, training: Training) -> None:
            rows.append(
                list(csv.DictReader((tmp_path / "logs" / "version_0" / "metrics.csv").read_text().splitlines()))
            )

    rows: list[list[dict[str, str]]] = []
    logger = CSVLogger(tmp_path, "logs")
    log_to = LogTo(logger, every_steps=2)
    run = trained(blobs, log_to, Reads())
    assert [len(some) for some in rows] == [2, 5]  # the epoch's row, and one after 2, 4 and 6 batches of 3 an epoch
    by_epoch = [row for row in rows[-1] if row["student/loss"]]
    assert [float(row["student/val_accuracy"]) for row in by_epoch] == [one["val_accuracy"] for one in run.metrics]
    by_step = [row for row in rows[-1] if row["student/step/loss"]]
    assert [(row["step"], row["student/step/lr"]) for row in by_step] == [("2", "0.5"), ("4", "0.5"), ("6", "0.5")]
    trained(blobs, log_to, Reads())
    again = [row["step"] for row in rows[-1] if row["student/step/loss"]]
    assert again == ["2", "4", "6", "2", "4", "6"]  # a second training begins anew
    for wrong in ("logs", [logger]):
        with pytest.raises(RequestError, match=r"LogTo takes loggers, such as LogTo\(TensorBoardLogger"):
            LogTo(wrong)  # type: ignore[arg-type]


class Stops(Callback):
    """Ends a training at one moment."""

    def __init__(self, hook: str, epoch: int) -> None:
        self.epoch = epoch
        setattr(self, hook, self.look)

    def look(self, training: Training) -> None:
        if training.epoch == self.epoch:
            training.stop()


@pytest.mark.parametrize(
    ("hook", "epoch", "trains"),
    [("step_end", 2, 2), ("validation_end", 2, 2), ("epoch_end", 1, 1), ("fit_start", 0, 0)],
)
def test_it_ends_after_the_epoch_and_stays_ended(
    hook: str, epoch: int, trains: int, blobs: InMemory, tmp_path: Path
) -> None:
    run = trained(blobs, Stops(hook, epoch), epochs=4, out=tmp_path)
    assert len(run.metrics) == trains
    assert json.loads((tmp_path / "student.json").read_text())["training"]["stopped_early"] is True
    if trains:
        resumed = trained(blobs, epochs=4, out=tmp_path, resume=True)
        assert len(resumed.metrics) == trains


def test_one_of_several_processes_ends_all(blobs: InMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen()

    def of_two(fabric: Any, own: Any) -> list[Any]:
        return [own, len(seen.calls) > 1] if isinstance(own, bool) else [own]

    monkeypatch.setattr(checkpoints, "from_all", of_two)
    assert len(trained(blobs, seen, epochs=4).metrics) == 1


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    training = Training("student", 1, 1, Distiller(nn.Linear(4, 3)), first=False, epoch=1, record={"loss": 1.0})
    MetricsFile(tmp_path).epoch_end(training)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("hook", HOOKS)
def test_an_exception_names_the_callback(hook: str, blobs: InMemory, tmp_path: Path) -> None:
    def fails(training: Training) -> None:
        raise KeyError("no such figure")

    broken = Callback()
    setattr(broken, hook, fails)
    told = rf"student: the callback Callback fails in {hook}, epoch \d, step \d: KeyError: 'no such figure'"
    with pytest.raises(RunError, match=told):
        trained(blobs, broken, out=tmp_path)


def test_a_resumed_training_goes_on_where_it_was(blobs: InMemory, tmp_path: Path) -> None:
    class Dies(Callback):
        def step_end(self, training: Training) -> None:
            if (training.epoch, training.step) == (2, 2):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(blobs, Dies(), out=tmp_path, saving=Saving(checkpoint_steps=1))
    seen = Seen()
    resumed = trained(blobs, seen, out=tmp_path, resume=True)
    assert [call[:3] for call in seen.calls] == [
        ("fit_start", 1, 1),
        ("step_end", 2, 2),
        ("step_end", 2, 3),
        ("validation_end", 2, 3),
        ("epoch_end", 2, 3),
        ("fit_end", 2, 3),
    ]
    assert seen.calls[0][3:] == (1, 1)
    whole = trained(blobs)
    for one, other in zip(whole.student.parameters(), resumed.student.parameters(), strict=True):
        assert torch.equal(one, other)


class Keras(Callback):
    def on_epoch_end(self, training: Training) -> None:
        """As another library calls it."""


class Lightning(Callback):
    def on_train_epoch_end(self, training: Training) -> None:
        """Likewise."""


class Batches(Callback):
    def on_train_batch_end(self, training: Training) -> None:
        """Likewise, with no hook here that is called nearly so."""


class Helps(Callback):
    def set_epoch_end(self, epoch: int) -> None:
        """No hook."""


class Misspelt(Callback):
    def epochs_end(self, training: Training) -> None:
        """One letter too much."""


class TakesNothing(Callback):
    def epoch_end(self) -> None:  # type: ignore[override]
        """As if it needed nothing."""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Callback(), r"callbacks is a list of limbeck.Callback, not <"),
        ([Seen], r"takes objects, and Seen is a class: give Seen\(\)"),
        ([print], r"is no limbeck.Callback; derive its class from it, and override any of fit_start, step_end"),
        ([Keras()], r"Keras.on_epoch_end is never called: the hook is epoch_end"),
        ([Misspelt()], r"Misspelt.epochs_end is never called: the hook is epoch_end"),
        ([Lightning()], r"Lightning.on_train_epoch_end is never called: the hook is epoch_end"),
        ([Batches()], r"Batches.on_train_batch_end is never called: the hooks are fit_start, step_end, epoch_end"),
        ([TakesNothing()], r"TakesNothing.epoch_end takes \(\), and a hook takes the training: def"),
    ],
)
def test_wrong_ones_are_refused(given: Any, message: str, blobs: InMemory) -> None:
    with pytest.raises(RequestError, match=message):
        trained(blobs, callbacks=given)


def test_a_method_that_only_sounds_like_a_hook_is_let_be(blobs: InMemory) -> None:
    assert len(trained(blobs, Helps()).metrics) == 2
