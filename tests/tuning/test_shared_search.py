"""One search by several processes: equal trials, what a lost one leaves, and what a search is called in a storage."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import forked
from limbeck.errors import RequestError
from limbeck.models.build import build
from limbeck.models.projected import projected
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.parallel.processes import Processes
from limbeck.tuning import studies
from limbeck.tuning.asked import Asked
from limbeck.tuning.limits import Limits
from limbeck.tuning.prepared import prepare
from limbeck.tuning.space import NOTHING, read_space
from limbeck.tuning.studies import Study, open_storage, own, release
from limbeck.tuning.trainer import Watch
from limbeck.tuning.tune import tune

QUIET = Machine(accelerator="cpu", progress=False)
SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"batch_size": 64, "limit_samples": 200},
    "teacher": {"model": "mlp", "hidden": [8], "epochs": 1, "optimizer": {"lr": 0.01}},
    "student": {"model": "mlp", "hidden": [4]},
    "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5, "temperature": 2}]},
    "epochs": 1,
    "optimizer": {"lr": 0.01},
}


def go(out: Path, content: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    options = {name: given.pop(name) for name in ("resume", "pool") if name in given}
    asked = Asked(**{"methods": ["recipe"], "trials": 2, "fresh": 1, **given})
    return tune(check(SMALL | (content or {})), asked, root=out, out=out, machine=QUIET, **options)


def history(found: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The contenders' trials without their seconds."""
    return [
        [{key: value for key, value in one.items() if key != "seconds"} for one in found[name]["history"]]
        for name in ("baseline", "recipe")
    ]


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


class OneByOne:
    """A pool whose first process is killed in its third training, and whose second one does the rest."""

    threads = 1

    def places(self) -> int:
        return 9

    def map(self, work: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        epochs, told = [], Watch.epoch_end

        def dying(self: Watch, *given: Any, **named: Any) -> None:
            epochs.append(told(self, *given, **named))
            if len(epochs) == 3:
                raise Killed

        assert len(tasks) == 4, "no more processes than trainings"
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Watch, "epoch_end", dying)
            with pytest.raises(Killed):
                work(tasks[0])
        yield from map(work, tasks[1:3])


def test_what_a_lost_process_leaves_is_done_again_and_changes_no_figure(tmp_path: Path) -> None:
    alone = go(tmp_path / "alone")
    shared = go(tmp_path / "shared", pool=OneByOne())
    assert history(shared) == history(alone)
    for key in ("verdict", "optimism", "fresh_seeds"):
        assert shared[key] == alone[key]
    assert {"best-baseline.yaml", "best-recipe.yaml"} <= {path.name for path in (tmp_path / "shared").iterdir()}


@forked.needed
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_give_everybody_as_many_trials_and_fresh_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = multiprocessing.get_context
    monkeypatch.setattr(multiprocessing, "get_context", lambda *kind: start("fork"))  # fresh ones import for seconds
    found = go(tmp_path / "out", trials=3, fresh=2, pool=Processes(2, 1, retries=1))
    for name in ("baseline", "recipe"):
        assert found[name]["trials"] == 3
        assert [one["number"] for one in found[name]["history"]] == [0, 1, 2]
        assert found[name]["history"][0]["settings"] == found[name]["own"]["settings"]
        assert list(found[name]["fresh"]) == ["1", "2"]
    assert found["environment"]["threads"] == 1
    assert found["teacher_outputs"], "the processes say where teacher outputs came from"
    assert not multiprocessing.active_children()


