"""Whole searches on a few digits: equal budgets, no look at the test set, the same winner after a kill."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.compare.pairs import paired
from limbeck.compare.verdicts import judged
from limbeck.data import InMemory, sets
from limbeck.errors import RequestError, RunError
from limbeck.recipes.read import check, read
from limbeck.report.tune import write_tune_page
from limbeck.runs import hits, train
from limbeck.runs.machine import Machine
from limbeck.tuning import fresh as fresh_module
from limbeck.tuning import studies
from limbeck.tuning.asked import Asked
from limbeck.tuning.limits import Limits, limits_of
from limbeck.tuning.search import best_of
from limbeck.tuning.space import read_space
from limbeck.tuning.studies import Study, open_storage
from limbeck.tuning.trainer import Watch
from limbeck.tuning.tune import tune

QUIET = Machine(accelerator="cpu", progress=False)
SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"batch_size": 64},
    "teacher": {"model": "mlp", "hidden": [16], "epochs": 2, "optimizer": {"lr": 0.01}},
    "student": {"model": "mlp", "hidden": [6]},
    "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5, "temperature": 2}]},
    "epochs": 3,
    "optimizer": {"lr": 0.01},
}


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """200 digits to learn from, 60 to be tested on."""
    whole = sets.load("digits", Path())
    small = replace(whole, train=whole.train.subset(torch.arange(200)), test=whole.test.subset(torch.arange(60)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sets.NAMES, "digits", lambda root, size: small)
        yield


def go(out: Path, content: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    options = {name: given.pop(name) for name in ("resume",) if name in given}
    space = given.pop("space", None)
    names = ["baseline", *given.get("methods", ["recipe"])]
    if space is not None:
        given["space"] = read_space(space, "space", names)
    asked = Asked(**{"methods": ["recipe"], "trials": 2, "fresh": 2, **given})
    return tune(check(SMALL | (content or {})), asked, root=out, out=out, machine=QUIET, **options)


def history(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A contender's trials without their seconds."""
    return [{key: value for key, value in one.items() if key != "seconds"} for one in found[name]["history"]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, few: None) -> dict[str, Any]:
    """A search that nobody interrupted."""
    return go(tmp_path_factory.mktemp("whole") / "out", methods=["recipe", "dkd"])


def test_everybody_has_as_many_trials_and_the_first_is_the_recipes_own(whole: dict[str, Any]) -> None:
    assert list(whole["importances"]) == ["baseline", "recipe", "dkd"]
    for name in ("baseline", "recipe", "dkd"):
        assert whole[name]["trials"] == len(whole[name]["history"]) == 2
        first = whole[name]["history"][0]
        assert first["settings"] == whole[name]["own"]["settings"]
        assert first["settings"]["optimizer.lr"] == 0.01
        drawn = [one["settings"]["optimizer.lr"] for one in whole[name]["history"]]
        assert len(set(drawn)) == 2
        assert all(0.001 <= rate <= 0.1 for rate in drawn)
    assert whole["dkd"]["own"]["settings"]["distill.terms.0.nontarget_weight"] == 8.0
    assert "distill.task_weight" not in whole["baseline"]["best"]["settings"]


def test_the_best_trial_is_that_of_the_best_validation_score(whole: dict[str, Any]) -> None:
    for name in ("baseline", "recipe", "dkd"):
        entry = whole[name]
        complete = [one["value"] for one in entry["history"] if one["state"] == "complete"]
        assert entry["best"]["validation"] == max(complete)
        assert entry["history"][entry["best"]["trial"]]["settings"] == entry["best"]["settings"]
    assert whole["samples"] == {"validation": 40, "test": 60}, "a fifth of the training set is held out"


def test_verdict_and_optimism_are_of_the_fresh_seeds(whole: dict[str, Any]) -> None:
    assert whole["fresh_seeds"] == [1, 2]
    assert whole["seed"] not in whole["fresh_seeds"]
    for name in ("recipe", "dkd"):
        one, other = whole[name]["fresh"], whole["baseline"]["fresh"]
        pairs = [one[seed] - other[seed] for seed in ("1", "2")]
        assert whole["verdict"][name]["difference"] == pytest.approx(statistics.mean(pairs))
        right = [
            {seed: hits.read(Path(whole["out"]) / "fresh" / f"{one}-seed{seed}")[""] for seed in (1, 2)}
            for one in (name, "baseline")
        ]
        expected = paired({1: one["1"], 2: one["2"]}, {1: other["1"], 2: other["2"]}, *right, None, 1 / 60 / 6**0.5)
        assert expected is not None
        judgement = judged(expected, 0.05 / 2, "max")
        assert {key: whole["verdict"][name][key] for key in judgement} == judgement
        assert judgement["errors"] == ["seeds", "test samples"]
    for name, optimism in whole["optimism"].items():
        entry = whole[name]
        assert optimism == pytest.approx(entry["best"]["validation"] - statistics.mean(entry["fresh"].values()))


