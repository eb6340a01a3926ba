"""Teacher outputs in memory are computed by one process of several, with the bits that each would compute itself."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import forked
from limbeck import Batch, TeacherOutput
from limbeck.compare import compare
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.outputs import keeping
from limbeck.runs.outputs.shared import FOLDER, computed_once, sharing
from limbeck.runs.parallel.processes import Processes
from limbeck.teachers import CachedTeacher
from limbeck.tuning.asked import Asked
from limbeck.tuning.tune import tune

SAMPLES, VIEWS = 5, 2
QUIET = Machine(accelerator="cpu", progress=False)
SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"batch_size": 64, "limit_samples": 200},
    "teacher": {"model": "mlp", "hidden": [16], "epochs": 1},
    "student": {"model": "mlp", "hidden": [4]},
    "distill": {"method": "kd"},
    "epochs": 2,
}


class Numbers:
    """Logits and a feature that tell sample and view."""

    fingerprint = "asked"

    def __call__(self, batch: Batch) -> TeacherOutput:
        numbers = batch.index.float()[:, None] + 10 * batch.view
        return TeacherOutput(numbers.expand(-1, 3) * 0.1, {"layer.1": numbers[:, :, None] * 0.7})


def a_batch(view: int, index: Tensor) -> Batch:
    return Batch(torch.zeros(len(index), 1), None, index, view)


def cached() -> CachedTeacher:
    return CachedTeacher(Numbers(), ([a_batch(view, torch.arange(SAMPLES))] for view in range(VIEWS)), SAMPLES, VIEWS)


def never() -> CachedTeacher:
    raise AssertionError("computed twice")


def test_the_second_process_reads_what_the_first_has_computed(tmp_path: Path) -> None:
    first, seconds = computed_once(tmp_path, "name", cached)
    second, same = computed_once(tmp_path, "name", never)
    assert (second.fingerprint, same) == (first.fingerprint, seconds)
    for view in range(VIEWS):
        batch = a_batch(view, torch.tensor([4, 0]))
        (logits, features), expected = second(batch), Numbers()(batch)
        assert torch.equal(logits, expected.output)
        assert features.keys() == {"layer.1"}
        assert torch.equal(features["layer.1"], expected.features["layer.1"])


def test_logits_or_features_may_be_all_that_there_is() -> None:
    full = cached().tensors()
    for some in ({"/0", "/1"}, {"layer.1/0", "layer.1/1"}):
        made = CachedTeacher.of_tensors("x", {name: full[name] for name in some})
        output = made(a_batch(1, torch.tensor([3])))
        assert (output.output is None) == ("/0" not in some)
        assert bool(output.features) == ("/0" not in some)


def test_many_views_keep_their_order() -> None:
    made = CachedTeacher.of_tensors("x", {f"/{view}": torch.full((1, 1), float(view)) for view in reversed(range(12))})
    assert [made(a_batch(view, torch.tensor([0]))).output.item() for view in range(12)] == list(range(12))


def test_where_nothing_can_be_written_each_process_computes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    teacher, _ = computed_once(tmp_path / "file" / "folder", "name", cached)
    assert teacher.fingerprint == "cached-asked"
    assert "each computes its own" in capsys.readouterr().err


def test_a_full_disk_leaves_no_half_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(tensors: object, path: Path, about: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("limbeck.runs.outputs.shared.save_file", full)
    for _ in range(2):
        assert computed_once(tmp_path, "name", cached)[0].fingerprint == "cached-asked"
    assert "No space left on device" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_a_folder_of_a_killed_run_is_not_read(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "name.safetensors").write_bytes(b"old")
    with sharing(tmp_path, several=True) as folder:
        assert folder is not None
        assert not folder.exists()
        computed_once(folder, "name", cached)
    assert not (tmp_path / FOLDER).exists()
    with sharing(tmp_path, several=False) as folder:
        assert folder is None


@pytest.fixture
def passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each time that a process, forked from this one, has asked a teacher about all samples."""
    file, start = tmp_path / "passes", multiprocessing.get_context

    class Counted(CachedTeacher):
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            with file.open("a") as lines:
                lines.write("asked\n")

    monkeypatch.setattr(multiprocessing, "get_context", lambda *kind: start("fork"))
    monkeypatch.setattr(keeping, "CachedTeacher", Counted)
    return file


@forked.needed
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_processes_of_a_comparison_ask_the_teacher_once(tmp_path: Path, passes: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        done = compare(
            check(SMALL), ["kd"], [0, 1], root=tmp_path, out=tmp_path / "cmp", machine=QUIET, pool=Processes(2, 1)
        )
    finally:
        torch.set_num_threads(threads)
    assert [one["where"] for one in done["teacher_outputs"]] == ["memory"]
    assert passes.read_text().count("asked") == 1
    assert not (tmp_path / "cmp" / FOLDER).exists()


@forked.needed
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_processes_of_a_search_ask_the_teacher_once(tmp_path: Path, passes: Path) -> None:
    pytest.importorskip("optuna")
    asked = Asked(["kd"], trials=2, fresh=1)
    tune(check(SMALL), asked, root=tmp_path, out=tmp_path / "tune", machine=QUIET, pool=Processes(2, 1))
    assert passes.read_text().count("asked") == 1
    assert not (tmp_path / "tune" / FOLDER).exists()