def test_a_left_trial_is_taken_over_once(tmp_path: Path) -> None:
    def study(shared: bool) -> Study:
        return Study(open_storage(str(own(tmp_path)), tmp_path), "search", "max", 0, shared)

    study(shared=False).start(3)  # by a search of one process, which says nothing of itself
    one, other = study(shared=True), study(shared=True)
    assert one.left() == [], "it may be at work"
    release(one.storage)
    (seen,) = other.study.get_trials()
    (taken,) = one.left()
    assert taken.number == 0
    assert not other._taken(seen), "the other saw it left at the same moment"
    assert other.spent().trials == 1
    taken.set_user_attr(studies.OWNER, {"host": os.uname().nodename, "process": 2**22 + 1, "at": 0})
    assert [trial.number for trial in other.left()] == [0]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="tells when a process began on Linux alone")
def test_a_process_number_that_lives_again_owns_no_trial(tmp_path: Path) -> None:
    study = Study(open_storage(str(own(tmp_path)), tmp_path), "search", "max", 0, shared=True)
    trial = study.start(3)
    assert trial is not None
    owner = trial.user_attrs[studies.OWNER] | {"process": os.getppid()}
    for began, left in ((studies._began(os.getppid()), []), ("another boot 5", [0])):
        trial.set_user_attr(studies.OWNER, owner | {"began": began})
        assert [one.number for one in study.left()] == left


def test_a_surplus_trial_whose_process_was_killed_is_not_trained(tmp_path: Path) -> None:
    study = Study(open_storage(str(own(tmp_path)), tmp_path), "search", "max", 0, shared=False)
    study.start(1)
    study.study.ask()  # and killed before it saw that there are enough
    assert [one.number for one in study.left(1)] == [0]
    assert study.spent().trials == 1


def test_searches_of_other_budgets_do_not_meet_in_a_storage(tmp_path: Path) -> None:
    storage = str(tmp_path / "search.log")
    short = go(tmp_path / "short", trials=1, storage=storage)
    long = go(tmp_path / "long", trials=2, fresh=2, storage=storage)
    assert [one[:1] for one in history(long)] == history(short), "values depend on recipe, space and number alone"
    assert [len(one) for one in history(go(tmp_path / "short", trials=1, storage=storage, resume=True))] == [1, 1]
    assert (list(long["recipe"]["fresh"]), list(short["recipe"]["fresh"])) == (["1", "2"], ["1"])
    with pytest.raises(RequestError, match="are in a storage of --storage; give its --storage again, or choose"):
        go(tmp_path / "short", trials=1, resume=True)
    more = go(tmp_path / "short", trials=2, storage=storage, resume=True)
    assert history(more) == history(long), "a search remembers what it is called, and may be given more trials"


def test_limits_are_of_what_a_method_ships(tmp_path: Path) -> None:
    network = {"model": "cnn", "channels": [4, 6]}
    pair = {"teacher": {"model": "cnn", "channels": [8, 24], "epochs": 1}, "student": network}
    student = build("cnn", classes=10, input_shape=(1, 8, 8), channels=[4, 6])
    shipped = projected(student, input_shape=(1, 8, 8), classes=10, channels=24)
    own_size, size = (
        sum(one.numel() * one.element_size() for one in module.state_dict().values()) / 1e6
        for module in (student, shipped)
    )
    assert size > 1.2 * own_size
    with pytest.raises(RequestError, match=rf"simkd: the student has {size:.3g} MB, .*; leave it out of --methods"):
        go(tmp_path / "out", pair, methods=["simkd"], at_most=Limits(mb=1.1 * own_size))
    assert not (tmp_path / "out").exists()


def test_the_recipes_own_way_is_called_by_what_it_does() -> None:
    def labels(methods: list[str], space: dict[str, Any] | None = None) -> list[str]:
        given = NOTHING if space is None else read_space(space, "space", ["baseline", *methods])
        ready = prepare(check(SMALL), methods, {}, given, Path(), QUIET)
        return [one.label for one in ready.contenders]

    assert labels(["recipe"]) == ["baseline", "kd"]
    assert labels(["recipe", "kd"]) == ["baseline", "kd (recipe)", "kd"]
    assert labels(["recipe"], {"distill.terms.0.temperature": None}) == ["baseline", "kd T=2"]
