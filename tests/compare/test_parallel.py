"""Tasks side by side: results in order, threads as asked for, no process left behind; a comparison's students too."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from pool_work import die_once, work

import forked
from limbeck.compare import compare
from limbeck.errors import RequestError, RunError
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.parallel.cluster import Cluster, address_of, imported
from limbeck.runs.parallel.processes import Processes, check_jobs, threads_each

QUIET = Machine(accelerator="cpu", progress=False)
SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"batch_size": 64, "limit_samples": 200},
    "teacher": {"model": "mlp", "hidden": [16], "epochs": 1},
    "student": {"model": "mlp", "hidden": [4]},
    "distill": {"terms": [{"loss": "kd", "temperature": 2}]},
    "epochs": 1,
    "optimizer": {"lr": 0.01},
}


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are forked from this one: fresh ones import for seconds before they begin."""
    start = multiprocessing.get_context
    monkeypatch.setattr(multiprocessing, "get_context", lambda *kind: start("fork"))


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Iterator[Cluster]:
    """Ray on this machine, one process at a time.

    They find no torchmetrics: Fabric would import all of it to ask for its version, ten seconds each.
    """
    ray, hidden = pytest.importorskip("ray"), tmp_path_factory.mktemp("hidden")
    (hidden / "torchmetrics.py").write_text("raise ImportError('hidden from this test')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(hidden))
        patch.setenv("PYTHONPATH", str(hidden), prepend=os.pathsep)
        patch.setenv("LIMBECK_CACHE", str(shared_cache))
        # Each CPU has a process that imports torch; by itself Ray makes these wait for all others.
        eager = {"worker_niceness": 0}
        ray.init(num_cpus=1, include_dashboard=False, logging_level="error", _system_config=eager)
        yield Cluster(None, 1)
        ray.shutdown()
        with warnings.catch_warnings():  # Ray leaves its own processes to themselves, and Popen warns of it
            warnings.simplefilter("ignore")
            gc.collect()


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_seconds(one) for key, one in value.items() if "seconds" not in key and key != "out"}
    return [without_seconds(one) for one in value] if isinstance(value, list) else value


def go(out: Path, **options: Any) -> dict[str, Any]:
    return compare(check(SMALL), ["recipe", "dist"], [0, 1], root=out, out=out, machine=QUIET, **options)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> tuple[Path, dict[str, Any]]:
    """The folder and the figures of a comparison by this process."""
    out = tmp_path_factory.mktemp("alone") / "cmp"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMBECK_CACHE", str(shared_cache))
        return out, go(out)


def assert_same(found: dict[str, Any], alone: dict[str, Any]) -> None:
    assert without_seconds(found) == without_seconds(alone) | {"teacher": without_seconds(found["teacher"])}
    assert [one["test"] for one in found["teacher"]] == [one["test"] for one in alone["teacher"]]


@forked.needed
@pytest.mark.usefixtures("forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_comparison_by_two_processes_has_the_figures_of_one(
    tmp_path: Path, alone: tuple[Path, dict[str, Any]]
) -> None:
    both = go(tmp_path / "both", pool=Processes(2, 1))
    assert_same(both, alone[1])
    written = json.loads((tmp_path / "both" / "compare.json").read_text())
    assert without_seconds(written) == without_seconds(both)
    students = list(alone[0].glob("*-seed*/student.safetensors"))
    assert len(students) == 6
    for path in students:
        assert (tmp_path / "both" / path.parent.name / path.name).read_bytes() == path.read_bytes()
    assert not multiprocessing.active_children()


def test_results_come_in_order_and_an_interrupt_ends_all_processes() -> None:
    results = Processes(2, 3).map(work, ["a", "wait"])
    first = next(results)
    assert (first[:2], first[2] in (0, 1)) == (("a", 3), True)
    assert len(multiprocessing.active_children()) == 2
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert time.monotonic() - began < 30
    assert not multiprocessing.active_children()
    assert list(Processes(2, 3).map(work, [])) == []