def test_what_is_written(whole: dict[str, Any]) -> None:
    out = Path(whole["out"])
    written = json.loads((out / "tune.json").read_text())
    assert written == {key: value for key, value in whole.items() if key != "out"}
    assert not (out / "trials").exists() or list((out / "trials").iterdir()) == []
    assert sorted(path.name for path in (out / "fresh").iterdir())[:2] == ["baseline-seed1", "baseline-seed2"]
    page = write_tune_page(out)
    assert page is not None
    text = page.read_text()
    assert text.count("<svg") == 1
    assert (whole["recipe"]["label"], "label" in whole["dkd"]) == ("kd", False), "its temperature is searched"
    assert "<td>kd</td>" in text
    assert "the best setting of kd, trial" in (out / "best-recipe.yaml").read_text()
    for name in ("baseline", "recipe", "dkd"):
        assert f"{whole[name]['best']['validation']:.4f}" in text


def test_the_winner_is_a_recipe_that_gives_the_fresh_figures(whole: dict[str, Any], tmp_path: Path) -> None:
    from limbeck.runs.run import run

    path = Path(whole["out"]) / whole["dkd"]["recipe"]
    assert path.name == "best-dkd.yaml"
    assert f"trial {whole['dkd']['best']['trial'] + 1} of its search" in path.read_text()
    winner = read(str(path), ["seed=2"])
    assert winner.optimizer.lr == whole["dkd"]["best"]["settings"]["optimizer.lr"]
    result = run(winner, root=tmp_path, out=tmp_path / "run", machine=QUIET, baseline=False)
    assert result["distilled"]["test_accuracy"] == whole["dkd"]["fresh"]["2"]
    baseline = read(str(path.with_name("best-baseline.yaml")), ["seed=1"])
    result = run(baseline, root=tmp_path, out=tmp_path / "alone", machine=QUIET)
    assert result["baseline"]["test_accuracy"] == whole["baseline"]["fresh"]["1"]


@dataclasses.dataclass(frozen=True)
class Sealed(InMemory):
    """A test set that may not be read yet."""

    seal: list[str] = dataclasses.field(default_factory=list)

    def __getattribute__(self, name: str) -> Any:
        if name in ("inputs", "targets", "fingerprint", "subset") and object.__getattribute__(self, "seal"):
            raise AssertionError(f"the test set's {name} was read during the search")
        return object.__getattribute__(self, name)


def test_the_search_never_reads_the_test_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = sets.load("digits", tmp_path)
    assert isinstance(data.test, InMemory)
    seal = ["sealed"]
    sealed = replace(data, test=Sealed(data.test.inputs, data.test.targets, seal))
    monkeypatch.setitem(sets.NAMES, "digits", lambda root, size: sealed)
    searched = fresh_module.Fresh.run
    looks = []

    def open_then(self: fresh_module.Fresh) -> Any:
        seal.clear()
        return searched(self)

    def look(job: train.Job, *given: Any) -> Any:
        looks.append(job.recipe.seed)
        return tested(job, *given)

    tested = train.Job.test
    monkeypatch.setattr(train.Job, "test", look)
    monkeypatch.setattr(fresh_module.Fresh, "run", open_then)
    found = go(tmp_path / "out", trials=2)
    assert len(found["recipe"]["fresh"]) == 2
    assert looks == [1, 1, 2, 2], "each winner is tested once a fresh seed"
    seal.append("again")
    monkeypatch.setattr(fresh_module.Fresh, "run", searched)
    with pytest.raises(AssertionError, match="was read during the search"):
        go(tmp_path / "other", trials=1)