@forked.needed
@pytest.mark.usefixtures("forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("task", "kind", "said"),
    [("die", RunError, "was killed, .*; --resume"), ("fail", RequestError, "no such thing")],
)
def test_a_killed_process_and_an_error_end_the_work(task: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        list(Processes(1, 1).map(work, [task]))
    assert not multiprocessing.active_children()


class Killed:
    """A pool whose process is killed after the first task."""

    threads = 1

    def places(self) -> int:
        return 1

    def map(self, work: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        yield work(tasks[0])
        raise RunError("one of the processes was killed")


@forked.needed
@pytest.mark.usefixtures("forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_work_that_goes_on_by_itself_is_begun_anew(tmp_path: Path) -> None:
    assert list(Processes(1, 1, retries=1).map(die_once, [tmp_path / "marker"])) == ["done"]
    assert not multiprocessing.active_children()


def test_what_a_killed_process_left_is_done_on_resumption(tmp_path: Path, alone: tuple[Path, dict[str, Any]]) -> None:
    out = tmp_path / "cmp"
    with pytest.raises(RunError, match="was killed"):
        go(out, pool=Killed())
    assert len(list(out.glob("*-seed*/result.json"))) == 1
    assert not (out / "compare.json").exists()
    resumed = go(out, resume=True)
    assert resumed["methods"].keys() == {"baseline", "recipe", "dist"}
    assert [row["scores"] for row in resumed["methods"].values()] == [
        row["scores"] for row in alone[1]["methods"].values()
    ]


def test_threads_and_devices_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert [threads_each(jobs, None) for jobs in (1, 2, 3, 16)] == [8, 4, 2, 1]
    assert threads_each(4, 3) == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [Machine("cuda").one_device(n).devices for n in range(3)] == ["0,", "1,", "0,"]
    assert Machine("cpu").one_device(1).devices == 1
    check_jobs(1, 4, 2)
    for devices, nodes in ((2, 1), ("auto", 1), (1, 2)):
        with pytest.raises(RequestError, match="each on one device"):
            check_jobs(2, devices, nodes)


def test_where_ray_is() -> None:
    assert address_of("ray") is None
    assert address_of("ray://head:10001") == "ray://head:10001"
    for wrong in ("slurm", "ray://", "ray:head"):
        with pytest.raises(RequestError, match="--on is ray, or a cluster's address"):
            address_of(wrong)


def test_ray_passes_on_all_that_its_processes_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    for name in ("RAY_DEDUP_LOGS", "RAY_COLOR_PREFIX"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards as it was
        monkeypatch.delenv(name)
    imported()
    assert (os.environ["RAY_DEDUP_LOGS"], os.environ["RAY_COLOR_PREFIX"]) == ("0", "0")
    monkeypatch.setenv("RAY_DEDUP_LOGS", "1")
    imported()
    assert os.environ["RAY_DEDUP_LOGS"] == "1", "the user's word counts"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_rays_processes_give_the_figures_of_one_and_do_lost_tasks_again(
    tmp_path: Path, alone: tuple[Path, dict[str, Any]], on_ray: Cluster
) -> None:
    assert list(on_ray.map(die_once, [tmp_path / "marker"])) == ["done"]
    with pytest.raises(RequestError, match=r"^no such thing$"):
        list(on_ray.map(work, ["fail"]))
    both = go(tmp_path / "both", pool=on_ray)
    assert on_ray.places() == 1
    assert_same(both, alone[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_search_by_rays_processes_has_the_trials_of_one(tmp_path: Path, on_ray: Cluster) -> None:
    pytest.importorskip("optuna")
    from limbeck.tuning.asked import Asked
    from limbeck.tuning.tune import tune

    asked, recipe = Asked(["recipe"], trials=2, fresh=1), check(SMALL)
    one, rays = (
        tune(recipe, asked, root=tmp_path, out=tmp_path / name, machine=QUIET, pool=pool)
        for name, pool in (("one", None), ("rays", on_ray))
    )
    for name in ("baseline", "recipe"):
        assert len(rays[name]["history"]) == 2
        assert without_seconds(rays[name]) == without_seconds(one[name])
    assert rays["environment"]["threads"] == 1