@pytest.mark.parametrize("place", ["epoch", "finish", "fresh"])
def test_a_killed_search_goes_on_to_the_same_winner(
    place: str, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def dying(real: Any, at: int) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            calls.append(place)
            if len(calls) == at:
                raise Killed
            return real(*given, **named)

        return call

    with monkeypatch.context() as patched:
        if place == "epoch":  # within the fifth trial
            patched.setattr(Watch, "epoch_end", dying(Watch.epoch_end, 14))
        elif place == "finish":  # trained, and not recorded
            patched.setattr(Study, "finish", dying(Study.finish, 6))
        else:
            patched.setattr(fresh_module, "write_json", dying(fresh_module.write_json, 3))
        with pytest.raises(Killed):
            go(tmp_path / "out", methods=["recipe", "dkd"])
    assert not (tmp_path / "out" / "tune.json").exists()
    journal = tmp_path / "out" / studies.JOURNAL
    with journal.open("a") as file:
        file.write('{"op_code": 4, "wor')  # half a line, and a lock that nobody holds
    journal.with_name(f"{journal.name}.lock").touch()
    found = go(tmp_path / "out", methods=["recipe", "dkd"], resume=True)
    for name in ("baseline", "recipe", "dkd"):
        assert history(found, name) == history(whole, name)
        assert found[name]["best"] == whole[name]["best"]
        assert found[name]["fresh"] == whole[name]["fresh"]


def test_a_finished_search_takes_more_trials_and_refuses_another_recipe(tmp_path: Path) -> None:
    first = go(tmp_path / "out", trials=1, fresh=1)
    more = go(tmp_path / "out", trials=2, fresh=1, resume=True)
    assert history(more, "recipe")[:1] == history(first, "recipe")
    assert more["recipe"]["trials"] == more["baseline"]["trials"] == 2
    with pytest.raises(RequestError, match=r"holds another search \(optimizer.lr was 0.01 and is 0.02"):
        go(tmp_path / "out", {"optimizer": {"lr": 0.02}}, resume=True)
    with pytest.raises(RequestError, match=r"space.recipe.distill.task_weight.high was 1.0 and is 2"):
        go(tmp_path / "out", space={"distill.task_weight": {"low": 0.0, "high": 2}}, resume=True)
    with pytest.raises(RequestError, match="is not empty"):
        go(tmp_path / "out")


def test_bad_settings_are_ended_early_or_fail_and_count(tmp_path: Path) -> None:
    rates = {"optimizer.lr": {"choices": [0.03, 1e-6, 1e30]}, "optimizer.weight_decay": None, "schedule": None}
    found = go(tmp_path / "out", {"epochs": 10, "optimizer": {"lr": 0.03}}, trials=7, fresh=1, space=rates)
    for name in ("baseline", "recipe"):
        by_rate: dict[float, list[dict[str, Any]]] = {}
        for one in found[name]["history"]:
            by_rate.setdefault(one["settings"]["optimizer.lr"], []).append(one)
        assert found[name]["trials"] == 7
        assert "complete" in {one["state"] for one in by_rate[0.03]}  # beside other searched keys some may lose
        assert {one["state"] for one in by_rate.get(1e-6, [])} <= {"pruned"}
        assert found[name]["pruned"] == sum(one["state"] == "pruned" for one in found[name]["history"])
        assert all(one["epochs"] < 10 for one in by_rate.get(1e-6, []))
        assert found[name]["failed"] == len(by_rate.get(1e30, []))
        assert all("not finite" in one["reason"] for one in by_rate.get(1e30, []))
    drawn = [one["settings"]["optimizer.lr"] for name in ("baseline", "recipe") for one in found[name]["history"]]
    assert {*drawn} == {0.03, 1e-6, 1e30}


def test_the_teacher_is_trained_and_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    asked, kept = [], train.keep

    def counting(*given: Any, **named: Any) -> Any:
        asked.append(given[0])
        return kept(*given, **named)

    monkeypatch.setattr(train, "keep", counting)
    found = go(tmp_path / "out", methods=["kd", "dkd", "rkd"], trials=2, fresh=1)
    # The logits for kd and dkd, and the vectors that rkd compares.
    assert len(asked) == 2
    assert [one["source"] for one in found["teacher"]] == ["trained"]
    again = go(tmp_path / "again", methods=["kd"], trials=1, fresh=1)
    assert [one["source"] for one in again["teacher"]] == ["reused"]


def test_other_views_have_outputs_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, kept = [], train.keep

    def counting(asking: Any, *given: Any, **named: Any) -> Any:
        asked.append(asking.recipe.data.augment)
        return kept(asking, *given, **named)

    monkeypatch.setattr(train, "keep", counting)
    data = {"batch_size": 64, "augment": ["crop"], "views": 2}
    space = {"data.augment": {"choices": [["crop"], [{"crop": 1}]]}}
    found = go(tmp_path / "out", {"data": data}, trials=6, fresh=1, space=space)
    drawn = [one["settings"]["data.augment"] for one in found["recipe"]["history"]]
    assert asked == [["crop"], *([[{"crop": 1}]] if [{"crop": 1}] in drawn else [])]
    assert [{"crop": 1}] in drawn


def test_processes_share_one_search(whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {"methods": ["recipe", "dkd"], "fresh": 1}
    given["storage"] = f"sqlite:///{tmp_path / 'search.db'}"
    first = go(tmp_path / "one", **given)
    for name in ("baseline", "recipe", "dkd"):
        assert history(first, name) == history(whole, name), "the storage changes no figure"

    def trained(*given: Any, **named: Any) -> None:
        raise AssertionError("it was trained again")

    monkeypatch.setattr(train.Job, "train", trained)
    second = go(tmp_path / "two", **given)
    for key in ("baseline", "recipe", "dkd", "verdict", "optimism"):
        assert second[key] == first[key]


def test_a_trial_is_begun_once_and_taken_over_from_the_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(tmp_path / "search.log")
    pair = [Study(open_storage(place, tmp_path), "search", "max", 0, shared=True) for _ in range(2)]
    monkeypatch.setattr(studies.os, "getpid", os.getppid)  # another process, which lives
    begun = [one.start(3) for one in (pair[0], pair[1], pair[0], pair[1], pair[0])]
    assert [one and one.number for one in begun] == [0, 1, 2, None, None]
    monkeypatch.undo()
    assert pair[1].spent().trials == 3
    assert pair[1].left() == [], "their process lives"
    assert begun[1] is not None
    begun[1].set_user_attr(studies.OWNER, {"host": os.uname().nodename, "process": 2**22 + 1, "at": 0})
    (taken,) = pair[0].left()
    assert taken.number == 1
    record = {"state": "complete", "value": 0.5, "epochs": 1, "seconds": 1.0}
    pair[0].finish(taken, record)
    pair[1].finish(begun[1], {**record, "value": 0.1})  # the dead one was slow, and comes too late
    assert [one["value"] for one in pair[1].records()] == [0.5]
    assert pair[0].start(4) is not None, "what was begun too much does not count"


def test_values_do_not_depend_on_where_a_trial_was_interrupted(tmp_path: Path) -> None:
    space = read_space(
        {"optimizer.lr": {"low": 1e-3, "high": 1.0, "log": True}, "schedule": {"choices": [1, 2, 3]}}, "", []
    )
    domains = {key: one for key, one in space.shared.items() if one is not None}
    drawn = []
    for halfway in (False, True):
        folder = tmp_path / str(halfway)
        folder.mkdir()
        study = Study(open_storage(None, folder), "search", "max", 7, shared=False)
        study.start(9)
        trial = study.start(9)
        assert trial is not None
        if halfway:
            study.settings(trial, {"optimizer.lr": domains["optimizer.lr"]}, {})
            trial = study.left()[1]
        drawn.append(study.settings(trial, domains, {}))
    assert drawn[0] == drawn[1]


def test_importances_find_the_key_that_matters(tmp_path: Path) -> None:
    given = read_space({"optimizer.lr": {"low": 0.0, "high": 1.0}, "max_grad_norm": {"low": 0.0, "high": 1.0}}, "", [])
    space = {key: one for key, one in given.shared.items() if one is not None}
    study = Study(open_storage(None, tmp_path), "search", "max", 0, shared=False)
    for number in range(16):
        trial = study.start(16)
        assert trial is not None
        drawn = study.settings(trial, space, dict.fromkeys(space, 0.5))
        value = -abs(drawn["optimizer.lr"] - 0.3)
        study.finish(trial, {"state": "complete", "value": value, "epochs": 1, "seconds": 0.0})
        assert bool(study.importances(list(space))) == (number + 1 >= studies.ENOUGH)
    found = study.importances(list(space))
    assert sum(found.values()) == pytest.approx(1)
    assert found["optimizer.lr"] > 0.8


def test_minutes_end_a_search_at_equal_numbers_of_trials(tmp_path: Path) -> None:
    found = go(tmp_path / "out", trials=50, minutes=1e-4, fresh=1)
    assert found["baseline"]["trials"] == found["recipe"]["trials"] == 1


def test_of_equal_trials_the_first_is_best() -> None:
    records = [
        {"number": 0, "state": "pruned", "value": 0.9},
        {"number": 1, "state": "complete", "value": 0.5},
        {"number": 2, "state": "complete", "value": 0.7},
        {"number": 3, "state": "complete", "value": 0.7},
    ]
    found = best_of(records, "max")
    assert found is not None
    assert found["number"] == 2
    assert best_of(records, "min") == records[1]
    assert best_of(records[:1], "max") is None


def test_a_search_without_one_whole_trial_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*given: Any, **named: Any) -> None:
        raise RunError("student: the loss is not finite")

    monkeypatch.setattr(train.Job, "train", diverge)
    with pytest.raises(RunError, match=r"no trial of baseline came to its end: student: the loss is not finite"):
        go(tmp_path / "out", trials=2, fresh=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": ["kdd"]}, "unknown method 'kdd'; did you mean kd"),
        ({"methods": ["baseline"]}, "nothing to compare"),
        ({"methods": ["backbone"]}, "backbone is a baseline of its own"),
        ({"trials": 0}, "at least one trial"),
        ({"minutes": 0}, "minutes above 0"),
        ({"methods": ["at"]}, "stages of .* could not be detected"),
        ({"space": {"optimizer.lrr": {"low": 1, "high": 2}}}, r"optimizer.lrr 1: unknown option of optimizer adam"),
        ({"space": {"distill.terms.3.weight": {"low": 1, "high": 2}}}, "no element of a list of 1"),
        ({"space": {"schedule.name": {"choices": ["cosin"]}, "schedule": None}}, "unknown schedule 'cosin'"),
        ({"space": {"student.hidden": {"choices": [[4], "wide"]}}}, "student.hidden 'wide'"),
        ({"storage": "mysql://nowhere/x"}, "--storage 'mysql://nowhere/x' cannot be opened"),
    ],
)
def test_wrong_searches_write_nothing(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        go(tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "limbeck.tuning.studies")
    monkeypatch.delattr("limbeck.tuning.studies", raising=False)
    with pytest.raises(RequestError, match=r"needs the extra: pip install 'limbeck\[tune\]'"):
        go(tmp_path / "out")


def test_students_that_cost_too_much_are_not_trained(tmp_path: Path) -> None:
    # 64·6 + 6 + 6·10 + 10 = 460 numbers of four bytes; with 64 in place of 6 there are 4,810.
    space = {"student.hidden": {"choices": [[6], [64]]}, "optimizer.lr": None, "schedule": None}
    found = go(tmp_path / "out", trials=5, fresh=1, space=space, at_most=Limits(mb=0.01))
    states = {
        (one["settings"]["student.hidden"][0], one["state"])
        for name in ("baseline", "recipe")
        for one in found[name]["history"]
    }
    assert states == {(6, "complete"), (64, "refused")}
    assert found["recipe"]["best"]["settings"]["student.hidden"] == [6]
    assert found["recipe"]["trials"] == 5
    for limits, message in ((Limits(mb=1e-3), r"has 0.00184 MB, and at most 0.001"), (Limits(ms=1e-9), "takes .* ms")):
        with pytest.raises(RequestError, match=message):
            go(tmp_path / "none", at_most=limits)
    assert (limits_of("ms=5, mb = 2"), limits_of(None)) == (Limits(5.0, 2.0), Limits())
    for text in ("ms", "mb=-1", "ms=a", "mb=inf", "gb=1"):
        with pytest.raises(RequestError, match="at-most"):
            limits_of(text)


def test_own_validation_and_keep_best(tmp_path: Path) -> None:
    data = {"batch_size": 64, "validation": 0.3}
    found = go(tmp_path / "out", {"data": data, "keep": "best", "epochs": 4}, trials=1, fresh=1)
    assert found["samples"]["validation"] == 60
    for name in ("baseline", "recipe"):
        (one,) = found[name]["history"]
        assert one["value"] == max(one["curve"])
